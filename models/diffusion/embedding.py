"""Embedding of the step index.

Shape legend: b batch, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def timestep_embedding(t: Tensor, width: int, *, max_period: float = 10_000.0) -> Tensor:
    """Sinusoids of ``t`` (Vaswani et al. 2017), cosines first as in DDPM code.

    Args:
        t: ``[b]``, any real values.
        width: d; the last column is 0 when it is odd.
        max_period: Longest wavelength over 2 pi.

    Returns:
        float32 ``[b, d]``.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    phases = t.to(torch.float32).unsqueeze(-1) * frequencies  # [b, d // 2]
    columns = [torch.cos(phases), torch.sin(phases)]
    if width % 2:
        columns.append(torch.zeros_like(phases[:, :1]))
    return torch.cat(columns, dim=-1)


class TimestepEmbedding(nn.Module):
    """Sinusoids of the index rescaled to 0..1000, then ``Linear(d, 4d)``, SiLU, ``Linear(4d, d)`` (as DiffuRec)."""

    def __init__(self, width: int, *, steps: int) -> None:
        super().__init__()
        self.width = width
        self.scale = 1000.0 / steps
        self.project = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))

    def forward(self, t: Tensor) -> Tensor:
        """int64 ``[b]`` indices to float32 ``[b, d]``."""
        return self.project(timestep_embedding(t.to(torch.float32) * self.scale, self.width))
