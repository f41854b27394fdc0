"""Looking after a store: verify every byte, compare two versions, remove what nothing refers to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from feature_store import manifest as manifests
from feature_store import quarantine
from feature_store.cache import CACHE, fingerprint
from feature_store.commit import Progress
from feature_store.errors import DamagedStoreError, SpecError
from feature_store.files import TEMPORARY, Entry, Files
from feature_store.manifest import MANIFESTS, SHARDS, Manifest, manifest_path, shard_path
from feature_store.quarantine import QUARANTINE
from feature_store.reader import check_bytes
from feature_store.snapshot import Snapshot

#: Says which is the oldest manifest that must be there; written before older ones are removed.
HORIZON = "gc.json"

#: Vectors that two versions are compared by, at most.
DRIFT_ITEMS = 10_000


@dataclass(frozen=True)
class Damage:
    """A file that is missing or is not what it should be.

    Attributes:
        path: Relative to the store, such as ``shards/ab….parquet``.
        problem: What is wrong and what to do.
    """

    path: str
    problem: str


@dataclass(frozen=True)
class Difference:
    """What distinguishes two versions.

    Attributes:
        older: Version number.
        newer: Version number.
        added: Ids only in the newer one.
        removed: Ids only in the older one.
        replaced: Ids whose content differs.
        spec: Dotted key to its values in the older and the newer version, where they differ; None for absent.
        compared: Common items whose vectors were compared, at most 10 000, evenly spaced; 0 where the widths differ.
        cosine: Quantiles ``min``, ``p01``, ``p50`` of the cosine between old and new vector; empty where none
            could be compared (a zero vector has no direction and is left out).
    """

    older: int
    newer: int
    added: list[str]
    removed: list[str]
    replaced: list[str]
    spec: dict[str, tuple[Any, Any]]
    compared: int
    cosine: dict[str, float]


@dataclass(frozen=True)
class Garbage:
    """What garbage collection removed, or would remove.

    Attributes:
        manifests: Versions.
        paths: All files, manifests included.
        bytes: Their size.
        applied: Whether they were removed.
    """

    manifests: list[int]
    paths: list[str]
    bytes: int
    applied: bool


class _Horizon(BaseModel):
    oldest: int


def verify(files: Files, progress: Progress | None = None) -> list[Damage]:
    """Read every file of the store and compare it with what is recorded about it.

    Manifests must parse, match their own digest and the hash that their child recorded, and leave no gap; shards
    must have the recorded size and hash to their name, whether a manifest lists them or not; quarantine files must
    hash to their name and be readable. ``cache/`` is disposable and not looked at.

    Returns:
        One entry per damaged or missing file, sorted by path; empty for an intact store.
    """
    found, good = _verify_manifests(files)
    sizes = {shard.sha256: shard.bytes for manifest in good.values() for shard in manifest.shards}
    stored = [entry.name.removesuffix(".parquet") for entry in files.entries(SHARDS) if _is_parquet(entry)]
    names = sorted(sizes.keys() | set(stored))
    for done, sha256 in enumerate(names, start=1):
        problem = check_bytes(files, sha256, sizes.get(sha256))
        if problem:
            found.append(Damage(shard_path(sha256), problem))
        if progress:
            progress("verify", done, len(names))
    found += [damage for path in quarantine.paths(files) if (damage := _verify_quarantine(files, path))]
    return sorted(found, key=lambda damage: damage.path)


def _verify_manifests(files: Files) -> tuple[list[Damage], dict[int, Manifest]]:
    versions = manifests.versions(files)
    found: list[Damage] = []
    good: dict[int, Manifest] = {}
    hashes: dict[int, str] = {}
    oldest, damage = _oldest(files)
    found += [damage] if damage else []
    for version in range(oldest, versions[-1] + 1) if versions else []:
        path = manifest_path(version)
        try:
            data = files.read(path)
            hashes[version] = hashlib.sha256(data).hexdigest()
            good[version] = manifests.parse(data, path)
        except FileNotFoundError:
            found.append(Damage(path, "missing; restore it, its version cannot be read"))
        except DamagedStoreError as error:
            found.append(Damage(path, str(error).removeprefix(f"{path}: ")))
    for version, manifest in good.items():
        if manifest.version != version:
            found.append(Damage(manifest_path(version), f"says that it is version {manifest.version}"))
        parent = manifest.parent
        if parent and parent.version in good and hashes[parent.version] != parent.sha256:
            path = manifest_path(parent.version)
            found.append(Damage(path, f"version {version} was built on another file of that name"))
    return found, good


def _verify_quarantine(files: Files, path: str) -> Damage | None:
    try:
        data = files.read(path)
        quarantine.decode(data)
    except FileNotFoundError:  # folded into another file since it was listed
        return None
    except ValueError as error:
        return Damage(path, f"not readable ({error}); remove it, and the items it named are tried again")
    name = f"{QUARANTINE}/{hashlib.sha256(data).hexdigest()}.parquet"
    return (
        None
        if name == path
        else Damage(path, "its bytes do not hash to its name; remove it, its items are tried again")
    )


def _oldest(files: Files) -> tuple[int, Damage | None]:
    """The oldest version that must be there."""
    try:
        return _Horizon.model_validate_json(files.read(HORIZON)).oldest, None
    except FileNotFoundError:
        return 1, None
    except ValidationError:
        versions = manifests.versions(files)
        return versions[0] if versions else 1, Damage(HORIZON, "not readable; the next `gc` writes it anew")


def diff(older: Snapshot, newer: Snapshot) -> Difference:
    """Compare two versions: items, spec, and how far the vectors of common items moved."""
    before = older.index.select("item_id", "content_sha256")
    after = newer.index.select("item_id", "content_sha256")
    common = before.join(after, on="item_id", how="inner", suffix="_after").sort("item_id")
    replaced = common.filter(common["content_sha256"] != common["content_sha256_after"])
    step = max(1, -(-len(common) // DRIFT_ITEMS))
    ids = common["item_id"].gather_every(step).to_list()
    comparable = older.columns["embedding"] == newer.columns["embedding"]
    return Difference(
        older=older.version,
        newer=newer.version,
        added=sorted(after.join(before, on="item_id", how="anti")["item_id"].to_list()),
        removed=sorted(before.join(after, on="item_id", how="anti")["item_id"].to_list()),
        replaced=replaced["item_id"].to_list(),
        spec=_spec_changes(older.spec, newer.spec),
        compared=len(ids) if comparable else 0,
        cosine=_cosine_quantiles(older.matrix(ids).values, newer.matrix(ids).values) if comparable else {},
    )


def _spec_changes(older: dict[str, Any], newer: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    before, after = _flatten(older, ""), _flatten(newer, "")
    keys = sorted(before.keys() | after.keys())
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _flatten(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _cosine_quantiles(before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, float]:
    old, new = before.astype(np.float64), after.astype(np.float64)
    norms = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    cosine = (old * new).sum(axis=1)[norms > 0] / norms[norms > 0]
    if not len(cosine):
        return {}
    low, first, middle = np.quantile(cosine, [0.0, 0.01, 0.5]).tolist()
    return {"min": low, "p01": first, "p50": middle}


def gc(files: Files, *, keep: int, grace: timedelta, apply: bool) -> Garbage:
    """Remove old versions, and the files that no remaining version refers to.

    The newest ``keep`` versions stay, and everything younger than ``grace``, so that neither a run in progress nor
    the finished shards of an interrupted one are touched: ``grace`` must exceed the longest run. Manifests go before
    shards, so that a crash leaves no version that misses a shard.

    Args:
        files: The store.
        keep: Versions to keep, at least 1.
        grace: Age below which nothing is removed.
        apply: Whether to remove; else only report.

    Raises:
        SpecError: When ``keep`` is below 1 or ``grace`` negative.
        DamagedStoreError: When a manifest that stays cannot be read: what it refers to is not known.
    """
    if keep < 1 or grace < timedelta(0):
        raise SpecError(f"gc: expected keep >= 1 and grace >= 0, got keep={keep} and grace={grace}")
    horizon = datetime.now(UTC) - grace
    versions = manifests.versions(files)
    entries = {entry.path: entry for entry in files.entries(MANIFESTS)}
    staying = versions[-keep:]
    for version in reversed(versions[:-keep]):
        if entries[manifest_path(version)].modified < horizon:
            break  # everything before it is older still
        staying = [version, *staying]
    kept = [manifests.load(files, version) for version in staying]
    leaving = [version for version in versions if version not in staying]
    doomed = [entries[manifest_path(version)] for version in leaving]
    doomed += [entry for entry in _unreferenced(files, kept) if entry.modified < horizon]
    if apply:
        if leaving:
            files.put(HORIZON, _Horizon(oldest=staying[0]).model_dump_json().encode())
        for entry in doomed:
            files.delete(entry.path)
    return Garbage(leaving, [entry.path for entry in doomed], sum(entry.size for entry in doomed), apply)


def _unreferenced(files: Files, kept: list[Manifest]) -> list[Entry]:
    """Shards and caches of no kept version, and what crashes left behind."""
    needed = {shard_path(shard.sha256) for manifest in kept for shard in manifest.shards}
    needed |= {f"{CACHE}/{fingerprint(manifest, name)}.npy" for manifest in kept for name in manifest.columns}
    found: list[Entry] = []
    for folder in (SHARDS, CACHE, MANIFESTS, QUARANTINE):
        for entry in files.entries(folder):
            owned = folder in (SHARDS, CACHE)
            if entry.name.endswith(TEMPORARY) or (owned and entry.path not in needed):
                found.append(entry)
    return found


def _is_parquet(entry: Entry) -> bool:
    return entry.name.endswith(".parquet")
