"""Rows that are the same, bit by bit or very nearly.

Equal rows share a hash of their bytes. Near ones are found by 64 sign bits: each says on which side of a random
hyperplane near the middle of the data a vector lies (Charikar, «Similarity estimation techniques from rounding
algorithms», STOC 2002). Rows that agree in either half of the bits share a bucket, and inside a bucket distances are
computed. Of pairs at the limit of nearness about 88 % share a bucket, of pairs at a third of it 98 %; the figure is a
lower bound, at a cost that grows with the rows and not with their square.

Shape legend: n rows, b rows of one block, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

#: Two rows are near when their distance is at most this share of the root mean square distance between two rows.
NEAR = 0.03

#: Rows whose distances are computed, at most.
MAX_CANDIDATES = 65_536

#: Rows of one bucket that are compared with each other; a larger bucket is cut.
MAX_BUCKET = 512

_BITS = 64
_SEED = 20_240_229


@dataclass(frozen=True)
class Duplicates:
    """Row numbers, ascending.

    Attributes:
        exact: Rows whose vector, bit by bit, an earlier row has.
        suspicious: Of these, rows whose content differs from that of the first row with the vector.
        near: ``(row, earlier row)``: rows that are near an earlier one and equal to none.
    """

    exact: list[int]
    suspicious: list[int]
    near: list[tuple[int, int]]


class DuplicateSearch:
    """Collects hashes block by block, and compares at the end."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._signs: list[NDArray[np.uint32]] = []
        self._planes: tuple[NDArray[np.float32], NDArray[np.floating]] | None = None

    def add(self, vectors: NDArray[np.generic], wide: NDArray[np.float32]) -> None:
        """Hash one block.

        Args:
            vectors: ``[b, d]`` of the stored type.
            wide: The same as float32.
        """
        self._digests.extend(hashlib.blake2b(row, digest_size=16).digest() for row in np.ascontiguousarray(vectors))
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32: such a row falls into any bucket
            if self._planes is None:
                self._planes = _planes(wide)
            directions, offsets = self._planes
            self._signs.append(np.packbits(wide @ directions > offsets, axis=1).view(np.uint32))

    def find(
        self,
        contents: list[bytes],
        *,
        usable: NDArray[np.bool_],
        rms_distance: float,
        take: Callable[[NDArray[np.integer]], NDArray[np.float32]],
    ) -> Duplicates:
        """Compare all rows.

        Args:
            contents: Content hash of each row ``[n]``.
            usable: ``[n]``: rows that may be near others; zero vectors are not.
            rms_distance: Root mean square distance between two rows.
            take: Reads rows, ascending, as float32 ``[m, d]``.
        """
        first = self._first_with_same_vector()
        rows = np.arange(len(first))
        exact = rows[first < rows].tolist()
        suspicious = [row for row in exact if contents[row] != contents[int(first[row])]]
        single = usable & (first == rows)
        limit = NEAR * rms_distance
        near = self._near(single, limit, take) if limit > 0 else []
        return Duplicates(exact, suspicious, near)

    def _first_with_same_vector(self) -> NDArray[np.int64]:
        halves = np.frombuffer(b"".join(self._digests), np.uint64).reshape(-1, 2)
        frame = pl.DataFrame({"a": halves[:, 0], "b": halves[:, 1]}).with_row_index("row")
        return frame.select(pl.col("row").min().over("a", "b")).to_series().to_numpy().astype(np.int64)

    def _near(
        self, single: NDArray[np.bool_], limit: float, take: Callable[[NDArray[np.integer]], NDArray[np.float32]]
    ) -> list[tuple[int, int]]:
        buckets = self._buckets(np.flatnonzero(single))
        if not buckets:
            return []
        candidates = np.unique(np.concatenate(buckets))
        vectors = take(candidates)
        found: dict[int, int] = {}
        for bucket in buckets:
            for row, earlier in _near_pairs(vectors[np.searchsorted(candidates, bucket)], limit):
                found.setdefault(int(bucket[row]), int(bucket[earlier]))
        return sorted(found.items())

    def _buckets(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Rows that agree in half of their bits, ascending in each bucket; only as many as may be compared."""
        signs = np.concatenate(self._signs)[rows]
        buckets: list[NDArray[np.int64]] = []
        candidates = 0
        for half in range(signs.shape[1]):
            order = np.argsort(signs[:, half], kind="stable")
            borders = np.flatnonzero(np.diff(signs[order, half])) + 1
            for bucket in np.split(rows[order], borders):
                for start in range(0, len(bucket) - 1, MAX_BUCKET):
                    piece = bucket[start : start + MAX_BUCKET]
                    candidates += len(piece)
                    if candidates > MAX_CANDIDATES:
                        return buckets
                    buckets.append(piece)
        return buckets


def _planes(wide: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
    """Directions ``[d, 64]`` and offsets ``[64]`` of the hyperplanes; the first block stands for the data."""
    generator = np.random.default_rng(_SEED)
    directions = generator.standard_normal((wide.shape[1], _BITS), dtype=np.float32)
    projected = wide @ directions
    aside = generator.uniform(-0.5, 0.5, _BITS)  # through the very middle, every plane would cut a cluster there
    return directions, np.median(projected, axis=0) + aside * projected.std(axis=0)


def _near_pairs(vectors: NDArray[np.float32], limit: float) -> list[tuple[int, int]]:
    """``(row, first earlier row within the limit)`` of the rows of one bucket."""
    centred = vectors.astype(np.float64) - vectors[0]
    squares = np.einsum("bd,bd->b", centred, centred)
    distances = squares[:, None] + squares[None, :] - 2 * centred @ centred.T
    close = np.tril(distances <= limit * limit, k=-1)
    return [(row, int(close[row].argmax())) for row in np.flatnonzero(close.any(axis=1)).tolist()]
