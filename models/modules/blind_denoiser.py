"""The denoiser of a preference that is never told the step (MealRec's g, eq. 13-14), and what its ablation has instead.

Shape legend: b batch, f frames, d width, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.initialise import fan_in_linear
from models.modules.transformer import NORM_EPS, TransformerBlock, init_linear


class BlindDenoiser(nn.Module):
    """g: self-attention over [x_t ; frames ; text], read at x_t.

    Frames and text are the same at every step of a reverse process: their keys and values are made once, and of the
    block's output only the place of x_t is computed. For one query and few keys, products and sums by element cost
    less than an attention kernel.
    """

    def __init__(self, d: int, *, visual: int, text: int, heads: int, inner: int, dropout: float) -> None:
        """Build one pre-normalised transformer block over tokens of width ``d``, and the projections into it."""
        super().__init__()
        self.visual = nn.Linear(visual, d)
        self.text = nn.Linear(text, d)
        self.kinds = nn.Parameter(torch.empty(3, d).normal_(std=0.02))  # preference, frame, text
        self.dropout = nn.Dropout(dropout)
        self.block = TransformerBlock(d, heads, inner=inner, dropout=dropout, norm_first=True)
        self.last_norm = nn.LayerNorm(d, eps=NORM_EPS)
        fan_in_linear(self.block)

    def forward(self, x_t: Tensor, frames: Tensor, text: Tensor) -> Tensor:
        """Estimate x_0.

        Args:
            x_t: float ``[b, d]``, the noisy preference.
            frames: float ``[b, f, visual]``, the refined frames.
            text: float ``[b, text]``.

        Returns:
            float ``[b, d]``.
        """
        return self.given(frames, text)(x_t)

    def given(self, frames: Tensor, text: Tensor) -> Callable[[Tensor], Tensor]:
        """:meth:`forward` as a function of x_t alone."""
        tokens = (self.visual(frames.transpose(0, 1)) + self.kinds[1], (self.text(text) + self.kinds[2]).unsqueeze(0))
        content = self.block.attention_norm(self.dropout(torch.cat(tokens)))  # [f + 1, b, d]
        attention = self.block.attention
        keys, values = self._split(attention.key(content)), self._split(attention.value(content))  # [f + 1, b, h, d/h]

        def denoise(x_t: Tensor) -> Tensor:
            token = self.dropout(x_t + self.kinds[0])  # [b, d]
            own = self.block.attention_norm(token)
            query, key, value = (self._split(part(own)) for part in (attention.query, attention.key, attention.value))
            logits = torch.cat(((key * query).sum(dim=-1).unsqueeze(0), (keys * query).sum(dim=-1)))  # [f + 2, b, h]
            shares = F.dropout(
                torch.softmax(logits / math.sqrt(query.shape[-1]), dim=0), attention.dropout, self.training
            ).unsqueeze(-1)
            mixed = (shares[1:] * values).sum(dim=0) + shares[0] * value  # [b, h, d/h]
            token = token + self.block.attention_dropout(attention.out(mixed.flatten(1)))
            token = token + self.block.feed_forward(self.block.feed_forward_norm(token))
            return self.last_norm(token)

        return denoise

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.block.attention.heads, -1))  # [.., d] -> [.., h, d/h]


class MlpFusion(nn.Module):
    """``x_0 + MLP([x_0 ; mean frame ; text])``: what stands in for the preference diffusion in the ablation.

    The last layer starts at zero, so that training starts from the sequence encoder's own ranking.
    """

    def __init__(self, d: int, *, visual: int, text: int, inner: int) -> None:
        """Build the two layers."""
        super().__init__()
        last = nn.Linear(inner, d)
        self.layers = nn.Sequential(nn.Linear(d + visual + text, inner), nn.GELU(), last)
        self.layers.apply(init_linear)
        nn.init.zeros_(last.weight)

    def forward(self, x_0: Tensor, frames: Tensor, text: Tensor) -> Tensor:
        """Arguments and result as in :class:`BlindDenoiser`, from the clean preference."""
        return x_0 + self.layers(torch.cat((x_0, frames.mean(dim=1), text), dim=-1))
