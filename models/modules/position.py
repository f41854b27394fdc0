"""Where in a sequence, and where in a diffusion process, something stands.

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

import math

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


def sinusoidal_embedding(steps: Tensor, d: int, *, max_period: float = 10_000.0) -> Tensor:
    """Fixed sine and cosine code of a number (Vaswani et al. 2017, section 3.5; diffusion steps: Ho et al. 2020).

    Args:
        steps: int or float ``[b]``.
        d: Width; an odd width ends with a zero.
        max_period: The longest wavelength, divided by 2π.

    Returns:
        float32 ``[b, d]``: the first ``d // 2`` columns are cosines, the next ``d // 2`` sines.
    """
    half = d // 2
    exponent = torch.arange(half, dtype=torch.float32, device=steps.device) / max(half, 1)
    angles = steps.to(torch.float32).unsqueeze(1) * torch.exp(-math.log(max_period) * exponent)  # [b, d/2]
    code = torch.cat((angles.cos(), angles.sin()), dim=1)
    return torch.nn.functional.pad(code, (0, d - 2 * half))
