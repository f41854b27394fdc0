"""ComiRec: several interests read from one history, of which the target picks the one that is trained.

Paper: Cen, Zhang, Zou, Zhou, Yang, Tang, "Controllable Multi-Interest Framework for Recommendation", KDD 2020, arXiv
2005.09347; code THUDM/ComiRec at a576eed (TensorFlow 1).

Equations, for a history with item vectors H and interests V = (v_1 .. v_k):

* SA: ``A = softmax_l(W2 tanh(W1 (H + P)))``, ``V = A^T H``; DR: capsules by routing, three rounds
  (``modules.multi_interest``).
* Training: ``v = v_k`` with ``k = argmax_k v_k . e`` for the target's vector e, a hard choice; then
  ``-log softmax(v . e_i - log q_i)`` of the target among itself and the negatives.
* Serving: the best items of every interest, merged by their score: ``score(i) = max_k v_k . e_i``. The N best by this
  score are found among the N best of each interest, so that scoring all items and the merger give one list.

Deviations:
* Positions, which SA adds and by which DR chooses a map, count from the newest item back; the code counts from the
  oldest.
* Negatives: 10 per row and shared by the batch, log-uniform over the items in order of frequency, as in the code. It
  draws without replacement and corrects by expected counts that depend on the number of tries; here they are drawn with
  replacement, where log q is exact. The order is that of the training rows (``fit_counts``); the code sorts the whole
  data, with padding in first place. Padding is no class here. ``loss="full"`` is the full softmax of a later port.
* Every prefix of a training history is an example. The code draws one prefix of four items or more per user and step.
* The aggregation module that trades accuracy for diversity needs categories of items and is left out: its factor is 0.

Shape legend: b batch, l sequence length, d width, k interests, n items.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.item_embedding import ItemEmbedding
from models.modules.length import check_length
from models.modules.log_uniform import by_frequency, log_uniform_log_q, log_uniform_negatives
from models.modules.losses import full_softmax_loss, sampled_softmax_loss
from models.modules.multi_interest import DynamicRouting, SelfAttentiveInterests, nearest_interest
from models.modules.retrieval import score_all, top_k
from models.sequences.batch import SequenceBatch

CONTRACT_EXCEPTIONS = {
    "overfits": "training moves the interest nearest to the target; the others rank too, and nothing holds them down"
}


class Config(StrictModel):
    """Values of the published code are marked [C]; the rest is ours, with its source."""

    max_length: int = Field(default=20, ge=1)  # [C] books; 50 on Taobao
    d: int = Field(default=64, ge=1)  # [C]
    guidance: Literal["sa", "dr"] = "sa"  # [C] both
    interests: int = Field(default=4, ge=1)  # [C]
    loss: Literal["sampled", "full"] = "sampled"  # [C] sampled
    negatives: int = Field(default=10, ge=1)  # [C] per row, shared by the batch
    embedding_std: float = Field(default=0.1, gt=0.0)  # ours: capsules shrink with the square of shorter vectors


class ComiRec(nn.Module):
    """The recommender; ``by_frequency`` is int64 ``[n]``, the items from the most frequent to the rarest."""

    causal = False
    by_frequency: Tensor

    def __init__(self, config: Config, *, items: ItemEmbedding, guidance: nn.Module) -> None:
        """Assemble; ``guidance`` maps item vectors ``[b, l, d]`` and mask ``[b, l]`` to interests ``[b, k, d]``."""
        super().__init__()
        self.config = config
        self.n_items = items.n_items
        self.items = items
        self.guidance = guidance
        # Saved with the weights: a resumed training does not count again.
        self.register_buffer("by_frequency", torch.arange(1, items.n_items + 1))

    def fit_counts(self, counts: Tensor) -> None:
        """Order the items by int64 ``[n + 1]`` occurrences, for the draw of the negatives."""
        self.by_frequency.copy_(by_frequency(counts))

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Softmax of the target, sampled or full, for the interest that is nearest to it."""
        table, target = self.items.table, batch.target
        nearest = nearest_interest(self.interests(batch), self.items(target))  # [b, d]
        if self.config.loss == "full":
            return LossTerms(full_softmax_loss(nearest, table, target))
        count = self.config.negatives * len(batch)
        negatives = log_uniform_negatives(self.by_frequency, count, generator=generator)
        log_q = log_uniform_log_q(self.by_frequency)
        return LossTerms(sampled_softmax_loss(nearest, table, target, negatives, log_q=log_q))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: the largest inner product of an item with one of the interests."""
        del generator
        interests = self.interests(batch)
        scores = score_all(interests.flatten(0, 1), self.items.table)  # [b * k, n + 1]
        return scores.unflatten(0, interests.shape[:2]).amax(dim=1)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items outside ``exclude``."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def interests(self, batch: SequenceBatch) -> Tensor:
        """V, float ``[b, k, d]``.

        Raises:
            ValueError: When a history is longer than ``max_length``.
        """
        check_length(batch.item_ids.shape[1], self.config.max_length)
        return self.guidance(self.items(batch.item_ids), batch.mask)


def required_features(config: Config) -> tuple[str, ...]:
    """None: ComiRec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> ComiRec:
    """A freshly initialised ComiRec."""
    del features
    extractor = SelfAttentiveInterests if config.guidance == "sa" else DynamicRouting
    items = ItemEmbedding(n_items, config.d, std=config.embedding_std)
    return ComiRec(config, items=items, guidance=extractor(config.d, config.interests, max_length=config.max_length))
