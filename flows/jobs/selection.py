"""Which part of the work a run does: a backfill of some shards, of what failed, or of files that are new."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from feature_store import FeatureStore
from feature_store.plan import Plan


@dataclass(frozen=True)
class Selection:
    """What is to be done of what could be.

    Attributes:
        started: When the job started. What failed since then has had its turn and is not retried again, by whichever
            of the job's processes.
        only: ``failed``: retry what is in quarantine, and encode nothing else.
        shards: Numbers of shards; None for all.
        since: Only items whose file was modified at that time or later; None for all.
    """

    started: datetime
    only: str | None = None
    shards: frozenset[int] | None = None
    since: datetime | None = None

    @property
    def partial(self) -> bool:
        """Whether some work may be left undone."""
        return self.only is not None or self.shards is not None or self.since is not None

    def narrow(
        self, plan: Plan, store: FeatureStore, *, shards: Sequence[Sequence[str]], files: Mapping[str, Path]
    ) -> Plan:
        """A plan that has nothing to do but what is selected.

        Args:
            plan: What could be done.
            store: The store that it was made from.
            shards: Item ids by shard number.
            files: Files of the items; empty for texts.
        """
        if not self.partial:
            return plan
        wanted = set(plan.todo)
        if self.only == "failed":
            wanted = wanted.union(plan.known_bad).intersection(self._failed(plan, store))
        if self.shards is not None:
            wanted &= {item_id for number in self.shards if number < len(shards) for item_id in shards[number]}
        if self.since is not None:
            wanted = {item_id for item_id in wanted if _modified(files[item_id]) >= self.since}
        return dataclasses.replace(
            plan,
            todo=[item_id for item_id in plan.items if item_id in wanted],
            known_bad=[item_id for item_id in plan.known_bad if item_id not in wanted],
        )

    def _failed(self, plan: Plan, store: FeatureStore) -> set[str]:
        """Items that were in quarantine under this spec when the job started."""
        before = (pl.col("spec_hash") == plan.spec_hash) & (pl.col("last_seen") < self.started)
        return set(store.quarantined().filter(before)["item_id"])


def _modified(path: Path) -> datetime:
    """When a file was modified last; a file that is gone counts as old."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.min.replace(tzinfo=UTC)
