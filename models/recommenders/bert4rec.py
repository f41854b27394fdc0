"""BERT4Rec: items hidden anywhere in a sequence are predicted from both sides (Sun et al., CIKM 2019).

Paper: arXiv 1904.06690; the authors' code is FeiSun/BERT4Rec. A bidirectional transformer reads the sequence (section
3.2-3.4). In training a share rho of the items is replaced by a token, and the loss is the cross-entropy of the replaced
items over all items (section 3.6, eq. 8); a part of the samples hides the last item only, as in use. The output layer
is eq. 7: a linear layer, GELU, and the item table with a bias per item. To recommend, the token is put after the
history, and its state scores all items.

How the samples come about, and deviations:

* It is not causal, so a training row is a prefix with its target. The cloze is played on both together: the target
  stands behind the history as the last item and may be hidden or not. The authors' code hides ten times at random and
  once at the end in each whole sequence; here every prefix is drawn anew in every epoch, and the end is hidden alone
  with probability ``last_only``, 1/11 as there.
* ``max(1, round(rho · n))`` of n items are hidden, as in the authors' code, without its cap of predictions per
  sequence. A hidden item always becomes the token, as in the paper.
* Layer normalisation after the GELU of eq. 7: the authors' code has it, the equation does not.
* The mean of the loss is over all hidden items of a batch, so that longer sequences weigh more.
* The token is a vector outside the item table: it is never a class and never recommended. Normalisation after the
  residual sum, epsilon 1e-12, weights from N(0, 0.02). Sequences are padded on the right, padding is hidden from
  attention. Adam's linear decay and warm-up are matters of the training.

Few epochs leave this model far below its best: fewer targets are visible in a step than in causal training, and the
paper's figures are mostly a question of training up to ten times longer (Petrov & Macdonald, RecSys 2022,
arXiv 2207.07483). With sampled negatives gBCE corrects overconfidence (Petrov & Macdonald, RecSys 2023,
arXiv 2308.07192); here the softmax is full.

Shape legend: b batch, l sequence length, m predictions, n items, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from models.interface import FeatureTables, LossTerms, TopK
from models.modules.augmentation import random_positions
from models.modules.length import check_length
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import EncoderConfig, SequenceEncoder, build_encoder, last_state
from models.modules.transformer import NORM_EPS, init_linear
from models.sequences.batch import SequenceBatch


class Config(EncoderConfig):
    """Size of the network, and the cloze.

    Attributes:
        mask_ratio: rho, share of the items that are hidden: 0.6 on Beauty, 0.4 on Steam, 0.2 on MovieLens in the paper.
        last_only: Probability that the last item alone is hidden.
        output_bias: b_O of eq. 7.
    """

    mask_ratio: float = Field(default=0.6, gt=0, le=1)
    last_only: float = Field(default=1 / 11, ge=0, le=1)
    output_bias: bool = True


class BERT4Rec(nn.Module):
    """The recommender; ``mask_vector`` is the token's."""

    causal = False

    def __init__(self, config: Config, *, encoder: SequenceEncoder) -> None:
        """Rank with an encoder that reads both ways, and its own item table."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.n_items = encoder.items.n_items
        self.mask_vector = nn.Parameter(torch.empty(config.d).normal_(std=0.02))
        dense = nn.Linear(config.d, config.d)
        init_linear(dense)
        self.out = nn.Sequential(dense, nn.GELU(), nn.LayerNorm(config.d, eps=NORM_EPS))
        self.bias = nn.Parameter(torch.zeros(self.n_items + 1, 1)) if config.output_bias else None

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Eq. 8 on history and target together."""
        item_ids, mask = extended(batch, batch.target)
        hidden = self.hide(mask, generator=generator)
        states = self._states(item_ids, mask, hidden)[hidden]  # [m, d]
        return LossTerms(full_softmax_loss(self._query(states), self.item_vectors(), item_ids[hidden]))

    def hide(self, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """Which items of rows with bool ``[b, l]`` real items (at least one each) are replaced: bool ``[b, l]``."""
        lengths = mask.sum(dim=1)
        count = (lengths * self.config.mask_ratio).round().long().clamp(min=1)
        anywhere = random_positions(mask, count, generator=generator)
        end = torch.arange(mask.shape[1], device=mask.device) == (lengths - 1).unsqueeze(1)
        alone = torch.rand(len(mask), 1, generator=generator, device=generator.device).to(mask.device)
        return torch.where(alone < self.config.last_only, end, anywhere)

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: eq. 7 at the token behind the history."""
        return score_all(self.query(batch, generator=generator), self.item_vectors())

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, d]``, or ``[b, d + 1]`` with a 1 for the bias: its inner product with an item is the score."""
        del generator
        item_ids, mask = extended(batch, torch.zeros_like(batch.target))
        end = torch.arange(mask.shape[1], device=mask.device) == batch.lengths.unsqueeze(1)
        state = last_state(self._states(item_ids, mask, end), batch.lengths)
        return self._query(state)

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, d]``, or ``[n + 1, d + 1]`` with the biases; row 0 is padding."""
        table = self.encoder.items.table
        return table if self.bias is None else torch.cat((table, self.bias), dim=1)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def _states(self, item_ids: Tensor, mask: Tensor, hidden: Tensor) -> Tensor:
        """Encode ``[b, l]`` items, those that are ``hidden`` replaced: float ``[b, l, d]``."""
        check_length(item_ids.shape[1] - 1, self.config.max_length)
        x = torch.where(hidden.unsqueeze(-1), self.mask_vector, self.encoder.items(item_ids))
        return self.encoder.encode(x, mask)

    def _query(self, states: Tensor) -> Tensor:
        """What is multiplied with :meth:`item_vectors`: ``[m, d]``, with a 1 for the bias."""
        query = self.out(states)
        return query if self.bias is None else torch.cat((query, torch.ones_like(query[:, :1])), dim=1)


def extended(batch: SequenceBatch, item: Tensor) -> tuple[Tensor, Tensor]:
    """Histories with one more item int64 ``[b]`` behind the last: ids and mask ``[b, l + 1]``."""
    place = batch.lengths.unsqueeze(1)
    item_ids = F.pad(batch.item_ids, (0, 1)).scatter(1, place, item.unsqueeze(1))
    return item_ids, F.pad(batch.mask, (0, 1)).scatter(1, place, value=True)


def required_features(config: Config) -> tuple[str, ...]:
    """None: BERT4Rec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> BERT4Rec:
    """A freshly initialised BERT4Rec."""
    del features
    encoder = build_encoder(config, n_items, causal=False, extra=1)  # of the token
    return BERT4Rec(config, encoder=encoder)
