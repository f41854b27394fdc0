"""``FeatureShard``: the rows of one file, checked before they are written.

Shape legend: n rows, f frames, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import ShardError
from feature_store.key import DIGEST_BYTES
from feature_store.quarantine import QuarantineRow
from feature_store.schema import Layout, stored_type

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class FeatureShard:
    """Rows ready to be written; building one checks it.

    Attributes:
        item_ids: n different non-empty ids.
        content_sha256: n digests of 32 bytes: what each row was made from.
        embedding: float16 or float32 ``[n, d]``, finite.
        frames: The same type ``[n, f, d]``, finite, or None.
        n_distinct: uint8 ``[n]``, how many of an item's frames differ, or None.
        pixels: uint8 ``[n, *shape]``, or None.

    Raises:
        ShardError: What was expected, what came, and in which row.
    """

    item_ids: list[str]
    content_sha256: list[bytes]
    embedding: FloatArray
    frames: FloatArray | None = None
    n_distinct: NDArray[np.uint8] | None = None
    pixels: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        """Check everything that a reader will rely on."""
        _check_ids(self.item_ids, self.content_sha256)
        _check_arrays(len(self.item_ids), self.embedding, self.frames, self.n_distinct)
        _check_pixels(len(self.item_ids), self.pixels)
        faulty = np.flatnonzero(~finite_rows(self.embedding, self.frames))
        if len(faulty):
            raise ShardError(
                f"{len(faulty)} of {len(self)} rows hold numbers that are not finite, first "
                f"{self.item_ids[faulty[0]]!r}; put them in quarantine (split_finite does the sorting)"
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        """Shapes instead of numbers."""
        return f"FeatureShard(rows={len(self)}, {self.layout})"

    @property
    def layout(self) -> Layout:
        """Shape and type of the rows."""
        frames = None if self.frames is None else self.frames.shape[1]
        pixels = None if self.pixels is None else self.pixels.shape[1:]
        distinct = self.n_distinct is not None
        return Layout(stored_type(self.embedding.dtype), self.embedding.shape[1], frames, distinct, pixels)


def split_finite(
    item_ids: list[str],
    content_sha256: list[bytes],
    *,
    embedding: FloatArray,
    frames: FloatArray | None = None,
    n_distinct: NDArray[np.uint8] | None = None,
) -> tuple[FeatureShard | None, list[QuarantineRow]]:
    """Sort rows into a shard and those that belong in quarantine because a number is NaN or infinite.

    Args:
        item_ids: As for :class:`FeatureShard`; so are the others.
        content_sha256: Digests of 32 bytes.
        embedding: float16 or float32 ``[n, d]``.
        frames: ``[n, f, d]`` or None.
        n_distinct: uint8 ``[n]`` or None.

    Returns:
        The shard of the good rows, None where there are none, and one quarantine row (stage ``encode``, reason
        ``not_finite``) per bad row.

    Raises:
        ShardError: For every other fault; those are defects of the caller, not of an item.
    """
    _check_ids(item_ids, content_sha256)
    _check_arrays(len(item_ids), embedding, frames, n_distinct)
    good = finite_rows(embedding, frames)
    bad = [
        QuarantineRow(item_ids[row], "encode", "not_finite", _count(embedding, frames, row), content_sha256[row])
        for row in np.flatnonzero(~good).tolist()
    ]
    keep = np.flatnonzero(good).tolist()
    if not keep:
        return None, bad
    shard = FeatureShard(
        [item_ids[row] for row in keep],
        [content_sha256[row] for row in keep],
        embedding[keep],
        None if frames is None else frames[keep],
        None if n_distinct is None else n_distinct[keep],
    )
    return shard, bad


def finite_rows(embedding: FloatArray, frames: FloatArray | None) -> NDArray[np.bool_]:
    """Boolean ``[n]``: every number of the row is finite."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(embedding).all(axis=1))
    if frames is not None:
        finite &= np.isfinite(frames).all(axis=(1, 2))
    return finite


def _count(embedding: FloatArray, frames: FloatArray | None, row: int) -> str:
    """Such as ``3 of 768 numbers of embedding, 0 of 3840 of frames are not finite``."""
    parts = [f"{np.count_nonzero(~np.isfinite(embedding[row]))} of {embedding[row].size} numbers of embedding"]
    if frames is not None:
        parts.append(f"{np.count_nonzero(~np.isfinite(frames[row]))} of {frames[row].size} of frames")
    return ", ".join(parts) + " are not finite"


def _check_ids(item_ids: list[str], content_sha256: list[bytes]) -> None:
    if not item_ids:
        raise ShardError("a shard needs at least one row, got none")
    if len(content_sha256) != len(item_ids):
        raise ShardError(f"content_sha256: expected {len(item_ids)} digests, one per row, got {len(content_sha256)}")
    seen: set[str] = set()
    for item_id, content in zip(item_ids, content_sha256, strict=True):
        if not isinstance(item_id, str) or not item_id:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ShardError(f"expected item ids to be non-empty strings, got {item_id!r}")
        if item_id in seen:
            raise ShardError(f"item {item_id!r} occurs more than once in the shard; one row per item")
        if len(content) != DIGEST_BYTES:
            raise ShardError(f"item {item_id!r}: expected a 32-byte content hash, got {len(content)} bytes")
        seen.add(item_id)


def _check_arrays(
    rows: int, embedding: FloatArray, frames: FloatArray | None, n_distinct: NDArray[np.uint8] | None
) -> None:
    stored_type(embedding.dtype)
    if embedding.ndim != 2 or embedding.shape[0] != rows or embedding.shape[1] == 0:
        raise ShardError(f"embedding: expected [{rows}, d] with d > 0, got {list(embedding.shape)}")
    if frames is not None:
        width = embedding.shape[1]
        if frames.ndim != 3 or frames.shape[0] != rows or frames.shape[1] == 0 or frames.shape[2] != width:
            raise ShardError(f"frames: expected [{rows}, f, {width}] with f > 0, got {list(frames.shape)}")
        if frames.dtype != embedding.dtype:
            raise ShardError(f"frames: expected {embedding.dtype} like embedding, got {frames.dtype}")
    if n_distinct is not None and (n_distinct.dtype != np.uint8 or n_distinct.shape != (rows,)):
        raise ShardError(f"n_distinct: expected uint8 [{rows}], got {n_distinct.dtype} {list(n_distinct.shape)}")


def _check_pixels(rows: int, pixels: NDArray[np.uint8] | None) -> None:
    if pixels is not None and (pixels.dtype != np.uint8 or pixels.ndim < 2 or len(pixels) != rows or not pixels.size):
        raise ShardError(f"pixels: expected uint8 [{rows}, ...] with pixels, got {pixels.dtype} {list(pixels.shape)}")
