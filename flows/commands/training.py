"""``reelstore train``, ``evaluate`` and ``report``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.jobs.progress import Progress
from flows.settings import Settings
from models.evaluation.record import RunRecord, SplitMetrics

#: What a process says when another one speaks for it.
SILENT = Outcome({}, "")


def train(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Train one experiment; of several processes under ``torchrun`` the first one says what came out."""
    from flows.jobs.pinning import pin
    from flows.jobs.prepare import open_prepared
    from flows.jobs.sinks import open_sinks
    from flows.jobs.train import find_experiment, run_experiment

    config = find_experiment(settings, options.experiment, parse_overrides(options.overrides))
    pinned, _ = pin(settings, config, open_prepared(settings, config.dataset))
    with (
        open_sinks(options.sink, settings, run_id=pinned.run_id, config=pinned.resolved) as tell,
        Progress() as progress,
    ):
        outcome = run_experiment(settings, config, progress=progress, on_epoch=tell)
    if not outcome.first:
        return SILENT
    verb = "trained" if outcome.fresh else "had been trained before, nothing was repeated"
    lines = [f"{outcome.record.run_id}: {verb}", *missing_lines(outcome.record), metric_table(outcome.record.metrics)]
    return Outcome({"fresh": outcome.fresh, **outcome.record.model_dump(mode="json")}, "\n".join(lines))


def evaluate(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Rank both splits again with the best weights of a run and compare with what the run recorded."""
    from flows.jobs.finished_run import load_run
    from flows.jobs.ranking import rank_again, split_metrics

    run = load_run(settings, options.run_id)
    with Progress() as progress:
        tables = rank_again(run, progress=progress)
    metrics = {table.split: split_metrics(table, run.training.cutoffs) for table in tables}
    equal = metrics == run.record.metrics
    verdict = "equal to the record" if equal else "NOT equal to the record: another machine, thread count or library?"
    payload = {"run_id": run.record.run_id, "equal": equal, "metrics": {k: v.model_dump() for k, v in metrics.items()}}
    return Outcome(payload, f"{run.record.run_id}: {verdict}\n{metric_table(metrics)}")


def report(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Write the HTML page."""
    from flows.reporting.build import build_report

    out = Path(options.out) if options.out else settings.root / "report.html"
    with Progress() as progress:
        summary = build_report(settings, options.runs or None, out, progress=progress)
    return Outcome(vars(summary), f"{out} ({summary.bytes / 2**20:.1f} MiB, {summary.n_runs} runs)")


def missing_lines(record: RunRecord) -> list[str]:
    """One line per feature table that has no row for some items: how many, and what became of them."""
    missing = record.extra["missing"]
    return [
        f"{name} has no row for {found['items']} items ({', '.join(found['first'])}"
        f"{', …' if found['items'] > len(found['first']) else ''}); missing = '{missing['policy']}'"
        for name, found in missing["tables"].items()
        if found["items"]
    ]


def metric_table(metrics: Mapping[Any, SplitMetrics]) -> str:
    """HR and NDCG of each split, history unmasked and masked."""
    names = [name for name in next(iter(metrics.values())).unmasked if name.startswith(("hr", "ndcg"))]
    rows = [
        [split, history, *(f"{figures[name]:.4f}" for name in names)]
        for split, both in metrics.items()
        for history, figures in (("unmasked", both.unmasked), ("masked", both.masked))
    ]
    return table(("split", "history", *names), rows)
