"""``reelstore sweep``."""

from __future__ import annotations

import argparse
from statistics import stdev

from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.jobs.progress import Progress
from flows.jobs.sweep import BEST_FILE, SweepOutcome, Tried, run_sweep
from flows.jobs.sweep_config import Sweep, describe, find_sweep
from flows.settings import Settings


def sweep(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Train what a sweep file asks for and choose by validation."""
    found = find_sweep(settings, options.sweep, parse_overrides(options.overrides))
    with Progress() as progress:
        outcome = run_sweep(found, progress=progress)
    payload = {
        "sweep": found.name,
        "folder": str(found.folder),
        "metric": f"valid {outcome.metric}",
        "tried": [
            {"choice": tried.choice, "mean": tried.mean, "values": tried.values, "run_ids": tried.run_ids}
            for tried in outcome.tried
        ],
        "best": {"choice": outcome.best.choice, "run_ids": outcome.best.run_ids, "test": outcome.test},
    }
    return Outcome(payload, _text(found, outcome))


def _text(found: Sweep, outcome: SweepOutcome) -> str:
    header = (*found.config.axes, f"valid {outcome.metric}", "sd", "failed")
    rows = [[*tried.choice.values(), *_spread(tried)] for tried in outcome.tried]
    seeds = len(outcome.best.run_ids)
    figures = ", ".join(f"{name} {value:.4f}" for name, value in outcome.test.items() if not name.startswith("mrr"))
    return "\n".join(
        (
            table(header, rows),
            f"best: {describe(outcome.best.choice)}",
            f"reelstore train {found.folder / BEST_FILE}",
            f"test figures of the chosen runs alone (mean of {seeds} seed{'s' * (seeds > 1)}, unmasked): {figures}",
        )
    )


def _spread(tried: Tried) -> list[str]:
    """Mean and standard deviation over the seeds, and how many failed."""
    values = [value for value in tried.values if value is not None]
    mean = "" if tried.mean is None else f"{tried.mean:.6f}"
    return [mean, f"{stdev(values):.6f}" if len(values) > 1 else "", str(len(tried.values) - len(values))]
