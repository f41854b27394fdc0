"""How old every store is, and what extracts a stale one again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from datasets_spec.dataset import read_manifest
from datasets_spec.errors import DamagedFileError
from feature_store import NoSnapshotError, list_stores
from flows.settings import Settings

#: Before the variant or category in a dataset's name; ``shortvideo`` itself has none.
FAMILIES = ("microlens", "amazon", "shortvideo")


@dataclass(frozen=True)
class Age:
    """One store.

    Attributes:
        store: ``<dataset>/<feature>``.
        version: Its latest version.
        age_days: Days since that was committed.
        limit_days: Age above which it counts as stale.
        toy: Whether its vectors come from seeded toy weights.
    """

    store: str
    version: int
    age_days: float
    limit_days: float
    toy: bool

    @property
    def dataset(self) -> str:
        """The part of the name before the slash."""
        return self.store.split("/")[0]

    @property
    def feature(self) -> str:
        """The part of the name after the slash."""
        return self.store.split("/")[1]

    @property
    def stale(self) -> bool:
        """Whether it is older than it may be."""
        return self.age_days > self.limit_days

    def as_dict(self) -> dict[str, Any]:
        """A row of the table."""
        return {**asdict(self), "age_days": round(self.age_days, 2), "stale": self.stale}


def ages(settings: Settings, max_age_days: float, overrides: Mapping[str, float]) -> list[Age]:
    """The age of every store that holds something.

    Args:
        settings: Places.
        max_age_days: Limit of stores that ``overrides`` does not name.
        overrides: Limit by dataset.
    """
    found: list[Age] = []
    for name, store in list_stores(settings.stores):
        try:
            manifest = store.latest().manifest
        except NoSnapshotError:
            continue
        age = (datetime.now(UTC) - manifest.created_at).total_seconds() / 86400
        limit = overrides.get(name.split("/")[0], max_age_days)
        toy = bool(manifest.spec.get("checkpoint", {}).get("toy", False))
        found.append(Age(name, manifest.version, age, limit, toy))
    return found


def refresh_parameters(settings: Settings, stale: list[Age]) -> dict[str, Any]:
    """What an extraction of one dataset needs to know to bring its stale stores up to date as they were made.

    Args:
        settings: Places.
        stale: Stale stores of one dataset.

    Returns:
        ``variant`` (the end of the dataset's name, ``full`` where it is only that of the family), ``features``,
        ``checkpoint`` (``tiny`` for toy stores, else None) and ``limit`` (the number of items that the dataset was cut
        to, else None).
    """
    dataset = stale[0].dataset
    family, _, variant = dataset.partition("-")
    try:
        manifest = read_manifest(settings.prepared(dataset)) or {}
    except DamagedFileError:
        manifest = {}
    return {
        "variant": (variant or "full") if family in FAMILIES else dataset,
        "features": sorted(age.feature for age in stale),
        "checkpoint": "tiny" if all(age.toy for age in stale) else None,
        "limit": manifest.get("config", {}).get("limit"),
    }
