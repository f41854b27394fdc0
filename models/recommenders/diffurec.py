"""DiffuRec: the next item's vector is restored from noise by a transformer that reads the history.

Paper: Li, Sun, Li, "DiffuRec: A Diffusion Model for Sequential Recommendation", ACM TOIS 2024, arXiv 2304.00686; code
WHUIR/DiffuRec at f6f70c9.

Equations, for a target with vector x_0 and a history with vectors e_k:

* ``x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) z``, t uniform in 1..T (``diffusion.gaussian``).
* ``h_k = norm(dropout(e_k)) + lambda_k * (x_t + step(t))``, lambda ~ N(delta, delta) for every element: ``x_0'`` is the
  state of a bidirectional transformer over the h_k, read at the last item (``Approximator``).
* ``L = -log softmax(x_0' . e_i)`` of the target; there is no reconstruction error.
* Serving: from x_T ~ N(0, I) all T steps back, ``x_{t-1} = mu(x_t, x_0') + sqrt(beta-tilde_t) z``, no noise at the last
  one (``diffusion.samplers``); x_0 ranks the items by inner product.

With delta = 0.001 the noisy vector has next to no weight beside the history. Without ``pos_emb``, as in the code,
nothing tells where an item stands: only which item is last, and which others there are.

Deviations:
* The code masks the rows of queries, so that real items attend to padding; keys are masked here. Padding is no class
  and no candidate; in the code it is both.
* The reverse noise has the posterior's variance beta-tilde_t; the code takes beta_t (``reverse_noise="fixedlarge"``).
* In evaluation lambda is its mean, and start and reverse noise are one draw shared by the users of a call, so that a
  user's scores do not depend on who else is asked about; the code draws all of them anew for everybody.
* t is uniform: the history of the code's loss-aware sampler is never filled, and its weights are not used.
* GELU without the tanh approximation, no third dropout inside and after a block, no bias of the keys, linear weights
  from +-1/sqrt(fan in) (the code: Xavier's normal and PyTorch's own).
* Positions count from the newest item back; those of the code, switched off, from the oldest.

Shape legend: b batch, l sequence length, d width, n items.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from models.config import StrictModel
from models.diffusion import samplers
from models.diffusion.gaussian import q_sample, randn_like
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.schedules import ScheduleName
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.attention import attention_mask
from models.modules.initialise import fan_in_linear
from models.modules.item_embedding import ItemEmbedding
from models.modules.losses import full_softmax_loss
from models.modules.position import LearnedPositions
from models.modules.retrieval import score_all, top_k
from models.modules.timestep import TimestepEmbedding
from models.modules.transformer import NORM_EPS, TransformerEncoder, last_row
from models.sequences.batch import SequenceBatch


class Config(StrictModel):
    """Values of the published code are marked [C]; the rest is ours, with its source."""

    max_length: int = Field(default=50, ge=1)  # [C] of the positions; without them any history can be read
    d: int = Field(default=128, ge=1)  # [C]
    layers: int = Field(default=4, ge=1)  # [C]
    heads: int = Field(default=4, ge=1)  # [C]
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)  # [C]
    embedding_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)  # [C]
    embedding_std: float = Field(default=1.0, gt=0.0)  # [C] that of the noise
    pos_emb: bool = False  # [C]
    delta: float = Field(default=0.001, gt=0.0)  # [C]
    steps: int = Field(default=32, ge=2)  # [C]
    schedule: ScheduleName = "trunc_lin"  # [C]
    reverse_noise: samplers.ReverseNoise = "fixedsmall"  # the posterior's; [C] fixedlarge


class Approximator(nn.Module):
    """Estimates x_0 from its noisy version, the step and the history; the feed-forward layers are 4 d wide."""

    def __init__(self, config: Config) -> None:
        """Build the step embedding, the input's normalisation and the transformer."""
        super().__init__()
        d = config.d
        self.delta = config.delta
        self.step = TimestepEmbedding(d, steps=config.steps)
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.positions = LearnedPositions(config.max_length, d) if config.pos_emb else nn.Identity()
        self.norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.transformer = TransformerEncoder(
            d, config.layers, heads=config.heads, inner=4 * d, dropout=config.dropout, norm_first=True
        )
        fan_in_linear(self.transformer)

    def encode(self, sequence: Tensor) -> Tensor:
        """The history as the transformer reads it: float ``[b, l, d]``, padded on the left, to the same shape."""
        return self.norm(self.positions(self.embedding_dropout(sequence).flip(1)).flip(1))

    def forward(self, x_t: Tensor, t: Tensor, encoded: Tensor, mask: Tensor, *, generator: torch.Generator) -> Tensor:
        """Estimate x_0.

        Args:
            x_t: float ``[b, d]``.
            t: int64 ``[b]``, 0 = least noise.
            encoded: float ``[b, l, d]``, what :meth:`encode` gave.
            mask: bool ``[b, l]``, True on real items, which stand on the right.
            generator: Source of lambda in training.

        Returns:
            float ``[b, d]``.
        """
        state = (x_t + self.step(t)).unsqueeze(1)  # [b, 1, d]
        strength = self.delta * (1.0 + randn_like(encoded, generator=generator)) if self.training else self.delta
        hidden = encoded + strength * state
        return self.transformer(hidden, attend=attention_mask(mask, causal=False), at=last_row(hidden)).squeeze(1)


class DiffuRec(nn.Module):
    """The recommender."""

    causal = False

    def __init__(self, config: Config, *, items: ItemEmbedding) -> None:
        """Build the approximator and the schedule around an item table."""
        super().__init__()
        self.n_items = items.n_items
        self.items = items
        self.schedule = NoiseSchedule.named(config.schedule, config.steps)
        self.approximator = Approximator(config)
        self.reverse_noise: samplers.ReverseNoise = config.reverse_noise

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Cross-entropy of the target for the estimate from one noisy state."""
        encoded, mask = self._history(batch)
        x_0 = self.items(batch.target)
        t = self.schedule.random_steps(len(batch), generator=generator)
        x_t = q_sample(self.schedule, x_0, t, randn_like(x_0, generator=generator))
        estimate = self.approximator(x_t, t, encoded, mask, generator=generator)
        return LossTerms(full_softmax_loss(estimate, self.items.table, batch.target))

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: inner products of the restored vector with all items."""
        return score_all(self.restore(batch, generator=generator), self.items.table)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items outside ``exclude``."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def restore(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """x_0 after all steps of the reverse process, float ``[b, d]``."""
        encoded, mask = self._history(batch)
        return samplers.ancestral(
            lambda x_t, t: self.approximator(x_t, t, encoded, mask, generator=generator),
            self.schedule,
            randn_like(encoded[:, -1], generator=generator, shared=True),
            generator=generator,
            noise=self.reverse_noise,
            shared=True,
        )

    def _history(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The encoded history ``[b, l, d]``, padded on the left, and its mask ``[b, l]``."""
        item_ids, mask = batch.left_padded()
        return self.approximator.encode(self.items(item_ids)), mask


def required_features(config: Config) -> tuple[str, ...]:
    """None: DiffuRec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> DiffuRec:
    """A freshly initialised DiffuRec."""
    del features
    return DiffuRec(config, items=ItemEmbedding(n_items, config.d, std=config.embedding_std))
