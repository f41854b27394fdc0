"""A denoiser of one vector that is told the step and a condition: DimeRec's f (eq. 20), DreamRec's two networks.

Shape legend: b batch, c width of the condition, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.modules.timestep import TimestepEmbedding


class MlpDenoiser(nn.Module):
    """``[x_t ; step ; condition]``, 2 d + c -> hidden -> d with a GELU between, or a single linear map."""

    def __init__(self, d: int, *, condition: int, hidden: int | None, steps: int, dropout: float = 0.0) -> None:
        """Build the layers and the step embedding.

        Args:
            d: Width of x_t.
            condition: c.
            hidden: Width of the hidden layer; None for one linear map.
            steps: Steps of the noise schedule.
            dropout: On the hidden layer.
        """
        super().__init__()
        self.step = TimestepEmbedding(d, steps=steps)
        width = 2 * d + condition
        self.layers: nn.Module = (
            nn.Linear(width, d)
            if hidden is None
            else nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, d))
        )

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Estimate x_0, float ``[b, d]``, from ``[b, d]``, int64 ``[b]`` (0 = least noise) and ``[b, c]``."""
        return self.layers(torch.cat((x_t, self.step(t), condition), dim=-1))
