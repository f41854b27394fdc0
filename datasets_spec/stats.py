"""Figures that describe an interaction table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl


@dataclass(frozen=True)
class Spread:
    """Rows per user, or per item.

    Attributes:
        min: Fewest.
        mean: Mean.
        median: Median.
        max: Most.
        gini: 0 = all have equally many; near 1 = a few have nearly all.
    """

    min: int
    mean: float
    median: float
    max: int
    gini: float


@dataclass(frozen=True)
class Stats:
    """Figures of a dataset.

    Attributes:
        users: Distinct users.
        items: Distinct items.
        interactions: Rows.
        density: ``interactions / (users · items)``.
        per_user: Sequence lengths.
        per_item: Popularity.
        first: Earliest time, ISO 8601; None where the source has no time.
        last: Latest time.
    """

    users: int
    items: int
    interactions: int
    density: float
    per_user: Spread
    per_item: Spread
    first: str | None
    last: str | None

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values for the manifest."""
        return asdict(self)


def describe(interactions: pl.DataFrame) -> Stats:
    """Compute the figures.

    Args:
        interactions: At least one row; columns ``user`` and ``item`` (small numbers), ``timestamp``.

    Returns:
        The figures.

    Raises:
        ValueError: For an empty table.
    """
    if interactions.is_empty():
        raise ValueError("cannot describe an empty interaction table")
    per_user, per_item = (np.bincount(interactions[side].to_numpy()) for side in ("user", "item"))
    per_user, per_item = per_user[per_user > 0], per_item[per_item > 0]
    times = interactions.select(first=pl.col("timestamp").min(), last=pl.col("timestamp").max()).row(0)
    return Stats(
        users=len(per_user),
        items=len(per_item),
        interactions=interactions.height,
        density=interactions.height / (len(per_user) * len(per_item)),
        per_user=_spread(per_user),
        per_item=_spread(per_item),
        first=times[0].isoformat() if times[0] else None,
        last=times[1].isoformat() if times[1] else None,
    )


def gini(counts: npt.NDArray[np.integer[Any]]) -> float:
    """Gini coefficient of positive counts ``[n]``: ``Σ (2i - n - 1) x_i / (n Σ x_i)``, x ascending, i from 1."""
    ordered = np.sort(counts).astype(np.float64)
    n = len(ordered)
    ranks = np.arange(1, n + 1)
    return float(((2 * ranks - n - 1) * ordered).sum() / (n * ordered.sum()))


def _spread(counts: npt.NDArray[np.integer[Any]]) -> Spread:
    return Spread(
        min=int(counts.min()),
        mean=float(counts.mean()),
        median=float(np.median(counts)),
        max=int(counts.max()),
        gini=gini(counts),
    )
