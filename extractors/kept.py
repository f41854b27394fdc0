"""Sampled frames kept in a store of their own, so that a later encoder decodes nothing.

The store ``<dataset>/frames224`` holds, per video, the sampled frames after resizing: ``pixels`` uint8
``[f, 224, 224 * v, 3]`` with ``v`` geometries side by side, the mean colour of each frame in ``frames`` and of the
video in ``embedding`` (float32, 0 to 1: what the quality figures look at), and ``n_distinct``. Five frames of one
geometry take 0.75 MB.

An encoder that samples alike and wants one of these geometries gets the very bytes that decoding would have given it:
its features and their identity are the same either way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from extractors.resize import FrameTransform, ResizeMode
from extractors.spec import EXTRACTION_VERSION, CheckpointSpec, EncodedBatch, EncoderSpec, require_rows
from extractors.views import Views, parts_of
from feature_store.errors import NoSnapshotError
from feature_store.schema import N_DISTINCT, PIXELS
from feature_store.snapshot import Snapshot
from feature_store.store import FeatureStore

NAME = "frames224"
SIDE = 224
SHARD_SIZE = 64
"""Videos in one shard: 48 MB of one geometry."""

_BATCH_SIZE = 16
_NOTHING = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class KeeperSettings:
    """What a keeper wants to see of a video."""

    transform: FrameTransform | Views


class FrameKeeper:
    """Keeps frames as they are; an encoder without a model.

    Attributes:
        spec: Identity of the kept frames.
        batch_size: Videos in one call of ``encode``.
        settings: The geometries.
    """

    def __init__(self, spec: EncoderSpec, transform: FrameTransform | Views) -> None:
        self.spec = spec
        self.batch_size = _BATCH_SIZE
        self.settings = KeeperSettings(transform)

    def encode(self, batch: np.ndarray, /) -> EncodedBatch:
        """Mean colours beside the frames themselves.

        Args:
            batch: uint8 ``[b, f, h, w, 3]``.

        Returns:
            ``embedding`` float32 ``[b, 3]``, ``frames`` float32 ``[b, f, 3]`` and ``pixels``, the batch.
        """
        require_rows(batch, encoder=NAME)
        pixels = batch.shape[2] * batch.shape[3]
        colours = np.sum(batch, axis=(2, 3), dtype=np.uint64).astype(np.float64) / (255 * pixels)  # [b, f, 3]
        return EncodedBatch(
            colours.mean(axis=1).astype(np.float32), colours.astype(np.float32), pixels=np.ascontiguousarray(batch)
        )


def describe(modes: Sequence[ResizeMode], sampling: Mapping[str, Any]) -> tuple[EncoderSpec, FrameKeeper]:
    """What keeps frames, and its identity.

    Args:
        modes: Geometries: ``centre_crop``, ``squash`` or both.
        sampling: ``frames``, ``fps`` and ``decoder``, as the encoders that will read them sample.
    """
    transforms = tuple(FrameTransform.of(mode, SIDE) for mode in dict.fromkeys(modes))
    transform = transforms[0] if len(transforms) == 1 else Views(transforms)
    frames = int(sampling["frames"])
    spec = EncoderSpec(
        name=NAME,
        modality="video",
        checkpoint=CheckpointSpec(
            source="none",
            revision=None,
            weights_sha256=_NOTHING,
            settings_sha256=_NOTHING,
            toy=False,
            seed=None,
            licence="that of the videos",
        ),
        sampling=dict(sampling),
        preprocessing={"views": [asdict(each) for each in transforms]},
        pooling="mean colour",
        precision="fp32",
        dtype="float32",
        dim=3,
        columns={"embedding": (3,), "frames": (frames, 3), PIXELS: (frames, *transform.crop, 3)},
    )
    return spec, FrameKeeper(spec, transform)


class KeptFrames:
    """The frames of a snapshot, by the content of their videos.

    Attributes:
        views: The geometries that were kept, and where they are in a row.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.views = Views(tuple(_transform(**view) for view in snapshot.spec["preprocessing"]["views"]))
        self._place_of = dict(zip(snapshot.index["content_sha256"], range(snapshot.rows), strict=True))

    def __repr__(self) -> str:
        return f"KeptFrames({self._snapshot!r})"

    @classmethod
    def find(cls, store: FeatureStore) -> KeptFrames | None:
        """What a store keeps; None where it holds no snapshot of kept frames."""
        try:
            snapshot = store.latest()
        except NoSnapshotError:
            return None
        return cls(snapshot) if snapshot.spec.get("encoder") == NAME else None

    def sampled_like(self, sampling: Mapping[str, Any]) -> bool:
        """Whether the frames were sampled like this, by the same version of this package."""
        spec = self._snapshot.spec
        return spec["sampling"] == dict(sampling) and spec["extraction_version"] == EXTRACTION_VERSION

    def serves(self, transforms: Iterable[FrameTransform | Views]) -> bool:
        """Whether all of these geometries were kept."""
        return {part for transform in transforms for part in parts_of(transform)} <= set(self.views.transforms)

    def __contains__(self, content: object) -> bool:
        return content in self._place_of

    def read(self, contents: Iterable[bytes]) -> Iterator[tuple[bytes, np.ndarray, int]]:
        """Frames of some contents, in the order in which they lie; a few megabytes at a time are in memory.

        Args:
            contents: Digests that are kept.

        Yields:
            Content, uint8 ``[f, *views.crop, 3]``, and how many of the frames differ.

        Raises:
            DamagedStoreError: When a shard is missing or damaged.
        """
        wanted = sorted((self._place_of[content], content) for content in contents)
        places = np.array([place for place, _ in wanted], dtype=np.int64)
        distinct = self._snapshot.stored(N_DISTINCT).take(places)
        for part, block in self._snapshot.stored(PIXELS).pieces(places):
            for row, data in enumerate(block, start=part.start):
                yield wanted[row][1], data.astype(np.uint8, copy=False), int(distinct[row])


def _transform(size: Any, crop: Sequence[int]) -> FrameTransform:
    height, width = crop
    return FrameTransform(tuple(size) if isinstance(size, list) else size, (height, width))
