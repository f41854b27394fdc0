"""Experiments whose inputs are newer than their last run, or that never ran."""

from __future__ import annotations

from dataclasses import dataclass

from datasets_spec.errors import DatasetsError
from feature_store import StoreError
from flows.config import ExperimentConfig, load_experiment
from flows.jobs.pinning import pin
from flows.jobs.prepare import open_prepared
from flows.settings import Settings
from models.evaluation.record import RecordError, RunRecord


@dataclass(frozen=True)
class Outdated:
    """An experiment that would train something new.

    Attributes:
        name: File name in ``configs/experiments``.
        model: Its model.
        run_id: The run that it would make; a function of configuration and inputs.
        reason: Why, in one sentence.
    """

    name: str
    model: str
    run_id: str
    reason: str


def outdated_experiments(settings: Settings, *, new: bool = False) -> list[Outdated]:
    """Experiments of ``configs/experiments`` without a run on the present data and stores.

    One whose dataset or stores are not there (any more) cannot train and is left out.

    Args:
        settings: Places.
        new: Also those that never ran; without it only those that have an earlier run.
    """
    found: list[Outdated] = []
    records = _records(settings)
    for path in sorted((settings.configs / "experiments").glob("*.toml")):
        config = load_experiment(path, {})
        earlier = [record for record in records if _same_experiment(record, config)]
        if not earlier and not new:
            continue
        try:
            pinned, _ = pin(settings, config, open_prepared(settings, config.dataset))
        except (DatasetsError, StoreError):
            continue
        if not (settings.runs / pinned.run_id / "record.json").is_file():
            last = max(earlier, key=lambda record: record.created_at, default=None)
            reason = f"last run {last.run_id} read older inputs" if last else "never trained"
            found.append(Outdated(path.stem, config.model, pinned.run_id, reason))
    return found


def _records(settings: Settings) -> list[RunRecord]:
    """Every readable record; a damaged one is the report's business, not a reason to start nothing."""
    records: list[RunRecord] = []
    for path in sorted(settings.runs.glob("*/record.json")):
        try:
            records.append(RunRecord.read(path.parent))
        except RecordError:
            continue
    return records


def _same_experiment(record: RunRecord, config: ExperimentConfig) -> bool:
    ours = config.model_dump(mode="json", exclude={"stores"})
    return {key: record.config.get(key) for key in ours} == ours
