"""Negative items that are certainly negative.

Shape legend: b batch, e excluded ids, k negatives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.errors import SequenceDataError


def unseen_negatives(exclude: Tensor, count: int, *, n_items: int, generator: torch.Generator) -> Tensor:
    """Draw items uniformly, with replacement, from all items outside a row's exclusions.

    Exact in one draw: a number below the count of allowed items is the rank of an allowed item, and each excluded id
    at or below it shifts it up by one. Nothing is rejected and drawn again.

    Args:
        exclude: int64 ``[b, e]``, ids not to draw, in any order, with repetitions; 0 where unused.
        count: k.
        n_items: Ids run from 1 to ``n_items``.
        generator: Source of the draws.

    Returns:
        int64 ``[b, k]``.

    Raises:
        SequenceDataError: When a row excludes every item.
    """
    beyond = n_items + exclude.shape[1] + 1
    ids = exclude.sort(dim=1).values
    repeated = torch.zeros_like(ids, dtype=torch.bool)
    repeated[:, 1:] = ids[:, 1:] == ids[:, :-1]
    ids = ids.masked_fill(repeated | (ids == 0), beyond).sort(dim=1).values  # distinct ids first
    allowed = n_items - (ids < beyond).sum(dim=1, keepdim=True)  # [b, 1]
    if bool((allowed < 1).any()):
        raise SequenceDataError(
            f"no negative item is left for {int((allowed < 1).sum())} rows: they exclude all {n_items} items; "
            f"train on a larger catalogue or shorter histories"
        )
    uniform = torch.rand(
        (exclude.shape[0], count), generator=generator, device=generator.device, dtype=torch.float64
    ).to(exclude.device)
    rank = (uniform * allowed).long().clamp(max=allowed - 1)  # [b, k] in 0..allowed-1
    # The j-th excluded id (from 0) has id - 1 - j allowed items below it.
    below = ids - 1 - torch.arange(ids.shape[1], device=ids.device)
    below = below.where(ids < beyond, n_items)  # [b, e], non-decreasing
    return rank + 1 + torch.searchsorted(below.contiguous(), rank, right=True)
