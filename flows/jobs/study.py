"""Run a study: train what a figure or a table of a paper compares, with several seeds.

A study chooses nothing, so it reads the validation and the test figures of every run; settings that are to be chosen
are a sweep's, which keeps the test split out of sight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

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
from flows.jobs.study_config import Point, Study
from flows.jobs.train import ProgressCallback
from models.evaluation.record import RunRecord

COMPARISON_FILE = "comparison.csv"
FIGURE_FILE = "figure.svg"
PAGE_FILE = "study.html"


@dataclass(frozen=True)
class Measured:
    """One point of a study with its rows of the results, one per seed."""

    point: Point
    rows: tuple[dict[str, Any], ...]

    @property
    def finished(self) -> tuple[str, ...]:
        """Ids of the runs that did not fail."""
        return tuple(row["run_id"] for row in self.rows if row["status"] == "finished")

    @property
    def failures(self) -> dict[int, str]:
        """Reason by seed."""
        return {row["seed"]: row["reason"] for row in self.rows if row["status"] == "failed"}

    def values(self, metric: str, *, split: str = "test") -> list[float]:
        """A metric (history unmasked) of every finished run."""
        return [row[f"{split}_{metric}"] for row in self.rows if row["status"] == "finished"]


def run_study(study: Study, *, progress: ProgressCallback | None = None) -> tuple[Measured, ...]:
    """Train what the study asks for and write ``results.parquet`` and ``results.csv`` of its folder.

    Both are replaced after every run and hold one row per point and seed: ``label``, the value of each axis (as JSON
    text where an axis mixes kinds; null where it is as in the experiment), ``seed``, ``run_id``, ``status``
    (``finished`` or ``failed``), ``reason``, ``selected_epoch``, ``seconds`` of training and validation, and the
    metrics of both splits with the history unmasked (``test_hr@10`` …) and masked (``test_masked_hr@10`` …). Stores are
    pinned before the first training.

    A failed run is not tried again as long as its row is there: the same settings fail at the same step.

    Args:
        study: From :func:`flows.jobs.study_config.find_study`.
        progress: Called by the trainings.

    Returns:
        Every point, in the order of the file.

    Raises:
        CallError: When a store or a dataset is missing, with the command that makes it.
        WorkError: When no training succeeded, or the dataset was prepared anew meanwhile.
    """
    points, seeds = study.config.points, study.config.seeds
    table = _table(study, progress)
    for point in points:
        table.pin(study.experiment(point, seeds[0]))
    for file in (COMPARISON_FILE, FIGURE_FILE, PAGE_FILE):  # what is there is of a study that has ended
        (study.folder / file).unlink(missing_ok=True)
    axes = study.config.axes
    measured: list[Measured] = []
    for point in points:
        own = {"label": point.label, **axis_values(axes, point.choice)}
        rows = [table.train(study.experiment(point, seed), own, told=str(point)) for seed in seeds]
        measured.append(Measured(point, tuple(rows)))
    table.write()
    if not any(found.finished for found in measured):
        raise WorkError(
            f"study {study.name}: no training succeeded; {study.folder / RESULTS_TEXT_FILE} has the reasons, "
            f"the first: {table.rows[0]['reason']}"
        )
    return tuple(measured)


def _table(study: Study, progress: ProgressCallback | None) -> RunTable:
    configs = [study.experiment(point, study.config.seeds[0]) for point in study.config.points]
    cutoffs = sorted({k for config in configs for k in config.training["cutoffs"]})
    return RunTable(
        study.settings,
        open_prepared(study.settings, configs[0].dataset),
        study.folder,
        owner="study",
        columns={"label": pl.String, **axis_columns(study.config.axes)},
        figures=[*figure_names(cutoffs, "valid"), *figure_names(cutoffs, "test")],
        read=_both_splits,
        progress=progress,
    )


def _both_splits(record: RunRecord) -> dict[str, float]:
    return {**figures_of(record, "valid"), **figures_of(record, "test")}
