"""``reelstore stores`` and ``reelstore store ACTION NAME``."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any, get_args

from feature_store import FeatureStore, NoSnapshotError, export_snapshot, list_stores
from feature_store.export import Form
from flows.commands.outcome import Outcome, table
from flows.errors import CallError
from flows.jobs.progress import Progress
from flows.settings import Settings


def stores(settings: Settings, _: argparse.Namespace) -> Outcome:
    """List every store with the facts of its latest version."""
    entries = [describe(name, store) for name, store in list_stores(settings.stores)]
    if not entries:
        return Outcome({"stores": []}, f"no stores below {settings.stores}; `reelstore extract DATASET` makes them")
    header = ("store", "version", "rows", "quarantined", "encoder", "checkpoint", "spec")
    rows = [
        [
            e["name"], e["version"], e["rows"], e["quarantined"],
            e["spec"].get("encoder", ""), checkpoint_label(e["spec"]), (e["spec_hash"] or "")[:12],
        ]
        for e in entries
    ]  # fmt: skip
    return Outcome({"stores": entries}, table(header, rows))


def describe(name: str, store: FeatureStore) -> dict[str, Any]:
    """Name, version, rows, spec and quality of a store; version 0 where nothing was committed yet."""
    quarantined = len(store.quarantined())
    try:
        snapshot = store.latest()
    except NoSnapshotError:
        empty: dict[str, Any] = {"version": 0, "rows": 0, "spec": {}, "spec_hash": None, "quality": None}
        return {"name": name, **empty, "quarantined": quarantined}
    return {
        "name": name,
        "version": snapshot.version,
        "rows": snapshot.rows,
        "spec": snapshot.spec,
        "spec_hash": snapshot.spec_hash,
        "quality": snapshot.quality.model_dump(mode="json"),
        "quarantined": quarantined,
        "created_at": snapshot.manifest.created_at.isoformat(),
    }


def checkpoint_label(spec: dict[str, Any]) -> str:
    """Which weights, in a few characters; seeded toy ones are named as such."""
    weights = spec.get("checkpoint", {})
    source = spec.get("recorded", {}).get("checkpoint", {})
    if weights.get("toy"):
        return f"TOY (seed {weights.get('seed')})"
    revision = source.get("revision")
    return f"{source.get('source', '?')}" + (f"@{revision[:8]}" if revision else "")


def store(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Dispatch one of the actions on one store, named as below the root or by its URL.

    What a store in a bucket is reached with stands in the environment, see :meth:`FeatureStore.open`.
    """
    if "://" not in options.name and len(options.name.split("/")) != 2:
        raise CallError(
            f"expected <dataset>/<feature>, or a URL such as s3://bucket/stores/<dataset>/<feature>, "
            f"got {options.name!r}"
        )
    actions: dict[str, Callable[[FeatureStore, argparse.Namespace], Outcome]] = {
        "show": _show, "verify": _verify, "diff": _diff, "quarantine": _quarantine, "retry": _retry,
        "compact": _compact, "tag": _tag, "export": _export, "gc": _gc,
    }  # fmt: skip
    if options.words and options.action not in ("diff", "tag", "export"):
        raise CallError(f"{options.action} takes no further words, got {' '.join(options.words)}")
    place = options.name if "://" in options.name else settings.stores / options.name
    return actions[options.action](FeatureStore.open(place), options)


def _show(store: FeatureStore, _: argparse.Namespace) -> Outcome:
    facts = {**describe(store.name, store), "versions": store.versions()}
    return Outcome(facts, json.dumps(facts, indent=2, default=str))


def _verify(store: FeatureStore, _: argparse.Namespace) -> Outcome:
    with Progress() as progress:
        damage = store.verify(progress)
    payload = {"name": store.name, "intact": not damage, "damage": [asdict(entry) for entry in damage]}
    if not damage:
        return Outcome(payload, f"{store.name}: every file is intact")
    return Outcome(payload, table(("file", "problem"), [[entry.path, entry.problem] for entry in damage]), code=1)


def _diff(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    versions = [_number(word) for word in options.words] or store.versions()[-2:]
    if len(versions) != 2:
        raise CallError(f"diff needs two versions; {store.name} has {store.versions()}")
    difference = store.diff(*versions)
    rows = [
        ["added", len(difference.added), ", ".join(difference.added[:8])],
        ["removed", len(difference.removed), ", ".join(difference.removed[:8])],
        ["replaced", len(difference.replaced), ", ".join(difference.replaced[:8])],
        *(["spec", key, f"{old!r} -> {new!r}"] for key, (old, new) in difference.spec.items()),
        *(["cosine", key, f"{value:.6f}"] for key, value in difference.cosine.items()),
    ]
    text = table((f"{store.name} {difference.older} -> {difference.newer}", "", ""), rows)
    return Outcome({"name": store.name, **asdict(difference)}, text)


def _quarantine(store: FeatureStore, _: argparse.Namespace) -> Outcome:
    rows = store.quarantined().select("item_id", "stage", "reason", "attempts", "detail").to_dicts()
    text = table(("item", "stage", "reason", "attempts", "detail"), [list(row.values()) for row in rows])
    return Outcome({"name": store.name, "quarantine": rows}, text if rows else f"{store.name}: nothing in quarantine")


def _retry(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    count = store.retry(options.reason)
    text = f"{count} items will be tried again by the next extraction of {store.name}"
    return Outcome({"name": store.name, "marked": count}, text)


def _compact(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    before = store.latest()
    compression = "zstd" if options.zstd else "none"
    with Progress() as progress:
        after = store.compact(target_bytes=options.target_mb * 1_000_000, compression=compression, progress=progress)
    old, new = before.manifest.counts, after.manifest.counts
    payload = {
        "name": store.name, "version": after.version, "changed": after.version != before.version, "rows": after.rows,
        "shards_before": old.shards, "shards": new.shards, "dead_rows_before": old.dead_rows, "bytes": new.bytes,
    }  # fmt: skip
    if after.version == before.version:
        return Outcome(payload, f"{store.name}@{after.version} is compact already: {new.shards} shards")
    text = (
        f"{store.name}@{after.version}: {after.rows} rows in {new.shards} shards instead of {old.shards}, "
        f"{old.dead_rows} superseded rows left out; `reelstore store gc {options.name}` removes the old shards"
    )
    return Outcome(payload, text)


def _tag(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    if len(options.words) > 2:
        raise CallError(f"expected TAG [VERSION], got {' '.join(options.words)}")
    if options.remove:
        if len(options.words) != 1:
            raise CallError("tag --remove needs the tag, and nothing else")
        tag = store.untag(options.words[0])
        text = f"{store.name}: the tag {options.words[0]} of version {tag.version} is removed"
    elif options.words:
        version = _number(options.words[1]) if len(options.words) == 2 else None
        tag = store.tag(options.words[0], version, move=options.move)
        text = f"{store.name}: {options.words[0]} is version {tag.version}"
    else:
        text = ""
    tags = store.tags()
    payload = {"name": store.name, "tags": {name: tag.model_dump(mode="json") for name, tag in tags.items()}}
    rows = [[name, tag.version, tag.created_at.isoformat(timespec="seconds")] for name, tag in tags.items()]
    listed = table(("tag", "version", "since"), rows) if rows else f"{store.name}: no tags"
    return Outcome(payload, text or listed)


def _export(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    wanted = [(form, getattr(options, form)) for form in get_args(Form) if getattr(options, form)]
    if len(wanted) != 1:
        raise CallError("export needs exactly one of --npy DIR, --parquet DIR, --lance DIR, --hf DIR")
    if len(options.words) > 1:
        raise CallError(f"expected at most one version or tag, got {' '.join(options.words)}")
    word = options.words[0] if options.words else None
    snapshot = store.latest() if word is None else store.at(int(word) if word.isdecimal() else word)
    form, folder = wanted[0]
    with Progress() as progress:
        made = export_snapshot(
            snapshot, folder, form, compression="zstd" if options.zstd else "none", progress=progress
        )
    text = f"{snapshot.name}@{made.version}: {made.rows} rows in {made.folder}, {made.bytes / 2**20:.1f} MiB"
    return Outcome({"name": store.name, **asdict(made)}, text)


def _number(word: str) -> int:
    if not word.isdecimal():
        raise CallError(f"expected the number of a version, got {word!r}")
    return int(word)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", text)
    if not match:
        raise CallError(f"--grace: expected a number and d, h, m or s, such as 7d or 12h, got {text!r}")
    unit = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}[match.group(2)]
    return timedelta(**{unit: float(match.group(1))})


def _gc(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    garbage = store.gc(options.keep, _duration(options.grace), apply=options.apply)
    verb = "removed" if garbage.applied else "would remove (add --apply)"
    text = f"{verb} {len(garbage.manifests)} versions, {len(garbage.paths)} files, {garbage.bytes / 2**20:.1f} MiB"
    return Outcome({"name": store.name, **asdict(garbage)}, text)
