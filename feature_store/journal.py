"""The shards folder as the journal of writers: which finished shards of a spec there are, committed or not.

A shard is complete the moment it has its name, so a run that was killed loses only the shard it was writing; the
next plan finds the others here. Readers never come here: what they see is what a manifest lists.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import polars as pl

from feature_store.errors import DamagedStoreError
from feature_store.files import Files
from feature_store.manifest import SHARDS, Manifest, ShardInfo
from feature_store.reader import Footer, check_bytes, read_footer, read_ids
from feature_store.schema import Layout

logger = logging.getLogger(__name__)

_SUFFIX = ".parquet"


@dataclass(frozen=True)
class StoredShard:
    """A finished shard.

    Attributes:
        info: What a manifest says about it.
        layout: Shape and type of its rows.
        rows: ``item_id``, ``content_sha256``, ``shard`` (its sha256), ``row``, and ``live``, false, of each row.
    """

    info: ShardInfo
    layout: Layout
    rows: pl.DataFrame


class Journal:
    """Finds the usable shards of a spec; what it read once it remembers, for shards never change."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._footers: dict[str, Footer] = {}
        self._shards: dict[str, StoredShard] = {}
        self._intact: set[str] = set()

    def wrote(self, sha256: str) -> None:
        """Remember that this process wrote the shard, so that its bytes need not be hashed again."""
        self._intact.add(sha256)

    def find(self, spec_hash: str, head: Manifest | None) -> list[StoredShard]:
        """Usable shards of a spec, by name.

        Shards that ``head`` lists must have the recorded size; the bytes of all others are compared with their
        name before anything relies on them. What fails is reported in the log and left out, so that its items are
        planned again.

        Args:
            spec_hash: Hash of the spec.
            head: The latest manifest.
        """
        listed = {shard.sha256: shard.bytes for shard in head.shards} if head else {}
        present: dict[str, int] = {}
        for entry in self._files.entries(SHARDS):
            if entry.name.endswith(_SUFFIX):
                present[entry.name.removesuffix(_SUFFIX)] = entry.size
        if head and head.spec_hash == spec_hash:
            for sha256 in listed.keys() - present.keys():
                logger.warning("%s: shard %s is missing; its items are planned again", self._files.location, sha256)
        found = (self._load(sha256, size, spec_hash, listed.get(sha256)) for sha256, size in sorted(present.items()))
        return [shard for shard in found if shard is not None]

    def _load(self, sha256: str, size: int, spec_hash: str, expected: int | None) -> StoredShard | None:
        try:
            footer = self._footers.get(sha256) or read_footer(self._files, sha256)
            if footer.spec_hash != spec_hash:
                self._footers[sha256] = footer
                return None
            self._check(sha256, size, expected)
            self._footers[sha256] = footer
            if sha256 not in self._shards:
                self._shards[sha256] = self._read(sha256, size, footer)
        except DamagedStoreError as error:
            logger.warning("%s", error)
            return None
        return self._shards[sha256]

    def _check(self, sha256: str, size: int, expected: int | None) -> None:
        """Compare size with the manifest, or bytes with the name where no manifest vouches for the shard."""
        if expected is not None:
            problem = None if size == expected else f"expected {expected} bytes, found {size}"
        elif sha256 in self._intact:
            problem = None
        else:
            problem = check_bytes(self._files, sha256)
        if problem:
            raise DamagedStoreError(f"{self._files.location}: shard {sha256} is left out: {problem}")
        self._intact.add(sha256)

    def _read(self, sha256: str, size: int, footer: Footer) -> StoredShard:
        rows = read_ids(self._files, sha256)
        ids = rows["item_id"]
        info = ShardInfo(sha256=sha256, bytes=size, rows=footer.rows, id_min=str(ids.min()), id_max=str(ids.max()))
        named = rows.with_columns(shard=pl.lit(sha256), live=pl.lit(value=False))
        return StoredShard(info, footer.layout, named.select(_EMPTY.columns))


def live_rows(shards: list[StoredShard], manifest: Manifest | None) -> pl.DataFrame:
    """Every row of the shards: ``item_id``, ``content_sha256``, ``shard`` (sha256), ``row``, ``live`` in the manifest.

    Args:
        shards: Shards of one spec.
        manifest: A manifest, None for none: then no row is live.
    """
    records = {record.sha256: record for record in manifest.shards} if manifest else {}
    frames = [_EMPTY]
    for shard in shards:
        record = records.get(shard.info.sha256)
        frames.append(shard.rows.with_columns(live=~pl.col("row").is_in(record.dead())) if record else shard.rows)
    return pl.concat(frames)


_EMPTY = pl.DataFrame(
    schema={
        "item_id": pl.String,
        "content_sha256": pl.Binary,
        "shard": pl.String,
        "row": pl.UInt32,
        "live": pl.Boolean,
    }
)
