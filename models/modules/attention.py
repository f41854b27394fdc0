"""Multi-head attention and the masks that go with right padding.

Shape legend: b batch, q queries, s keys, l sequence length, d width, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with ``heads`` heads of width ``d / heads``.

    The key projection has no bias: it would add the same number to all the logits of a query, which softmax ignores.
    """

    def __init__(self, d: int, *, heads: int, dropout: float = 0.0) -> None:
        """Build the four projections.

        Args:
            d: Width of queries, keys, values and output.
            heads: Number of heads; must divide ``d``.
            dropout: Probability of dropping an attention weight while training.

        Raises:
            ValueError: When ``heads`` does not divide ``d``.
        """
        super().__init__()
        if d % heads:
            raise ValueError(f"heads: {heads} does not divide the width {d}; choose a divisor of {d}")
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d)
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor, *, context: Tensor | None = None, attend: Tensor | None = None) -> Tensor:
        """Attend from ``x`` to ``context`` (to itself by default).

        Args:
            x: float ``[b, q, d]``.
            context: float ``[b, s, d]``; None means ``x``.
            attend: bool, broadcastable to ``[b, h, q, s]``; True where a query may look. Every query needs at least
                one key to look at (see :func:`attention_mask`).

        Returns:
            float ``[b, q, d]``.
        """
        context = x if context is None else context
        query = self._split(self.query(x))  # [b, h, q, d/h]
        key, value = self._split(self.key(context)), self._split(self.value(context))  # [b, h, s, d/h]
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attend, dropout_p=dropout)
        return self.out(mixed.transpose(1, 2).flatten(2))  # [b, q, d]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [b, l, d] -> [b, h, l, d/h]


def attention_mask(mask: Tensor, *, causal: bool) -> Tensor:
    """Who may look at whom in padded sequences.

    A real position looks at real positions only (those up to itself when ``causal``). Every position may look at
    itself, so that a row of nothing but padding gives finite numbers instead of NaN.

    Args:
        mask: bool ``[b, l]``, True on real items.
        causal: Hide later positions.

    Returns:
        bool ``[b, 1, l, l]``, True where the query (third axis) may look at the key (last axis).
    """
    length = mask.shape[1]
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    allowed = mask[:, None, None, :]  # [b, 1, 1, l]
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return allowed | itself
