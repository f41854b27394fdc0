"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018, arXiv 1808.09781).

A causal transformer reads the history (section 3.1 and 3.2); the state at a position scores an item by its inner
product with the item's input vector (section 3.3, shared table).

Deviations, all towards the form that RecBole made the common baseline:

* Cross-entropy over all items instead of binary cross-entropy with one sampled negative (eq. 7): sampled negatives
  are the main reason why published SASRec figures differ. Padding is no class; in RecBole it is one. ``loss = "gbce"``
  is the nearest to the paper's (gSASRec, Petrov & Macdonald 2023); with one negative and ``calibration = 0`` it is
  half of eq. 7, with the negative drawn from all items but the target.
* Normalisation after the residual sum, epsilon 1e-12, GELU, inner width 4·d, weights from N(0, 0.02), two heads.
* Sequences are padded on the right, so position 0 is the oldest item that is read.

Shape legend: b batch, l sequence length, m predictions, n items, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.interface import FeatureTables, LossTerms, TopK
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import EncoderConfig, SequenceEncoder, build_encoder, predictions
from models.modules.softmax_head import SoftmaxHead, SoftmaxHeadConfig
from models.sequences.batch import SequenceBatch


class Config(SoftmaxHeadConfig, EncoderConfig):
    """Size of the network, and its loss."""


class SASRec(nn.Module):
    """The recommender; ``encoder`` holds all its parameters."""

    causal = True

    def __init__(self, encoder: SequenceEncoder, head: SoftmaxHead) -> None:
        """Rank with an encoder's states and its own item table, trained by ``head``."""
        super().__init__()
        self.encoder, self.head = encoder, head
        self.n_items = encoder.items.n_items

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Loss of the next item, at every position when the batch has ``targets``, else at the last one."""
        hidden = self.encoder(batch.item_ids, batch.mask)  # [b, l, d]
        states, target = predictions(hidden, batch)  # [m, d], [m]
        return LossTerms(self.head(states, self.encoder.items.table, target, generator=generator))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``, inner products of the last state with all items."""
        return score_all(self.query(batch, generator=generator), self.item_vectors())

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, d]``: the last state, whose inner product with an item's vector is the item's score."""
        del generator
        return self.encoder.last(batch.item_ids, batch.mask, batch.last_position)

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, d]``; row 0 is padding."""
        return self.encoder.items.table

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items."""
        return top_k(self.score(batch, generator=generator), k, exclude)


class CountedSASRec(SASRec):
    """SASRec whose negatives are drawn by popularity, which the training loop counts before the first epoch."""

    def fit_counts(self, counts: Tensor) -> None:
        """Draw in proportion to int64 ``[n + 1]`` occurrences in the training rows."""
        self.head.fit_counts(counts)


def required_features(config: Config) -> tuple[str, ...]:
    """None: SASRec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> SASRec:
    """A freshly initialised SASRec."""
    del features
    encoder = build_encoder(config, n_items)
    head = SoftmaxHead(config, n_items)
    return SASRec(encoder, head) if head.log_q is None else CountedSASRec(encoder, head)
