"""What an encoder is: its settings, its identity in a store, and what it returns.

Shapes use ``b`` rows of a batch, ``f`` frames of a video, ``h`` and ``w`` pixels, ``d`` the width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

EXTRACTION_VERSION = 1
"""Raised by hand when a change of this package changes the numbers: every feature is then encoded anew."""

Modality = Literal["video", "image", "text"]
Precision = Literal["fp32", "bf16", "fp16"]
StoredType = Literal["float32", "float16"]


class StrictModel(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class CheckpointSpec(StrictModel):
    """Which weights: their content decides the identity, their source is only recorded.

    Attributes:
        source: Hub id, or the local path that was given.
        revision: Commit of the hub repository; None for a local path.
        weights_sha256: SHA-256 of the weights file (of the joined digests, when the weights are in several files).
        settings_sha256: SHA-256 of the files beside the weights that change the numbers (model and tokenizer).
        toy: True for seeded random weights, which carry no knowledge of the world.
        seed: Seed of a toy checkpoint.
        licence: Licence of the weights.
    """

    source: str
    revision: str | None
    weights_sha256: str
    settings_sha256: str
    toy: bool
    seed: int | None
    licence: str


class EncoderSpec(StrictModel):
    """Everything that determines the numbers of a feature.

    Attributes:
        name: File name in ``extractors/encoders``.
        modality: What the encoder reads.
        checkpoint: Which weights.
        sampling: Frame sampling of a video encoder, else empty.
        preprocessing: Resize, crop and normalisation, or tokenisation.
        pooling: How the last hidden state becomes one vector.
        precision: Arithmetic of the forward pass; pooling is always done in float32.
        dtype: Type of the stored numbers.
        dim: Width ``d``.
        columns: Shape of one row of each column.
    """

    name: str
    modality: Modality
    checkpoint: CheckpointSpec
    sampling: dict[str, Any]
    preprocessing: dict[str, Any]
    pooling: str
    precision: Precision
    dtype: StoredType
    dim: int
    columns: dict[str, tuple[int, ...]]

    def identity(self, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The mapping that identifies a feature store.

        Args:
            recorded: More facts to store beside the identity, such as the data set's name and version.

        Returns:
            Plain values. What stands under ``recorded`` is stored but takes no part in the comparison, so that a
            copy of the same weights elsewhere, or a newer library, does not encode everything anew.
        """
        values = self.model_dump(mode="json")
        checkpoint = values.pop("checkpoint")
        source = {key: checkpoint.pop(key) for key in ("source", "revision", "licence")}
        return {
            "encoder": values.pop("name"),
            "checkpoint": checkpoint,
            **values,
            "extraction_version": EXTRACTION_VERSION,
            "recorded": {"checkpoint": source, "libraries": library_versions(), **dict(recorded or {})},
        }


def library_versions() -> dict[str, str]:
    """Versions of the libraries that take part in extraction."""
    versions: dict[str, str] = {}
    for name in ("av", "numpy", "pillow", "tokenizers", "torch", "transformers"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


@dataclass(frozen=True)
class RowFault:
    """Why one row of a batch has no embedding: a short reason code and a sentence."""

    reason: str
    detail: str


@dataclass(frozen=True)
class EncodedBatch:
    """What an encoder returns.

    Attributes:
        embedding: float32 ``[b, d]``; the rows named in ``faults`` hold NaN.
        frames: float32 ``[b, f, d]`` of a video encoder, else None.
        faults: Rows that could not be encoded, by their index in the batch.
        counts: Additive figures about the batch, such as ``tokens`` and ``oov_tokens``.
        pixels: uint8 ``[b, f, h, w, 3]`` where the pictures themselves are kept, else None.
    """

    embedding: np.ndarray
    frames: np.ndarray | None = None
    faults: Mapping[int, RowFault] = field(default_factory=dict[int, RowFault])
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    pixels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.embedding.ndim != 2 or self.embedding.dtype != np.float32:
            raise ValueError(f"embedding: expected float32 [b, d], got {self.embedding.dtype} {self.embedding.shape}")
        if self.frames is not None and (self.frames.ndim != 3 or len(self.frames) != len(self.embedding)):
            raise ValueError(f"frames: expected [{len(self.embedding)}, f, d], got {self.frames.shape}")

    def __repr__(self) -> str:
        frames = None if self.frames is None else list(self.frames.shape)
        return f"EncodedBatch(embedding={list(self.embedding.shape)}, frames={frames}, faults={len(self.faults)})"


class Encoder(Protocol):
    """Turns a batch of one modality into vectors.

    ``encode`` takes uint8 ``[b, f, h, w, 3]`` (video), uint8 ``[b, h, w, 3]`` or a list of uint8 ``[h, w, 3]``
    (image), or a list of strings (text). The same row gives the same vector in any batch, within the tolerance of the
    arithmetic. A visual encoder also has ``settings.transform``, which brings frames to its size; a text encoder has
    ``announce(texts)``, which is told of all texts to come before the first is encoded.

    Attributes:
        spec: Identity of the feature.
        batch_size: Rows in one call of ``encode``.
    """

    spec: EncoderSpec
    batch_size: int

    def encode(self, batch: Any, /) -> EncodedBatch:
        """Encode one batch."""
        ...


def require_rows(batch: Sequence[Any] | np.ndarray, *, encoder: str) -> None:
    """Refuse an empty batch.

    Raises:
        ValueError: When there is no row.
    """
    if len(batch) == 0:
        raise ValueError(f"{encoder}: a batch needs at least one row")
