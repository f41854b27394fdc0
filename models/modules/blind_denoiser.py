"""The denoiser of a preference that is never told the step (MealRec's g, eq. 13-14), and what its ablation has instead.

Shape legend: b batch, f frames, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.modules.initialise import fan_in_linear
from models.modules.transformer import NORM_EPS, TransformerBlock, init_linear


class BlindDenoiser(nn.Module):
    """g: self-attention over [x_t ; frames ; text], read at x_t.

    Frames and text are the same at every step of a reverse process: their keys and values are made once, and of the
    block's output only the place of x_t is computed.
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
        tokens = (self.visual(frames) + self.kinds[1], self.text(text).unsqueeze(1) + self.kinds[2])
        content = self.block.attention_norm(self.dropout(torch.cat(tokens, dim=1)))  # [b, f + 1, d]
        attention = self.block.attention
        keys, values = self._split(attention.key(content)), self._split(attention.value(content))  # [b, h, f + 1, d/h]

        def denoise(x_t: Tensor) -> Tensor:
            token = self.dropout(x_t + self.kinds[0]).unsqueeze(1)  # [b, 1, d]
            own = self.block.attention_norm(token)
            query, key, value = (self._split(part(own)) for part in (attention.query, attention.key, attention.value))
            mixed = F.scaled_dot_product_attention(
                query,
                torch.cat((key, keys), dim=2),
                torch.cat((value, values), dim=2),
                dropout_p=attention.dropout if self.training else 0.0,
            )  # [b, h, 1, d/h]
            read = attention.out(mixed.transpose(1, 2).flatten(2))
            token = token + self.block.attention_dropout(read)
            token = token + self.block.feed_forward(self.block.feed_forward_norm(token))
            return self.last_norm(token).squeeze(1)

        return denoise

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.block.attention.heads, -1)).transpose(1, 2)  # [b, l, d] -> [b, h, l, d/h]


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
