"""The self-attentive sequence encoder that SASRec trains and other recommenders take as their backbone.

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.modules.attention import attention_mask
from models.modules.item_embedding import ItemEmbedding
from models.modules.position import LearnedPositions
from models.modules.transformer import NORM_EPS, Activation, TransformerEncoder


class SequenceEncoder(nn.Module):
    """Item vectors + positions -> layer normalisation -> dropout -> transformer (Kang & McAuley 2018, section 3).

    Attributes:
        items: The item table, shared with whoever scores; this module owns it.
        d: Width of the encoder's output.
        causal: Position i sees positions <= i only.
    """

    def __init__(
        self,
        items: ItemEmbedding,
        max_length: int,
        *,
        layers: int = 2,
        heads: int = 2,
        inner: int = 256,
        dropout: float = 0.5,
        activation: Activation = "gelu",
        causal: bool = True,
    ) -> None:
        """Build the encoder around an item table; ``max_length`` is the longest sequence that it can read."""
        super().__init__()
        self.items = items
        self.d = items.table.shape[1]
        self.causal = causal
        self.positions = LearnedPositions(max_length, self.d)
        self.norm = nn.LayerNorm(self.d, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.transformer = TransformerEncoder(
            self.d, layers, heads=heads, inner=inner, dropout=dropout, activation=activation
        )

    def forward(self, item_ids: Tensor, mask: Tensor) -> Tensor:
        """int64 ``[b, l]`` and bool ``[b, l]`` (True on real items) -> float ``[b, l, d]``."""
        return self.encode(self.items(item_ids), mask)

    def encode(self, x: Tensor, mask: Tensor) -> Tensor:
        """The same from ready vectors ``[b, l, d]``, for models that mix other features into their items."""
        hidden = self.dropout(self.norm(self.positions(x)))
        return self.transformer(hidden, attend=attention_mask(mask, causal=self.causal))


def last_state(hidden: Tensor, last_position: Tensor) -> Tensor:
    """Of float ``[b, l, d]`` the row at int64 ``[b]`` (``SequenceBatch.last_position``), as float ``[b, d]``."""
    index = last_position[:, None, None].expand(-1, 1, hidden.shape[2])  # [b, 1, d]
    return hidden.gather(1, index).squeeze(1)
