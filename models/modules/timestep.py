"""The step of a diffusion process as a vector.

Shape legend: b batch, d width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, d: int, *, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of a number (Vaswani et al. 2017, section 3.5), cosines first as in DDPM's code.

    Args:
        t: int or float ``[b]``.
        d: Width; the last column is 0 when it is odd.
        max_period: The longest wavelength, divided by 2 pi.

    Returns:
        float32 ``[b, d]``.
    """
    half = d // 2
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.to(torch.float32).unsqueeze(1) * frequency  # [b, d / 2]
    code = torch.cat((angles.cos(), angles.sin()), dim=1)
    return F.pad(code, (0, d - 2 * half))


class TimestepEmbedding(nn.Module):
    """Sinusoids of the step index rescaled to 0..1000, then Linear d -> 4d, SiLU, Linear 4d -> d (as DiffuRec)."""

    def __init__(self, d: int, *, steps: int) -> None:
        """Build the two layers for a schedule of ``steps`` steps."""
        super().__init__()
        self.d, self.steps = d, steps
        self.scale = 1000.0 / steps
        self.layers = nn.Sequential(nn.Linear(d, 4 * d), nn.SiLU(), nn.Linear(4 * d, d))

    def forward(self, t: Tensor) -> Tensor:
        """Steps int64 ``[b]`` (0 = least noise) -> float32 ``[b, d]``."""
        return F.embedding(t, self.table()) if len(t) > self.steps else self._vectors(t)

    def table(self) -> Tensor:
        """The vectors of all steps, float32 ``[T, d]``."""
        return self._vectors(torch.arange(self.steps, device=next(self.parameters()).device))

    def _vectors(self, t: Tensor) -> Tensor:
        return self.layers(timestep_embedding(t.to(torch.float32) * self.scale, self.d))
