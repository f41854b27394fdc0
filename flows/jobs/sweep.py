"""Run a sweep: many trainings of one experiment, the best of them chosen by validation.

Each run ranks the test split itself, once, for its record. The sweep's files and its choice are made without those
figures: only ``metrics["valid"]`` of a record is read until the choice has been made, and then the test figures of the
chosen runs and of no others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from flows.config import dump_toml
from flows.errors import WorkError
from flows.jobs.prepare import open_prepared
from flows.jobs.run_table import (
    RESULTS_TEXT_FILE,
    RunTable,
    axis_columns,
    axis_values,
    figure_names,
    figures_of,
)
from flows.jobs.search import Choice, coordinate, grid
from flows.jobs.sweep_config import Sweep, describe
from flows.jobs.train import ProgressCallback
from flows.settings import Settings
from models.evaluation.metrics import parse_metric
from models.evaluation.record import RunRecord
from models.files import write_atomically

BEST_FILE = "best.toml"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tried:
    """One combination of values and how it did.

    Attributes:
        choice: The value of each axis.
        run_ids: One per seed.
        values: The validation metric of each seed; None where the training failed.
    """

    choice: Choice
    run_ids: tuple[str, ...]
    values: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Over the seeds; None when the training of one of them failed."""
        values = [value for value in self.values if value is not None]
        return fmean(values) if len(values) == len(self.values) else None


@dataclass(frozen=True)
class SweepOutcome:
    """A sweep that has ended.

    Attributes:
        best: The combination with the highest mean.
        tried: All of them, in the order in which they were tried.
        metric: The validation metric that chose.
        test: Test metrics (history unmasked) of the chosen combination, means over the seeds.
    """

    best: Tried
    tried: tuple[Tried, ...]
    metric: str
    test: dict[str, float]


def run_sweep(sweep: Sweep, *, progress: ProgressCallback | None = None) -> SweepOutcome:
    """Train what the sweep asks for, choose by validation, and write ``sweeps/<name>/``.

    ``results.parquet`` and ``results.csv`` are replaced after every run and hold one row per run: the value of each
    axis (as JSON text where an axis mixes kinds), ``seed``, ``run_id``, ``status`` (``finished`` or ``failed``),
    ``reason``, ``selected_epoch``, ``seconds`` of training and validation, and the validation metrics with the history
    unmasked (``valid_hr@10`` …) and masked (``valid_masked_hr@10`` …). ``best.toml`` is there when the sweep has ended:
    the chosen experiment with its first seed, which ``reelstore train`` reads.

    A failed run is not tried again as long as its row is there: the same settings fail at the same step.

    Args:
        sweep: From :func:`flows.jobs.sweep_config.find_sweep`.
        progress: Called by the trainings.

    Raises:
        CallError: When a store or a dataset is missing, with the command that makes it.
        WorkError: When no combination could be trained with every seed, or the dataset was prepared anew meanwhile.
    """
    (sweep.folder / BEST_FILE).unlink(missing_ok=True)  # what is there is of the sweep that has ended
    runs = _Runs(sweep, progress)
    axes = sweep.config.axes
    if sweep.config.method == "grid":
        choice = grid(axes, runs.value)
    else:
        choice = coordinate(axes, runs.value, rounds=sweep.config.rounds)
    runs.table.write()
    if choice is None:
        reasons = [row["reason"] for row in runs.table.rows if row["reason"]]
        raise WorkError(
            f"sweep {sweep.name}: no combination that was tried could be trained with every seed; "
            f"{sweep.folder / RESULTS_TEXT_FILE} has the reasons, the first: {reasons[0]}"
        )
    best = runs.tried[_key(choice)]
    _write_best(sweep, best, tuple(runs.tried.values()), metric=runs.metric)
    return SweepOutcome(best, tuple(runs.tried.values()), runs.metric, _test_figures(sweep.settings, best))


class _Runs:
    """The combinations of a sweep so far, and their runs."""

    def __init__(self, sweep: Sweep, progress: ProgressCallback | None) -> None:
        self.sweep = sweep
        axes = sweep.config.axes
        first = sweep.experiment({name: values[0] for name, values in axes.items()}, sweep.config.seeds[0])
        self.metric: str = first.training["select"]
        self.table = RunTable(
            sweep.settings,
            open_prepared(sweep.settings, first.dataset),
            sweep.folder,
            owner="sweep",
            columns=axis_columns(axes),
            figures=figure_names(first.training["cutoffs"], "valid"),
            read=lambda record: figures_of(record, "valid"),  # nothing of the test split
            progress=progress,
        )
        self.tried: dict[str, Tried] = {}

    def value(self, choice: Choice) -> float | None:
        """Mean of the validation metric over the seeds; None when a training failed. Known choices cost nothing."""
        key = _key(choice)
        if key not in self.tried:
            rows = [self._row(choice, seed) for seed in self.sweep.config.seeds]
            kind, k = parse_metric(self.metric)
            column = f"valid_{'hr' if kind == 'recall' else kind}@{k}"  # one target: the recall is the hit rate
            self.tried[key] = Tried(
                choice, tuple(row["run_id"] for row in rows), tuple(row.get(column) for row in rows)
            )
            log.info("%s: %s %s", describe(choice), self.metric, self.tried[key].mean)
        return self.tried[key].mean

    def _row(self, choice: Choice, seed: int) -> dict[str, Any]:
        own = axis_values(self.sweep.config.axes, choice)
        return self.table.train(self.sweep.experiment(choice, seed), own, told=describe(choice))


def _write_best(sweep: Sweep, best: Tried, tried: tuple[Tried, ...], *, metric: str) -> None:
    """Write the chosen experiment as it was resolved, with where it comes from."""
    record = RunRecord.read(sweep.settings.runs / best.run_ids[0])
    seeds = ", ".join(str(seed) for seed in sweep.config.seeds)
    lines = [
        f"The best of sweep {sweep.name} ({sweep.config.method}, {len(tried)} combinations) by validation:",
        describe(best.choice),
        f"valid {metric} {best.mean:.6f}, mean of seeds {seeds}",
        f"Runs: {', '.join(best.run_ids)}",
    ]
    text = "".join(f"# {line}\n" for line in lines) + dump_toml(record.config)
    write_atomically(sweep.folder / BEST_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def _test_figures(settings: Settings, best: Tried) -> dict[str, float]:
    """Means over the seeds of the chosen combination's test metrics."""
    tables = [RunRecord.read(settings.runs / run_id).metrics["test"].unmasked for run_id in best.run_ids]
    return {name: fmean(table[name] for table in tables) for name in tables[0]}


def _key(choice: Mapping[str, Any]) -> str:
    return json.dumps(choice, sort_keys=True)
