"""A denoiser of one vector that is told the step and a condition: DimeRec's f (eq. 20), DreamRec's two networks.

Shape legend: b batch, c width of the condition, d width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
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
        self.widths = [d, d, condition]
        self.step = TimestepEmbedding(d, steps=steps)
        self.layers: nn.Linear | nn.Sequential = (
            nn.Linear(sum(self.widths), d)
            if hidden is None
            else nn.Sequential(
                nn.Linear(sum(self.widths), hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, d)
            )
        )

    def forward(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Estimate x_0, float ``[b, d]``, from ``[b, d]``, int64 ``[b]`` (0 = least noise) and ``[b, c]``."""
        return self.layers(torch.cat((x_t, self.step(t), condition), dim=-1))

    def given(self, condition: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """:meth:`forward` as a function of x_t and t, for all steps of a reverse process.

        The first layer is linear: what it makes of the condition and of each step is computed once.
        """
        first, rest = self.layers, nn.Identity()
        if isinstance(first, nn.Sequential):
            first, rest = first[0], first[1:]
        assert isinstance(first, nn.Linear)
        of_x, of_step, of_condition = first.weight.split(self.widths, dim=1)
        steps = F.linear(self.step.table(), of_step)  # [T, hidden]
        fixed = F.linear(condition, of_condition, first.bias)  # [b, hidden]

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            return rest(F.linear(x_t, of_x) + F.embedding(t, steps) + fixed)

        return denoise
