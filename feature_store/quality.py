"""Figures about the vectors of a snapshot, kept in its manifest; :mod:`feature_store.measure` computes them.

They describe; whether a commit may have them is for :mod:`feature_store.gates` to say. What can never be right (numbers
that are not finite, wrong shapes) does not come this far: ``FeatureShard`` refuses it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


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


class Drift(BaseModel):
    """Figures about the compared items, before and after.

    Attributes:
        version: The version that is compared with.
        common: Items that both have.
        compared: How many of them were compared.
        distance: Mean of 1 - cosine between an item's two vectors; an item with a zero vector in one of the versions
            alone counts as 1, with zero vectors in both as 0.
        cosine: Quantiles ``min``, ``p01``, ``p05``, ``p50`` of the cosine where both vectors have a direction.
        norm_before: Quantiles ``p05``, ``p50``, ``p95`` of the Euclidean norms in the older version.
        norm_after: The same in the newer one.
        mean_shift: Largest change of a dimension's mean, in standard deviations of the older version; dimensions
            that were constant are left out.
        mean_shift_dim: The dimension, -1 where all were constant.
        variance_ratio: ``min`` and ``max`` over the same dimensions of the newer variance over the older.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int
    common: int
    compared: int
    distance: float
    cosine: dict[str, float]
    norm_before: dict[str, float]
    norm_after: dict[str, float]
    mean_shift: float
    mean_shift_dim: int
    variance_ratio: dict[str, float]


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
        norm_outliers: Rows whose norm is more than 6 robust standard deviations (1.4826 · MAD), and more than 0.1 % of
            the median, from the median; where the MAD is 0 there is no scale to judge by, and the count is 0.
        duplicate_vectors: Rows whose vector, bit by bit, an earlier row has.
        suspicious_duplicates: Of these, rows whose content differs from the first row with that vector.
        constant_dims: Dimensions with the same number in every row (0 where there is but one row).
        coverage: How much of the catalogue has features.
        near_duplicates: Rows that are near an earlier row without being equal to any, see
            :mod:`feature_store.duplicates`; None in manifests that were written before this was measured.
        drift: How far common items moved since the version before; None where there is none to compare with.
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
    near_duplicates: int | None = None
    drift: Drift | None = None

    @model_serializer(mode="wrap")
    def _known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not measured, so that an older manifest is written as it was read."""
        return {name: value for name, value in handler(self).items() if value is not None}
