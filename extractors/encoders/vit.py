"""ViT: the ``[CLS]`` token of a picture, or of every sampled frame of a video.

Dosovitskiy et al., "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021
(arXiv 2010.11929). The vector is ``last_hidden_state[:, 0]``, after the final norm and without the pooler. A video
gets one vector per frame, and their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from extractors import pooling
from extractors.checkpoint import Checkpoint, config_value, resolve
from extractors.spec import EncodedBatch, EncoderSpec, Modality, require_rows
from extractors.transformer import inference, load_model
from extractors.vision import ImageSettings, VisualConfig, image_settings

NAME = "vit"
LICENCE = "Apache-2.0"
ON_DEVICE = True


class Config(VisualConfig):
    """Settings; see :class:`extractors.vision.VisualConfig`.

    Attributes:
        input: ``image`` for pictures such as covers, ``video`` for sampled frames.
    """

    checkpoint: str = "google/vit-base-patch16-224-in21k"
    revision: str | None = "b4569560a39a0f1af58e3ddaf17facf20ab919b0"
    input: Literal["image", "video"] = "image"
    batch_size: int = 32


class ViTEncoder:
    """Pictures in, one vector each out; or videos in, one vector per frame and their mean out.

    Attributes:
        spec: Identity of the feature.
        batch_size: Rows in one forward pass.
        settings: Size and normalisation of the pictures.
    """

    def __init__(self, spec: EncoderSpec, config: Config, *, model: Any, settings: ImageSettings, device: str) -> None:
        self.spec = spec
        self.batch_size = config.batch_size
        self.settings = settings
        self._config = config
        self._model = model
        self._device = device

    def encode(self, batch: Sequence[np.ndarray] | np.ndarray, /) -> EncodedBatch:
        """Encode pictures or videos.

        Args:
            batch: Pictures: uint8 ``[b, h, w, 3]`` or a list of uint8 ``[h, w, 3]`` of any sizes. Videos: uint8
                ``[b, f, h, w, 3]``.

        Returns:
            ``embedding`` float32 ``[b, d]``; of videos also ``frames`` float32 ``[b, f, d]``.
        """
        require_rows(batch, encoder=NAME)
        if self._config.input == "image":
            pictures = np.concatenate([self.settings.fit(np.asarray(picture)[np.newaxis]) for picture in batch])
            return EncodedBatch(self._forward(pictures))
        videos = np.asarray(batch)
        frames = self._config.frames
        if videos.ndim != 5 or videos.shape[1] != frames:
            raise ValueError(f"{NAME}: expected uint8 [b, {frames}, h, w, 3], got {videos.dtype} {list(videos.shape)}")
        fitted = self.settings.fit(videos.reshape(-1, *videos.shape[2:]))
        vectors = self._forward(fitted).reshape(len(videos), frames, -1)  # [b, f, d]
        return EncodedBatch(vectors.mean(axis=1), vectors)

    def _forward(self, pictures: np.ndarray) -> np.ndarray:
        with inference(self._device, self._config.precision):
            pixels = self.settings.pixel_values(pictures, self._device)  # [n, 3, h, w]
            tokens = self._model(pixel_values=pixels).last_hidden_state  # [n, 1 + patches, d]
        return pooling.cls(tokens).cpu().numpy()


def reads(config: Config) -> Modality:
    """Pictures, or videos where the settings say so."""
    return config.input


def describe(config: Config, *, toy_root: Path) -> EncoderSpec:
    """Identity of the feature; resolves the checkpoint and loads no model."""
    return _described(config, toy_root)[0]


def build(config: Config, *, device: str, toy_root: Path) -> ViTEncoder:
    """Load the encoder."""
    from transformers import ViTModel

    spec, checkpoint, settings = _described(config, toy_root)
    model = load_model(
        ViTModel.from_pretrained,
        checkpoint.path,
        name=NAME,
        device=device,
        compiled=config.compile,
        add_pooling_layer=False,
    )
    return ViTEncoder(spec, config, model=model, settings=settings, device=device)


def _described(config: Config, toy_root: Path) -> tuple[EncoderSpec, Checkpoint, ImageSettings]:
    checkpoint = resolve(NAME, config.checkpoint, revision=config.revision, toy_root=toy_root, licence=LICENCE)
    side = config_value(checkpoint, "image_size")
    settings = image_settings(NAME, checkpoint.path, resize=config.resize, square=True, side=side)
    dim = config_value(checkpoint, "hidden_size")
    video = config.input == "video"
    spec = EncoderSpec(
        name=NAME,
        modality=config.input,
        checkpoint=checkpoint.spec(),
        sampling=config.sampling() if video else {},
        preprocessing=settings.identity(),
        pooling="cls of last_hidden_state",
        precision=config.precision,
        dtype=config.dtype,
        dim=dim,
        columns={"embedding": (dim,), "frames": (config.frames, dim)} if video else {"embedding": (dim,)},
    )
    return spec, checkpoint, settings
