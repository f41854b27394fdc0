"""``reelstore stores`` and ``reelstore store show|verify|diff|quarantine|retry|gc NAME``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from feature_store import FeatureStore, NoSnapshotError, list_stores
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
    """Dispatch one of the actions on one store."""
    if len(options.name.split("/")) != 2:
        raise CallError(f"expected <dataset>/<feature>, got {options.name!r}")
    actions: dict[str, Callable[[FeatureStore, argparse.Namespace], Outcome]] = {
        "show": _show, "verify": _verify, "diff": _diff, "quarantine": _quarantine, "retry": _retry, "gc": _gc,
    }  # fmt: skip
    return actions[options.action](FeatureStore.open(settings.stores / options.name), options)


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
    versions = options.versions or store.versions()[-2:]
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
    text = f"{count} items will be tried again by the next `reelstore extract {store.name.split('/')[0]}`"
    return Outcome({"name": store.name, "marked": count}, text)


def _gc(store: FeatureStore, options: argparse.Namespace) -> Outcome:
    garbage = store.gc(options.keep, timedelta(days=options.grace_days), apply=options.apply)
    verb = "removed" if garbage.applied else "would remove (add --apply)"
    text = f"{verb} {len(garbage.manifests)} versions, {len(garbage.paths)} files, {garbage.bytes / 2**20:.1f} MiB"
    return Outcome({"name": store.name, **asdict(garbage)}, text)
