"""TedRec: item texts and item ids fused over the whole history in the frequency domain, then a transformer.

Paper: Xu, Tian, Li, Zhang, Wang, Cai, Zhao, "Sequence-level Semantic Representation Fusion for Recommender Systems",
CIKM 2024, arXiv 2402.18166; code RUCAIBox/TedRec at e6b3cb9, a RecBole model.

Equations, for a history of items at positions p with texts x_p and id vectors e_p:

* Adaptor: ``t_p = sum_j g_j(x_p) W_j (dropout(x_p) - b_jp)``, a noisy mixture of experts that also see the position
  (``modules.text_adaptor``).
* Fusion: ``F(e) W`` and ``F(e) F(t)`` by the Fourier transform F over the positions, back in time, each behind a gate,
  added and doubled (``modules.spectral_fusion``). A product of spectra is a circular convolution.
* Encoder: SASRec over the fused sequence, read at the last item: h.
* ``L = -log softmax(cos(h, e_i) / 0.07)`` of the target; ids alone stand on the item side.

Every position of the fused sequence holds all the others, so that inner positions know their own targets: not causal,
trained on prefixes only.

Deviations:
* The fusion runs over ``max_length`` positions with zeros for padding. In the code padding has a text, the adaptor's
  answer to the zero vector, and the convolution spreads it over the real positions.
* The gates' noise and dropout are drawn for every occurrence of an item, as in the code; adapting the catalogue once
  per step would be cheaper and would give all occurrences one draw. In evaluation there is neither, and the catalogue
  is adapted once per version of the weights.
* Texts are standardised over the catalogue (``modules.feature_table``); the code takes BERT's output as it is.
* Padding is no class; in RecBole it is one.
* ``use_text = False``, for data without texts: ``F(t)`` is zero, so that ``F(e) W`` behind its gate is left.

Shape legend: b batch, l sequence length, d width, n items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.interface import FeatureTables, LossTerms, TopK
from models.modules.backbone import TextBackbone, TextFusionConfig, text_backbone
from models.modules.content_tables import vectors
from models.modules.feature_table import FeatureTable
from models.modules.item_embedding import ItemEmbedding
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import SequenceEncoder
from models.sequences.batch import SequenceBatch


class Config(TextFusionConfig):
    """Values of the published code are marked [C]; those of the text experts are, too."""

    text_table: str = "bert"  # [C] BERT over the titles
    use_text: bool = True  # ours: False where no item has a text
    max_length: int = Field(default=50, ge=1)  # [C]
    d: int = Field(default=300, ge=1)  # [C]
    layers: int = Field(default=2, ge=1)  # [C]
    heads: int = Field(default=2, ge=1)  # [C]
    inner: int = Field(default=256, ge=1)  # [C]
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)  # [C]
    temperature: float = Field(default=0.07, gt=0.0)  # [C]


class TedRec(nn.Module):
    """The recommender; parts come from :func:`build`."""

    causal = False

    def __init__(self, backbone: TextBackbone, *, temperature: float) -> None:
        """Rank with a backbone's states and its own item table."""
        super().__init__()
        self.backbone = backbone
        self.temperature = temperature
        self.n_items = backbone.items.n_items

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Cross-entropy of the next item over the cosines."""
        query, table = self.query(batch, generator=generator), self.item_vectors()
        return LossTerms(full_softmax_loss(query, table, batch.target))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: cosines with all items over the temperature."""
        return score_all(self.query(batch, generator=generator), self.item_vectors())

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items outside ``exclude``."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, d]``: the state h, of length 1 over the temperature; its inner product is the score."""
        return F.normalize(self.backbone(batch, generator=generator), dim=-1) / self.temperature

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, d]`` with rows of length 1; row 0, padding, is zero."""
        return F.normalize(self.backbone.items.table, dim=-1)


def required_features(config: Config) -> tuple[str, ...]:
    """The table of the texts, unless there are none."""
    return (config.text_table,) if config.use_text else ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> TedRec:
    """Make the parts and assemble them.

    Raises:
        MissingFeatureError: When the text table does not hold one vector per item.
    """
    encoder = SequenceEncoder(
        ItemEmbedding(n_items, config.d),
        config.max_length,
        layers=config.layers,
        heads=config.heads,
        inner=config.inner,
        dropout=config.dropout,
    )
    text = FeatureTable(vectors(features, config.text_table)) if config.use_text else None
    return TedRec(text_backbone(encoder, config, text), temperature=config.temperature)
