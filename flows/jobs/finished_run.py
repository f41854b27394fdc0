"""A finished run, opened again: its record, its inputs, and its model at the selected weights."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from datasets_spec.partfile import sha256_of
from flows.config import ExperimentConfig
from flows.errors import CallError, WorkError
from flows.jobs.pinning import pin
from flows.jobs.prepare import open_prepared
from flows.jobs.run_inputs import RunInputs, build_model, read_inputs
from flows.settings import Settings
from models.evaluation.ranking import as_module
from models.evaluation.record import RunRecord
from models.training.checkpoint import WEIGHTS, find_checkpoint
from models.training.config import TrainingConfig
from models.training.journal import CHECKPOINTS, load_best
from models.training.runtime import Runtime, open_runtime

if TYPE_CHECKING:
    from datasets_spec.prepare import PreparedDataset
    from models.interface import Recommender

#: Key of the record's ``extra`` with the hash of the selected weights.
WEIGHTS_HASH = "weights_sha256"


@dataclass(frozen=True)
class FinishedRun:
    """What :func:`load_run` found.

    Attributes:
        folder: ``runs/<run id>``.
        record: Its record.
        prepared: The dataset that it was trained on; its numbers of items may differ from the model's.
        inputs: What the model reads, in the model's numbers.
        model: At the weights of ``epoch``.
        epoch: The epoch that the weights belong to.
    """

    folder: Path
    record: RunRecord
    prepared: PreparedDataset
    inputs: RunInputs
    model: Recommender
    epoch: int

    @property
    def training(self) -> TrainingConfig:
        """How it was trained."""
        return TrainingConfig.model_validate(self.record.config["training"])

    @contextmanager
    def at_work(self) -> Generator[Runtime]:
        """The model on the device and with the threads of its training; on what there is where its GPU is not."""
        training = self.training
        if training.device.startswith("cuda") and not torch.cuda.is_available():
            training = training.model_copy(update={"device": "auto"})
        with open_runtime(training) as runtime:
            as_module(self.model).to(runtime.device)
            yield runtime


def load_run(settings: Settings, run_id: str) -> FinishedRun:
    """Open a finished run.

    Raises:
        RecordError: When there is no finished run of that name.
        CallError: When the dataset was prepared anew since.
        StoreError: When a store that it read, or the version of it, is gone.
        WorkError: When the weights are not those that the run recorded.
        ResumeError: When there are no weights, or they cannot be read.
    """
    folder = settings.runs / run_id
    record = RunRecord.read(folder)
    prepared = open_prepared(settings, record.dataset)
    if prepared.version != record.dataset_version:
        raise CallError(
            f"run {run_id} was trained on version {record.dataset_version[:12]} of {record.dataset}, "
            f"{prepared.path} now holds {prepared.version[:12]}: train it again"
        )
    _check_weights(folder, record)
    config = ExperimentConfig.model_validate(record.config).model_copy(
        update={"stores": {store.name.split("/")[-1]: store.version for store in record.stores}}
    )
    pinned, snapshots = pin(settings, config, prepared)
    inputs = read_inputs(pinned, prepared, snapshots)
    model = build_model(pinned, inputs)
    epoch = load_best(folder, model)
    return FinishedRun(folder, record, prepared, inputs, model, epoch)


def best_weights(folder: Path) -> Path | None:
    """The file with the selected weights of a run; None where there is none."""
    found = find_checkpoint(folder / CHECKPOINTS / "best")
    return found / WEIGHTS if found is not None and (found / WEIGHTS).is_file() else None


def _check_weights(folder: Path, record: RunRecord) -> None:
    """Compare with the recorded hash: flipped bytes of a tensor would load without a word."""
    path, recorded = best_weights(folder), record.extra.get(WEIGHTS_HASH)
    if path is None or recorded is None:
        return
    found = sha256_of(path)
    if found != recorded:
        raise WorkError(
            f"{path}: damaged: expected the weights that the run recorded (sha256 {recorded[:12]}), got {found[:12]}; "
            f"put a copy of the file back, or remove {folder} and train the same experiment again"
        )
