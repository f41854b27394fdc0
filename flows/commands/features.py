"""``reelstore extract``."""

from __future__ import annotations

import argparse

from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.jobs.extract import extract_features
from flows.jobs.progress import Progress
from flows.settings import Settings


def extract(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Bring the stores of a dataset up to date; exit code 1 when a feature has no row at all."""
    features = [name.strip() for name in options.features.split(",") if name.strip()] if options.features else None
    with Progress() as progress:
        reports = extract_features(
            settings,
            options.dataset,
            features=features,
            overrides=parse_overrides(options.overrides),
            progress=progress,
        )
    rows = [
        [
            report.feature, "none" if report.version is None else f"v{report.version}", report.encoded, report.reused,
            report.failed, report.known_bad, report.items_per_second, "TOY CHECKPOINT" if report.toy else "",
        ]
        for report in reports
    ]  # fmt: skip
    header = ("feature", "version", "encoded", "reused", "failed now", "known bad", "items/s", "")
    text = table(header, rows)
    if not any(report.encoded or report.failed for report in reports):
        text += "\nnothing changed: no item was encoded again"
    if any(report.toy for report in reports):
        text += (
            "\nNOTE: seeded toy checkpoints carry no knowledge of the world; these features are for trying things out"
        )
    empty = any(report.version is None for report in reports)
    payload = {"dataset": options.dataset, "features": [report.as_dict() for report in reports]}
    return Outcome(payload, text, code=1 if empty else 0)
