"""A transformer encoder that takes its attention mask as an argument.

The block follows Vaswani et al. 2017, section 3.1: attention, then a two-layer feed-forward network, each with dropout,
a residual connection and layer normalisation, placed after the sum (``norm_first=False``, the paper, SASRec in RecBole)
or before the sublayer (``norm_first=True``).

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.modules.attention import MultiHeadAttention

Activation = Literal["gelu", "relu", "silu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}

#: Layer normalisation's epsilon in BERT and RecBole.
NORM_EPS = 1e-12


class FeedForward(nn.Sequential):
    """Linear d -> inner, activation, Linear inner -> d, dropout."""

    def __init__(self, d: int, inner: int, *, dropout: float = 0.0, activation: Activation = "gelu") -> None:
        """Build the four steps."""
        super().__init__(nn.Linear(d, inner), ACTIVATIONS[activation](), nn.Linear(inner, d), nn.Dropout(dropout))


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each with residual and normalisation."""

    def __init__(
        self,
        d: int,
        heads: int,
        *,
        inner: int,
        dropout: float = 0.0,
        activation: Activation = "gelu",
        norm_first: bool = False,
    ) -> None:
        """Build one block; ``dropout`` acts on attention weights and on the output of both sublayers."""
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(d, heads=heads, dropout=dropout)
        self.attention_dropout = nn.Dropout(dropout)
        self.attention_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.feed_forward = FeedForward(d, inner, dropout=dropout, activation=activation)
        self.feed_forward_norm = nn.LayerNorm(d, eps=NORM_EPS)

    def forward(self, x: Tensor, *, attend: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Encode float ``[b, l, d]``; arguments and result as in :meth:`TransformerEncoder.forward`."""
        context = self.attention_norm(x) if self.norm_first else x
        queries = context
        if at is not None:
            x, queries = _rows(x, at), _rows(context, at)
            attend = None if attend is None else _rows(attend.expand(len(x), -1, -1, -1).squeeze(1), at).unsqueeze(1)
        x = x + self.attention_dropout(self.attention(queries, context=context, attend=attend))
        if self.norm_first:
            return x + self.feed_forward(self.feed_forward_norm(x))
        x = self.attention_norm(x)
        return self.feed_forward_norm(x + self.feed_forward(x))


class TransformerEncoder(nn.Module):
    """A stack of blocks; with ``norm_first`` a last normalisation closes it."""

    def __init__(
        self,
        d: int,
        layers: int,
        *,
        heads: int,
        inner: int,
        dropout: float = 0.0,
        activation: Activation = "gelu",
        norm_first: bool = False,
    ) -> None:
        """Build the stack; linear weights are drawn from N(0, 0.02), biases are zero (BERT, RecBole).

        Args:
            d: Width.
            layers: Number of blocks.
            heads: Attention heads per block; must divide ``d``.
            inner: Width of the hidden layer of the feed-forward network.
            dropout: See :class:`TransformerBlock`.
            activation: Between the two layers of the feed-forward network.
            norm_first: Normalise before each sublayer instead of after the sum.
        """
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(d, heads, inner=inner, dropout=dropout, activation=activation, norm_first=norm_first)
            for _ in range(layers)
        )
        self.last_norm = nn.LayerNorm(d, eps=NORM_EPS) if norm_first else nn.Identity()
        self.apply(init_linear)

    def forward(self, x: Tensor, *, attend: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Encode.

        Args:
            x: float ``[b, l, d]``.
            attend: bool, broadcastable to ``[b, heads, l, l]``, True where a query may look; None: everywhere.
            at: int64 ``[b]``: the only position of each row that is wanted, so that the last block computes no other;
                ``attend`` is then ``[b or 1, 1, l, l]``. None: all of them.

        Returns:
            float ``[b, l, d]``; with ``at`` ``[b, 1, d]``.
        """
        last = len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            x = block(x, attend=attend, at=at if number == last else None)
        return self.last_norm(x)


def last_row(x: Tensor) -> Tensor:
    """int64 ``[b]``: the last position of every row of ``[b, l, d]``, for ``at``."""
    return torch.full((len(x),), x.shape[1] - 1, device=x.device)


def _rows(x: Tensor, at: Tensor) -> Tensor:
    """Of ``[b, l, d]`` the rows at int64 ``[b]``, as ``[b, 1, d]``."""
    return x.gather(1, at[:, None, None].expand(-1, 1, x.shape[2]))


def init_linear(module: nn.Module, *, std: float = 0.02) -> None:
    """Draw a linear layer's weight from N(0, ``std``) and set its bias to zero; leave other modules alone."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        if module.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
            nn.init.zeros_(module.bias)
