"""Gates: limits that the figures of a commit must keep, or nothing is published.

They stand in the table ``[gates]`` of a feature's configuration. What was encoded stays in finished shards, so that a
rerun, with repaired items or with other limits, encodes nothing that is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from feature_store.errors import QualityGateError
from feature_store.measure import Measured
from feature_store.quality import Quality

#: Item ids that the message of a failed gate names, at most.
NAMED = 20


class Gates(BaseModel):
    """Limits; None judges nothing.

    Attributes:
        min_coverage: Smallest share of the catalogue's items that must have features.
        max_zero: Largest share of rows that may be zero vectors.
        max_norm_outliers: Largest share of rows whose norm may be an outlier.
        max_suspicious_duplicates: Largest share of rows that may equal, bit by bit, a row of other content.
        max_near_duplicates: Largest share of rows that may be near another without being equal to it.
        max_constant_dims: Largest share of dimensions that may have the same number in every row.
        max_drift: Largest mean of 1 - cosine between the vectors of common items here and in the version before,
            from 0 (none moved) to 2.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_coverage: float | None = Field(default=None, ge=0, le=1)
    max_zero: float | None = Field(default=None, ge=0, le=1)
    max_norm_outliers: float | None = Field(default=None, ge=0, le=1)
    max_suspicious_duplicates: float | None = Field(default=None, ge=0, le=1)
    max_near_duplicates: float | None = Field(default=None, ge=0, le=1)
    max_constant_dims: float | None = Field(default=None, ge=0, le=1)
    max_drift: float | None = Field(default=None, ge=0, le=2)


@dataclass(frozen=True)
class Failure:
    """A gate that did not hold.

    Attributes:
        gate: Its name, such as ``max_zero``.
        limit: What was allowed.
        detail: The figures in words.
        items: The items behind them.
    """

    gate: str
    limit: float
    detail: str
    items: tuple[str, ...]

    def __str__(self) -> str:
        """One line, with the first items."""
        named = ", ".join(self.items[:NAMED])
        more = f" and {len(self.items) - NAMED} more" if len(self.items) > NAMED else ""
        return f"{self.gate} = {self.limit:g}: {self.detail}" + (f": {named}{more}" if named else "")


def check(gates: Gates, measured: Measured, *, where: str) -> None:
    """Compare the figures with the limits.

    Args:
        gates: The limits.
        measured: The figures.
        where: The store, for the message.

    Raises:
        QualityGateError: Naming every gate that did not hold, its figures and the first of its items.
    """
    failures = [failure for failure in _failures(gates, measured) if failure is not None]
    if failures:
        lines = "\n".join(f"  {failure}" for failure in failures)
        raise QualityGateError(
            f"{where}: nothing was published, for {len(failures)} of its quality gates did not hold; what was encoded "
            "is kept, and a rerun with repaired items or another limit (such as gates."
            f"{failures[0].gate}=VALUE) encodes nothing anew\n{lines}"
        )


def _failures(gates: Gates, measured: Measured) -> Iterator[Failure | None]:
    quality, found = measured.quality, measured.findings
    rows = quality.rows
    yield _coverage(gates.min_coverage, measured)
    yield _share("max_zero", gates.max_zero, rows, "are zero vectors", _quoted(found.zero))
    outlying = f"have a norm far from the median {quality.norm_median:.6g} (MAD {quality.norm_mad:.3g})"
    yield _share("max_norm_outliers", gates.max_norm_outliers, rows, outlying, _quoted(found.norm_outliers))
    same = "equal a row of other content bit by bit"
    yield _share("max_suspicious_duplicates", gates.max_suspicious_duplicates, rows, same, _quoted(found.suspicious))
    pairs = tuple(f"{item!r} (near {earlier!r})" for item, earlier in found.near)
    yield _share("max_near_duplicates", gates.max_near_duplicates, rows, "are near another row", pairs)
    yield _constant(gates.max_constant_dims, quality)
    yield _drift(gates.max_drift, measured)


def _coverage(limit: float | None, measured: Measured) -> Failure | None:
    coverage, missing = measured.quality.coverage, measured.findings.missing
    if limit is None or coverage.share >= limit:
        return None
    detail = f"{coverage.present} of {coverage.catalogue} items ({coverage.share:.2%}) have features"
    unnamed = coverage.catalogue - coverage.present - len(missing)
    if unnamed > 0:
        detail += f"; {unnamed} had nothing to encode"
    return Failure("min_coverage", limit, detail + ("; without" if missing else ""), _quoted(missing))


def _constant(limit: float | None, quality: Quality) -> Failure | None:
    share = quality.constant_dims / quality.dim
    if limit is None or share <= limit:
        return None
    detail = f"{quality.constant_dims} of {quality.dim} dimensions ({share:.2%}) have the same number in every row"
    return Failure("max_constant_dims", limit, detail, ())


def _drift(limit: float | None, measured: Measured) -> Failure | None:
    moved = measured.quality.drift
    if limit is None or moved is None or moved.distance <= limit:
        return None
    detail = (
        f"{moved.compared} common items moved by {moved.distance:.3g} on average (1 - cosine) since version "
        f"{moved.version}; furthest"
    )
    items = tuple(f"{item!r} ({distance:.3g})" for item, distance in measured.findings.moved)
    return Failure("max_drift", limit, detail, items)


def _share(gate: str, limit: float | None, rows: int, what: str, items: tuple[str, ...]) -> Failure | None:
    """The failure of a gate on a share of rows, if it fails."""
    share = len(items) / rows
    if limit is None or share <= limit:
        return None
    return Failure(gate, limit, f"{len(items)} of {rows} rows ({share:.2%}) {what}", items)


def _quoted(items: Sequence[str]) -> tuple[str, ...]:
    return tuple(repr(item) for item in items)
