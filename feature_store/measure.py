"""One pass over the vectors of a snapshot: the figures for its manifest, and which rows they are about.

Shape legend: n rows, b rows of one block, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store import drift
from feature_store.duplicates import Duplicates, DuplicateSearch
from feature_store.quality import Coverage, Drift, Quality

#: A norm further than this many robust standard deviations from the median is an outlier.
OUTLIER_DEVIATIONS = 6.0

#: Median absolute deviation times this estimates the standard deviation of a normal distribution.
MAD_TO_DEVIATION = 1.4826

#: Part of the median within which norms count as equal: what float16, the coarsest stored type, rounds a number by.
#: An encoder that ends in a normalisation gives all vectors one norm, and what is left of the spread is rounding.
NORM_ROUNDING = 2.0**-10


class Vectors(Protocol):
    """What is measured; :class:`feature_store.rows.StoredRows` of the column ``embedding`` is one."""

    @property
    def ids(self) -> list[str]:
        """Item ids ``[n]``."""
        ...

    @property
    def contents(self) -> list[bytes]:
        """Content hashes ``[n]``."""
        ...

    def blocks(self) -> Iterator[NDArray[np.generic]]:
        """All vectors in order, in pieces ``[b, d]`` of the stored type."""
        ...

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows, ascending, as float32 ``[m, d]``."""
        ...


@dataclass(frozen=True)
class Findings:
    """The items behind the figures.

    Attributes:
        missing: Items of the catalogue without features.
        zero: Items whose vector is zero.
        norm_outliers: Items whose norm is an outlier.
        suspicious: Items whose vector another item with other content has, bit by bit.
        near: Items that are near an earlier one, with that one.
        moved: Compared items by how far they moved since the version before, furthest first: id and 1 - cosine.
    """

    missing: Sequence[str] = ()
    zero: Sequence[str] = ()
    norm_outliers: Sequence[str] = ()
    suspicious: Sequence[str] = ()
    near: Sequence[tuple[str, str]] = ()
    moved: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Measured:
    """Figures, and the items behind them."""

    quality: Quality
    findings: Findings


@dataclass
class _Pass:
    """What one pass over the blocks collects."""

    sample: drift.Sample | None
    search: DuplicateSearch = field(default_factory=DuplicateSearch)
    norms: list[NDArray[np.float64]] = field(default_factory=list[NDArray[np.float64]])
    sampled: list[NDArray[np.float32]] = field(default_factory=list[NDArray[np.float32]])
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    low: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    high: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    rows: int = 0

    def add(self, vectors: NDArray[np.generic]) -> None:
        """Take in one block ``[b, d]``."""
        wide = vectors.astype(np.float32, copy=False)  # exact, and numpy is slow on float16
        low, high = wide.min(axis=0), wide.max(axis=0)
        self.low = np.minimum(self.low, low) if self.rows else low
        self.high = np.maximum(self.high, high) if self.rows else high
        total = wide.sum(axis=0, dtype=np.float64)
        self.total = self.total + total if self.rows else total
        self.norms.append(np.sqrt(np.einsum("bd,bd->b", wide, wide, dtype=np.float64)))
        self.search.add(vectors, wide)
        if self.sample is not None:
            start, stop = np.searchsorted(self.sample.rows, [self.rows, self.rows + len(wide)])
            self.sampled.append(wide[self.sample.rows[start:stop] - self.rows])
        self.rows += len(wide)


def measure(
    vectors: Vectors,
    *,
    catalogue_size: int,
    present: int,
    missing: Sequence[str] = (),
    sample: drift.Sample | None = None,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Compute the figures.

    Args:
        vectors: All live rows; at least one.
        catalogue_size: Items of the catalogue.
        present: Items of the catalogue that have a live row.
        missing: Items of the catalogue that have none.
        sample: What to compare with the version before.
        progress: Told how many rows were measured.

    Returns:
        The figures, and the items behind them.
    """
    seen = _Pass(sample)
    for block in vectors.blocks():
        seen.add(block)
        if progress:
            progress(seen.rows)
    if not seen.rows:
        raise ValueError("expected at least one row to measure")
    norms = np.concatenate(seen.norms)
    spread = max(0.0, float(np.mean(norms**2) - np.sum((seen.total / seen.rows) ** 2)))
    found = seen.search.find(
        vectors.contents, usable=norms > 0, rms_distance=float(np.sqrt(2 * spread)), take=vectors.take
    )
    moved, distances = drift.compare(sample, np.concatenate(seen.sampled)) if sample else (None, np.zeros(0))
    coverage = Coverage(
        catalogue=catalogue_size, present=present, share=present / catalogue_size if catalogue_size else 1.0
    )
    outliers = _norm_outliers(norms)
    ids = vectors.ids
    return Measured(
        _figures(seen, norms, outliers=outliers, found=found, coverage=coverage, moved=moved),
        Findings(
            missing=missing,
            zero=[ids[row] for row in np.flatnonzero(norms == 0).tolist()],
            norm_outliers=[ids[row] for row in np.flatnonzero(outliers).tolist()],
            suspicious=[ids[row] for row in found.suspicious],
            near=[(ids[row], ids[earlier]) for row, earlier in found.near],
            moved=[
                (sample.ids[place], float(distances[place]))
                for place in np.argsort(-distances, kind="stable").tolist()
                if sample and distances[place] > 0
            ],
        ),
    )


def _norm_outliers(norms: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows ``[n]`` far from the median; none where the median deviation is 0, for then there is no scale."""
    median = float(np.median(norms))
    distance = np.abs(norms - median)
    mad = float(np.median(distance))
    return (distance > max(OUTLIER_DEVIATIONS * MAD_TO_DEVIATION * mad, NORM_ROUNDING * median)) & (mad > 0)


def _figures(
    seen: _Pass,
    norms: NDArray[np.float64],
    *,
    outliers: NDArray[np.bool_],
    found: Duplicates,
    coverage: Coverage,
    moved: Drift | None,
) -> Quality:
    median = float(np.median(norms))
    return Quality(
        rows=seen.rows,
        dim=len(seen.low),
        zero_vectors=int(np.count_nonzero(norms == 0)),
        norm_median=median,
        norm_mad=float(np.median(np.abs(norms - median))),
        norm_min=float(norms.min()),
        norm_max=float(norms.max()),
        norm_outliers=int(np.count_nonzero(outliers)),
        duplicate_vectors=len(found.exact),
        suspicious_duplicates=len(found.suspicious),
        constant_dims=int(np.count_nonzero(seen.low == seen.high)) if seen.rows > 1 else 0,
        coverage=coverage,
        near_duplicates=len(found.near),
        drift=moved,
    )
