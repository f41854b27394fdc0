"""CL4SRec: SASRec that also recognises two views of one history (Xie et al., ICDE 2022, arXiv 2010.14395).

Network and next-item loss are those of ``sasrec``. Two of the paper's operators, crop, mask and reorder
(``modules.augmentation``), give two views of every history; the encoder's last states of the two views attract each
other and repel the views of other users (``modules.contrastive.nt_xent_loss``). The total is ``next + weight · views``.

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

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.interface import FeatureTables, LossTerms, TopK
from models.modules.augmentation import crop, random_positions, reorder, share_of
from models.modules.contrastive import nt_xent_loss
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import EncoderConfig, SequenceEncoder, build_encoder, last_state, predictions
from models.sequences.batch import SequenceBatch

#: Operators in the order of their numbers.
CROP, MASK, REORDER = range(3)


class Config(EncoderConfig):
    """Size of the network, and the views.

    Attributes:
        crop: eta, share of a history that cropping keeps.
        mask: gamma, share of the items that masking hides.
        reorder: beta, share of a history that is shuffled.
        weight: lambda, of the loss of the views; 0 leaves SASRec.
        temperature: Divides the similarity of views.
        similarity: ``dot`` (the paper) or ``cosine``.
    """

    crop: float = Field(default=0.6, ge=0, le=1)
    mask: float = Field(default=0.3, ge=0, le=1)
    reorder: float = Field(default=0.6, ge=0, le=1)
    weight: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    similarity: Literal["dot", "cosine"] = "dot"


class CL4SRec(nn.Module):
    """The recommender; ``encoder`` is SASRec's, ``mask_vector`` stands for hidden items."""

    causal = True

    def __init__(self, config: Config, *, encoder: SequenceEncoder) -> None:
        """Rank with an encoder's states and its own item table."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.n_items = encoder.items.n_items
        self.mask_vector = nn.Parameter(torch.empty(config.d).normal_(std=0.02))

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Both losses; the next item at every position when the batch has ``targets``, else at the last one."""
        hidden = self.encoder(batch.item_ids, batch.mask)  # [b, l, d]
        states, target = predictions(hidden, batch)  # [m, d], [m]
        next_item = full_softmax_loss(states, self.encoder.items.table, target)
        if self.config.weight == 0:
            return LossTerms(next_item)
        views = self.config.weight * self._view_loss(batch, generator=generator)
        return LossTerms(next_item + views, {"next": next_item.detach(), "views": views.detach()})

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``, inner products of the last state with all items."""
        del generator
        hidden = self.encoder(batch.item_ids, batch.mask)
        return score_all(last_state(hidden, batch.last_position), self.encoder.items.table)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def _view_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """Agreement of two views of every history, encoded as one batch."""
        config = self.config
        noise = torch.rand(len(batch), 3, generator=generator, device=generator.device)
        operators = noise.argsort(dim=1)[:, :2].to(batch.item_ids.device)  # [b, 2], different ones
        views = [augment(batch, operator, config, generator=generator) for operator in operators.unbind(1)]
        ids, mask, hidden = (torch.cat(parts) for parts in zip(*views, strict=True))  # [2 b, l]
        x = torch.where(hidden.unsqueeze(-1), self.mask_vector, self.encoder.items(ids))
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        first, second = last_state(self.encoder.encode(x, mask), last).chunk(2)
        cosine = config.similarity == "cosine"
        return nt_xent_loss(first, second, temperature=config.temperature, cosine=cosine, same=batch.user)


def augment(
    batch: SequenceBatch, operator: Tensor, config: Config, *, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """One view of every history.

    Args:
        batch: The histories.
        operator: int64 ``[b]``, :data:`CROP`, :data:`MASK` or :data:`REORDER` of each.
        config: Their shares.
        generator: Source of the draws.

    Returns:
        Item ids int64 ``[b, l]``, padded on the right; bool ``[b, l]``, True on real items; bool ``[b, l]``, True on
        items that are hidden.
    """
    ids, mask, chosen = batch.item_ids, batch.mask, operator.unsqueeze(1)
    cropped, kept = crop(ids, mask, config.crop, generator=generator)
    hidden = random_positions(mask, share_of(batch.lengths, config.mask), generator=generator)
    shuffled = reorder(ids, mask, config.reorder, generator=generator)
    view = torch.where(chosen == CROP, cropped, torch.where(chosen == REORDER, shuffled, ids))
    return view, torch.where(chosen == CROP, kept, mask), hidden & (chosen == MASK)


def required_features(config: Config) -> tuple[str, ...]:
    """None: CL4SRec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> CL4SRec:
    """A freshly initialised CL4SRec."""
    del features
    encoder = build_encoder(config, n_items)
    return CL4SRec(config, encoder=encoder)
