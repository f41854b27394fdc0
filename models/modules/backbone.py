"""Sequence encoders that other models build upon: those of SASRec, CL4SRec and TedRec (SeqEnc of MealRec, eq. 12).

Each gives one state per history, and the loss that its own paper adds beside the ranking loss. Built from the same
seed, a backbone holds the same weights as the recommender of its name.

Shape legend: b batch, n items, d width, v width of the text vectors.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.modules.feature_table import FeatureTable
from models.modules.item_embedding import ItemEmbedding
from models.modules.sequence_encoder import SequenceEncoder, last_state
from models.modules.spectral_fusion import SpectralFusion
from models.modules.text_adaptor import TextAdaptor
from models.modules.views import TwoViews, ViewConfig
from models.sequences.batch import SequenceBatch

BackboneName = Literal["sasrec", "cl4srec", "tedrec"]


class TextFusionConfig(StrictModel):
    """TedRec's mixture of text experts; the defaults are those of its code.

    Attributes:
        experts: Linear experts of the adaptor.
        adaptor_dropout: On the text vectors before the experts.
    """

    experts: int = Field(default=8, ge=1)
    adaptor_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)


class Backbone(nn.Module):
    """SASRec's: a causal transformer over the item vectors, read at the last item.

    Attributes:
        encoder: The transformer; it owns the item table.
    """

    def __init__(self, encoder: SequenceEncoder) -> None:
        """Wrap an encoder."""
        super().__init__()
        self.encoder = encoder

    @property
    def items(self) -> ItemEmbedding:
        """The item table, which also scores."""
        return self.encoder.items

    def forward(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """The state of every history, float ``[b, d]``, for training; ``generator`` feeds noise of training."""
        del generator
        return last_state(self.encoder(batch.item_ids, batch.mask), batch.last_position)

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """The same for scoring, up to rounding."""
        del generator
        return self.encoder.last(batch.item_ids, batch.mask, batch.last_position)

    def own_losses(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """Weighted scalars by name that join the ranking loss: none."""
        del batch, generator
        return {}


class ViewBackbone(Backbone):
    """CL4SRec's: SASRec's, trained to recognise two views of one history as well."""

    def __init__(self, encoder: SequenceEncoder, views: TwoViews) -> None:
        """Wrap an encoder and the loss of the views."""
        super().__init__(encoder)
        self.views = views

    def own_losses(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """The loss of the views, as ``views``, unless its weight is 0."""
        loss = self.views(self.encoder, batch, generator=generator)
        return {} if loss is None else {"views": loss}


class TextBackbone(Backbone):
    """TedRec's: ids and texts fused over the whole history, then the transformer; every position holds the others."""

    def __init__(self, encoder: SequenceEncoder, *, adaptor: TextAdaptor | None, fusion: SpectralFusion) -> None:
        """Wrap an encoder, the text adaptor (None where nothing has a text) and the fusion."""
        super().__init__(encoder)
        self.adaptor = adaptor
        self.fusion = fusion

    def forward(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """The state of every history, float ``[b, d]``; ``generator`` feeds the noise of the adaptor's gates."""
        ids = self.encoder.items(batch.item_ids)
        if self.adaptor is None:
            text = torch.zeros_like(ids)
        else:
            text = self.adaptor(batch.item_ids, batch.mask, generator=generator)
        return last_state(self.encoder.encode(self.fusion(ids, text), batch.mask), batch.last_position)

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """As :meth:`forward`."""
        return self(batch, generator=generator)


def build_backbone(
    name: BackboneName,
    encoder: SequenceEncoder,
    *,
    views: ViewConfig,
    text_fusion: TextFusionConfig,
    text: FeatureTable,
) -> Backbone:
    """Put the parts that backbone ``name`` needs around ``encoder``.

    Args:
        name: Which one.
        encoder: Its transformer.
        views: Of CL4SRec.
        text_fusion: Of TedRec.
        text: float ``[n + 1, v]``, of TedRec.
    """
    if name == "cl4srec":
        return ViewBackbone(encoder, TwoViews(views, encoder.d))
    if name == "tedrec":
        return text_backbone(encoder, text_fusion, text)
    return Backbone(encoder)


def text_backbone(encoder: SequenceEncoder, config: TextFusionConfig, text: FeatureTable | None) -> TextBackbone:
    """TedRec's parts around ``encoder``, for histories as long as it reads; without texts, the filter of the ids."""
    longest = encoder.positions.weight.shape[0]
    adaptor = None
    if text is not None:
        adaptor = TextAdaptor(
            text, encoder.d, experts=config.experts, dropout=config.adaptor_dropout, max_length=longest
        )
    return TextBackbone(encoder, adaptor=adaptor, fusion=SpectralFusion(encoder.d, longest))
