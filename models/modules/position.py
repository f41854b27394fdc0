"""Where in a sequence an item stands.

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnedPositions(nn.Module):
    """One trained vector per position, added to the sequence; position 0 is the oldest item."""

    def __init__(self, max_length: int, d: int) -> None:
        """Build the table ``[max_length, d]``, drawn from N(0, 0.02)."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_length, d).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        """Add positions to float ``[b, l, d]``.

        Raises:
            ValueError: When the sequence is longer than the table.
        """
        length, longest = x.shape[1], self.weight.shape[0]
        if length > longest:
            raise ValueError(
                f"the model was built for sequences of at most {longest} items, got {length}; "
                f"raise the model's max_length or lower the training's"
            )
        return x + self.weight[:length]
