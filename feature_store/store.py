"""``FeatureStore``: one feature of one data set, in numbered versions.

::

    shards/<sha256>.parquet     immutable rows, named by the hash of their bytes
    manifests/00000001.json     one per version, created by put-if-absent; the highest is the truth
    quarantine/<sha256>.parquet items that failed, with reasons
    tags/<name>.json            names for versions that are never removed
    cache/                      disposable memory maps

A writer plans, writes shards, reports failures, commits; each step can be killed and done again. Readers see
committed versions alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
from obstore.exceptions import BaseError
from obstore.store import from_url

from feature_store import faults, garbage, maintenance, quarantine, tags
from feature_store import manifest as manifests
from feature_store.commit import CommitOptions, Progress, commit
from feature_store.compaction import TARGET_BYTES, compact
from feature_store.errors import DamagedStoreError, ShardError, SpecError, StorageError, StoreNotFoundError
from feature_store.files import Files, LocalFiles, ObjectFiles, make_folder
from feature_store.garbage import Garbage
from feature_store.gates import Gates
from feature_store.journal import Journal
from feature_store.key import check_catalogue, plain_spec, spec_hash
from feature_store.maintenance import Damage, Difference
from feature_store.manifest import MANIFESTS, SHARDS, ShardInfo, shard_path
from feature_store.plan import Plan, make_plan
from feature_store.quarantine import QUARANTINE, QuarantineRow
from feature_store.shard import FeatureShard
from feature_store.snapshot import Snapshot
from feature_store.tags import Tag
from feature_store.writer import Compression, write_shard

logger = logging.getLogger(__name__)

_FOLDERS = (SHARDS, MANIFESTS, QUARANTINE)


class FeatureStore:
    """A store, opened with :meth:`open`.

    Attributes:
        name: ``<dataset>/<feature>``, the last two parts of the path.
    """

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._journal = Journal(files)
        self._plan: Plan | None = None
        self.name = name

    def __repr__(self) -> str:
        """Name and place."""
        return f"FeatureStore({self.name} at {self._files.location})"

    @classmethod
    def open(cls, path_or_url: str | Path, *, create: bool = False) -> FeatureStore:
        """Open a store.

        Args:
            path_or_url: A folder, or a URL such as ``s3://bucket/stores/<dataset>/<feature>``. Credentials, region
                and endpoint come from the environment: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
                ``AWS_REGION``, ``AWS_ENDPOINT_URL``, and ``AWS_ALLOW_HTTP=true`` for an endpoint without TLS.
            create: Make an empty store where there is nothing.

        Raises:
            StoreNotFoundError: When there is no store, naming those nearby and the command that builds one.
        """
        text = str(path_or_url)
        if "://" in text and not text.startswith("file://"):
            return cls._open_url(text, create=create)
        folder = Path(text.removeprefix("file://"))
        if not _is_store(folder):
            if not create:
                raise StoreNotFoundError(_not_found(folder))
            if folder.exists() and not (folder.is_dir() and _is_empty(folder)):
                raise StoreNotFoundError(
                    f"{folder} is not a feature store and not empty; a new store needs its own folder"
                )
            for name in _FOLDERS:
                make_folder(folder / name)
        return cls(LocalFiles(folder), _name(folder.resolve().parts))

    @classmethod
    def _open_url(cls, url: str, *, create: bool) -> FeatureStore:
        try:
            files = ObjectFiles(from_url(url), url)
            empty = not create and not (files.entries(MANIFESTS) or files.entries(SHARDS))
        except (BaseError, StorageError, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise StoreNotFoundError(
                f"{url}: cannot be opened ({reason}); a path or an s3:// URL is expected"
            ) from None
        if empty:
            raise StoreNotFoundError(f"{url}: no feature store there; expected the folders {', '.join(_FOLDERS)}")
        return cls(files, _name(url.rstrip("/").partition("://")[2].split("/")))

    def latest(self) -> Snapshot:
        """The newest snapshot.

        Raises:
            NoSnapshotError: When nothing was committed yet.
            DamagedStoreError: When its manifest is damaged.
        """
        return Snapshot(self._files, manifests.load_latest(self._files))

    def at(self, version: int | str) -> Snapshot:
        """The snapshot with that number or tag.

        Raises:
            UnknownVersionError: Naming the versions there are.
            TagError: Naming the tags there are.
            DamagedStoreError: When its manifest or the tag is damaged.
        """
        number = version if isinstance(version, int) else tags.find(self._files, version).version
        return Snapshot(self._files, manifests.load(self._files, number))

    def versions(self) -> list[int]:
        """Numbers of the committed versions, ascending."""
        return manifests.versions(self._files)

    def plan(self, spec: Mapping[str, Any], items: Mapping[str, bytes], unreadable: Iterable[str] = ()) -> Plan:
        """Find out what has to be encoded.

        Args:
            spec: Everything that determines the numbers, as plain JSON values. What stands under ``recorded`` is
                stored with it but not compared.
            items: The catalogue: item id to the 32-byte SHA-256 of its content.
            unreadable: More items of it, whose content cannot be read now; one that has a live row of this spec keeps
                it, see ``Plan.source_gone``. Any other is the caller's to report to :meth:`quarantine`.

        Raises:
            SpecError: When either is malformed.
            DamagedStoreError: When the latest manifest or the quarantine is damaged.
        """
        check_catalogue(items)
        plain, hashed = plain_spec(spec), spec_hash(spec)
        head = manifests.head(self._files)
        shards = self._journal.find(hashed, head)
        listed = {shard.sha256 for shard in head.shards} if head else set[str]()
        for shard in shards:
            if shard.info.sha256 not in listed:  # garbage collection must not take what this plan builds on
                faults.reached("plan.touch")
                self._files.touch(shard_path(shard.info.sha256))
        self._plan = make_plan(
            plain,
            hashed,
            items=dict(items),
            unreadable=unreadable,
            shards=shards,
            head=head,
            quarantined=quarantine.read(self._files),
        )
        return self._plan

    def write_shard(self, shard: FeatureShard, plan: Plan, *, compression: Compression = "none") -> ShardInfo:
        """Write finished rows; they become visible with the next commit, and survive a crash before it.

        Args:
            shard: The rows.
            plan: What they are part of.
            compression: ``none``, or ``zstd`` for a store far away; no part of the spec.

        Raises:
            ShardError: When a row is not part of the plan, or the shape or type differs from earlier shards.
        """
        for item_id, content in zip(shard.item_ids, shard.content_sha256, strict=True):
            if plan.items.get(item_id) != content:
                problem = "has another content than" if item_id in plan.items else "is not in"
                raise ShardError(f"{self.name}: item {item_id!r} {problem} the plan's catalogue; plan again")
        if plan.layout and shard.layout != plan.layout:
            raise ShardError(
                f"{self.name}: rows of this spec are {plan.layout}, got {shard.layout}; what differs belongs "
                "in the spec"
            )
        info = write_shard(self._files, shard, plan.spec_hash, compression)
        self._journal.wrote(info.sha256)
        return info

    def quarantine(self, rows: Sequence[QuarantineRow], plan: Plan | None = None) -> None:
        """Report items that failed; they are not planned again while content and spec stay, until :meth:`retry`.

        Args:
            rows: One per item; the last counts where an item occurs twice.
            plan: The plan they belong to; None for the last one that this object made.

        Raises:
            SpecError: Without any plan.
        """
        made_by = plan or self._plan
        if made_by is None:
            raise SpecError(f"{self.name}: quarantine needs the plan that the items belong to")
        quarantine.append(self._files, rows, made_by.spec_hash)

    def commit(
        self,
        plan: Plan,
        *,
        catalogue_size: int | None = None,
        recorded: Mapping[str, Any] | None = None,
        drop_gone: bool = False,
        progress: Progress | None = None,
        gates: Gates | None = None,
    ) -> Snapshot:
        """Publish what the finished shards amount to as a new version; without a change there is none.

        A row is live when its content is that of the catalogue. Items that the catalogue does not name stay live
        unless ``drop_gone`` is set. Under a new spec a snapshot starts anew; older versions remain readable.

        Args:
            plan: What was planned.
            catalogue_size: Items of the data set, for the coverage; None for the size of the plan's catalogue.
            recorded: Facts about the run to store in the manifest, as plain JSON values.
            drop_gone: Whether items that the catalogue does not name leave the snapshot.
            progress: Called as ``progress("measure", done, total)``.
            gates: Limits that the figures must keep; None judges nothing.

        Returns:
            The new snapshot, or the latest one where nothing changed.

        Raises:
            CommitConflictError: When another writer committed something that contradicts the plan.
            EmptySnapshotError: When there is no row to publish.
            QualityGateError: When the figures do not keep the limits; the shards stay for the next commit.
            ShardError: When shards of the spec differ in shape or type.
        """
        options = CommitOptions(catalogue_size, recorded, drop_gone, progress, gates or Gates())
        manifest = commit(self._files, self._journal, plan, name=self.name, options=options)
        return Snapshot(self._files, manifest)

    def quarantined(self) -> pl.DataFrame:
        """The items in quarantine: one row each, newest failure, sorted by ``item_id``.

        Columns: ``item_id, stage, reason, detail, attempts, last_seen, content_sha256, spec_hash, retry``.
        """
        rows = quarantine.read(self._files)
        head = manifests.head(self._files) if len(rows) else None
        if head is None:
            return rows
        # A crash between a commit and the clean-up after it leaves rows of items that have features by now.
        try:
            index = Snapshot(self._files, head).index
        except DamagedStoreError as error:
            logger.warning("%s; rows that were solved since may still be shown", error)
            return rows
        solved = index.select("item_id", "content_sha256", spec_hash=pl.lit(head.spec_hash))
        return rows.join(solved, on=["item_id", "content_sha256", "spec_hash"], how="anti", maintain_order="left")

    def retry(self, reason: str | None = None) -> int:
        """Let the next plan try quarantined items again.

        Args:
            reason: Only those with this reason; None for all.

        Returns:
            How many items were marked; those marked before are not counted.
        """
        return quarantine.mark_for_retry(self._files, reason)

    def verify(self, progress: Progress | None = None) -> list[Damage]:
        """Re-read every file; one entry per damaged or missing one, empty for an intact store."""
        return maintenance.verify(self._files, progress)

    def diff(self, older: int, newer: int) -> Difference:
        """What distinguishes two versions.

        Raises:
            UnknownVersionError: Naming the versions there are.
        """
        return maintenance.diff(self.at(older), self.at(newer))

    def compact(
        self,
        *,
        target_bytes: int = TARGET_BYTES,
        compression: Compression = "none",
        progress: Progress | None = None,
    ) -> Snapshot:
        """Publish the latest snapshot anew in few large shards in the order of ``item_id``, without superseded rows.

        Args:
            target_bytes: Bytes of vectors in one shard; three times that is held in memory.
            compression: ``none``, or ``zstd`` for a store far away.
            progress: Called as ``progress("compact", rows done, rows)``.

        Returns:
            The new snapshot, or the latest one where it is compact already.

        Raises:
            NoSnapshotError: When nothing was committed yet.
            CommitConflictError: When another writer committed another spec in the meantime.
            DamagedStoreError: When a shard is missing or damaged.
        """
        manifest = compact(self._files, target_bytes=target_bytes, compression=compression, progress=progress)
        return Snapshot(self._files, manifest)

    def tags(self) -> dict[str, Tag]:
        """The tags by name.

        Raises:
            DamagedStoreError: Naming a tag that cannot be read.
        """
        return tags.read_all(self._files)

    def tag(self, name: str, version: int | None = None, *, move: bool = False) -> Tag:
        """Name a version, so that ``gc`` never removes it; naming it twice alike changes nothing.

        Args:
            name: A letter, then letters, digits, ``.``, ``_`` or ``-``.
            version: None for the latest.
            move: Whether a tag that is there may be moved.

        Raises:
            TagError: When the name is malformed or names another version, or ``gc`` is removing the version.
            UnknownVersionError: Naming the versions there are.
        """
        return tags.add(self._files, name, version, move=move)

    def untag(self, name: str) -> Tag:
        """Remove a tag, not its version.

        Raises:
            TagError: Naming the tags there are.
        """
        return tags.remove(self._files, name)

    def gc(self, keep: int, grace: timedelta, *, apply: bool = True) -> Garbage:
        """Remove all but the newest ``keep`` versions and the tagged ones, and unreferenced files, if past ``grace``.

        Args:
            keep: Versions to keep, at least 1.
            grace: Age below which nothing is removed; must exceed the longest run.
            apply: False only lists.

        Raises:
            SpecError: For impossible values.
            DamagedStoreError: When a tag or a manifest that stays cannot be read.
        """
        return garbage.gc(self._files, keep=keep, grace=grace, apply=apply)


def list_stores(stores_root: str | Path) -> list[tuple[str, FeatureStore]]:
    """All stores of a root folder, ``("<dataset>/<feature>", store)`` by name; empty where there is no such folder."""
    folders = sorted(folder for folder in Path(stores_root).glob("*/*") if _is_store(folder))
    return [(_name(folder.parts), FeatureStore.open(folder)) for folder in folders]


def _is_store(folder: Path) -> bool:
    return (folder / MANIFESTS).is_dir() or (folder / SHARDS).is_dir()


def _is_empty(folder: Path) -> bool:
    """Nothing in it but what another process, creating the same store at this moment, may have made already."""
    return all(entry.name in _FOLDERS for entry in folder.iterdir())


def _name(parts: Sequence[str]) -> str:
    return "/".join(parts[-2:])


def _not_found(folder: Path) -> str:
    """What is not there, what is nearby, and what builds it."""
    what = "is not a feature store" if folder.exists() else "does not exist"
    near: list[str] = []
    for root in (folder, folder.parent, folder.parent.parent):
        near = near or [name for name, _ in list_stores(root)]
    nearby = f"stores nearby: {', '.join(near)}" if near else "there are no stores nearby"
    dataset, feature = folder.parent.name or "DATASET", folder.name or "FEATURE"
    return f"{folder} {what}; {nearby}; `reelstore extract {dataset} --features {feature}` builds it"
