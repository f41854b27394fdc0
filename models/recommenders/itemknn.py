"""ItemKNN: what is read by the readers of the history's items (Sarwar et al., WWW 2001, doi 10.1145/371920.372071).

Similarity of two items: the cosine of their binary user columns (section 3.1.1), optionally shrunk; the ``k`` most
similar items of every item are kept (section 3.3, the model size). The score of an item is the sum of its
similarities to the items of the history (section 3.2.1). ``fit_histories`` computes all of it in closed form before
the first epoch; ``epochs = 0`` is all the training it needs. A model that was not fitted gives equal scores.

Deviations:

* The neighbours that are kept are those of the items in the history, not those of the candidate (Deshpande & Karypis,
  TOIS 2004, doi 10.1145/963770.963776): a recommendation then touches l · k numbers instead of n · k.
* The sum is not divided by the sum of similarities: that predicts the value of a rating, and here every rating is 1.
* ``recent`` reads the newest items only. An item that stands in the history twice counts twice.
* The loss is the cross-entropy of ``softmax(scale · score)`` on prefixes. Epochs, where somebody wants them, learn the
  scale: probabilities become honest, and no ranking changes.

Shape legend: b batch, l sequence length, n items, k neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.neighbours import nearest_items
from models.modules.retrieval import top_k
from models.sequences.batch import SequenceBatch

CONTRACT_EXCEPTIONS = {
    "overfits": "its one trained number scales all scores alike, so no loss changes a ranking",
    "saved:neighbours": "it is the fitted model: no store has it",
    "saved:similarity": "it is the fitted model: no store has it",
}


class Config(StrictModel):
    """What is counted.

    Attributes:
        k: Neighbours kept per item.
        shrink: Added to the denominator of the cosine; 0 is the paper's.
        recent: Newest items of the history that are read; None: all.
    """

    k: int = Field(default=100, ge=1)
    shrink: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    recent: int | None = Field(default=None, ge=1)


class ItemKNN(nn.Module):
    """The recommender; ``neighbours`` is int32 ``[n + 1, k]``, ``similarity`` float32 ``[n + 1, k]``."""

    causal = False  # a score is of one whole history

    neighbours: Tensor
    similarity: Tensor

    def __init__(self, config: Config, *, n_items: int) -> None:
        """Items without neighbours."""
        super().__init__()
        self.config = config
        self.n_items = n_items
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.register_buffer("neighbours", torch.zeros(n_items + 1, config.k, dtype=torch.int32))
        self.register_buffer("similarity", torch.zeros(n_items + 1, config.k))

    def fit_histories(self, items: Tensor, offsets: Tensor) -> None:
        """Find the neighbours; arguments as in :class:`models.interface.HistoriesFitted`."""
        config = self.config
        ids, similarity = nearest_items(items, offsets, n_items=self.n_items, k=config.k, shrink=config.shrink)
        self.neighbours.copy_(ids)
        self.similarity.copy_(similarity)

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Cross-entropy of the target."""
        scores = self.score(batch, generator=generator)
        return LossTerms(F.cross_entropy(scores[:, 1:], batch.target - 1))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``, sums of similarities to the items of the history."""
        del generator
        ids = batch.item_ids
        if self.config.recent is not None:
            age = batch.lengths.unsqueeze(1) - torch.arange(ids.shape[1], device=ids.device)  # [b, l], newest is 1
            ids = ids * (age <= self.config.recent)
        places = self.neighbours[ids].flatten(1).long()  # [b, l · k]; padding has similarity 0 to padding
        sums = self.similarity.new_zeros(len(batch), self.n_items + 1)
        sums = sums.scatter_add(1, places, self.similarity[ids].flatten(1))
        scores = sums * self.log_scale.exp()
        scores[:, 0] = float("-inf")
        return scores

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items."""
        return top_k(self.score(batch, generator=generator), k, exclude)


def required_features(config: Config) -> tuple[str, ...]:
    """None: ItemKNN reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> ItemKNN:
    """An ItemKNN that has not seen any history."""
    del features
    return ItemKNN(config, n_items=n_items)
