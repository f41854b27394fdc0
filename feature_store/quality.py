"""Figures about the vectors of a snapshot, computed in one pass over its shards and kept in the manifest.

They describe; they do not judge. A snapshot with 300 zero vectors is committed, and whoever reads the manifest sees
the 300. Only what can never be right (numbers that are not finite, wrong shapes) is refused, by ``FeatureShard``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

#: A norm further than this many robust standard deviations from the median is an outlier.
OUTLIER_DEVIATIONS = 6.0

#: Median absolute deviation times this estimates the standard deviation of a normal distribution.
MAD_TO_DEVIATION = 1.4826


class Coverage(BaseModel):
    """How much of the catalogue has features.

    Attributes:
        catalogue: Items of the catalogue.
        present: Those with a live row.
        share: ``present / catalogue``; 1 for an empty catalogue.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    catalogue: int
    present: int
    share: float


class Quality(BaseModel):
    """Figures about the column ``embedding`` of the live rows.

    Attributes:
        rows: Live rows.
        dim: Width.
        zero_vectors: Rows whose numbers are all 0.
        norm_median: Median of the Euclidean norms.
        norm_mad: Median absolute deviation of the norms from their median.
        norm_min: Smallest norm.
        norm_max: Largest norm.
        norm_outliers: Rows whose norm is more than 6 robust standard deviations (1.4826 · MAD) from the median;
            where the MAD is 0 there is no scale to judge by, and the count is 0.
        duplicate_vectors: Rows whose vector, bit by bit, an earlier row has.
        suspicious_duplicates: Of these, rows whose content differs from the first row with that vector.
        constant_dims: Dimensions with the same number in every row (0 where there is but one row).
        coverage: How much of the catalogue has features.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int
    dim: int
    zero_vectors: int
    norm_median: float
    norm_mad: float
    norm_min: float
    norm_max: float
    norm_outliers: int
    duplicate_vectors: int
    suspicious_duplicates: int
    constant_dims: int
    coverage: Coverage


def measure(blocks: Iterable[tuple[NDArray[np.generic], list[bytes]]], *, catalogue_size: int, present: int) -> Quality:
    """Compute the figures.

    Args:
        blocks: Pieces of the snapshot: vectors ``[b, d]`` of the stored type, and the content hash of each row.
        catalogue_size: Items of the catalogue.
        present: Items of the catalogue that have a live row.

    Returns:
        The figures; at least one row is needed.
    """
    norms: list[NDArray[np.float64]] = []
    first_content: dict[bytes, bytes] = {}
    duplicates = suspicious = 0
    low: NDArray[np.float32] | None = None
    high: NDArray[np.float32] | None = None
    for vectors, contents in blocks:
        wide = vectors.astype(np.float32)  # exact, and numpy is slow on float16
        norms.append(np.sqrt(np.einsum("bd,bd->b", wide, wide, dtype=np.float64)))
        low = wide.min(axis=0) if low is None else np.minimum(low, wide.min(axis=0))
        high = wide.max(axis=0) if high is None else np.maximum(high, wide.max(axis=0))
        for vector, content in zip(np.ascontiguousarray(vectors), contents, strict=True):
            fingerprint = hashlib.blake2b(vector, digest_size=16).digest()
            if fingerprint in first_content:
                duplicates += 1
                suspicious += first_content[fingerprint] != content
            else:
                first_content[fingerprint] = content
    if low is None or high is None:
        raise ValueError("expected at least one row to measure")
    return _summary(
        np.concatenate(norms),
        dim=len(low),
        duplicates=(duplicates, suspicious),
        constant=int(np.count_nonzero(low == high)),
        coverage=Coverage(
            catalogue=catalogue_size,
            present=present,
            share=present / catalogue_size if catalogue_size else 1.0,
        ),
    )


def _summary(
    norms: NDArray[np.float64], *, dim: int, duplicates: tuple[int, int], constant: int, coverage: Coverage
) -> Quality:
    median = float(np.median(norms))
    distance = np.abs(norms - median)
    mad = float(np.median(distance))
    limit = OUTLIER_DEVIATIONS * MAD_TO_DEVIATION * mad
    return Quality(
        rows=len(norms),
        dim=dim,
        zero_vectors=int(np.count_nonzero(norms == 0)),
        norm_median=median,
        norm_mad=mad,
        norm_min=float(norms.min()),
        norm_max=float(norms.max()),
        norm_outliers=int(np.count_nonzero(distance > limit)) if mad > 0 else 0,
        duplicate_vectors=duplicates[0],
        suspicious_duplicates=duplicates[1],
        constant_dims=constant if len(norms) > 1 else 0,
        coverage=coverage,
    )
