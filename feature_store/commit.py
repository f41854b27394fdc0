"""The commit: choose the rows, measure them, publish the manifest, or find that another writer was first.

In this order, each step durable before the next begins (see :mod:`feature_store.files`): shards; quarantine rows of
the run; the manifest, by put-if-absent under the next number; the clean-up of the quarantine. A snapshot is readable
from the moment its manifest has its name, and a crash anywhere before leaves the version before it and finished
shards, which the next plan finds.

Where another writer took the number, the commit starts over on what that writer published: it holds where the spec
is the same and no item is claimed with two contents, and fails with :class:`CommitConflictError` where not.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from feature_store import drift, faults, gates, quarantine
from feature_store import manifest as manifests
from feature_store.errors import CommitConflictError, DamagedStoreError, EmptySnapshotError, ShardError
from feature_store.files import AlreadyThereError, Files
from feature_store.gates import Gates
from feature_store.journal import Journal, StoredShard, live_rows
from feature_store.key import plain_spec
from feature_store.manifest import Counts, Manifest, Parent, ShardRecord
from feature_store.measure import measure
from feature_store.plan import Plan, catalogue_frame, known_bad, resolve, shard_records
from feature_store.rows import StoredRows
from feature_store.schema import EMBEDDING, Layout
from feature_store.snapshot import Snapshot

logger = logging.getLogger(__name__)

#: Called as ``progress(stage, done, total)``; ``total`` is None where it is not known.
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class CommitOptions:
    """What a caller may say about a commit.

    Attributes:
        catalogue_size: Items of the data set, for the coverage; None for the size of the plan's catalogue.
        recorded: Facts about the run to store in the manifest.
        drop_gone: Whether items that the catalogue does not name leave the snapshot.
        progress: Told how many rows were measured.
        gates: Limits that the figures must keep.
    """

    catalogue_size: int | None = None
    recorded: Mapping[str, Any] | None = None
    drop_gone: bool = False
    progress: Progress | None = None
    gates: Gates = field(default_factory=Gates)


def commit(files: Files, journal: Journal, plan: Plan, *, name: str, options: CommitOptions) -> Manifest:
    """Publish the snapshot that a plan and the finished shards amount to.

    Args:
        files: The store.
        journal: Its shards.
        plan: What was planned.
        name: ``<dataset>/<feature>``.
        options: What the caller says about it.

    Returns:
        The new manifest, or the latest one where nothing changed.

    Raises:
        CommitConflictError: When another writer committed something that this plan contradicts.
        EmptySnapshotError: When there is no row to publish.
        QualityGateError: When the figures do not keep the limits.
        ShardError: When shards of the spec differ in shape or type.
    """
    catalogue = catalogue_frame(plan.items)
    while True:
        head = manifests.head(files)
        shards = journal.find(plan.spec_hash, head)
        _check_base(files, plan, head=head, shards=shards, drop_gone=options.drop_gone)
        latest = head if head and head.spec_hash == plan.spec_hash else None
        chosen = resolve(live_rows(shards, latest), catalogue, keep_gone=not options.drop_gone)
        if chosen.is_empty():
            raise EmptySnapshotError(_nothing_to_commit(files, plan))
        records = shard_records(chosen, (shard.info for shard in shards))
        faults.reached("commit.resolved")
        if latest and {record.sha256: record.dead_rows for record in records} == latest.resolution():
            result = latest
            break
        result = _build(files, plan, name=name, head=head, shards=shards, chosen=chosen, options=options)
        faults.reached("commit.manifest")
        try:
            files.create(manifests.manifest_path(result.version), manifests.render(result))
            faults.reached("commit.published")
            break
        except AlreadyThereError:
            logger.info("%s: version %d was committed by another writer; rebasing", files.location, result.version)
    _settle_quarantine(files, plan, chosen)
    faults.reached("commit.settled")
    return result


def _check_base(files: Files, plan: Plan, *, head: Manifest | None, shards: list[StoredShard], drop_gone: bool) -> None:
    """Refuse to build on a version that another writer committed since the plan and that contradicts it.

    It does not contradict the plan when it has the same spec and the items it added are other items, or the same
    items with the same content.
    """
    version = head.version if head else None
    if head is None or version == plan.base:
        return
    where = f"{files.location}: version {version} was committed by another writer since this plan was made"
    if head.spec_hash != plan.spec_hash:
        raise CommitConflictError(
            f"{where}, with the spec {head.spec_hash[:12]} instead of {plan.spec_hash[:12]}; plan again, finished "
            "shards are reused"
        )
    base = manifests.load(files, plan.base) if plan.base in manifests.versions(files) and plan.base else None
    before = live_rows(shards, base).filter("live")
    added = live_rows(shards, head).filter("live").join(before, on=["item_id", "content_sha256"], how="anti")
    catalogue = catalogue_frame(plan.items)
    other = added.join(catalogue, on="item_id", how="inner", suffix="_planned")
    clash = other.filter(pl.col("content_sha256") != pl.col("content_sha256_planned"))
    if len(clash):
        raise CommitConflictError(
            f"{where}, with other contents for {len(clash)} of its items, first {clash['item_id'][0]!r}; plan again"
        )
    foreign = added.join(catalogue, on="item_id", how="anti")
    if drop_gone and len(foreign):
        raise CommitConflictError(
            f"{where}, with {len(foreign)} items that this commit would drop, first {foreign['item_id'][0]!r}; "
            "plan again"
        )


def _build(
    files: Files,
    plan: Plan,
    *,
    name: str,
    head: Manifest | None,
    shards: list[StoredShard],
    chosen: pl.DataFrame,
    options: CommitOptions,
) -> Manifest:
    records = shard_records(chosen, (shard.info for shard in shards))
    layout = _common_layout(files, shards, records)
    present = int(chosen["in_catalogue"].sum())
    bad = catalogue_frame(plan.items).join(
        known_bad(quarantine.read(files), plan.spec_hash), on=["item_id", "content_sha256"], how="semi"
    )
    rows = _rows(files, chosen, records, layout)
    progress = options.progress
    measured = measure(
        rows,
        catalogue_size=len(plan.items) if options.catalogue_size is None else options.catalogue_size,
        present=present,
        missing=catalogue_frame(plan.items)
        .join(chosen, on="item_id", how="anti", maintain_order="left")["item_id"]
        .to_list(),
        sample=_sample(files, head, rows),
        progress=progress and (lambda done: progress("measure", done, len(chosen))),
    )
    gates.check(options.gates, measured, where=files.location)
    return Manifest(
        format=manifests.FORMAT,
        version=head.version + 1 if head else 1,
        name=name,
        parent=parent_of(files, head),
        created_at=datetime.now(UTC),
        spec=plan.spec,
        spec_hash=plan.spec_hash,
        recorded=plain_spec(options.recorded or {}),
        columns=manifests.columns_of(layout),
        shards=records,
        counts=Counts(
            rows=len(chosen),
            dead_rows=sum(record.rows for record in records) - len(chosen),
            shards=len(records),
            bytes=sum(record.bytes for record in records),
            gone=len(chosen) - present,
            quarantined=len(bad.join(chosen, on="item_id", how="anti")),
        ),
        quality=measured.quality,
    )


def parent_of(files: Files, head: Manifest | None) -> Parent | None:
    """What the manifest after ``head`` says about it."""
    if head is None:
        return None
    data = files.read(manifests.manifest_path(head.version))
    return Parent(version=head.version, sha256=hashlib.sha256(data).hexdigest())


def _common_layout(files: Files, shards: list[StoredShard], records: tuple[ShardRecord, ...]) -> Layout:
    layouts = {shard.info.sha256: shard.layout for shard in shards}
    first = layouts[records[0].sha256]
    for record in records:
        if layouts[record.sha256] != first:
            raise ShardError(
                f"{files.location}: shards of one spec must agree, but {records[0].sha256[:12]} has {first} and "
                f"{record.sha256[:12]} has {layouts[record.sha256]}; what differs belongs in the spec"
            )
    return first


def _rows(files: Files, chosen: pl.DataFrame, records: tuple[ShardRecord, ...], layout: Layout) -> StoredRows:
    """The embeddings of the chosen rows, in the order in which the new version will hold them."""
    shards = [record.sha256 for record in records]
    numbers = pl.DataFrame({"shard": shards}).with_row_index("number")
    index = chosen.join(numbers, on="shard").sort("number", "row")
    index = index.select("item_id", "content_sha256", pl.col("number").alias("shard"), "row")
    dtype = np.dtype(layout.dtype)
    return StoredRows(files, shards, index, column=EMBEDDING, shape=(layout.dim,), dtype=dtype)


def _sample(files: Files, head: Manifest | None, rows: StoredRows) -> drift.Sample | None:
    """What to compare with the version before, where that can be read and has vectors of this width."""
    if head is None or head.columns[EMBEDDING].shape != rows.shape:
        return None
    try:
        return drift.draw(Snapshot(files, head), rows.ids)
    except DamagedStoreError as error:
        logger.warning("%s; no drift since version %d is measured", error, head.version)
        return None


def _settle_quarantine(files: Files, plan: Plan, chosen: pl.DataFrame) -> None:
    """Drop quarantine rows of planned items that have features now, or whose content is another one by now."""
    before = quarantine.paths(files)
    rows = quarantine.read(files)
    catalogue = catalogue_frame(plan.items)
    planned = rows.join(catalogue, on="item_id", how="inner", suffix="_planned")
    outdated = planned.filter(pl.col("content_sha256").ne_missing(pl.col("content_sha256_planned")))
    solved = planned.join(chosen, on="item_id", how="semi")
    dropped = pl.concat([outdated.select("item_id"), solved.select("item_id")])
    quarantine.fold(files, before, rows.join(dropped, on="item_id", how="anti", maintain_order="left"))


def _nothing_to_commit(files: Files, plan: Plan) -> str:
    bad = len(quarantine.read(files))
    what = f"none of the {len(plan.items)} items" if plan.items else "a catalogue without items"
    return (
        f"{files.location}: nothing to commit: {what} has features ({bad} in quarantine); "
        "`reelstore store quarantine NAME` says why each failed"
    )
