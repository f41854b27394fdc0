"""Looking after a store: verify every byte, compare two versions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store import horizon, quarantine, tags
from feature_store import manifest as manifests
from feature_store.commit import Progress
from feature_store.errors import DamagedStoreError
from feature_store.files import Entry, Files
from feature_store.horizon import HORIZON, Horizon
from feature_store.manifest import SHARDS, Manifest, manifest_path, shard_path
from feature_store.quarantine import QUARANTINE
from feature_store.reader import check_bytes
from feature_store.snapshot import Snapshot
from feature_store.tags import TAGS

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


def verify(files: Files, progress: Progress | None = None) -> list[Damage]:
    """Read every file of the store and compare it with what is recorded about it.

    Manifests must parse, match their own digest and the hash that their child recorded, and leave no gap; tags must
    name versions that are there; shards must have the recorded size and hash to their name, whether a manifest lists
    them or not; quarantine files must hash to their name and be readable. ``cache/`` is disposable and not looked at.

    Returns:
        One entry per damaged or missing file, sorted by path; empty for an intact store.
    """
    found, good, hashes = _verify_manifests(files)
    found += _verify_tags(files, hashes)
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


def _verify_manifests(files: Files) -> tuple[list[Damage], dict[int, Manifest], dict[int, str]]:
    """What is wrong with them; those that can be read, and the SHA-256 of all that are there."""
    versions = manifests.versions(files)
    good: dict[int, Manifest] = {}
    hashes: dict[int, str] = {}
    recorded, found = _horizon(files)
    expected = range(recorded.oldest, versions[-1] + 1) if versions else []
    for version in sorted({*versions, *expected}):
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
    return found, good, hashes


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


def _horizon(files: Files) -> tuple[Horizon, list[Damage]]:
    try:
        return horizon.read(files), []
    except DamagedStoreError as error:
        versions = manifests.versions(files)
        problem = str(error).removeprefix(f"{HORIZON}: ")
        return Horizon(oldest=versions[0] if versions else 1), [Damage(HORIZON, problem)]


def _verify_tags(files: Files, hashes: dict[int, str]) -> list[Damage]:
    """Tags must be readable, and their versions be there unchanged."""
    found = tags.survey(files)
    damage = [Damage(path, problem) for path, problem in found.damaged.items()]
    for name, tag in found.good.items():
        if hashes.get(tag.version) != tag.manifest_sha256:
            problem = "is another file by now" if tag.version in hashes else "is missing"
            damage.append(Damage(f"{TAGS}/{name}.json", f"version {tag.version} {problem}; restore it or move the tag"))
    return damage


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


def _is_parquet(entry: Entry) -> bool:
    return entry.name.endswith(".parquet")
