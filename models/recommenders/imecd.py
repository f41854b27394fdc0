"""IMECD: ID-guided mixtures of experts, sequence codebooks and contrastive diffusion over three modalities.

Paper: Lü et al., "ID-guided Multimodal Experts with Contrastive Diffusion", the sequential recommender IMECD.
No code was public when this was written; its ancestors DiffuRec and DiQDiff are.

Equations: 1-6 ``Imecd.catalogue`` with ``modules.moe``; 7-10 ``modules.codebook``; 11-12 ``diffusion.gaussian``;
13 ``modules.sequence_denoiser``; 14, 20-22 ``Imecd.training_loss``; 15 ``modules.contrastive``; 16-18
``diffusion.samplers``; 19 ``Imecd.score``.

What the paper leaves open, and deviations:
- How x_t and t enter the denoiser is not said: DiffuRec's injection with delta = 0.001, under which the output hardly
  depends on x_t (``Imecd.sensitivity`` measures it); ``inject`` has stronger ways. In evaluation lambda is its mean.
- The codebook is a saved buffer that training moves; at test time the code is the argmax without Gumbel noise.
  ``codebook="legacy_batch"`` is DiQDiff's behaviour. Codes get no gradient, the selector gets the soft one.
- Padding: means of eq. 10 run over real items, codes are added to real positions, and padding rows of all item tables
  are zero and no candidates.
- Eq. 14 divides by the width and compares with a detached x_0 (for text and image x_0 is itself trained); x_t stays
  attached. Eq. 15 prints no temperature (1) and includes the row itself; switches exist.
- Reverse noise is sqrt(beta-tilde), none at the last step; the start and the reverse noise are one draw shared by the
  users of a call, so that a user's scores do not depend on who else is asked about.
- Text and image features are standardised over the catalogue, so that features of any scale train alike. Items
  without a feature keep the projection's bias; the paper drops such items before training.

Shape legend: b batch, l sequence length, d width, n items.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from models.config import StrictModel
from models.diffusion import samplers
from models.diffusion.gaussian import q_sample, randn_like
from models.diffusion.noise_schedule import NoiseSchedule
from models.diffusion.schedules import ScheduleName
from models.interface import FeatureTables, LossTerms, TopK
from models.modules.codebook import CodebookMode, SequenceCodebook
from models.modules.content_tables import vectors
from models.modules.contrastive import repulsion_loss
from models.modules.feature_table import FeatureTable
from models.modules.item_embedding import ItemEmbedding
from models.modules.losses import full_softmax_loss
from models.modules.moe import MixtureOfExperts
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_denoiser import Inject, SequenceDenoiser
from models.sequences.batch import SequenceBatch

Modality = Literal["id", "txt", "img"]


class Config(StrictModel):
    """Values printed in the paper are marked [P]; chosen from a printed grid [G]; the rest is ours, with its source."""

    text_table: str = "roberta"  # [P] roberta-base
    image_table: str = "vit"  # [P] vit-base-patch16-224
    modalities: tuple[Modality, ...] = ("id", "txt", "img")  # [P]; fewer: the ablations of Table III
    max_length: int = Field(default=50, ge=1)  # [P]
    d: int = Field(default=128, ge=2)  # [P]
    layers_id: int = Field(default=4, ge=1)  # [P]
    layers_content: int = Field(default=1, ge=1)  # [P]
    heads: int = Field(default=4, ge=1)  # [P]
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)  # [P]
    embedding_std: float = Field(default=0.02, gt=0.0)  # BERT's
    experts: int = Field(default=8, ge=1)  # [G] best on Games; 10 on Toys
    gate_from: Literal["id", "modality"] = "id"  # [P]
    codes: int = Field(default=24, ge=1)  # [G] best on Toys and Games
    codebook: CodebookMode = "ema"
    tau: float = Field(default=0.1, gt=0.0)  # [P] Gumbel-softmax
    lambda_q: float = Field(default=0.7, ge=0.0)  # [G] best on Toys
    steps: int = Field(default=32, ge=2)  # [P]
    schedule: ScheduleName = "trunc_lin"  # [P]
    inject: Inject = "delta"  # DiffuRec
    delta: float = Field(default=0.001, gt=0.0)  # DiffuRec
    pos_emb: bool = False  # DiffuRec and DiQDiff have none
    lambda_c: float = Field(default=0.1, ge=0.0)  # [G]
    tau_c: float = Field(default=1.0, gt=0.0)  # eq. 15 as printed; 0.07 in DiQDiff
    exclude_self: bool = False
    mask_same_target: bool = False
    ce: Literal["per_modality", "joint"] = "per_modality"  # [P] eq. 22; joint: HM4SR
    detach_x0: bool = True
    sampler: Literal["ancestral", "ddim", "one_step"] = "ancestral"  # [P]
    sampler_stride: int = Field(default=1, ge=1)  # of ddim
    variance: samplers.ReverseNoise = "fixedsmall"  # [P] eq. 18
    use_idmoe: bool = True  # off: the linear projection
    use_vq: bool = True
    use_contrastive: bool = True

    @field_validator("sampler_stride")
    @classmethod
    def _stride_fits(cls, stride: int, info: ValidationInfo) -> int:
        if stride > 1 and info.data.get("sampler") != "ddim":
            raise ValueError("only sampler='ddim' can skip steps; set sampler='ddim' or sampler_stride=1")
        if info.data.get("steps", stride) % stride:
            raise ValueError(f"must divide steps={info.data['steps']}")
        return stride

    @field_validator("modalities")
    @classmethod
    def _distinct(cls, modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
        if not modalities or len(set(modalities)) != len(modalities):
            raise ValueError("expected one to three different ones of id, txt, img")
        return modalities


class ContentProjection(nn.Module):
    """Item vectors of one content modality: linear projection (eq. 1-2), then the mixture of experts (eq. 3-6)."""

    def __init__(self, features: FeatureTable, d: int, *, experts: int, guided: bool) -> None:
        """Build it; ``experts`` 0 leaves the mixture out, ``guided`` lets the gate look at the item's id vector."""
        super().__init__()
        self.features = features
        self.guided = guided
        self.project = nn.Linear(features.shape[-1], d)
        self.experts = MixtureOfExperts(d, experts, gate_width=d) if experts else None

    def forward(self, id_table: Tensor) -> Tensor:
        """Item vectors ``[n + 1, d]`` with a zero padding row, given the id vectors ``[n + 1, d]``."""
        vectors = self.project(self.features.table)
        if self.experts is not None:
            vectors = self.experts(vectors, id_table if self.guided else vectors)
        real = torch.ones(len(vectors), 1, dtype=vectors.dtype, device=vectors.device)
        real[0] = 0.0
        return vectors * real


class Imecd(nn.Module):
    """The recommender; parts come from :func:`build`."""

    def __init__(self, config: Config, *, n_items: int, features: Mapping[str, FeatureTable]) -> None:
        """Assemble; ``features`` holds ``txt`` and ``img`` where the configuration names these modalities."""
        super().__init__()
        self.config = config
        self.n_items = n_items
        self.causal = False
        self.schedule = NoiseSchedule.named(config.schedule, config.steps)
        self.items = ItemEmbedding(n_items, config.d, std=config.embedding_std)
        self.content = nn.ModuleDict(
            {
                name: ContentProjection(
                    table,
                    config.d,
                    experts=config.experts if config.use_idmoe else 0,
                    guided=config.gate_from == "id",
                )
                for name, table in features.items()
            }
        )
        self.denoisers = nn.ModuleDict({name: _denoiser(config, name) for name in config.modalities})
        if config.use_vq:
            self.codebooks = nn.ModuleDict(
                {
                    name: SequenceCodebook(
                        config.max_length, config.d, config.codes, mode=config.codebook, temperature=config.tau
                    )
                    for name in config.modalities
                }
            )
        self._catalogue: tuple[tuple[tuple[int, int], ...], dict[str, Tensor]] | None = None

    def catalogue(self) -> dict[str, Tensor]:
        """Item vectors by modality, each float ``[n + 1, d]`` with a zero padding row (eq. 1-6).

        Without gradients the tables are kept until a weight changes.
        """
        if torch.is_grad_enabled():
            return self._make_catalogue()
        weights = (self.items.weight, *self.content.parameters())
        state = tuple((weight.data_ptr(), weight._version) for weight in weights)
        if self._catalogue is None or self._catalogue[0] != state:
            self._catalogue = (state, self._make_catalogue())
        return self._catalogue[1]

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Eq. 22: cross-entropy + reconstruction + lambda_c * repulsion, summed over the modalities."""
        config, tables = self.config, self.catalogue()
        item_ids, mask = self._window(batch)
        parts: dict[str, Tensor] = {}
        estimates: dict[str, Tensor] = {}
        for name in config.modalities:
            x_0 = F.embedding(batch.target, tables[name])
            t = self.schedule.random_steps(len(batch), generator=generator)
            x_t = q_sample(self.schedule, x_0, t, randn_like(x_0, generator=generator))  # eq. 12
            guidance = self._guidance(name, F.embedding(item_ids, tables[name]), mask, generator)
            estimates[name] = self.denoisers[name](x_t, t, *guidance, generator=generator)  # eq. 13
            parts[f"reconstruction_{name}"] = F.mse_loss(
                estimates[name], x_0.detach() if config.detach_x0 else x_0
            )  # eq. 14
            if config.use_contrastive:
                parts[f"repulsion_{name}"] = config.lambda_c * repulsion_loss(
                    estimates[name],
                    temperature=config.tau_c,
                    exclude_self=config.exclude_self,
                    same=batch.target if config.mask_same_target else None,
                )  # eq. 15
        parts |= self._ranking_losses(estimates, tables, batch.target)  # eq. 20-21
        total = torch.stack(list(parts.values())).sum()
        return LossTerms(total=total, parts={name: part.detach() for name, part in parts.items()})

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: sum over the modalities of p_u . e_i (eq. 19)."""
        return score_all(self.query(batch, generator=generator), self.item_vectors())

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items outside ``exclude``."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def query(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, m d]``: p_u of the m modalities side by side."""
        return self._side_by_side(self.preferences(batch, generator=generator))

    def item_vectors(self) -> Tensor:
        """float32 ``[n + 1, m d]``: e_i of the m modalities side by side; row 0 is padding."""
        return self._side_by_side(self.catalogue())

    def preferences(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, Tensor]:
        """p_u by modality, each float ``[b, d]``: the reverse process from noise (eq. 16-18)."""
        tables = self.catalogue()
        item_ids, mask = self._window(batch)
        guidance = {
            name: self._guidance(name, F.embedding(item_ids, tables[name]), mask, generator)
            for name in self.config.modalities
        }
        generated = self._reverse(guidance, generator)  # [b, m, d]
        return dict(zip(self.config.modalities, generated.unbind(dim=1), strict=True))

    def sensitivity(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, float]:
        """How much a denoiser listens to x_t, by modality: ``|f(x_t + h) - f(x_t)| / |h|`` for a random small h."""
        tables = self.catalogue()
        item_ids, mask = self._window(batch)
        found: dict[str, float] = {}
        for name in self.config.modalities:
            guidance = self._guidance(name, F.embedding(item_ids, tables[name]), mask, generator)
            x_t = randn_like(guidance[0][:, -1], generator=generator)
            change = 1e-2 * randn_like(x_t, generator=generator)
            t = torch.zeros(len(batch), dtype=torch.int64, device=x_t.device)
            moved, still = (self.denoisers[name](x, t, *guidance, generator=generator) for x in (x_t + change, x_t))
            found[name] = float(((moved - still).norm() / change.norm()).detach())
        return found

    def describe(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, float | list[float]]:
        """alpha-bar of the last step, and the sensitivity of every denoiser to x_t."""
        listens = self.sensitivity(batch, generator=generator)
        found: dict[str, float | list[float]] = {f"sensitivity_{name}": value for name, value in listens.items()}
        return {"alpha_bar_last": float(self.schedule.alpha_bar[-1]), **found}

    def _make_catalogue(self) -> dict[str, Tensor]:
        return {"id": self.items.table} | {name: project(self.items.table) for name, project in self.content.items()}

    def _window(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The newest ``max_length`` items, padded on the left to exactly that length, with their mask."""
        item_ids, mask = batch.left_padded()
        missing = self.config.max_length - item_ids.shape[1]
        return F.pad(item_ids, (missing, 0)), F.pad(mask, (missing, 0))  # a negative pad cuts the oldest off

    def _guidance(self, name: str, sequence: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """s-tilde of eq. 9 and its mask, without the columns that are padding in every row."""
        if self.config.use_vq:
            sequence = sequence + self.config.lambda_q * self.codebooks[name](sequence, mask, generator=generator)
        longest = max(int(mask.sum(dim=1).max()), 1)
        return sequence[:, -longest:], mask[:, -longest:]

    def _ranking_losses(
        self, estimates: Mapping[str, Tensor], tables: Mapping[str, Tensor], target: Tensor
    ) -> dict[str, Tensor]:
        if self.config.ce == "joint":
            return {"ranking": full_softmax_loss(self._side_by_side(estimates), self._side_by_side(tables), target)}
        return {f"ranking_{name}": full_softmax_loss(x, tables[name], target) for name, x in estimates.items()}

    def _side_by_side(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Concatenated in one order, so that one inner product is the sum of the modalities' inner products."""
        return torch.cat([parts[name] for name in self.config.modalities], dim=-1)

    def _reverse(self, guidance: Mapping[str, tuple[Tensor, Tensor]], generator: torch.Generator) -> Tensor:
        """One walk for all users and modalities, float ``[b, m, d]``; every denoiser has its own share of the state."""
        last = [sequence[:, -1] for sequence, _ in guidance.values()]
        start = randn_like(torch.stack(last, dim=1), generator=generator, shared=True)

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            states = zip(guidance.items(), x_t.unbind(dim=1), strict=True)
            return torch.stack(
                [self.denoisers[name](x, t, *on, generator=generator) for (name, on), x in states], dim=1
            )

        if self.config.sampler == "one_step":
            return samplers.one_step(denoise, self.schedule, start)
        if self.config.sampler == "ddim":
            visited = range(self.config.sampler_stride - 1, self.schedule.steps, self.config.sampler_stride)
            return samplers.ddim(denoise, self.schedule, start, generator=generator, timesteps=visited)
        noise = self.config.variance
        return samplers.ancestral(denoise, self.schedule, start, generator=generator, noise=noise, shared=True)


def required_features(config: Config) -> tuple[str, ...]:
    """Names of the tables that :func:`build` reads."""
    return tuple(table for _, table in _content_tables(config))


def build(config: Config, *, n_items: int, features: FeatureTables) -> Imecd:
    """Make the feature tables and the model.

    Raises:
        MissingFeatureError: When a table does not hold one vector per item.
    """
    tables = {name: FeatureTable(vectors(features, table)) for name, table in _content_tables(config)}
    return Imecd(config, n_items=n_items, features=tables)


def _content_tables(config: Config) -> list[tuple[str, str]]:
    tables = {"txt": config.text_table, "img": config.image_table}
    return [(name, tables[name]) for name in config.modalities if name in tables]


def _denoiser(config: Config, name: Modality) -> SequenceDenoiser:
    return SequenceDenoiser(
        config.d,
        layers=config.layers_id if name == "id" else config.layers_content,
        heads=config.heads,
        steps=config.steps,
        dropout=config.dropout,
        inject=config.inject,
        delta=config.delta,
        max_length=config.max_length if config.pos_emb else None,
    )
