"""``Plan``: what has to be encoded so that the store holds a catalogue under a spec.

An item is done when a finished shard holds a row with its id, its content hash and the spec's hash. What else is
live stays live: items that the catalogue no longer names are kept (a catalogue may be a part of the data set) unless
the commit is told to drop them. A row whose content is no longer that of the item is superseded with the next commit,
even where the new content could not be encoded: an absent feature is honest, an outdated one is not. Where an item's
content cannot be read any more, nothing says that its row is outdated: the row stays, and the content it was made
from stands for the item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from feature_store.journal import StoredShard, live_rows
from feature_store.manifest import Manifest, ShardInfo, ShardRecord, compress_ranges
from feature_store.schema import Layout


@dataclass(frozen=True, repr=False)
class Plan:
    """What a run has to do.

    Attributes:
        spec: The spec as plain JSON values.
        spec_hash: Its hash, without what stands under ``recorded``.
        items: The catalogue: item id to the 32-byte SHA-256 of its content; the last one known for those of
            ``source_gone``.
        todo: Ids to encode, in the order of the catalogue.
        reused: Items that need no work: live in the latest snapshot, or in a finished shard of an earlier run.
        known_bad: Ids in quarantine with the same content and spec; they are not tried again until ``retry``.
        gone: Items live in the latest snapshot that the catalogue does not name.
        source_gone: Ids whose content cannot be read any more and whose live rows stay; they are no failures.
        changed: Whether there is anything to encode or to commit.
        base: The version that the plan starts from, None for an empty store.
        layout: Shape and type of the rows that there are, None where there are none yet.
    """

    spec: dict[str, Any]
    spec_hash: str
    items: Mapping[str, bytes]
    todo: list[str]
    reused: int
    known_bad: list[str]
    gone: int
    source_gone: list[str]
    changed: bool
    base: int | None
    layout: Layout | None = field(default=None)

    def __repr__(self) -> str:
        """Counts instead of ids."""
        return (
            f"Plan(spec {self.spec_hash[:12]}, items={len(self.items)}, todo={len(self.todo)}, reused={self.reused}, "
            f"known_bad={len(self.known_bad)}, gone={self.gone}, source_gone={len(self.source_gone)}, "
            f"changed={self.changed})"
        )


def catalogue_frame(items: Mapping[str, bytes]) -> pl.DataFrame:
    """``item_id``, ``content_sha256`` in the order of the catalogue."""
    columns = {"item_id": list(items), "content_sha256": list(items.values())}
    return pl.DataFrame(columns, schema={"item_id": pl.String, "content_sha256": pl.Binary})


def resolve(rows: pl.DataFrame, catalogue: pl.DataFrame, *, keep_gone: bool) -> pl.DataFrame:
    """Choose the one row that stands for each item.

    Args:
        rows: All rows of the usable shards, see :func:`feature_store.journal.live_rows`.
        catalogue: ``item_id``, ``content_sha256``.
        keep_gone: Whether live rows of items that the catalogue does not name stay.

    Returns:
        The chosen rows with the column ``in_catalogue``. Of several equal rows a live one is preferred, then the
        first by shard name, so that two writers choose alike.
    """
    matching = rows.join(catalogue, on=["item_id", "content_sha256"], how="semi").with_columns(
        in_catalogue=pl.lit(value=True)
    )
    chosen = matching.sort(~pl.col("live"), "shard", "row").unique("item_id", keep="first", maintain_order=True)
    if not keep_gone:
        return chosen
    gone = rows.filter("live").join(catalogue, on="item_id", how="anti")
    return pl.concat([chosen, gone.with_columns(in_catalogue=pl.lit(value=False))])


def shard_records(chosen: pl.DataFrame, shards: Iterable[ShardInfo]) -> tuple[ShardRecord, ...]:
    """The shards that hold chosen rows (columns ``shard``, ``row``), each with its dead rows, by smallest id."""
    kept = {name: frame["row"].to_list() for (name,), frame in chosen.group_by("shard")}
    records: list[ShardRecord] = []
    for info in shards:
        if info.sha256 in kept:
            dead = sorted(set(range(info.rows)).difference(kept[info.sha256]))
            facts = info.model_dump(include=set(ShardInfo.model_fields))
            records.append(ShardRecord(**facts, dead_rows=compress_ranges(dead)))
    return tuple(sorted(records, key=lambda record: (record.id_min, record.sha256)))


def make_plan(
    spec: dict[str, Any],
    spec_hash: str,
    *,
    items: Mapping[str, bytes],
    unreadable: Iterable[str],
    shards: list[StoredShard],
    head: Manifest | None,
    quarantined: pl.DataFrame,
) -> Plan:
    """Compare a catalogue with what the store holds.

    Args:
        spec: The spec as plain JSON values.
        spec_hash: Its hash.
        items: The catalogue.
        unreadable: More items of the catalogue, whose content cannot be read now.
        shards: Usable shards of the spec.
        head: The latest manifest, of whatever spec.
        quarantined: The quarantine.
    """
    same_spec = head is not None and head.spec_hash == spec_hash
    rows = live_rows(shards, head if same_spec else None)
    source_gone = _last_known(rows, [item_id for item_id in unreadable if item_id not in items])
    items = {**items, **source_gone}
    catalogue = catalogue_frame(items)
    chosen = resolve(rows, catalogue, keep_gone=True)
    done = chosen.filter("in_catalogue")
    missing = catalogue.join(done, on="item_id", how="anti", maintain_order="left")
    bad = known_bad(quarantined, spec_hash)
    tried = missing.join(bad, on=["item_id", "content_sha256"], how="semi", maintain_order="left")
    todo = missing.join(tried, on="item_id", how="anti", maintain_order="left")["item_id"].to_list()
    changed = bool(todo) or _differs(chosen, shards, head if same_spec else None)
    return Plan(
        spec=spec,
        spec_hash=spec_hash,
        items=items,
        todo=todo,
        reused=len(done),
        known_bad=tried["item_id"].to_list(),
        gone=len(chosen) - len(done),
        source_gone=list(source_gone),
        changed=changed,
        base=head.version if head else None,
        layout=shards[0].layout if shards else None,
    )


def _differs(chosen: pl.DataFrame, shards: list[StoredShard], head: Manifest | None) -> bool:
    """Whether the chosen rows, if there are any, are others than those that a manifest of their spec lists."""
    resolution = {record.sha256: record.dead_rows for record in shard_records(chosen, (shard.info for shard in shards))}
    return bool(resolution) and (head is None or resolution != head.resolution())


def _last_known(rows: pl.DataFrame, item_ids: list[str]) -> dict[str, bytes]:
    """The content that the live row of each of these items was made from, for those that have one."""
    wanted = pl.DataFrame({"item_id": item_ids}, schema={"item_id": pl.String})
    live = wanted.join(rows.filter("live"), on="item_id", maintain_order="left")
    return dict(live.select("item_id", "content_sha256").iter_rows())


def known_bad(quarantined: pl.DataFrame, spec_hash: str) -> pl.DataFrame:
    """Quarantine rows that keep an item out of a plan under this spec."""
    return quarantined.filter((pl.col("spec_hash") == spec_hash) & ~pl.col("retry"))
