"""The self-attentive sequence encoder that SASRec trains and other recommenders take as their backbone.

Shape legend: b batch, l sequence length, d width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.modules.attention import attention_mask
from models.modules.item_embedding import ItemEmbedding
from models.modules.position import LearnedPositions
from models.modules.transformer import NORM_EPS, Activation, TransformerEncoder
from models.sequences.batch import SequenceBatch


class EncoderConfig(StrictModel):
    """Size of a :class:`SequenceEncoder`; the defaults are those of SASRec in RecBole.

    Attributes:
        d: Width of item vectors and states.
        layers: Transformer blocks.
        heads: Attention heads; must divide ``d``.
        inner: Width of the feed-forward layers.
        dropout: On the input, on attention weights and after each sublayer.
        activation: Of the feed-forward layers.
        max_length: Longest history that the model can read.
    """

    d: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    inner: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    activation: Activation = "gelu"
    max_length: int = Field(default=50, ge=1)


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

    def last(self, item_ids: Tensor, mask: Tensor, last_position: Tensor) -> Tensor:
        """The state at one position of each row, float ``[b, d]``, without computing the others' to the end.

        Equal to :func:`last_state` of :meth:`forward` up to rounding.
        """
        hidden = self.dropout(self.norm(self.positions(self.items(item_ids))))
        attend = attention_mask(mask, causal=self.causal)
        return self.transformer(hidden, attend=attend, at=last_position).squeeze(1)


def last_state(hidden: Tensor, last_position: Tensor) -> Tensor:
    """Of float ``[b, l, d]`` the row at int64 ``[b]`` (``SequenceBatch.last_position``), as float ``[b, d]``."""
    index = last_position[:, None, None].expand(-1, 1, hidden.shape[2])  # [b, 1, d]
    return hidden.gather(1, index).squeeze(1)


def build_encoder(config: EncoderConfig, n_items: int, *, causal: bool = True, extra: int = 0) -> SequenceEncoder:
    """A freshly initialised encoder with an item table of its own.

    Args:
        config: Its size.
        n_items: Number of items.
        causal: Position i sees positions <= i only.
        extra: Positions beyond ``config.max_length``, for tokens that stand behind a history.
    """
    return SequenceEncoder(
        ItemEmbedding(n_items, config.d),
        config.max_length + extra,
        layers=config.layers,
        heads=config.heads,
        inner=config.inner,
        dropout=config.dropout,
        activation=config.activation,
        causal=causal,
    )


def predictions(hidden: Tensor, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """States that a next item is predicted from, and that item: float ``[m, d]`` and int64 ``[m]``.

    Every position of float ``[b, l, d]`` when the batch has ``targets``, else the last one of each row.
    """
    if batch.targets is None:
        return last_state(hidden, batch.last_position), batch.target
    return hidden[batch.mask], batch.targets[batch.mask]
