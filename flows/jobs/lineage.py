"""What a run was made from, back to the raw files, and what of it is gone or has changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets_spec import registry as datasets
from datasets_spec.dataset import PreparedDataset, read_manifest
from datasets_spec.errors import DamagedFileError, NotPreparedError, UnknownDatasetError
from datasets_spec.partfile import sha256_of
from datasets_spec.raw import raw_file, raw_root
from feature_store import DamagedStoreError, FeatureStore, Snapshot, StoreNotFoundError, UnknownVersionError
from feature_store.manifest import shard_path
from flows.jobs.provenance import git_sha, lock_hash
from flows.settings import Settings
from models.evaluation.record import RunRecord, StoreVersion

ProgressCallback = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Node:
    """One thing that something was made from.

    Attributes:
        kind: ``run``, ``code``, ``store``, ``weights``, ``dataset`` or ``raw file``.
        name: Which one, with its version where it has any.
        facts: What is recorded about it.
        problem: ``gone: …`` or ``changed: …``; None where it is as it was.
        made_from: What it was made from.
    """

    kind: str
    name: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    problem: str | None = None
    made_from: tuple[Node, ...] = ()

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for node in self.made_from:
            yield from node.walk()

    @property
    def problems(self) -> list[str]:
        """What is gone or changed, each once."""
        found = [f"{node.kind} {node.name}: {node.problem}" for node in self.walk() if node.problem]
        return list(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def trace(settings: Settings, run_id: str, *, progress: ProgressCallback | None = None) -> Node:
    """Follow a finished run back to what it was made from; raw files are hashed again.

    Args:
        settings: Places.
        run_id: The run.
        progress: Called as ``progress("hash", done, total)`` while raw files are hashed.

    Raises:
        RecordError: When there is no finished run of that name.
    """
    record = RunRecord.read(settings.runs / run_id)
    known: dict[tuple[str, str], Node] = {}

    def dataset(name: str, version: str) -> Node:
        if (name, version) not in known:
            known[name, version] = _dataset(settings, name, version, progress)
        return known[name, version]

    stores = tuple(_store(settings, store, dataset) for store in record.stores)
    facts = {
        "model": record.model,
        "seed": record.seed,
        "created_at": record.created_at.isoformat(timespec="seconds"),
        "selected_epoch": record.selected_epoch,
    }
    made_from = (_code(record), *stores, dataset(record.dataset, record.dataset_version))
    return Node("run", record.run_id, facts, made_from=made_from)


def _code(record: RunRecord) -> Node:
    now, lock = git_sha(), lock_hash()
    changes: list[str] = []
    if record.git_sha != now:
        changes.append(f"this checkout is at {_short(now)}")
    if record.lock_hash != lock:
        changes.append(f"requirements.lock hashes to {_short(lock)}")
    facts = {"git_sha": record.git_sha, "requirements_lock_sha256": record.lock_hash}
    problem = f"changed: {' and '.join(changes)}" if changes else None
    return Node("code", _short(record.git_sha), facts, problem)


def _store(settings: Settings, store: StoreVersion, dataset: Callable[[str, str], Node]) -> Node:
    folder = settings.stores / store.name
    try:
        snapshot = FeatureStore.open(folder).at(store.version)
    except (StoreNotFoundError, UnknownVersionError) as error:
        return Node("store", str(store), problem=f"gone: {error}")
    except DamagedStoreError as error:
        return Node("store", str(store), problem=f"changed: {error}")
    manifest = snapshot.manifest
    facts = {
        "rows": snapshot.rows,
        "spec_hash": snapshot.spec_hash,
        "encoder": snapshot.spec.get("encoder"),
        "created_at": manifest.created_at.isoformat(timespec="seconds"),
        "parent": manifest.parent.version if manifest.parent else None,
    }
    recorded = snapshot.spec.get("recorded", {})
    made_from = [_weights(snapshot.spec, recorded)] if "checkpoint" in snapshot.spec else []
    if "dataset" in recorded and "dataset_version" in recorded:
        made_from.append(dataset(recorded["dataset"], recorded["dataset_version"]))
    return Node("store", str(store), facts, _lost_shards(folder, snapshot), tuple(made_from))


def _lost_shards(folder: Path, snapshot: Snapshot) -> str | None:
    """Shards that are not there with their size; their bytes are for ``store verify`` to compare."""
    lost = [
        shard.sha256 for shard in snapshot.manifest.shards if _size(folder / shard_path(shard.sha256)) != shard.bytes
    ]
    if not lost:
        return None
    return (
        f"changed: {len(lost)} of {len(snapshot.manifest.shards)} shards are missing or have another size, first "
        f"{lost[0][:12]}; `reelstore store verify {snapshot.name}` says more"
    )


def _weights(spec: dict[str, Any], recorded: dict[str, Any]) -> Node:
    source = recorded.get("checkpoint", {})
    facts = {**source, **spec["checkpoint"], "libraries": recorded.get("libraries", {})}
    return Node("weights", str(source.get("source", "unknown")), facts)


def _dataset(settings: Settings, name: str, version: str, progress: ProgressCallback | None) -> Node:
    label = f"{name}@{version[:12]}"
    path = settings.prepared(name)
    try:
        manifest = read_manifest(path)
    except DamagedFileError as error:
        return Node("dataset", label, {"version": version}, f"changed: {error}")
    if manifest is None:
        return Node("dataset", label, {"version": version}, f"gone: there is no prepared dataset at {path}")
    if manifest["version"] != version:
        problem = (
            f"changed: {path} holds version {manifest['version'][:12]}, prepared at {manifest['created_at']}; which "
            "raw files this one came from is not known any more"
        )
        return Node("dataset", label, {"version": version}, problem)
    facts = {"version": version, "created_at": manifest["created_at"], "config": manifest["config"]}
    entries = manifest["raw"]
    raw: list[Node] = []
    for done, entry in enumerate(entries, start=1):
        raw.append(_raw(settings, name, entry))
        if progress:
            progress("hash", done, len(entries))
    return Node("dataset", label, facts, _damage(path), tuple(raw))


def _damage(path: Path) -> str | None:
    """What is wrong with the tables of a prepared dataset."""
    try:
        PreparedDataset.open(path)
    except (DamagedFileError, NotPreparedError) as error:
        return f"changed: {error}"
    return None


def _raw(settings: Settings, dataset: str, entry: dict[str, Any]) -> Node:
    facts = {"bytes": entry["bytes"], "sha256": entry["sha256"]}
    places = _places(settings, dataset, entry["file"])
    if not places:
        where = raw_root(_raw_folder(settings, dataset))
        return Node("raw file", entry["file"], facts, f"gone: there is no {entry['file']} in {where}")
    right_size = [place for place in places if place.stat().st_size == entry["bytes"]]
    if not right_size:
        size = places[0].stat().st_size
        return Node("raw file", entry["file"], facts, f"changed: {places[0]} has {size} bytes, not {entry['bytes']}")
    if all(sha256_of(place) != entry["sha256"] for place in right_size):
        return Node("raw file", entry["file"], facts, f"changed: {right_size[0]} has another content of the same size")
    return Node("raw file", entry["file"], facts)


def _places(settings: Settings, dataset: str, name: str) -> list[Path]:
    """Raw files of that name: where the dataset expects it, else anywhere below its raw folder."""
    folder = _raw_folder(settings, dataset)
    try:
        expected = [raw_file(folder, file.path) for file in datasets.load(dataset)[1].files]
    except UnknownDatasetError:
        expected = []
    found = [path for path in expected if path.name == name and path.is_file()]
    return found or sorted(path for path in raw_root(folder).rglob(name) if path.is_file())


def _raw_folder(settings: Settings, dataset: str) -> Path:
    try:
        return settings.raw(datasets.load(dataset)[1].raw or dataset)
    except UnknownDatasetError:
        return settings.raw(dataset)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _short(digest: str | None) -> str:
    """The first 12 digits and whatever ``+dirty`` follows them."""
    if digest is None:
        return "unknown"
    commit, plus, rest = digest.partition("+")
    return commit[:12] + plus + rest
