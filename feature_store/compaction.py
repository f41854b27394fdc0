"""Compaction: the same rows in few large shards, ordered by item id, without superseded ones.

Row ``k`` of the new shards is row ``k`` of the snapshot sorted by ``item_id``, so that the id ranges of shards and row
groups are disjoint and a reader with a filter on ``item_id`` skips most of them. Vectors are copied, never computed,
and the new version holds what the old one held. Old shards stay until ``gc``: readers of older versions go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_store import faults
from feature_store import manifest as manifests
from feature_store.commit import Progress, parent_of
from feature_store.errors import CommitConflictError, SpecError
from feature_store.files import AlreadyThereError, Files
from feature_store.manifest import Manifest, ShardInfo, manifest_path
from feature_store.plan import shard_records
from feature_store.reader import open_shard
from feature_store.schema import EMBEDDING, FRAMES, N_DISTINCT, PIXELS
from feature_store.shard import FeatureShard
from feature_store.snapshot import Snapshot
from feature_store.writer import Compression, write_shard

logger = logging.getLogger(__name__)

#: Bytes of vectors in one compacted shard; three times that is held in memory while it is written.
TARGET_BYTES = 256_000_000

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a snapshot in the order of ``item_id``.

    Attributes:
        start: Number of the first row.
        rows: ``item_id``, ``content_sha256``, ``shard``, ``row`` and ``place`` (position in the snapshot's index).
        read: Reads the vectors.
    """

    start: int
    rows: pl.DataFrame
    read: Callable[[], FeatureShard]


def compact(
    files: Files,
    *,
    target_bytes: int = TARGET_BYTES,
    compression: Compression = "none",
    progress: Progress | None = None,
) -> Manifest:
    """Publish the latest snapshot as a version of large shards.

    A commit of the same spec that comes in between is kept: rows it superseded are dead in the new shards, rows it
    added stay where they are.

    Args:
        files: The store.
        target_bytes: Bytes of vectors in one shard.
        compression: ``none``, or ``zstd`` for copies far away.
        progress: Called as ``progress("compact", rows done, rows)``.

    Returns:
        The new manifest, or the latest one where it is compact already.

    Raises:
        NoSnapshotError: When nothing was committed yet.
        SpecError: When ``target_bytes`` is below 1.
        CommitConflictError: When another writer committed another spec in the meantime.
        DamagedStoreError: When a shard is missing or damaged.
    """
    if target_bytes < 1:
        raise SpecError(f"compact: expected target_bytes >= 1, got {target_bytes}")
    source = Snapshot(files, manifests.load_latest(files))
    moved, written = _rewrite(files, source, target_bytes=target_bytes, compression=compression, progress=progress)
    head = source.manifest
    while True:
        result = _build(files, head, moved, written)
        if result.resolution() == head.resolution():
            return head
        faults.reached("compact.manifest")
        try:
            files.create(manifest_path(result.version), manifests.render(result))
        except AlreadyThereError:
            logger.info("%s: version %d was committed by another writer; rebasing", files.location, result.version)
        else:
            faults.reached("compact.published")
            return result
        head = manifests.load_latest(files)
        if head.spec_hash != source.spec_hash:
            raise CommitConflictError(
                f"{files.location}: version {head.version} was committed with the spec {head.spec_hash[:12]} while "
                f"version {source.version} of {source.spec_hash[:12]} was compacted; compact again"
            )


def chunks(snapshot: Snapshot, target_bytes: int) -> Iterator[Chunk]:
    """The rows of a snapshot in the order of ``item_id``, in pieces of at most ``target_bytes`` of vectors."""
    columns = snapshot.manifest.columns
    row_bytes = sum(int(np.prod(info.shape)) * np.dtype(info.dtype).itemsize for info in columns.values())
    step = max(1, target_bytes // row_bytes)
    ordered = snapshot.index.with_row_index("place").sort("item_id")
    for start in range(0, len(ordered), step):
        rows = ordered.slice(start, step)
        yield Chunk(start, rows, lambda rows=rows: _read(snapshot, rows))


def _read(snapshot: Snapshot, rows: pl.DataFrame) -> FeatureShard:
    places = rows["place"].to_numpy().astype(np.int64)
    columns = snapshot.columns
    kind = np.dtype(snapshot.manifest.columns[EMBEDDING].dtype)
    return FeatureShard(
        rows["item_id"].to_list(),
        rows["content_sha256"].to_list(),
        _gather(snapshot, EMBEDDING, places, kind),
        _gather(snapshot, FRAMES, places, kind) if FRAMES in columns else None,
        _gather(snapshot, N_DISTINCT, places, np.dtype(np.uint8)) if N_DISTINCT in columns else None,
        _gather(snapshot, PIXELS, places, np.dtype(np.uint8)) if PIXELS in columns else None,
    )


def _gather(snapshot: Snapshot, column: str, places: NDArray[np.int64], kind: np.dtype[_Number]) -> NDArray[_Number]:
    stored = snapshot.stored(column)
    values = np.empty((len(places), *stored.shape), kind)
    order = np.argsort(places)
    stored.copy_into(values, order, places[order])
    return values


def _rewrite(
    files: Files, source: Snapshot, *, target_bytes: int, compression: Compression, progress: Progress | None
) -> tuple[pl.DataFrame, dict[str, ShardInfo]]:
    """Write the large shards; where each row was and is now, and the shards. What is compact already stays."""
    written: dict[str, ShardInfo] = {}
    moves: list[pl.DataFrame] = []
    names = [shard.sha256 for shard in source.manifest.shards]
    for chunk in chunks(source, target_bytes):
        if _is_compact(files, source.manifest, chunk, compression):
            continue
        faults.reached("compact.shard")
        info = write_shard(files, chunk.read(), source.spec_hash, compression)
        written[info.sha256] = info
        origin = chunk.rows.select(
            shard=pl.col("shard").replace_strict(dict(enumerate(names)), return_dtype=pl.String), row="row"
        )
        moves.append(
            origin.with_columns(
                to_shard=pl.lit(info.sha256, pl.String), to_row=pl.int_range(len(origin), dtype=pl.UInt32)
            )
        )
        if progress:
            progress("compact", chunk.start + len(origin), source.rows)
    return pl.concat([_NO_MOVES, *moves]), written


def _is_compact(files: Files, manifest: Manifest, chunk: Chunk, compression: Compression) -> bool:
    """Whether a shard consists of exactly these rows in this order, compressed as asked for."""
    if chunk.rows["shard"].n_unique() > 1:
        return False
    shard = manifest.shards[chunk.rows["shard"][0]]
    if chunk.rows["row"].to_list() != list(range(shard.rows)):
        return False
    with open_shard(files, shard.sha256) as parquet:
        stored = parquet.metadata.row_group(0).column(0).compression
    return stored == {"none": "UNCOMPRESSED", "zstd": "ZSTD"}[compression]


def _build(files: Files, head: Manifest, moved: pl.DataFrame, written: dict[str, ShardInfo]) -> Manifest:
    """The manifest after ``head`` in which rows that were copied lie where they are now."""
    live = [
        pl.DataFrame({"shard": shard.sha256, "row": sorted(set(range(shard.rows)).difference(shard.dead()))},
                     schema={"shard": pl.String, "row": pl.UInt32})
        for shard in head.shards
    ]  # fmt: skip
    chosen = (
        pl.concat(live)
        .join(moved, on=["shard", "row"], how="left")
        .select(shard=pl.coalesce("to_shard", "shard"), row=pl.coalesce("to_row", "row"))
    )
    infos = {shard.sha256: shard for shard in head.shards} | written
    records = shard_records(chosen, infos.values())
    counts = {
        "rows": len(chosen),
        "dead_rows": sum(record.rows for record in records) - len(chosen),
        "shards": len(records),
        "bytes": sum(record.bytes for record in records),
    }
    return head.model_copy(
        update={
            "version": head.version + 1,
            "parent": parent_of(files, head),
            "created_at": datetime.now(UTC),
            "shards": records,
            "counts": head.counts.model_copy(update=counts),
        }
    )


_NO_MOVES = pl.DataFrame(schema={"shard": pl.String, "row": pl.UInt32, "to_shard": pl.String, "to_row": pl.UInt32})
