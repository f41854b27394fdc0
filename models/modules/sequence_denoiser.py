"""A transformer that estimates the next item's vector from its noisy version and the history (IMECD's f, eq. 13).

IMECD says only "Transformer"; the template is the approximator of DiffuRec (WHUIR/DiffuRec at f6f70c9), without its
mask fault: keys, not queries, are masked here. As there, the history is normalised before the noisy vector enters, so
that the strength of the noise does not depend on the scale of the item vectors.

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.modules.attention import attention_mask
from models.modules.position import LearnedPositions
from models.modules.timestep import TimestepEmbedding
from models.modules.transformer import TransformerEncoder, last_row

#: Elements ``b l d`` above which training on a CPU makes the inside of a block again for its gradient: kept, it is
#: about 25 times the block's input, and the allocator does not give all of it back between steps.
KEPT_ELEMENTS = 2**22

#: How the noisy vector enters: ``delta`` adds it to every history item, scaled by lambda ~ N(delta, delta) (DiffuRec);
#: ``add`` adds it unscaled; ``prepend_token`` puts it before the history as a token of its own.
Inject = Literal["delta", "add", "prepend_token"]


class SequenceDenoiser(nn.Module):
    """Bidirectional, pre-normalised; read at the last position. Without positions it is blind to order."""

    def __init__(
        self,
        d: int,
        *,
        layers: int,
        heads: int,
        steps: int,
        dropout: float = 0.1,
        inject: Inject = "delta",
        delta: float = 0.001,
        max_length: int | None = None,
    ) -> None:
        """Build the network.

        Args:
            d: Width; the feed-forward layers are 4 d wide.
            layers: Blocks.
            heads: Attention heads.
            steps: Steps of the noise schedule.
            dropout: On the history, the attention weights and the sublayers.
            inject: See :data:`Inject`; history items have about unit variance.
            delta: Mean and deviation of lambda.
            max_length: Adds learned positions up to this length, counted from the newest item back; None adds none.
        """
        super().__init__()
        self.inject = inject
        self.delta = delta
        self.step = TimestepEmbedding(d, steps=steps)
        self.positions = LearnedPositions(max_length, d) if max_length else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d)
        self.transformer = TransformerEncoder(d, layers, heads=heads, inner=4 * d, dropout=dropout, norm_first=True)

    def forward(self, x_t: Tensor, t: Tensor, sequence: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """Estimate x_0.

        Args:
            x_t: float ``[b, d]``.
            t: int64 ``[b]``, 0 = least noise.
            sequence: float ``[b, l, d]``, padded on the left.
            mask: bool ``[b, l]``.
            generator: Source of lambda in training; in evaluation lambda is its mean, so that scores do not depend on
                the draw.

        Returns:
            float ``[b, d]``.
        """
        state = (x_t + self.step(t)).unsqueeze(1)  # [b, 1, d]
        tokens = self.norm(self.dropout(self.positions(sequence.flip(1)).flip(1)))
        if self.inject == "prepend_token":
            tokens = torch.cat((state, tokens), dim=1)
            mask = torch.cat((torch.ones_like(mask[:, :1]), mask), dim=1)
        else:
            tokens = tokens + self._strength(tokens, generator) * state
        return self._read_last(tokens, attention_mask(mask, causal=False)).squeeze(1)

    def _read_last(self, hidden: Tensor, attend: Tensor) -> Tensor:
        """The transformer's output at the last position of ``[b, l, d]``, float ``[b, 1, d]``."""
        remake = torch.is_grad_enabled() and hidden.device.type == "cpu" and hidden.numel() > KEPT_ELEMENTS
        if not remake:
            return self.transformer(hidden, attend=attend, at=last_row(hidden))
        *whole, last = self.transformer.blocks
        for block in whole:
            hidden = cast("Tensor", checkpoint(block, hidden, attend=attend, use_reentrant=False))
        return self.transformer.last_norm(last(hidden, attend=attend, at=last_row(hidden)))

    def _strength(self, tokens: Tensor, generator: torch.Generator) -> Tensor | float:
        if self.inject == "add":
            return 1.0
        if not self.training:
            return self.delta
        noise = torch.randn(tokens.shape, generator=generator, device=generator.device).to(tokens.device)
        return self.delta * (1.0 + noise)
