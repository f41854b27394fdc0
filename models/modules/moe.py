"""A dense mixture of linear experts whose gate may look at something else than the experts do (IMECD, eq. 3-6).

Shape legend: m rows, d width, n experts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

#: Rows mixed at once while training. The gradient needs every expert's output, n times the result: it is made again,
#: block by block, instead of being kept for a whole catalogue.
BLOCK_ROWS = 8192


class MixtureOfExperts(nn.Module):
    """``sum_n softmax(W g + b)_n (W_n x + b_n)``: no noise, no top-k, no balance loss."""

    def __init__(self, d: int, experts: int, *, gate_width: int) -> None:
        """Build ``experts`` linear maps d -> d and a gate over them from vectors of width ``gate_width``."""
        super().__init__()
        self.gate = nn.Linear(gate_width, experts)
        self.weight = nn.Parameter(torch.empty(experts, d, d))  # [n, out, in]
        self.bias = nn.Parameter(torch.zeros(experts, d))
        bound = 1.0 / math.sqrt(d)
        nn.init.uniform_(self.weight, -bound, bound)

    def gates(self, guide: Tensor) -> Tensor:
        """Weights of the experts ``[m, n]``, rows summing to 1, from float ``[m, gate_width]`` (eq. 3-4)."""
        return torch.softmax(self.gate(guide), dim=-1)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """Mix (eq. 5-6): float ``[m, d]`` and ``[m, gate_width]`` -> ``[m, d]``."""
        if not torch.is_grad_enabled() or len(x) <= BLOCK_ROWS:
            return self._mixture(x, guide)
        blocks = zip(x.split(BLOCK_ROWS), guide.split(BLOCK_ROWS), strict=True)
        return torch.cat(
            [checkpoint(self._mixture, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
        )

    def _mixture(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.mix(x, self.gates(guide))

    def mix(self, x: Tensor, gates: Tensor) -> Tensor:
        """The mixture for given weights ``[m, n]``; one expert at a time, so that ``[m, n, d]`` is never held."""
        mixed = gates @ self.bias
        for expert in range(self.weight.shape[0]):
            mixed = mixed + gates[:, expert : expert + 1] * (x @ self.weight[expert].T)
        return mixed
