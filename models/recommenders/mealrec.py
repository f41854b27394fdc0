"""MealRec: hierarchical diffusion over the frames of the last video and over the user's preference.

Paper: Dong, Ma, Zheng, Zha, Yang, Wang, "MealRec: Multi-granularity Sequential Modeling via Hierarchical Diffusion
Models for Micro-Video Recommendation", KDD 2026, arXiv 2603.01926. No code was public when this was written.

Equations: 6-7 ``modules.content_diffusion`` with ``modules.temporal_attention``; 8 ``modules.unet1d``, computed by
``modules.frame_unet``; 9-10, 13 ``MealRec._reverse`` with ``diffusion.samplers``; 11, 14-16 ``MealRec.training_loss``;
12 ``modules.backbone``; g of 13-14 ``modules.blind_denoiser``.

What the paper leaves open, and deviations:
- ``start``: eq. 13 starts the reverse process at N(0, I). The denoiser g sees x_t and the content of the last video
  only, so from pure noise the encoded history would be thrown away. Default: start at ``q_sample(x_0, T)``, and at
  ``q_sample(z_0, T)`` for the frames; ``pure_noise`` is the literal reading.
- ``reverse_noise``: eq. 9 adds noise at every step; off by default, so that scores do not depend on luck. The noise
  that remains (the start) is one draw shared by all users of a call: a user's scores do not depend on who else is
  asked about.
- Targets of eq. 11 and 14 are cut from the graph (``detach_targets``): they come from trained encoders, which could
  otherwise lower both losses by collapsing. The noised x_t stays attached, so eq. 15 trains the encoder.
- "t uniformly from {5, .., 25}" is read as the grid for T with t uniform in 1..T; ``train_t="stride5"`` is the literal
  reading and asks for a sampler that visits the same steps.
- Eq. 8 attends to the single vector c_v, where attention weights are constant and query and key projections have no
  gradient. Kept as printed; ``cv_tokens`` attends to the L vectors alpha_k v_k instead.
- Raw features are standardised over the catalogue (``modules.feature_table``): the process adds noise of variance 1.
  ``content_width`` may reduce them by one linear map before eq. 6.
- The U-Net predicts a correction of z_t; its sizes, and those of g, are not given.
- Backbones other than SASRec keep what is theirs: CL4SRec's loss of the views joins eq. 16, TedRec's text fusion and
  noise act before eq. 12, and its cosines with temperature 0.07 are the default score instead of eq. 15's products.
- Without the preference diffusion an MLP fuses preference, frames and text (section 5.3). It is added to the
  preference and starts at zero: with both processes off the untrained model is its backbone.
- A video that several histories end in is encoded once per batch (eq. 6), with one draw of dropout.

Shape legend: b batch, l sequence length, f frames, v width of content vectors, d width, n items.
"""

from __future__ import annotations

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
from models.modules.backbone import Backbone, BackboneName, TextFusionConfig, build_backbone
from models.modules.blind_denoiser import BlindDenoiser, MlpFusion
from models.modules.content_diffusion import ContentDiffusion
from models.modules.content_tables import central_frames, global_vectors, vectors
from models.modules.feature_table import FeatureTable
from models.modules.item_embedding import ItemEmbedding
from models.modules.losses import full_softmax_loss
from models.modules.retrieval import score_all, top_k
from models.modules.sequence_encoder import SequenceEncoder
from models.modules.views import ViewConfig
from models.sequences.batch import SequenceBatch

#: Temperature of the cosine score (TedRec's, the backbone that scores by cosine).
COSINE_TEMPERATURE = 0.07

CONTRACT_EXCEPTIONS = {
    f"gradient:content.unet.attend.{level}.{name}": "softmax over the single key c_v ignores queries and keys"
    for level in range(3)
    for name in (
        "norm.weight",
        "norm.bias",
        "attention.query.weight",
        "attention.query.bias",
        "attention.key.weight",
    )
}


def _score_of(given: dict[str, object]) -> Literal["dot", "cos_tau"]:
    return "cos_tau" if given.get("backbone") == "tedrec" else "dot"


class Config(StrictModel):
    """Values printed in the paper are marked [P]; grid values [G]; the rest is ours, with its source."""

    frames_table: str = "videomae.frames"  # [P] VideoMAE, frame level
    video_table: str = "videomae"  # [P] VideoMAE, global
    text_table: str = "bert"  # [P] BERT on MicroLens, GloVe on ShortVideo; TedRec as a backbone reads it, too
    frames: int = Field(default=5, ge=1)  # [P] K
    content_width: int | None = Field(default=None, ge=2)  # None: the width of the features, as printed
    backbone: BackboneName = "sasrec"  # [P] one of three
    views: ViewConfig = ViewConfig()  # of CL4SRec
    text_fusion: TextFusionConfig = TextFusionConfig()  # of TedRec
    max_length: int = Field(default=10, ge=1)  # [P]
    d: int = Field(default=64, ge=2)  # RecBole's SASRec
    layers: int = Field(default=2, ge=1)  # [P]
    heads: int = Field(default=2, ge=1)  # [P]
    inner: int = Field(default=256, ge=1)  # RecBole's SASRec
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)  # RecBole's SASRec
    gamma: float = Field(default=0.9, gt=0.0)  # [P] eq. 7
    steps: int = Field(default=5, ge=2)  # [G] T of both processes; more applies g to its own output more often
    steps_preference: int | None = Field(default=None, ge=2)  # [G] T^n of Fig. 4, where it is not T^t
    schedule: ScheduleName = "linear"  # DDPM's, not rescaled
    lambda_t: float = Field(default=0.1, ge=0.0)  # [G] eq. 16
    lambda_n: float = Field(default=0.1, ge=0.0)  # [G] eq. 16
    unet_channels: int = Field(default=64, ge=8, multiple_of=8)  # ours
    use_video: bool = True  # off, ours: zeros, the catalogue's mean, in place of all frames; what the video is worth
    use_tcd: bool = True  # off: the initial frame features (Fig. 3)
    use_npd: bool = True  # off: an MLP over preference, frames and text (Fig. 3)
    cv_tokens: bool = False
    frame_tokens: Literal["each", "mean"] = "each"  # what g attends to: every refined frame, or their mean
    train_unroll: bool = False  # L_R from whole reverse processes; section 4.6.1 trains single steps
    start: Literal["encoded", "pure_noise"] = "encoded"
    sampler: Literal["ancestral", "ddim", "one_step"] = "ancestral"  # [P] ancestral
    sampler_stride: int = Field(default=1, ge=1)  # of ddim
    reverse_noise: samplers.ReverseNoise = "none"
    train_t: Literal["uniform", "stride5"] = "uniform"
    detach_targets: bool = True
    score: Literal["dot", "cos_tau"] = Field(default_factory=_score_of)  # [P] eq. 15
    visual_noise_std: float = Field(default=0.0, ge=0.0)  # Fig. 5: 0, .1, .3, .5

    @field_validator("views")
    @classmethod
    def _views_are_used(cls, views: ViewConfig, info: ValidationInfo) -> ViewConfig:
        if views != ViewConfig() and info.data.get("backbone") != "cl4srec":
            raise ValueError("only backbone='cl4srec' makes views")
        return views

    @field_validator("text_fusion")
    @classmethod
    def _text_fusion_is_used(cls, text_fusion: TextFusionConfig, info: ValidationInfo) -> TextFusionConfig:
        if text_fusion != TextFusionConfig() and info.data.get("backbone") != "tedrec":
            raise ValueError("only backbone='tedrec' fuses texts")
        return text_fusion

    @field_validator("visual_noise_std")
    @classmethod
    def _noise_has_a_video(cls, noise: float, info: ValidationInfo) -> float:
        if noise and not info.data.get("use_video", True):
            raise ValueError("use_video=false leaves no frames that noise could be added to")
        return noise

    @field_validator("sampler_stride")
    @classmethod
    def _stride_fits(cls, stride: int, info: ValidationInfo) -> int:
        if stride > 1 and info.data.get("sampler") != "ddim":
            raise ValueError("only sampler='ddim' can skip steps; set sampler='ddim' or sampler_stride=1")
        for name in ("steps", "steps_preference"):
            if (info.data.get(name) or stride) % stride:
                raise ValueError(f"must divide {name}={info.data[name]}")
        return stride

    @field_validator("train_t")
    @classmethod
    def _sampler_visits_trained_steps(cls, train_t: str, info: ValidationInfo) -> str:
        if train_t == "stride5" and info.data.get("sampler_stride") != 5:
            raise ValueError("the network sees steps 5, 10, .. only: set sampler='ddim' and sampler_stride=5")
        return train_t


class MealRec(nn.Module):
    """The recommender; parts come from :func:`build`."""

    def __init__(self, config: Config, *, backbone: Backbone, tables: dict[str, FeatureTable]) -> None:
        """Assemble.

        Args:
            config: Switches and sizes.
            backbone: SeqEnc of eq. 12; its item table also scores.
            tables: ``frames`` ``[n + 1, f, v]``, ``video`` ``[n + 1, v]``, ``text`` ``[n + 1, h]``.
        """
        super().__init__()
        self.config = config
        self.n_items = backbone.items.n_items
        self.causal = False  # content is that of the last item: one prediction per history
        self.backbone = backbone
        self.tables = nn.ModuleDict(tables)
        self.schedule = NoiseSchedule.named(config.schedule, config.steps)  # of frames
        self.preference_schedule = NoiseSchedule.named(config.schedule, config.steps_preference or config.steps)
        raw, text = tables["frames"].shape[-1], tables["text"].shape[-1]
        width = config.content_width or raw
        self.reduce = nn.Linear(raw, width) if config.content_width else nn.Identity()
        if config.use_tcd:
            self.content = ContentDiffusion(
                width,
                frames=config.frames,
                heads=config.heads,
                dropout=config.dropout,
                gamma=config.gamma,
                cv_tokens=config.cv_tokens,
                channels=config.unet_channels,
                steps=config.steps,
            )
        sizes = {"visual": width, "text": text, "inner": config.inner}
        if config.use_npd:
            self.denoiser = BlindDenoiser(config.d, heads=config.heads, dropout=config.dropout, **sizes)
        else:
            self.fusion = MlpFusion(config.d, **sizes)

    def training_loss(self, batch: SequenceBatch, *, generator: torch.Generator) -> LossTerms:
        """Eq. 16: ranking loss + lambda_T * frame reconstruction + lambda_N * preference reconstruction."""
        config, parts = self.config, dict[str, Tensor]()
        x_0, text = self.backbone(batch, generator=generator), self.tables["text"](batch.last_item)  # eq. 12
        clean = frames = self.last_frames(batch)
        if config.use_tcd:
            frames = self._denoise_frames_once(batch, clean, generator)
            parts["content"] = F.mse_loss(frames, self._target(clean))  # eq. 11
        if config.use_npd:
            estimate = self.denoiser(self._noised(x_0, generator), self._tokens(frames), text)
            parts["preference"] = F.mse_loss(estimate, self._target(x_0))  # eq. 14
        else:
            estimate = self.fusion(x_0, frames, text)
        if config.train_unroll:
            estimate = self._denoised(batch, x_0, clean, text, generator)
        parts["ranking"] = self._ranking_loss(estimate, batch.target)  # eq. 15
        parts |= self.backbone.own_losses(batch, generator=generator)
        weights = {"content": config.lambda_t, "preference": config.lambda_n}
        total = parts["ranking"]
        for name, part in parts.items():
            if name != "ranking":
                total = total + weights.get(name, 1.0) * part
        return LossTerms(total=total, parts={name: part.detach() for name, part in parts.items()})

    def score(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """float32 ``[b, n + 1]``: the denoised preference against every item."""
        preference, table = self.denoised_preference(batch, generator=generator), self.backbone.items.table
        if self.config.score == "cos_tau":
            return score_all(F.normalize(preference, dim=-1) / COSINE_TEMPERATURE, F.normalize(table, dim=-1))
        return score_all(preference, table)

    def recommend(self, batch: SequenceBatch, *, k: int, exclude: Tensor | None, generator: torch.Generator) -> TopK:
        """The ``k`` best items outside ``exclude``."""
        return top_k(self.score(batch, generator=generator), k, exclude)

    def last_frames(self, batch: SequenceBatch) -> Tensor:
        """z_0 of eq. 6 (without the content module: F_L itself), float ``[b, f, v]``; each video is encoded once.

        Frames lie in front in memory, as the networks that follow read them.
        """
        videos, row = batch.last_item.unique(return_inverse=True)
        frames = self.reduce(self.tables["frames"](videos))
        frames = self.content.encoder(frames) if self.config.use_tcd else frames
        chosen = F.embedding(row, frames.flatten(1)).unflatten(1, frames.shape[1:])
        return chosen.transpose(0, 1).contiguous().transpose(0, 1)

    def denoised_preference(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """The result of both reverse processes (eq. 10 and 13), float ``[b, d]``."""
        frames, text = self.last_frames(batch), self.tables["text"](batch.last_item)
        x_0 = self.backbone.query(batch, generator=generator)  # eq. 12
        return self._denoised(batch, x_0, frames, text, generator)

    def frames_read(self, batch: SequenceBatch, *, generator: torch.Generator) -> Tensor:
        """What the preference denoiser reads of the last video, float ``[b, f, d]``: eq. 10's frames, projected."""
        frames = self._refined(batch, self.last_frames(batch), generator)
        return self.denoiser.visual(self._tokens(frames))

    def describe(self, batch: SequenceBatch, *, generator: torch.Generator) -> dict[str, float | list[float]]:
        """alpha-bar of the last step of both processes: the share of the signal's power that sampling starts from."""
        del batch, generator
        found: dict[str, float | list[float]] = {}
        if self.config.use_tcd:
            found["alpha_bar_last_frames"] = float(self.schedule.alpha_bar[-1])
        if self.config.use_npd:
            found["alpha_bar_last_preference"] = float(self.preference_schedule.alpha_bar[-1])
        return found

    def _denoised(
        self, batch: SequenceBatch, x_0: Tensor, frames: Tensor, text: Tensor, generator: torch.Generator
    ) -> Tensor:
        frames = self._refined(batch, frames, generator)
        if not self.config.use_npd:
            return self.fusion(x_0, frames, text)
        blind = self.denoiser.given(self._tokens(frames), text)
        return self._reverse(lambda x, _: blind(x), self.preference_schedule, x_0, generator)

    def _refined(self, batch: SequenceBatch, frames: Tensor, generator: torch.Generator) -> Tensor:
        if not self.config.use_tcd:
            return frames
        context, context_mask = self._context(batch)
        unet = self.content.unet.given(context, context_mask=context_mask)
        return self._reverse(unet, self.schedule, frames, generator)

    def _tokens(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=1, keepdim=True) if self.config.frame_tokens == "mean" else frames

    def _denoise_frames_once(self, batch: SequenceBatch, frames: Tensor, generator: torch.Generator) -> Tensor:
        context, context_mask = self._context(batch)
        t = self._random_steps(self.schedule, len(batch), generator)
        noisy = q_sample(self.schedule, frames, t, randn_like(frames, generator=generator))
        return self.content.unet(noisy, t, context, context_mask=context_mask)

    def _context(self, batch: SequenceBatch) -> tuple[Tensor, Tensor | None]:
        videos = self.tables["video"]
        assert isinstance(videos, FeatureTable)
        return self.content.context(videos, self.reduce, batch.item_ids, batch.mask)

    def _noised(self, x_0: Tensor, generator: torch.Generator) -> Tensor:
        t = self._random_steps(self.preference_schedule, len(x_0), generator)
        return q_sample(self.preference_schedule, x_0, t, randn_like(x_0, generator=generator))

    def _random_steps(self, schedule: NoiseSchedule, rows: int, generator: torch.Generator) -> Tensor:
        stride = 5 if self.config.train_t == "stride5" else 1
        return schedule.random_steps(rows, generator=generator, stride=stride)

    def _target(self, clean: Tensor) -> Tensor:
        return clean.detach() if self.config.detach_targets else clean

    def _ranking_loss(self, estimate: Tensor, target: Tensor) -> Tensor:
        table = self.backbone.items.table
        if self.config.score == "dot":
            return full_softmax_loss(estimate, table, target)
        return full_softmax_loss(
            F.normalize(estimate, dim=-1), F.normalize(table, dim=-1), target, temperature=COSINE_TEMPERATURE
        )

    def _reverse(
        self, denoise: samplers.Denoise, schedule: NoiseSchedule, clean: Tensor, generator: torch.Generator
    ) -> Tensor:
        """From the noisiest state of ``clean`` (or from noise alone) back to an estimate of it."""
        start = randn_like(clean, generator=generator, shared=True)
        if self.config.start == "encoded":
            last = torch.full((clean.shape[0],), schedule.steps - 1, device=clean.device)
            start = q_sample(schedule, clean, last, start)
        if self.config.sampler == "one_step":
            return samplers.one_step(denoise, schedule, start)
        if self.config.sampler == "ddim":
            visited = range(self.config.sampler_stride - 1, schedule.steps, self.config.sampler_stride)
            return samplers.ddim(denoise, schedule, start, generator=generator, timesteps=visited)
        noise = self.config.reverse_noise
        return samplers.ancestral(denoise, schedule, start, generator=generator, noise=noise, shared=True)


def required_features(config: Config) -> tuple[str, ...]:
    """Names of the tables that :func:`build` reads."""
    tables = (config.frames_table, config.text_table)
    return (*tables, config.video_table) if config.use_tcd else tables


def build(config: Config, *, n_items: int, features: FeatureTables) -> MealRec:
    """Make the parts and assemble them; the backbone comes first, from the seed's first draws.

    Raises:
        MissingFeatureError: When the frame table does not hold ``config.frames`` vectors per item, when the global
            vectors differ from them in width, or when the text table does not hold one vector per item.
    """
    std, text = config.visual_noise_std, FeatureTable(vectors(features, config.text_table))
    encoder = SequenceEncoder(
        ItemEmbedding(n_items, config.d),
        config.max_length,
        layers=config.layers,
        heads=config.heads,
        inner=config.inner,
        dropout=config.dropout,
    )
    backbone = build_backbone(config.backbone, encoder, views=config.views, text_fusion=config.text_fusion, text=text)
    frames = central_frames(features, config.frames_table, config.frames)
    videos = global_vectors(features, config.video_table, frames_table=config.frames_table) if config.use_tcd else None
    if not config.use_video:
        frames, videos = torch.zeros_like(frames), None if videos is None else torch.zeros_like(videos)
    with torch.random.fork_rng(devices=[]):  # the weights that follow are those of a model without noise
        tables = {"frames": FeatureTable(frames, dtype=torch.float16, noise_std=std), "text": text}
        if videos is not None:
            tables["video"] = FeatureTable(videos, noise_std=std)
    return MealRec(config, backbone=backbone, tables=tables)
