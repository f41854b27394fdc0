"""The table of item vectors.

Shape legend: b batch, l sequence length, n items, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ItemEmbedding(nn.Module):
    """Trained vectors of items 1..n; row 0, padding, is zero and stays zero."""

    def __init__(self, n_items: int, d: int, *, std: float = 0.02) -> None:
        """Build the table ``[n_items + 1, d]``, rows 1..n drawn from N(0, ``std``)."""
        super().__init__()
        self.n_items = n_items
        weight = torch.empty(n_items + 1, d).normal_(std=std)
        weight[0] = 0.0
        self.weight = nn.Parameter(weight)

    @property
    def table(self) -> Tensor:
        """float32 ``[n + 1, d]``, the trained table itself."""
        return self.weight

    def forward(self, item_ids: Tensor) -> Tensor:
        """Vectors ``[..., d]`` of int64 ids ``[...]``; padding gives zeros and receives no gradient."""
        return F.embedding(item_ids, self.weight, padding_idx=0)
