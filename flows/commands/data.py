"""``reelstore datasets`` and ``reelstore prepare``."""

from __future__ import annotations

import argparse
from typing import Any

from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.jobs.prepare import prepare_dataset
from flows.jobs.progress import Progress
from flows.settings import Settings


def datasets(settings: Settings, _: argparse.Namespace) -> Outcome:
    """List every dataset with its files, licence, what is on disk and how to get access."""
    from datasets_spec import registry
    from datasets_spec.raw import on_disk

    entries: list[dict[str, Any]] = []
    for name in registry.names():
        spec = registry.load(name)[1]
        files = on_disk(spec, settings.raw(spec.raw or name))
        entries.append(
            {
                "name": name,
                "title": spec.title,
                "files": [entry.file.path for entry in files],
                "on_disk": [str(entry.path) for entry in files if entry.bytes is not None],
                "prepared": (settings.prepared(name) / "manifest.json").is_file(),
                "licence": spec.licence.name,
                "access": spec.access,
            }
        )
    rows = [
        [
            e["name"],
            f"{len(e['on_disk'])}/{len(e['files'])}",
            "yes" if e["prepared"] else "no",
            e["licence"],
            e["access"],
        ]
        for e in entries
    ]
    text = table(("dataset", "files on disk", "prepared", "licence", "access"), rows)
    more = (
        "Any other Amazon category: amazon-<category-in-kebab-case>.\n"
        "Interactions of your own: custom-NAME source=FOLDER"
    )
    return Outcome({"datasets": entries}, f"{text}\n\n{more}")


def prepare(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Prepare one dataset."""
    with Progress() as progress:
        prepared = prepare_dataset(settings, options.dataset, parse_overrides(options.overrides), progress=progress)
    manifest = prepared.manifest
    steps = [[step["name"], step["rows"], step["users"], step["items"], step["note"]] for step in manifest["steps"]]
    lines = [
        f"{prepared.name} prepared in {prepared.path} (version {prepared.version[:12]})",
        table(("step", "rows", "users", "items", ""), steps),
        manifest["split"]["line"],
        *(f"note: {note}" for note in manifest["notes"]),
        *(f"quarantined: {count} × {reason}" for reason, count in manifest["bad_rows"].items()),
    ]
    return Outcome({"dataset": prepared.name, "path": str(prepared.path), **prepared.manifest}, "\n".join(lines))
