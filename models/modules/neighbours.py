"""The nearest items of every item, by who read both.

Shape legend: r interactions, u users, n items, k neighbours.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

#: Products of a piece: what is held at once are some hundred bytes for each.
PIECE = 1 << 21


def nearest_items(
    items: Tensor, offsets: Tensor, *, n_items: int, k: int, shrink: float = 0.0, piece: int = PIECE
) -> tuple[Tensor, Tensor]:
    """The ``k`` items with the largest cosine between the sets of their readers.

    With U_i the users who read i at least once, the similarity is ``|U_i & U_j| / (sqrt(|U_i| |U_j|) + shrink)``
    (cosine of binary columns, Sarwar et al. 2001, section 3.1.1). Nothing of size n · n is made: rows are multiplied
    in pieces of about ``piece`` products, and all but the best ``k`` of a row are dropped before the next piece.

    Args:
        items: int64 ``[r]`` on the CPU, 1..n.
        offsets: int64 ``[u + 1]`` on the CPU: user number i owns ``items[offsets[i] : offsets[i + 1]]``.
        n_items: Number of items.
        k: Neighbours kept.
        shrink: Makes similarities that rest on few users smaller.
        piece: See above; the result does not depend on it.

    Returns:
        int32 ``[n + 1, k]`` ids, most similar first, of equal ones the smaller id first; 0 where an item has fewer
        neighbours, and in row 0. Never the item itself. And float32 ``[n + 1, k]`` similarities, 0 beside the id 0.
    """
    readers = _readers(items.numpy(), offsets.numpy(), n_items=n_items)  # [u, n + 1]
    by_item = readers.T.tocsr()  # [n + 1, u]
    counts = np.diff(by_item.indptr).astype(np.float64)
    products = np.cumsum(by_item @ np.diff(readers.indptr))  # multiplications up to and with each item
    cuts = np.searchsorted(products, np.arange(piece, products[-1], piece))
    bounds = np.unique(np.concatenate(([0], cuts, [n_items + 1])))
    ids = np.zeros((n_items + 1, k), dtype=np.int32)
    similarity = np.zeros((n_items + 1, k), dtype=np.float32)
    for start, end in pairwise(bounds.tolist()):
        both = (by_item[start:end] @ readers).tocoo()
        rows, others = both.row.astype(np.int64) + start, both.col.astype(np.int64)
        close = both.data / (np.sqrt(counts[rows] * counts[others]) + shrink)
        apart = rows != others
        rows, others, close = rows[apart], others[apart], close[apart]
        order = np.lexsort((others, -close, rows))
        rows, others, close = rows[order], others[order], close[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # 0, 1, … within a row
        kept = place < k
        ids[rows[kept], place[kept]] = others[kept]
        similarity[rows[kept], place[kept]] = close[kept]
    return torch.from_numpy(ids), torch.from_numpy(similarity)


def _readers(items: NDArray[np.int64], offsets: NDArray[np.int64], *, n_items: int) -> csr_array:
    """Users by items, 1 where a user read an item however often."""
    users = len(offsets) - 1
    owner = np.repeat(np.arange(users), np.diff(offsets))
    pairs = np.unique(owner * (n_items + 1) + items)
    owner, read = np.divmod(pairs, n_items + 1)
    ones = np.ones(len(pairs), dtype=np.int32)
    return csr_array((ones, (owner, read)), shape=(users, n_items + 1))
