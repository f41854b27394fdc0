"""Garbage collection: remove old versions, and the files that no remaining version refers to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from feature_store import faults, horizon, tags
from feature_store import manifest as manifests
from feature_store.cache import CACHE, fingerprint
from feature_store.errors import DamagedStoreError, SpecError
from feature_store.files import TEMPORARY, Entry, Files
from feature_store.horizon import Horizon
from feature_store.manifest import MANIFESTS, SHARDS, Manifest, shard_path
from feature_store.quarantine import QUARANTINE
from feature_store.tags import TAGS

#: What garbage collection may remove from a folder; anything else is somebody's own file.
_OURS = {SHARDS: re.compile(r"[0-9a-f]{64}\.parquet"), CACHE: re.compile(r"[0-9a-f]{32}\.npy")}


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


@dataclass(frozen=True)
class _Survey:
    """What goes: versions with their manifests, and files; ``oldest`` is where the newest that stay begin."""

    oldest: int
    leaving: dict[int, Entry]
    files: list[Entry]


def gc(files: Files, *, keep: int, grace: timedelta, apply: bool) -> Garbage:
    """Remove old versions, and the files that no remaining version refers to.

    The newest ``keep`` versions and the tagged ones stay, and everything younger than ``grace``, so that neither a
    run in progress nor the finished shards of an interrupted one are touched: ``grace`` must exceed the longest run,
    and the longest that a reader holds on to a version. Manifests go before shards, so that a crash leaves no
    version that misses a shard. The store is looked at again before the first shard goes: what a commit needs by
    then stays.

    Args:
        files: The store.
        keep: Versions to keep, at least 1.
        grace: Age below which nothing is removed.
        apply: Whether to remove; else only report.

    Raises:
        SpecError: When ``keep`` is below 1 or ``grace`` negative.
        DamagedStoreError: When a tag, or a manifest that stays, cannot be read: what it keeps is not known.
    """
    if keep < 1 or grace < timedelta(0):
        raise SpecError(f"gc: expected keep >= 1 and grace >= 0, got keep={keep} and grace={grace}")
    before = datetime.now(UTC) - grace
    survey = _survey(files, keep, before)
    if not apply:
        return _report(survey.leaving, survey.files, applied=False)
    removed = _remove_versions(files, survey)
    still = {entry.path for entry in _survey(files, keep, before).files}
    garbage = [entry for entry in survey.files if entry.path in still]
    for entry in garbage:
        faults.reached("gc.file")
        files.delete(entry.path)
    faults.reached("gc.done")
    return _report(removed, garbage, applied=True)


def _survey(files: Files, keep: int, before: datetime) -> _Survey:
    entries = manifests.numbered(files)
    versions = list(entries)
    newest = versions[-keep:]
    for version in reversed(versions[:-keep]):
        if entries[version].modified < before:
            break  # everything before it is older still
        newest = [version, *newest]
    staying = {tag.version for tag in tags.read_all(files).values()}.intersection(versions).union(newest)
    kept = [manifests.load(files, version) for version in sorted(staying)]
    garbage = [entry for entry in _unreferenced(files, kept) if entry.modified < before]
    leaving = {version: entry for version, entry in entries.items() if version not in staying}
    return _Survey(newest[0] if newest else 1, leaving, garbage)


def _remove_versions(files: Files, survey: _Survey) -> dict[int, Entry]:
    """Announce what goes, look for tags made in the meantime, remove the rest."""
    try:
        recorded = horizon.read(files)
    except DamagedStoreError:
        recorded = Horizon()
    if not survey.leaving and not recorded.removing:
        return {}
    oldest = max(survey.oldest, recorded.oldest)
    horizon.write(files, Horizon(oldest=oldest, removing=tuple(survey.leaving)))
    faults.reached("gc.intent")
    tagged = {tag.version for tag in tags.read_all(files).values()}
    removed = {version: entry for version, entry in survey.leaving.items() if version not in tagged}
    for entry in removed.values():
        faults.reached("gc.manifest")
        files.delete(entry.path)
    horizon.write(files, Horizon(oldest=oldest))
    return removed


def _unreferenced(files: Files, kept: list[Manifest]) -> list[Entry]:
    """Shards and caches of no kept version, and what crashes left behind."""
    needed = {shard_path(shard.sha256) for manifest in kept for shard in manifest.shards}
    needed |= {f"{CACHE}/{fingerprint(manifest, name)}.npy" for manifest in kept for name in manifest.columns}
    found: list[Entry] = []
    for folder in (SHARDS, CACHE, MANIFESTS, QUARANTINE, TAGS):
        ours = _OURS.get(folder)
        for entry in files.entries(folder):
            owned = ours is not None and ours.fullmatch(entry.name) is not None
            if entry.name.endswith(TEMPORARY) or (owned and entry.path not in needed):
                found.append(entry)
    return found


def _report(leaving: dict[int, Entry], garbage: list[Entry], *, applied: bool) -> Garbage:
    doomed = [*leaving.values(), *garbage]
    return Garbage(list(leaving), [entry.path for entry in doomed], sum(entry.size for entry in doomed), applied)
