"""GRU4Rec: session-based recommendations with recurrent networks (Hidasi et al., ICLR 2016, arXiv 1511.06939).

A gated recurrent unit reads the history item by item (eq. 2-5); its state scores all items.

Deviations, all towards the form that RecBole made the common baseline:

* Cross-entropy over all items instead of BPR and TOP1 over the other targets of the batch (section 3.1.3): no figure
  then depends on which negatives a batch happens to hold.
* Items enter as trained vectors with dropout instead of one-hot; a linear layer takes the state back to their width,
  and the item table is also the output layer. The paper's has an output layer of its own.
* Histories of users, padded on the right, instead of session-parallel batches whose states are carried on.
* The reset gate acts on the product with the old state, not on the old state itself (eq. 4): the form that the
  libraries compute fast. The unit has no biases.
* Glorot initialisation (normal for the items, uniform for the unit). Adam instead of Adagrad is a matter of training.

Shape legend: b batch, l sequence length, m predictions, n items, d width, h hidden.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.item_embedding import ItemEmbedding
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import last_state, predictions
from models.sequences.batch import SequenceBatch


class Config(StrictModel):
    """Size of the network.

    Attributes:
        d: Width of item vectors.
        hidden: Width of the recurrent state.
        layers: Recurrent layers.
        dropout: On the item vectors that are read.
    """

    d: int = Field(default=64, ge=1)
    hidden: int = Field(default=128, ge=1)
    layers: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)


class GRU4Rec(nn.Module):
    """The recommender."""

    causal = True

    def __init__(self, config: Config, *, items: ItemEmbedding) -> None:
        """Read and rank with one item table."""
        super().__init__()
        self.n_items = items.n_items
        self.items = items
        self.dropout = nn.Dropout(config.dropout)
        self.gru = nn.GRU(config.d, config.hidden, num_layers=config.layers, bias=False, batch_first=True)
        for weight in self.gru.parameters():
            nn.init.xavier_uniform_(weight)
        self.out = nn.Linear(config.hidden, config.d)

    def states(self, batch: SequenceBatch) -> Tensor:
        """All states, float ``[b, l, d]``; those on padding mean nothing, and none before has seen it."""
        hidden, _ = self.gru(self.dropout(self.items(batch.item_ids)))  # [b, l, h]
        return self.out(hidden)

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Cross-entropy of the next item, at every position when the batch has ``targets``, else at the last one."""
        del generator  # nothing is drawn but dropout
        states, target = predictions(self.states(batch), batch)  # [m, d], [m]
        return LossTerms(full_softmax_loss(states, self.items.table, target))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``, inner products of the last state with all items."""
        return score_all(self.query(batch, generator=generator), self.item_vectors())

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, d]``: the last state, whose inner product with an item's vector is the item's score."""
        del generator
        return last_state(self.states(batch), batch.last_position)

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, d]``; row 0 is padding."""
        return self.items.table

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items."""
        return top_k(self.score(batch, generator=generator), k, exclude)


def required_features(config: Config) -> tuple[str, ...]:
    """None: GRU4Rec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> GRU4Rec:
    """A freshly initialised GRU4Rec."""
    del features
    glorot = math.sqrt(2 / (n_items + 1 + config.d))  # of a layer from one-hot items to d
    return GRU4Rec(config, items=ItemEmbedding(n_items, config.d, std=glorot))
