"""CL4SRec: SASRec that also recognises two views of one history (Xie et al., ICDE 2022, arXiv 2010.14395).

Network and next-item loss are those of ``sasrec``. Two of the paper's operators, crop, mask and reorder, give two views
of every history; the encoder's last states of the two views attract each other and repel the views of other users
(``modules.views``). The total is ``next + weight · views``.

Deviations and what the paper leaves open:

* Next-item loss by cross-entropy over all items, not by one sampled negative, as in ``sasrec``.
* The two operators of a history differ. The paper draws both from one set and does not say whether they may be equal.
* With all positions trained a history is seen once an epoch; with prefixes its views are made of every prefix. Other
  rows of the same user are never negatives, in either case; the paper's batches have one row a user.
* Shares, weight and temperature are tuned per data set in the paper; the defaults are what later work reports with:
  eta = 0.6, gamma = 0.3, beta = 0.6, weight 0.1, inner products without a temperature.
* The token of masked items is a vector of its own, outside the item table: it is never recommended. Public code makes
  it the last row of the table, and ranks it.
* Views are encoded with the same dropout as the history.

Shape legend: b batch, l sequence length, m predictions, n items, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.interface import FeatureTables, LossTerms, TopK
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import EncoderConfig, SequenceEncoder, build_encoder, predictions
from models.modules.views import TwoViews, ViewConfig
from models.sequences.batch import SequenceBatch


class Config(ViewConfig, EncoderConfig):
    """Size of the network, and the views."""


class CL4SRec(nn.Module):
    """The recommender; ``encoder`` is SASRec's, ``views`` adds the second loss."""

    causal = True

    def __init__(self, *, encoder: SequenceEncoder, views: TwoViews) -> None:
        """Rank with an encoder's states and its own item table."""
        super().__init__()
        self.encoder = encoder
        self.views = views
        self.n_items = encoder.items.n_items

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Both losses; the next item at every position when the batch has ``targets``, else at the last one."""
        hidden = self.encoder(batch.item_ids, batch.mask)  # [b, l, d]
        states, target = predictions(hidden, batch)  # [m, d], [m]
        next_item = full_softmax_loss(states, self.encoder.items.table, target)
        views = self.views(self.encoder, batch, generator=generator)
        if views is None:
            return LossTerms(next_item)
        return LossTerms(next_item + views, {"next": next_item.detach(), "views": views.detach()})

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


def required_features(config: Config) -> tuple[str, ...]:
    """None: CL4SRec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> CL4SRec:
    """A freshly initialised CL4SRec."""
    del features
    encoder = build_encoder(config, n_items)
    return CL4SRec(encoder=encoder, views=TwoViews(config, config.d))
