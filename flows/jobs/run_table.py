"""Many ordinary runs with a row for each: what a sweep and a study have in common.

Every run has its own id, so that what was interrupted goes on where it was, and settings that two of them share are
trained once. A run whose training fails is a row with its reason; the others go on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from flows.config import ExperimentConfig
from flows.errors import WorkError
from flows.jobs.pinning import Pinned, pin, stores_read
from flows.jobs.train import ProgressCallback, run_experiment
from flows.settings import Settings
from models.errors import TrainingError
from models.evaluation.record import RunRecord
from models.files import write_atomically

if TYPE_CHECKING:
    from datasets_spec.prepare import PreparedDataset

RESULTS_FILE = "results.parquet"
RESULTS_TEXT_FILE = "results.csv"

#: Columns between those of the owner and the figures.
_ABOUT_A_RUN = {
    "seed": pl.Int64,
    "run_id": pl.String,
    "status": pl.String,
    "reason": pl.String,
    "selected_epoch": pl.Int64,
    "seconds": pl.Float64,
}

log = logging.getLogger(__name__)


class RunTable:
    """Trains runs and keeps their rows in ``results.parquet`` and ``results.csv`` of one folder.

    Attributes:
        rows: One per run, in the order in which they were asked for.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: PreparedDataset,
        folder: Path,
        *,
        owner: str,
        columns: Mapping[str, Any],
        figures: Sequence[str],
        read: Callable[[RunRecord], Mapping[str, float]],
        progress: ProgressCallback | None,
    ) -> None:
        """Begin; rows of failed runs that are in the folder are believed.

        Args:
            settings: Places.
            prepared: The dataset that all runs read.
            folder: Where the results are written.
            owner: ``sweep`` or ``study``, for messages.
            columns: The owner's own columns with their types, which come first.
            figures: Names of the columns of ``read``, which come last.
            read: What a row holds of a record.
            progress: Called by the trainings.
        """
        self.rows: list[dict[str, Any]] = []
        self._settings, self._prepared, self._folder = settings, prepared, folder
        self._owner, self._read, self._progress = owner, read, progress
        self._schema = {**columns, **_ABOUT_A_RUN, **dict.fromkeys(figures, pl.Float64)}
        self._stores: dict[str, int] = {}  # a store that gets a new version meanwhile is read as it was
        self._failed = _failed_before(folder / RESULTS_FILE)

    def pin(self, config: ExperimentConfig) -> tuple[ExperimentConfig, Pinned]:
        """The experiment with the store versions of the runs before it, and what it comes to.

        Raises:
            CallError: When a version is configured for a store that the model does not read.
            StoreError: When a store, or the version of it, is not there.
        """
        pinned, _ = pin(self._settings, self._with_stores(config), self._prepared)
        self._stores |= {store.name.split("/")[-1]: store.version for store in pinned.stores}
        return self._with_stores(config), pinned

    def train(self, config: ExperimentConfig, own: Mapping[str, Any], *, told: str) -> dict[str, Any]:
        """Train one run, or take what is known of it, and return its row.

        Args:
            config: The experiment.
            own: The owner's columns.
            told: What the log calls the run.

        Raises:
            WorkError: When the dataset was prepared anew meanwhile.
        """
        config, pinned = self.pin(config)
        reason = self._failed.get(pinned.run_id)
        row = {**own, "seed": config.seed, "run_id": pinned.run_id, "reason": reason}
        fresh = False
        if reason is None:
            try:
                outcome = run_experiment(self._settings, config, progress=self._progress)
                self._check(outcome.record)
                record = outcome.record
                row |= {"selected_epoch": record.selected_epoch, "seconds": record.timings["fit"], **self._read(record)}
                fresh = outcome.fresh
            except TrainingError as error:
                log.warning("%s, seed %d: %s", told, config.seed, error)
                row["reason"], fresh = str(error), True
                self._failed[pinned.run_id] = str(error)
        row["status"] = "finished" if row["reason"] is None else "failed"
        self.rows.append(row)
        if fresh:  # the rows of runs that were there already are in the file of what made them
            self.write()
        return row

    def write(self) -> None:
        """Replace both files."""
        frame = self.frame()
        write_atomically(self._folder / RESULTS_FILE, frame.write_parquet)
        write_atomically(self._folder / RESULTS_TEXT_FILE, frame.write_csv)

    def frame(self) -> pl.DataFrame:
        """The rows so far; the columns do not depend on what has been run."""
        return pl.DataFrame(self.rows, schema=self._schema)

    def _check(self, record: RunRecord) -> None:
        if record.dataset_version != self._prepared.version:
            raise WorkError(
                f"{record.dataset} was prepared anew during the {self._owner}; start the {self._owner} again"
            )

    def _with_stores(self, config: ExperimentConfig) -> ExperimentConfig:
        known = {feature: self._stores[feature] for feature in stores_read(config) if feature in self._stores}
        return config.model_copy(update={"stores": {**known, **config.stores}})


def figure_names(cutoffs: Sequence[int], split: str) -> list[str]:
    """``valid_hr@10`` … with the history unmasked, then ``valid_masked_hr@10`` …."""
    names = [f"{kind}@{k}" for k in cutoffs for kind in ("hr", "ndcg", "mrr")]
    return [*(f"{split}_{name}" for name in names), *(f"{split}_masked_{name}" for name in names)]


def figures_of(record: RunRecord, split: str) -> dict[str, float]:
    """The metrics of one split of a record under the names of :func:`figure_names`."""
    figures = next(both for name, both in record.metrics.items() if name == split)
    return {
        **{f"{split}_{name}": value for name, value in figures.unmasked.items()},
        **{f"{split}_masked_{name}": value for name, value in figures.masked.items()},
    }


def axis_type(values: Sequence[Any]) -> Any:
    """Type of an axis's column; None where the kinds are mixed, and the column holds JSON text."""
    kinds = {type(value) for value in values}
    if kinds == {int, float}:
        return pl.Float64
    plain = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64, str: pl.String}
    return plain.get(kinds.pop()) if len(kinds) == 1 else None


def axis_columns(axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A column for each axis."""
    return {name: axis_type(values) or pl.String for name, values in axes.items()}


def axis_values(axes: Mapping[str, Sequence[Any]], choice: Mapping[str, Any]) -> dict[str, Any]:
    """What the columns of the axes hold for a choice."""
    return {name: value if axis_type(axes[name]) else json.dumps(value) for name, value in choice.items()}


def _failed_before(path: Path) -> dict[str, str]:
    """Reason by run id of the failed runs in the results that are there."""
    if not path.is_file():
        return {}
    rows = pl.read_parquet(path, columns=["run_id", "status", "reason"]).filter(pl.col("status") == "failed")
    return dict(zip(rows["run_id"].to_list(), rows["reason"].to_list(), strict=True))
