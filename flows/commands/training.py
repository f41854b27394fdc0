"""``reelstore train``, ``evaluate``, ``report`` and ``recommend``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.errors import CallError
from flows.jobs.progress import Progress
from flows.settings import Settings
from models.evaluation.record import SplitMetrics


def train(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Train one experiment."""
    from flows.jobs.train import find_experiment, run_experiment

    config = find_experiment(settings, options.experiment, parse_overrides(options.overrides))
    with Progress() as progress:
        outcome = run_experiment(settings, config, progress=progress)
    verb = "trained" if outcome.fresh else "had been trained before, nothing was repeated"
    text = f"{outcome.record.run_id}: {verb}\n{metric_table(outcome.record.metrics)}"
    return Outcome({"fresh": outcome.fresh, **outcome.record.model_dump(mode="json")}, text)


def evaluate(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Rank both splits again with the best weights of a run and compare with what the run recorded."""
    from flows.jobs.train import load_run, rank_splits, split_metrics
    from models.training.config import TrainingConfig

    record, _, model, data = load_run(settings, options.run_id)
    training = TrainingConfig.model_validate(record.config["training"])
    with Progress() as progress:
        tables = rank_splits(model, data, training, seed=record.seed, progress=progress)
    metrics = {table.split: split_metrics(table, training.cutoffs) for table in tables}
    equal = metrics == record.metrics
    verdict = "equal to the record" if equal else "NOT equal to the record: another machine, thread count or library?"
    payload = {"run_id": record.run_id, "equal": equal, "metrics": {k: v.model_dump() for k, v in metrics.items()}}
    return Outcome(payload, f"{record.run_id}: {verdict}\n{metric_table(metrics)}")


def report(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Write the HTML page."""
    from flows.reporting.build import build_report

    out = Path(options.out) if options.out else settings.root / "report.html"
    with Progress() as progress:
        summary = build_report(settings, options.runs or None, out, progress=progress)
    return Outcome(vars(summary), f"{out} ({summary.bytes / 2**20:.1f} MiB, {summary.n_runs} runs)")


def recommend(settings: Settings, options: argparse.Namespace) -> Outcome:
    """The best items for one user, history excluded."""
    import torch

    from flows.jobs.train import load_run
    from models.evaluation.mode import eval_mode
    from models.evaluation.ranking import as_module

    record, prepared, model, data = load_run(settings, options.run_id)
    users = dict(zip(prepared.users["user_id"].to_list(), prepared.users["user"].to_list(), strict=True))
    if options.user not in users:
        raise CallError(f"{record.dataset} has no user {options.user!r} (after k-core); it has {len(users)} users")
    max_length = int(record.config["training"]["max_length"])
    batch, seen = data.serving_batch([users[options.user]], max_length=max_length)
    with eval_mode(as_module(model)), torch.no_grad():
        top = model.recommend(batch, k=options.k, exclude=seen, generator=torch.Generator().manual_seed(record.seed))
    items = prepared.items.sort("item")
    rows = [
        {
            "item_id": items["item_id"][index - 1],
            "title": items["title"][index - 1],
            "score": round(score, 4),
        }
        for index, score in zip(top.items[0].tolist(), top.scores[0].tolist(), strict=True)
    ]
    text = table(("item", "score", "title"), [[row["item_id"], row["score"], row["title"] or ""] for row in rows])
    return Outcome({"run_id": record.run_id, "user": options.user, "items": rows}, text)


def metric_table(metrics: Mapping[Any, SplitMetrics]) -> str:
    """HR and NDCG of each split, history unmasked and masked."""
    names = [name for name in next(iter(metrics.values())).unmasked if name.startswith(("hr", "ndcg"))]
    rows = [
        [split, history, *(f"{figures[name]:.4f}" for name in names)]
        for split, both in metrics.items()
        for history, figures in (("unmasked", both.unmasked), ("masked", both.masked))
    ]
    return table(("split", "history", *names), rows)
