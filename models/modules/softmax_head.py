"""The loss of a model that scores an item by an inner product, with the choice that its configuration makes.

Shape legend: m predictions, n items, d width, k negatives.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.modules.losses import full_softmax_loss, gbce_loss, sampled_softmax_loss


class SoftmaxHeadConfig(StrictModel):
    """How the target is set against other items; a model's ``Config`` inherits these keys.

    Attributes:
        loss: ``full``: softmax over all items. ``sampled``: softmax over the target and ``negatives`` items that all
            predictions of a step share, corrected by the log-probability of the draw. ``gbce``: binary cross-entropy
            of the target and of ``negatives`` uniform draws of its own, see :func:`models.modules.losses.gbce_loss`.
        negatives: k of the sampled losses.
        negative_draw: Of ``sampled``: ``uniform``, or by ``popularity``, how often an item occurs in training (each
            item counted once more, so that all can be drawn).
        calibration: t of ``gbce``.
    """

    loss: Literal["full", "sampled", "gbce"] = "full"
    negatives: int = Field(default=256, ge=1)
    negative_draw: Literal["uniform", "popularity"] = "uniform"
    calibration: float = Field(default=0.75, ge=0, le=1)


class SoftmaxHead(nn.Module):
    """The configured loss; has no parameters."""

    log_q: Tensor | None

    def __init__(self, config: SoftmaxHeadConfig, n_items: int) -> None:
        """Build the head; with draws by popularity all items are equally popular until :meth:`fit_counts`."""
        super().__init__()
        self.config, self.n_items = config, n_items
        by_popularity = config.loss == "sampled" and config.negative_draw == "popularity"
        # Saved with the weights: a resumed run must draw as it did.
        self.register_buffer("log_q", torch.zeros(n_items + 1) if by_popularity else None)
        if by_popularity:
            self.fit_counts(torch.zeros(n_items + 1, dtype=torch.int64))

    def fit_counts(self, counts: Tensor) -> None:
        """Draw negatives in proportion to int64 ``[n + 1]`` occurrences plus one."""
        if self.log_q is None:
            raise ValueError("this head draws uniformly; it has no use for counts")
        weight = (counts.double() + 1.0).index_fill(0, torch.zeros(1, dtype=torch.int64, device=counts.device), 0.0)
        self.log_q.copy_((weight / weight.sum()).log())

    def forward(self, h: Tensor, table: Tensor, target: Tensor, *, generator: torch.Generator) -> Tensor:
        """The loss of the targets int64 ``[m]`` under states float ``[m, d]`` and the table ``[n + 1, d]``; scalar."""
        config = self.config
        if config.loss == "full":
            return full_softmax_loss(h, table, target)
        if config.loss == "sampled":
            return sampled_softmax_loss(h, table, target, self._draw(generator, config.negatives), log_q=self.log_q)
        negatives = self._draw(generator, len(target), config.negatives)
        return gbce_loss(h, table, target, negatives, n_items=self.n_items, calibration=config.calibration)

    def _draw(self, generator: torch.Generator, *shape: int) -> Tensor:
        """Items 1..n, with replacement."""
        if self.log_q is None:
            return torch.randint(1, self.n_items + 1, shape, generator=generator, device=generator.device)
        below = self.log_q.double().exp().cumsum(0)  # the padding's share is 0
        uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
        return torch.searchsorted(below, uniform * below[-1], right=True).clamp(1, self.n_items)
