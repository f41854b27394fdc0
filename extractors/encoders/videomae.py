"""VideoMAE: one contextual vector per sampled frame, and their mean for the video.

Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training",
NeurIPS 2022 (arXiv 2203.12602). The encoder reads tubelets of two frames. Sampled frames are a second apart, so each
is doubled and fills a tubelet of its own: ``f`` frames give ``2f`` inputs and ``f`` tubelets, every frame is read, and

    f_j = mean of the patch tokens of tubelet j          v = mean_j f_j

after the final norm. Deviations from common use, with reasons:

* ``num_frames = f`` would pair different frames and drop the last one of an odd number.
* The model has fewer positions than the checkpoint was trained with (5 of 8 tubelets). Positions are fixed sinusoids
  and not weights; the model is built with ``num_frames = 2f`` and has the first rows of the same table.
* The configuration of some copies says ``use_mean_pooling = true``, with which the final LayerNorm of the pre-trained
  weights is dropped without a word. The norm that the weights hold decides: ``layernorm`` acts on every token; a
  fine-tuned checkpoint has ``fc_norm`` instead, which acts on a pooled vector, here on each f_j.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extractors import pooling
from extractors.checkpoint import Checkpoint, CheckpointError, config_value, resolve
from extractors.spec import EncodedBatch, EncoderSpec, Modality, require_rows
from extractors.transformer import inference, load_model, read_weights, weight_names
from extractors.vision import ImageSettings, VisualConfig, image_settings

NAME = "videomae"
LICENCE = "CC-BY-NC-4.0"
ON_DEVICE = True


class Config(VisualConfig):
    """Settings; see :class:`extractors.vision.VisualConfig`."""

    checkpoint: str = "MCG-NJU/videomae-base"
    revision: str | None = "dc740ceda42fce44faed2ea03c6d447db72f6af9"
    batch_size: int = 8


class VideoMAEEncoder:
    """Videos in, one vector per frame and their mean out.

    Attributes:
        spec: Identity of the feature.
        batch_size: Videos in one forward pass.
        settings: Size and normalisation of the frames.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        config: Config,
        *,
        model: Any,
        settings: ImageSettings,
        fc_norm: torch.nn.LayerNorm | None,
        device: str,
    ) -> None:
        self.spec = spec
        self.batch_size = config.batch_size
        self.settings = settings
        self._config = config
        self._model = model
        self._fc_norm = fc_norm
        self._device = device

    def encode(self, batch: np.ndarray, /) -> EncodedBatch:
        """Encode videos.

        Args:
            batch: uint8 ``[b, f, h, w, 3]``, RGB; other sizes than the model's are resized first.

        Returns:
            ``embedding`` float32 ``[b, d]`` and ``frames`` float32 ``[b, f, d]``.
        """
        require_rows(batch, encoder=NAME)
        frames = self._config.frames
        if batch.ndim != 5 or batch.shape[1] != frames:
            raise ValueError(f"{NAME}: expected uint8 [b, {frames}, h, w, 3], got {batch.dtype} {list(batch.shape)}")
        fitted = self.settings.fit(batch.reshape(-1, *batch.shape[2:]))
        with inference(self._device, self._config.precision):
            pixels = self.settings.pixel_values(fitted.reshape(len(batch), frames, *fitted.shape[1:]), self._device)
            doubled = pixels.repeat_interleave(self._model.config.tubelet_size, dim=1)  # [b, 2f, 3, h, w]
            tokens = self._model(pixel_values=doubled).last_hidden_state  # [b, f * patches, d]
        means = self._normed(pooling.tubelet_means(tokens, frames))
        return EncodedBatch(means.mean(dim=1).cpu().numpy(), means.cpu().numpy())

    def _normed(self, means: Tensor) -> Tensor:
        if self._fc_norm is None:
            return means
        with torch.inference_mode():
            return self._fc_norm(means)


def reads(config: Config) -> Modality:  # noqa: ARG001 - every encoder has the same signature
    """Videos, under all settings."""
    return "video"


def describe(config: Config, *, toy_root: Path) -> EncoderSpec:
    """Identity of the feature; resolves the checkpoint and loads no model."""
    return _described(config, toy_root)[0]


def build(config: Config, *, device: str, toy_root: Path) -> VideoMAEEncoder:
    """Load the encoder."""
    from transformers import VideoMAEConfig, VideoMAEModel

    spec, checkpoint, settings = _described(config, toy_root)
    prefix, norm = _final_norm(checkpoint)
    tubelet = config_value(checkpoint, "tubelet_size")
    architecture = VideoMAEConfig.from_pretrained(
        checkpoint.path,
        local_files_only=True,
        num_frames=config.frames * tubelet,
        use_mean_pooling=norm == "fc_norm",
    )
    model = load_model(
        VideoMAEModel.from_pretrained,
        checkpoint.path,
        name=NAME,
        device=device,
        compiled=config.compile,
        config=architecture,
    )
    fc_norm = None
    if norm == "fc_norm":
        fc_norm = torch.nn.LayerNorm(spec.dim, eps=architecture.layer_norm_eps)
        fc_norm.load_state_dict(read_weights(checkpoint.weights, prefix))
        fc_norm = fc_norm.eval().requires_grad_(requires_grad=False).to(device)
    return VideoMAEEncoder(spec, config, model=model, settings=settings, fc_norm=fc_norm, device=device)


def _described(config: Config, toy_root: Path) -> tuple[EncoderSpec, Checkpoint, ImageSettings]:
    checkpoint = resolve(NAME, config.checkpoint, revision=config.revision, toy_root=toy_root, licence=LICENCE)
    side = config_value(checkpoint, "image_size")
    settings = image_settings(NAME, checkpoint.path, resize=config.resize, square=False, side=side)
    dim = config_value(checkpoint, "hidden_size")
    spec = EncoderSpec(
        name=NAME,
        modality="video",
        checkpoint=checkpoint.spec(),
        sampling=config.sampling(),
        preprocessing=settings.identity(),
        pooling=f"tubelet-per-frame mean after {_final_norm(checkpoint)[1]}",
        precision=config.precision,
        dtype=config.dtype,
        dim=dim,
        columns={"embedding": (dim,), "frames": (config.frames, dim)},
    )
    return spec, checkpoint, settings


def _final_norm(checkpoint: Checkpoint) -> tuple[str, str]:
    """Prefix of the weights of the final norm, and its kind: ``layernorm`` or ``fc_norm``."""
    names = weight_names(checkpoint.weights)
    for prefix in ("layernorm.", "videomae.layernorm.", "fc_norm."):
        if f"{prefix}weight" in names:
            return prefix, prefix.removesuffix(".").rpartition(".")[2]
    raise CheckpointError(
        f"encoder {NAME}: {checkpoint.path} holds neither layernorm nor fc_norm: it was saved without its final norm "
        "(use_mean_pooling=true). Save it again with use_mean_pooling=false"
    )
