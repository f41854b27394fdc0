"""Frozen text vectors brought to the width of the item vectors by a noisy mixture of linear experts (TedRec, UniSRec).

Shape legend: b batch, l sequence length, m items of all histories together, n items, e experts, v width of the text
vectors, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.feature_table import FeatureTable
from models.modules.length import check_length

#: Smallest deviation of the gate's noise.
NOISE_FLOOR = 0.01


class TextAdaptor(nn.Module):
    """``sum_e softmax(x G + z (softplus(x N) + 0.01))_e W_e (dropout(x) - b_ep)`` for the text x at position p.

    G and N start at zero, W from N(0, 0.02); every expert moves its input by a vector b_ep of its own for each
    position. The noise z ~ N(0, 1) and dropout belong to training, where they are drawn for every occurrence of an item
    and not once per item: an item that two histories share is adapted differently in each. Without them the result is
    ``sum_e g_e W_e x - sum_e g_e W_e b_ep``, whose first sum and gates g are made once for the whole catalogue and kept
    until a weight changes.
    """

    def __init__(self, features: FeatureTable, d: int, *, experts: int, dropout: float, max_length: int) -> None:
        """Build the experts for text vectors ``[n + 1, v]`` and histories of at most ``max_length`` items."""
        super().__init__()
        width = features.shape[-1]
        self.features = features
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(experts, width, d).normal_(std=0.02))
        self.shift = nn.Parameter(torch.zeros(experts, max_length, width))
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts))
        self._kept: tuple[tuple[tuple[int, int], ...], tuple[Tensor, Tensor]] | None = None

    def forward(self, item_ids: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """Adapt the texts of histories.

        Args:
            item_ids: int64 ``[b, l]``.
            mask: bool ``[b, l]``, True on real items.
            generator: Source of the gates' noise in training.

        Returns:
            float32 ``[b, l, d]``, zero on padding.

        Raises:
            ValueError: When the histories are longer than ``max_length``.
        """
        check_length(item_ids.shape[1], self.shift.shape[1])
        moved = torch.einsum("elv,evd->eld", self.shift[:, : item_ids.shape[1]], self.weight)
        if self.training:
            adapted = self._with_noise(item_ids, mask, moved, generator)
        else:
            mixed, gates = self.catalogue()
            adapted = F.embedding(item_ids, mixed) - torch.einsum("ble,eld->bld", F.embedding(item_ids, gates), moved)
        return adapted.float() * mask.unsqueeze(-1)

    def catalogue(self) -> tuple[Tensor, Tensor]:
        """``sum_e g_e W_e x`` ``[n + 1, d]`` and the gates g ``[n + 1, e]`` without noise and dropout.

        Without gradients they are kept until a weight changes.
        """
        if torch.is_grad_enabled():
            return self._make_catalogue()
        state = tuple((weight.data_ptr(), weight._version) for weight in (self.weight, self.gate))
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._make_catalogue())
        return self._kept[1]

    def _make_catalogue(self) -> tuple[Tensor, Tensor]:
        texts = self.features.table
        gates = torch.softmax(texts @ self.gate, dim=-1)
        mixed = torch.zeros(len(texts), self.weight.shape[2], device=texts.device)
        for expert, weight in enumerate(self.weight):  # one at a time: [n + 1, e, d] is never held
            mixed = mixed + gates[:, expert : expert + 1] * (texts @ weight)
        return mixed, gates

    def _with_noise(self, item_ids: Tensor, mask: Tensor, moved: Tensor, generator: torch.Generator) -> Tensor:
        """The result on real items for a fresh draw, zeros elsewhere; ``moved`` is W_e b_ep, ``[e, l, d]``."""
        texts, position = self.features(item_ids[mask]), mask.nonzero()[:, 1]  # [m, v], [m]
        logits = texts @ self.gate
        drawn = torch.randn(logits.shape, generator=generator, device=generator.device).to(logits.device)
        gates = torch.softmax(logits + drawn * (F.softplus(texts @ self.noise) + NOISE_FLOOR), dim=-1)  # [m, e]
        mixed = torch.zeros(len(texts), self.weight.shape[2], device=texts.device)
        for expert, weight in enumerate(self.weight):
            output = self.dropout(texts) @ weight - moved[expert, position]
            mixed = mixed + gates[:, expert : expert + 1] * output
        adapted = torch.zeros(*item_ids.shape, mixed.shape[1], device=mixed.device)
        adapted[mask] = mixed.float()
        return adapted
