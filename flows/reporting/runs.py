"""Finished runs on disk, grouped so that runs that differ in nothing but the seed stand together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flows.errors import CallError
from flows.settings import Settings
from models.config import suggest
from models.errors import RecordError
from models.evaluation.metrics import metrics_from_ranks, parse_metric, per_user
from models.evaluation.record import RECORD_FILE, RunRecord, StoreVersion

HISTORIES = ("unmasked", "masked")

#: Column of ``ranks.parquet`` for each way to treat the history.
RANK_COLUMNS = {"unmasked": "rank", "masked": "rank_masked"}

#: What chooses among several configurations of a model; the test split chooses nothing.
SELECTING = "ndcg@10"

#: How one configuration of a model stands for it, in words.
CHOSEN = "Of several configurations of a model: of those with the most seeds, the one with the best validation NDCG@10."

_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        record: Its record.
        folder: Where it lies.
        epochs: Rows of ``metrics.jsonl``.
        test_ranks: Columns ``user, target, rank, rank_masked, tie_count`` of the test split; None where the file is
            absent or unreadable.
        faults: What is wrong with its files, one sentence each.
    """

    record: RunRecord
    folder: Path
    epochs: tuple[dict[str, Any], ...]
    test_ranks: pl.DataFrame | None
    faults: tuple[str, ...]

    def test_value(self, history: str, metric: str) -> float | None:
        """A metric of the test split: the recorded one, else that of the ranks, else None."""
        recorded = test_metrics(self.record, history).get(metric)
        if recorded is not None or self.test_ranks is None or self.test_ranks.is_empty():
            return recorded
        return float(per_user(self.test_ranks[RANK_COLUMNS[history]].to_numpy(), metric).mean())


@dataclass(frozen=True)
class Group:
    """Runs of one model on the same data with the same configuration, one per seed.

    Attributes:
        label: The model's name, numbered where a dataset has several configurations of it.
        runs: By seed.
        superseded: Older runs of a seed that is in ``runs``; not counted anywhere.
    """

    label: str
    runs: tuple[Run, ...]
    superseded: tuple[Run, ...]

    @property
    def record(self) -> RunRecord:
        """The record of the first seed."""
        return self.runs[0].record

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(run.record.seed for run in self.runs)

    def values(self, history: str, metric: str) -> list[float]:
        """A test metric of every seed; empty unless all runs have it."""
        return _all_or_none([run.test_value(history, metric) for run in self.runs])

    def valid_values(self, metric: str) -> list[float]:
        """A validation metric (history unmasked) of every seed; empty unless all runs have it."""
        splits = [run.record.metrics.get("valid") for run in self.runs]
        return _all_or_none([None if split is None else split.unmasked.get(metric) for split in splits])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The model's own settings."""
        return self.record.config.get("parameters", {})

    @property
    def seeds_text(self) -> str:
        """Such as ``seeds 0, 1, 2``."""
        return ("seeds " if len(self.runs) > 1 else "seed ") + ", ".join(map(str, self.seeds))


def labels_text(groups: Sequence[Group]) -> str:
    """The labels of groups, short: ``sasrec; mealrec #1, #3 to #9``."""
    parts: list[str] = []
    for model in dict.fromkeys(group.record.model for group in groups):
        labels = [group.label for group in groups if group.record.model == model]
        numbers = sorted(int(label.rpartition("#")[2]) for label in labels if "#" in label)
        parts.append(f"{model} {_ranges(numbers)}" if numbers else model)
    return "; ".join(parts)


def _ranges(numbers: Sequence[int]) -> str:
    """``#1, #3 to #9`` for 1, 3, 4, …, 9."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    return ", ".join(f"#{span[0]}" if len(span) == 1 else f"#{span[0]} to #{span[-1]}" for span in spans)


def _all_or_none(values: Sequence[float | None]) -> list[float]:
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else []


def best_on_validation(groups: Sequence[Group]) -> Group:
    """Of the configurations with the most seeds the one with the highest mean validation NDCG@10.

    A sweep with one seed has many configurations, and the best of many single draws is lucky: the one that was then
    trained with several seeds counts.
    """
    return max(groups, key=lambda group: (len(group.runs), _validated(group)))


def best_of_each_model(groups: Sequence[Group]) -> list[Group]:
    """One configuration per model, chosen on validation, in the order of ``groups``."""
    best = {best_on_validation([g for g in groups if g.record.model == group.record.model]).label for group in groups}
    return [group for group in groups if group.label in best]


def _validated(group: Group) -> float:
    values = group.valid_values(SELECTING)
    return sum(values) / len(values) if values else float("-inf")


def test_metrics(record: RunRecord, history: str) -> Mapping[str, float]:
    """Metrics of the test split with the history ``unmasked`` or ``masked``; empty where it was not evaluated."""
    split = record.metrics.get("test")
    if split is None:
        return {}
    return split.unmasked if history == "unmasked" else split.masked


def load_runs(settings: Settings, run_ids: Sequence[str] | None) -> tuple[list[Run], list[str]]:
    """Read runs.

    Args:
        settings: Places.
        run_ids: Which; None for all.

    Returns:
        The finished runs by id, and a sentence about each folder that holds none (only where ``run_ids`` is None).

    Raises:
        CallError: When a run that was asked for is not there, with the near name.
        RecordError: When a run that was asked for is unfinished or its record unreadable.
    """
    there = sorted(path.name for path in settings.runs.iterdir() if path.is_dir()) if settings.runs.is_dir() else []
    if run_ids is not None:
        for run_id in run_ids:
            if run_id not in there:
                hint = suggest(run_id, there) if there else "there are no runs yet"
                raise CallError(f"no run {run_id!r} in {settings.runs}; {hint}")
        return [read_run(settings.runs / run_id) for run_id in dict.fromkeys(run_ids)], []
    runs: list[Run] = []
    left_out: list[str] = []
    for run_id in there:
        folder = settings.runs / run_id
        if not (folder / RECORD_FILE).is_file():
            left_out.append(f"{run_id}: not finished (no {RECORD_FILE}); the same training call goes on with it.")
            continue
        try:
            runs.append(read_run(folder))
        except RecordError as error:
            left_out.append(f"{run_id}: {error}")
    return runs, left_out


def read_run(folder: Path) -> Run:
    """Read one run; only the record is indispensable.

    Raises:
        RecordError: When it is absent or unreadable.
    """
    record = RunRecord.read(folder)
    faults: list[str] = []
    epochs = _read_epochs(folder / "metrics.jsonl", faults)
    ranks = _read_test_ranks(folder / "ranks.parquet", faults)
    if ranks is not None:
        faults.extend(_disagreements(record, ranks))
    return Run(record, folder, epochs, ranks, tuple(faults))


def _read_epochs(path: Path, faults: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return tuple(json.loads(line) for line in lines if line.strip())
    except (OSError, ValueError) as error:
        faults.append(f"{path.name} cannot be read ({error}): there are no training curves.")
        return ()


def _read_test_ranks(path: Path, faults: list[str]) -> pl.DataFrame | None:
    try:
        frame = pl.read_parquet(path).filter(pl.col("split") == "test")
        return frame.select("user", "target", "rank", "rank_masked", "tie_count")
    except (OSError, pl.exceptions.PolarsError) as error:
        faults.append(f"{path.name} cannot be read ({str(error).partition(chr(10))[0]}): nothing is compared by user.")
        return None


def _disagreements(record: RunRecord, ranks: pl.DataFrame) -> list[str]:
    """Metrics of the record that do not follow from the saved ranks."""
    faults: list[str] = []
    for history, column in RANK_COLUMNS.items():
        recorded = test_metrics(record, history)
        if not recorded or ranks.is_empty():
            continue
        cutoffs = sorted({parse_metric(name)[1] for name in recorded})
        computed = metrics_from_ranks(ranks[column].to_numpy(), cutoffs)
        wrong = [name for name, value in recorded.items() if abs(computed[name] - value) > _TOLERANCE]
        if wrong:
            faults.append(
                f"The recorded test metrics ({history}) do not follow from ranks.parquet: {', '.join(wrong)}."
            )
    return faults


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs together that share model, dataset, dataset version, stores and configuration except the seed."""
    families: dict[str, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.record.created_at):
        families.setdefault(_family(run.record), []).append(run)
    groups = [_newest_per_seed(members) for members in families.values()]
    names = [(group.record.dataset, group.record.model) for group in groups]
    labelled: list[Group] = []
    for position, group in enumerate(groups):
        same = [index for index, name in enumerate(names) if name == names[position]]
        number = f" #{same.index(position) + 1}" if len(same) > 1 else ""
        labelled.append(Group(group.record.model + number, group.runs, group.superseded))
    return labelled


def _family(record: RunRecord) -> str:
    config = {key: value for key, value in record.config.items() if key != "seed"}
    facts = [record.model, record.dataset, record.dataset_version, [str(store) for store in record.stores], config]
    return json.dumps(facts, sort_keys=True, default=str)


def _newest_per_seed(members: Sequence[Run]) -> Group:
    newest = {run.record.seed: run for run in members}  # members are in the order of time
    runs = tuple(newest[seed] for seed in sorted(newest))
    older = tuple(run for run in members if run is not newest[run.record.seed])
    return Group("", runs, older)


def settings_that_differ(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Dotted settings (and inputs) that are not equal in all groups, with the value in each."""
    flat = [_flatten(_described(group.record)) for group in groups]
    keys = sorted({key for values in flat for key in values})
    table = {key: [values.get(key, "not set") for values in flat] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _described(record: RunRecord) -> dict[str, Any]:
    config = {key: value for key, value in record.config.items() if key not in ("seed", "stores")}
    return {**config, "dataset_version": record.dataset_version[:12], "stores": names_of(record.stores)}


def names_of(stores: Sequence[StoreVersion]) -> str:
    """Such as ``synthetic/vit@1, synthetic/videomae@2``."""
    return ", ".join(str(store) for store in stores)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def pooled_ranks(groups: Sequence[Group]) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Test ranks (history unmasked) of all seeds of each group that has them."""
    pooled: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    for group in groups:
        parts = [run.test_ranks["rank"].to_numpy() for run in group.runs if run.test_ranks is not None]
        if parts and sum(map(len, parts)):
            pooled[group.label] = np.concatenate(parts).astype(np.int64)
    return pooled
