"""How far the vectors of the items that two versions share moved.

At most 10 000 common items are compared, evenly spaced over the newer version. A row that was taken over unchanged has
moved by nothing; what moves is what was encoded anew, for another content or under another spec.

Shape legend: s sampled items, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_store.quality import Drift
from feature_store.snapshot import Snapshot

#: Common items that are compared, at most.
MAX_ITEMS = 10_000


@dataclass(frozen=True)
class Sample:
    """Items to compare.

    Attributes:
        version: The version that is compared with.
        common: Items that both versions have.
        rows: Row numbers in the newer version, ascending.
        ids: Their items.
        before: float32 ``[s, d]``: their vectors in the older version.
    """

    version: int
    common: int
    rows: NDArray[np.int64]
    ids: list[str]
    before: NDArray[np.float32]


def draw(previous: Snapshot, ids: list[str]) -> Sample | None:
    """Choose what to compare.

    Args:
        previous: The older version.
        ids: Item ids of the newer one, in the order of its rows.

    Returns:
        The sample; None where the versions share no item.

    Raises:
        DamagedStoreError: When a shard of the older version is missing or damaged.
    """
    newer = pl.DataFrame({"item_id": ids}, schema={"item_id": pl.String}).with_row_index("row")
    shared = newer.join(previous.index.select("item_id"), on="item_id", how="semi", maintain_order="left")
    if shared.is_empty():
        return None
    chosen = shared.gather_every(-(-len(shared) // MAX_ITEMS))
    names = chosen["item_id"].to_list()
    rows = chosen["row"].to_numpy().astype(np.int64)
    return Sample(previous.version, len(shared), rows, names, previous.matrix(names).values)


def compare(sample: Sample, after: NDArray[np.float32]) -> tuple[Drift, NDArray[np.float64]]:
    """Compute the figures.

    Args:
        sample: What was chosen.
        after: float32 ``[s, d]``: the vectors of its items in the newer version.

    Returns:
        The figures, and 1 - cosine of each item ``[s]``.
    """
    old, new = sample.before.astype(np.float64), after.astype(np.float64)
    norm_old, norm_new = np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)
    both = (norm_old > 0) & (norm_new > 0)
    distance = np.where((norm_old > 0) == (norm_new > 0), 0.0, 1.0)
    cosine = np.einsum("sd,sd->s", old[both], new[both]) / (norm_old[both] * norm_new[both])
    distance[both] = np.clip(1 - cosine, 0, 2)
    distance[(old == new).all(axis=1)] = 0  # without the rounding of the cosine
    deviation = old.std(axis=0)
    moving = np.flatnonzero(deviation > 0)
    shift = np.abs(new.mean(axis=0) - old.mean(axis=0))[moving] / deviation[moving]
    ratio = new.var(axis=0)[moving] / deviation[moving] ** 2
    figures = Drift(
        version=sample.version,
        common=sample.common,
        compared=len(after),
        distance=float(distance.mean()),
        cosine=_quantiles(cosine, {"min": 0.0, "p01": 0.01, "p05": 0.05, "p50": 0.5}),
        norm_before=_quantiles(norm_old, {"p05": 0.05, "p50": 0.5, "p95": 0.95}),
        norm_after=_quantiles(norm_new, {"p05": 0.05, "p50": 0.5, "p95": 0.95}),
        mean_shift=float(shift.max(initial=0.0)),
        mean_shift_dim=int(moving[shift.argmax()]) if len(moving) else -1,
        variance_ratio=_quantiles(ratio, {"min": 0.0, "max": 1.0}),
    )
    return figures, distance


def _quantiles(values: NDArray[np.float64], levels: dict[str, float]) -> dict[str, float]:
    """Quantiles by name; empty for no values."""
    if not len(values):
        return {}
    return dict(zip(levels, np.quantile(values, list(levels.values())).tolist(), strict=True))
