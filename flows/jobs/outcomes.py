"""What became of the items of an extraction: each is a row, or in quarantine with a reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from feature_store import FeatureStore, NoSnapshotError
from flows.errors import WorkError

_UNSELECTED = "still to do, and not part of what this run was asked for"


@dataclass(frozen=True)
class ItemOutcome:
    """What became of one item in one feature.

    Attributes:
        feature: Encoder.
        item_id: The item.
        file: Name of its file; empty for texts.
        outcome: ``row``, ``quarantined``, or ``missing`` for what was not asked for.
        n_distinct: How many of the sampled frames differ; None but for rows of video features.
        reason: Why there is no row; empty for a row.
        detail: One sentence about it.
    """

    feature: str
    item_id: str
    file: str
    outcome: Literal["row", "quarantined", "missing"]
    n_distinct: int | None = None
    reason: str = ""
    detail: str = ""


def quarantined(feature: str, store: FeatureStore, files: Mapping[str, str]) -> list[ItemOutcome]:
    """The quarantined ones among some items.

    Args:
        feature: Encoder.
        store: Its store.
        files: Item id and name of the file.
    """
    rows = store.quarantined().select("item_id", "reason", "detail").iter_rows()
    found = {item_id: (reason, detail) for item_id, reason, detail in rows}
    return [
        ItemOutcome(feature, item_id, file, "quarantined", None, *found[item_id])
        for item_id, file in files.items()
        if item_id in found
    ]


def of_all(
    feature: str, store: FeatureStore, files: Mapping[str, str], *, unselected: Collection[str] = ()
) -> list[ItemOutcome]:
    """The outcome of every item, in order.

    Args:
        feature: Encoder.
        store: Its store.
        files: Item id and name of the file.
        unselected: Items that are still to do and were not asked for.

    Raises:
        WorkError: When an item is neither a row nor in quarantine.
    """
    bad = {outcome.item_id: outcome for outcome in quarantined(feature, store, files)}
    for item_id in unselected:
        bad.setdefault(
            item_id, ItemOutcome(feature, item_id, files[item_id], "missing", None, "not_selected", _UNSELECTED)
        )
    distinct = distinct_frames(store, [item_id for item_id in files if item_id not in bad])
    return [
        bad.get(item_id) or ItemOutcome(feature, item_id, file, "row", distinct[item_id])
        for item_id, file in files.items()
    ]


def distinct_frames(store: FeatureStore, item_ids: Sequence[str]) -> dict[str, int | None]:
    """Of each item, how many of its frames differ; None in a store that does not hold videos.

    Raises:
        WorkError: When one of them has no row: every item is a row or has its reason in quarantine.
    """
    if not item_ids:
        return {}
    try:
        snapshot = store.latest()
    except NoSnapshotError:
        raise WorkError(f"{store.name}: {len(item_ids)} items are neither rows nor in quarantine") from None
    column = "n_distinct" if "n_distinct" in snapshot.columns else "embedding"
    found = snapshot.matrix(item_ids, column)
    if not found.present.all():
        lost = [item_id for item_id, there in zip(item_ids, found.present, strict=True) if not there]
        raise WorkError(f"{store.name}: {len(lost)} items are neither rows nor in quarantine, such as {lost[0]!r}")
    if column == "embedding":
        return dict.fromkeys(item_ids)
    return {item_id: int(value) for item_id, value in zip(item_ids, found.values, strict=True)}
