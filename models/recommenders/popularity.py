"""Popularity: the same list for everybody, the most frequent items of the training rows first.

The floor that every other model has to clear. Each item has one number s_i, and the model is softmax(s), whatever
the history. Its cross-entropy has a closed-form optimum, s_i = log(count_i) + constant, which ``fit_counts`` sets
before the first epoch; ``epochs = 0`` is all the training it needs. One is added to every count, so that items that
never occur in training get a finite score, below all others.

Shape legend: b batch, n items.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import StrictModel
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.sequences.batch import SequenceBatch

CONTRACT_EXCEPTIONS = {"overfits": "it does not read the history, so different targets in one batch stay a mixture"}


class Config(StrictModel):
    """Popularity has no settings."""


class Popularity(nn.Module):
    """The recommender; ``log_count`` is float32 ``[n + 1, 1]``."""

    causal = True

    def __init__(self, n_items: int) -> None:
        """All items equally popular."""
        super().__init__()
        self.n_items = n_items
        self.log_count = nn.Parameter(torch.zeros(n_items + 1, 1))

    def fit_counts(self, counts: Tensor) -> None:
        """Set the closed-form optimum for int64 ``[n + 1]`` occurrences."""
        with torch.no_grad():
            self.log_count.copy_((counts + 1).float().log().unsqueeze(1))

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Cross-entropy of the targets: the distance from the optimum."""
        del generator
        target = batch.target if batch.targets is None else batch.targets[batch.mask]
        return LossTerms(full_softmax_loss(self._one(len(target)), self.log_count, target))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``, equal rows."""
        del generator
        return score_all(self._one(len(batch)), self.log_count)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` most frequent items."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def _one(self, rows: int) -> Tensor:
        return self.log_count.new_ones(rows, 1)


def required_features(config: Config) -> tuple[str, ...]:
    """None: popularity reads counts only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> Popularity:
    """A popularity model in which all items are equally popular."""
    del config, features
    return Popularity(n_items)
