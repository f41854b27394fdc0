"""DimeRec: several interests guide a diffusion on the unit sphere that generates the next item's direction.

Paper: "DimeRec: A Unified Framework for Enhanced Sequential Recommendation via Generative Diffusion Models", WSDM 2025.
The published code link had no stored snapshot; the guidance module is ComiRec's (THUDM/ComiRec at a576eed).

Equations: 15-17 ``modules.multi_interest``; 18-19, 21-23 ``DimeRec.training_loss``; 20 ``modules.mlp_denoiser``;
Algorithm 1 ``diffusion.geodesic``; Algorithm 2 ``DimeRec.user_vectors`` with ``diffusion.samplers``.

What the paper leaves open, and deviations:
- Algorithm 1 draws a Gaussian that is not tangent; exp_x of it leaves the sphere. It is projected first, as the
  comment in the algorithm asks. The length of the step is kept as printed (``grw="literal_projected"``), although it
  passes pi near the last step; ``scaled`` and ``multistep`` are gentler, ``euclidean`` is the ablation without a
  sphere.
- With 20 linear steps the printed length turns x_0 by 3.4 radians at the last one, for every draw: x_T is close to
  -x_0, and f can read the target off it. Only steps whose angle is near pi/2 hide the target from f.
- F, which encodes the history in eq. 15-16, is the item table, as in ComiRec; ``encoder="transformer"`` puts a small
  causal transformer behind it, which ``gem="sasrec"`` always has. Attention counts positions from the newest item back.
- The forward walk does not shrink x_0 by sqrt(alpha_bar), the reverse posterior assumes that it did: kept.
- Algorithm 2 multiplies the noise by beta-tilde, a variance: kept (``rev_noise``), it is also the stable choice.
- x_T is projected to the sphere like everything the network was trained on (``normalise_start``). The start and the
  reverse noise are one draw shared by the users of a call, so that a user's scores do not depend on who else is asked
  about.
- The estimate stays raw in the losses; states of the reverse process are normalised (Algorithm 2). Item vectors are
  raw in eq. 19, 22 and in serving (``score_norm`` uses unit vectors and a temperature of 0.07).
- ``train_unroll`` is ours: eq. 22 asks for the target's rank under the estimate from a noisy target, which may be read
  off it; serving starts from noise. The switch takes eq. 22 of the vector that Algorithm 2 generates from noise, with
  the gradient through all its steps.
- t is uniform in 1..T; 10 negatives per target, uniform over the items outside the visible history and the target;
  ``negatives="all"``, ours, is the softmax over the whole catalogue that SASRec is usually trained with.
- Serving scores every item by the inner product; ``query`` and ``item_vectors`` are what a search of an index needs.
- Sizes of the MLP and the noise schedule are not given.

Shape legend: b batch, l sequence length, d width, k interests, n items.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, ValidationInfo, field_validator
from torch import Tensor, nn

from models.config import StrictModel
from models.diffusion.gaussian import q_sample, randn_like
from models.diffusion.geodesic import WalkMode, angle, normalise, random_walk
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.samplers import Denoise, ReverseNoise, ancestral_states
from models.diffusion.schedules import ScheduleName
from models.errors import ConfigError
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.item_embedding import ItemEmbedding
from models.modules.length import check_length
from models.modules.losses import full_softmax_loss, sampled_softmax_loss
from models.modules.mlp_denoiser import MlpDenoiser
from models.modules.multi_interest import (
    DynamicRouting,
    MlpInterests,
    RecentItems,
    SelfAttentiveInterests,
    nearest_interest,
)
from models.modules.negatives import unseen_negatives
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import SequenceEncoder
from models.sequences.batch import SequenceBatch

#: Temperature of the scores of unit vectors.
UNIT_TEMPERATURE = 0.07


def _encoder_of(given: dict[str, object]) -> Literal["items", "transformer"]:
    return "transformer" if given.get("gem") == "sasrec" else "items"


class Config(StrictModel):
    """Values printed in the paper are marked [P]; the rest is ours, with its source."""

    max_length: int = Field(default=10, ge=1)  # [P] YooChoose, KuaiRec; 70 on ML-10M
    d: int = Field(default=64, ge=2)  # [P]
    gem: Literal["sa", "dr", "sasrec", "mlp", "rule"] = "sa"  # [P] sa; the others: Table 3 and eq. 15
    interests: int = Field(default=4, ge=1)  # [P] K; sasrec always gives one
    encoder: Literal["items", "transformer"] = Field(default_factory=_encoder_of)  # F of eq. 15-16; ComiRec's: items
    heads: int = Field(default=2, ge=1)  # of the transformer: SASRec's sizes
    inner: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)  # ours, in the transformer
    embedding_std: float = Field(default=0.1, gt=0.0)  # ours
    negatives: PositiveInt | Literal["all"] = 10  # [P]; all: every item of the catalogue, SASRec's usual loss
    hidden: int = Field(default=256, ge=1)  # 4 d, as in the attention of eq. 16
    denoiser_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)  # ours, in the MLP of eq. 20
    steps: int = Field(default=20, ge=2)  # [P] Table 5
    schedule: ScheduleName = "linear"  # DDPM's, not rescaled
    lambda_recon: float = Field(default=0.1, ge=0.0)  # [P] Table 7
    mu_ssm: float = Field(default=1.0, ge=0.0)  # [P] Table 8: 1 on YooChoose and KuaiRec, 10 on ML-10M
    train_unroll: bool = False  # ours: L_ssm of what Algorithm 2 generates, not of the estimate from one noisy target
    use_gem_loss: bool = True
    use_recon: bool = True
    use_ssm: bool = True
    grw: Literal[WalkMode, "euclidean"] = "literal_projected"
    rev_noise: ReverseNoise = "variance"  # [P] Algorithm 2
    normalise_start: bool = True
    score_norm: bool = False
    detach_guidance: bool = False
    detach_target: bool = False
    serve: Literal["diffusion", "interests"] = "diffusion"  # interests: ComiRec's max over k
    infer_steps: int | None = Field(default=None, ge=1)  # Fig. 5: read the state after so many reverse steps

    @field_validator("encoder")
    @classmethod
    def _sasrec_is_a_transformer(cls, encoder: str, info: ValidationInfo) -> str:
        if info.data.get("gem") == "sasrec" and encoder != "transformer":
            raise ValueError("gem='sasrec' reads the last state of a transformer: set encoder='transformer'")
        return encoder

    @field_validator("use_ssm")
    @classmethod
    def _something_to_learn(cls, use_ssm: object, info: ValidationInfo) -> object:
        if not (use_ssm or info.data.get("use_recon") or info.data.get("use_gem_loss")):
            raise ValueError("all three losses are off; leave use_gem_loss, use_recon or use_ssm on")
        return use_ssm

    @field_validator("infer_steps")
    @classmethod
    def _within_schedule(cls, infer_steps: int | None, info: ValidationInfo) -> int | None:
        if infer_steps is not None and infer_steps > info.data.get("steps", infer_steps):
            raise ValueError(f"expected at most steps={info.data['steps']}")
        return infer_steps


class ItemEncoder(nn.Module):
    """F as a table: ComiRec's reading."""

    def __init__(self, items: ItemEmbedding) -> None:
        """Look up in ``items``."""
        super().__init__()
        self.items = items

    def forward(self, item_ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors ``[b, l, d]`` of the items."""
        return self.items(item_ids) * mask.unsqueeze(-1)


class DimeRec(nn.Module):
    """The recommender; parts come from :func:`build`."""

    def __init__(self, config: Config, *, items: ItemEmbedding, encoder: nn.Module, guidance: nn.Module) -> None:
        """Assemble.

        Args:
            config: Switches and sizes.
            items: The item table.
            encoder: F, maps item ids ``[b, l]`` and mask ``[b, l]`` to vectors ``[b, l, d]``.
            guidance: Maps these vectors and the mask to interests ``[b, k, d]``.
        """
        super().__init__()
        self.config = config
        self.n_items = items.n_items
        self.causal = False
        self.items = items
        self.encoder = encoder
        self.guidance = guidance
        self.schedule = NoiseSchedule.named(config.schedule, config.steps)
        interests = 1 if config.gem == "sasrec" else config.interests
        self.denoiser = MlpDenoiser(
            config.d,
            condition=interests * config.d,
            hidden=config.hidden,
            steps=config.steps,
            dropout=config.denoiser_dropout,
        )

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Eq. 23: L_gem + lambda * L_recon + mu * L_ssm, parts already weighted."""
        config = self.config
        interests, target = self.interests(batch), self.items(batch.target)
        negatives = self._negatives(batch, generator)
        parts: dict[str, Tensor] = {}
        if config.use_gem_loss:
            best = nearest_interest(self._scored(interests), self._scored(target))  # eq. 18
            parts["guidance"] = self._ranking_loss(best, batch.target, negatives)  # eq. 19
        x_0, x_t, t = self._noised(target.detach() if config.detach_target else target, generator)
        guidance = (interests.detach() if config.detach_guidance else interests).flatten(1)
        estimate = self.denoiser(x_t, t, guidance)  # eq. 20
        if config.use_recon:
            parts["reconstruction"] = config.lambda_recon * F.mse_loss(estimate, x_0, reduction="none").sum(-1).mean()
        if config.use_ssm:
            ranked = self._generated(guidance, generator) if config.train_unroll else estimate
            parts["ranking"] = config.mu_ssm * self._ranking_loss(ranked, batch.target, negatives)  # eq. 22
        total = torch.stack(list(parts.values())).sum()
        return LossTerms(total=total, parts={name: part.detach() for name, part in parts.items()})

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: inner product of the generated vector with every item."""
        table = self.item_vectors()
        if self.config.serve == "interests":
            interests = self._scored(self.interests(batch))  # [b, k, d]
            return score_all(interests.flatten(0, 1), table).unflatten(0, interests.shape[:2]).amax(dim=1)
        return score_all(self.query(batch, generator=generator), table)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items outside ``exclude``."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, d]``: the vector whose inner product with an item's vector is the item's score.

        Raises:
            ConfigError: With ``serve="interests"``, where the score is the largest of several inner products.
        """
        if self.config.serve == "interests":
            raise ConfigError(
                "serve='interests' scores by the nearest of several interests, no single vector; search the index with "
                "each of DimeRec.interests, or set serve='diffusion'"
            )
        return self.user_vectors(batch, generator=generator)

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, d]``, as they are scored; row 0 is padding."""
        return self._scored(self.items.table)

    def describe(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, float | list[float]]:
        """alpha-bar of the last step, and by step the mean angle in radians between last items and their noisy form."""
        found: dict[str, float | list[float]] = {"alpha_bar_last": float(self.schedule.alpha_bar[-1])}
        if self.config.grw == "euclidean":
            return found
        x_0 = normalise(self.items(batch.last_item))
        steps = torch.arange(self.schedule.steps, device=x_0.device)
        mode = self.config.grw
        walks = (random_walk(self.schedule, x_0, t.expand(len(x_0)), mode=mode, generator=generator) for t in steps)
        return found | {"angle": [float(angle(x_0, x_t).mean().detach()) for x_t in walks]}

    def interests(self, batch: SequenceBatch) -> Tensor:
        """g^u, float ``[b, k, d]`` (eq. 15-17)."""
        check_length(batch.item_ids.shape[1], self.config.max_length)
        return self.guidance(self.encoder(batch.item_ids, batch.mask), batch.mask)

    def user_vectors(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """e_u, float ``[b, d]``: Algorithm 2, stopped after ``infer_steps`` when that is set."""
        guidance = self.interests(batch).flatten(1)
        states = self._states(self.denoiser.given(guidance), guidance, generator, shared=True)
        return list(islice(states, self.config.infer_steps))[-1]

    def _states(self, denoise: Denoise, like: Tensor, generator: torch.Generator, *, shared: bool) -> Iterator[Tensor]:
        """Algorithm 2 from noise, for as many rows as ``like``; ``shared``: one draw serves all of them."""
        spherical = self.config.grw != "euclidean"
        start = randn_like(like[:, : self.config.d], generator=generator, shared=shared)
        return ancestral_states(
            denoise,
            self.schedule,
            normalise(start) if spherical and self.config.normalise_start else start,
            generator=generator,
            noise=self.config.rev_noise,
            project=normalise if spherical else None,
            shared=shared,
        )

    def _generated(self, guidance: Tensor, generator: torch.Generator) -> Tensor:
        """The last estimate of Algorithm 2, float ``[b, d]``: the direction that serving ends with, with its length."""
        estimates: list[Tensor] = []
        estimate = self.denoiser.given(guidance)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            estimates[:] = [estimate(x_t, t)]
            return estimates[0]

        deque(self._states(denoise, guidance, generator, shared=False), maxlen=0)
        return estimates[0]

    def _noised(self, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """x_0, x_t and t (Algorithm 1, lines 4-7)."""
        t = self.schedule.random_steps(target.shape[0], generator=generator)
        if self.config.grw == "euclidean":
            return target, q_sample(self.schedule, target, t, randn_like(target, generator=generator)), t
        x_0 = normalise(target)
        return x_0, random_walk(self.schedule, x_0, t, mode=self.config.grw, generator=generator), t

    def _scored(self, vectors: Tensor) -> Tensor:
        return normalise(vectors) if self.config.score_norm else vectors

    def _negatives(self, batch: SequenceBatch, generator: torch.Generator) -> Tensor | None:
        """int64 ``[b, k]``, the same for both losses; None for the whole catalogue."""
        if self.config.negatives == "all":
            return None
        exclude = torch.cat((batch.item_ids, batch.target.unsqueeze(1)), dim=1)
        return unseen_negatives(exclude, self.config.negatives, n_items=self.n_items, generator=generator)

    def _ranking_loss(self, vectors: Tensor, target: Tensor, negatives: Tensor | None) -> Tensor:
        scale = 1.0 / UNIT_TEMPERATURE if self.config.score_norm else 1.0
        h, table = scale * self._scored(vectors), self._scored(self.items.table)
        if negatives is None:
            return full_softmax_loss(h, table, target)
        return sampled_softmax_loss(h, table, target, negatives)


def required_features(config: Config) -> tuple[str, ...]:
    """None: DimeRec reads ids only."""
    del config
    return ()


def build(config: Config, *, n_items: int, features: FeatureTables) -> DimeRec:
    """Make the item table and the guidance extractor, and assemble."""
    del features
    items = ItemEmbedding(n_items, config.d, std=config.embedding_std)
    encoder = (
        SequenceEncoder(items, config.max_length, heads=config.heads, inner=config.inner, dropout=config.dropout)
        if config.encoder == "transformer"
        else ItemEncoder(items)
    )
    return DimeRec(config, items=items, encoder=encoder, guidance=_guidance(config))


def _guidance(config: Config) -> nn.Module:
    match config.gem:
        case "sa":
            return SelfAttentiveInterests(config.d, config.interests, max_length=config.max_length)
        case "dr":
            return DynamicRouting(config.d, config.interests, max_length=config.max_length)
        case "mlp":
            return MlpInterests(config.d, config.interests)
        case "rule":
            return RecentItems(config.interests)
        case "sasrec":
            return RecentItems(1)
