"""Train one experiment: pin the inputs, build, fit, open the test split once, write the record.

Under ``torchrun`` every process runs this. They train together; the first one holds the run's lock and writes.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import ExperimentConfig, dump_toml, load_experiment
from flows.errors import WorkError
from flows.jobs.pinning import Pinned, pin
from flows.jobs.prepare import open_prepared
from flows.jobs.provenance import git_sha, lock_hash, machine, peak_memory, restart_peak_memory
from flows.settings import Settings
from models.evaluation.record import RECORD_FILE, EvaluationProtocol, RunRecord

if TYPE_CHECKING:
    from flows.jobs.run_inputs import RunInputs
    from models.distributed import Workers
    from models.evaluation.ranking import RankTable
    from models.training.loop import FitResult
    from models.training.runtime import Runtime

ProgressCallback = Callable[[str, int, int | None], None]
EpochCallback = Callable[[Mapping[str, Any]], None]

RANKS_FILE = "ranks.parquet"
CONFIG_FILE = "config.toml"
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class TrainOutcome:
    """A finished run.

    Attributes:
        record: Its record.
        fresh: False when it had been finished before.
        first: Whether this process is the one that wrote it; of several under ``torchrun`` one is.
    """

    record: RunRecord
    fresh: bool
    first: bool = True

    @property
    def headline(self) -> str:
        """The test figures that people ask for first."""
        figures = self.record.metrics["test"]
        return f"HR@10 {figures.unmasked['hr@10']:.4f}, NDCG@10 {figures.unmasked['ndcg@10']:.4f}"


def find_experiment(settings: Settings, experiment: str, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """Load an experiment by path, or by its name in ``configs/experiments``.

    Raises:
        CallError: When there is no such file, with the near name.
    """
    path = Path(experiment)
    if path.suffix != ".toml":
        path = settings.configs / "experiments" / f"{experiment}.toml"
    elif not path.is_file() and path.parent.name == "experiments":
        path = settings.configs / "experiments" / path.name
    return load_experiment(path, overrides)


def run_experiment(
    settings: Settings,
    config: ExperimentConfig,
    *,
    progress: ProgressCallback | None = None,
    on_epoch: EpochCallback | None = None,
) -> TrainOutcome:
    """Train, select on validation, rank the test split once, and write ``runs/<run id>/``.

    A finished run with the same configuration, dataset version and store versions is returned as it is; an unfinished
    one goes on from its last checkpoint. Of several calls at once for the same run one trains; the others wait for it
    and return what it made.

    Args:
        settings: Places.
        config: The experiment.
        progress: Called as ``progress(stage, done, total)``.
        on_epoch: Called with each new row of ``metrics.jsonl`` once it is written.

    Raises:
        CallError: When a store or a dataset is missing, with the command that makes it.
        MissingFeatureError: When a feature table does not fit the model.
        TrainingError: When the loss is not finite.
        RecordError: When the test split of the run was opened for another epoch.
    """
    from torch.distributed import is_torchelastic_launched

    from flows.jobs.run_inputs import read_inputs
    from models.training.config import TrainingConfig
    from models.training.runtime import open_runtime

    prepared = open_prepared(settings, config.dataset)
    pinned, snapshots = pin(settings, config, prepared)
    run_dir = settings.runs / pinned.run_id
    if not is_torchelastic_launched() and (run_dir / RECORD_FILE).is_file():  # neither lock nor device is needed
        return TrainOutcome(RunRecord.read(run_dir), fresh=False)
    training = TrainingConfig.model_validate(config.training)
    with open_runtime(training) as runtime, _alone(run_dir, runtime.workers):
        fresh = not _finished(pinned, run_dir, runtime)
        if fresh:
            restart_peak_memory(training.device)
            inputs = read_inputs(pinned, prepared, snapshots)
            _train(pinned, inputs, run_dir, runtime.workers, progress=progress, on_epoch=on_epoch)
        runtime.workers.wait()  # until the first process has written the record
        return TrainOutcome(RunRecord.read(run_dir), fresh=fresh, first=runtime.workers.first)


@contextmanager
def _alone(run_dir: Path, workers: Workers) -> Generator[None]:
    """Hold the run's folder; the kernel lets go of it when the process ends, however that happens.

    Of several processes the first holds it for all, and the others wait until it does.
    """
    with ExitStack() as stack:
        if workers.first:
            run_dir.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context((run_dir / LOCK_FILE).open("w"))
            fcntl.flock(stream, fcntl.LOCK_EX)
        workers.wait()
        yield


def _finished(pinned: Pinned, run_dir: Path, runtime: Runtime) -> bool:
    """Whether the first process finds the run finished; all must have pinned the same inputs.

    Raises:
        WorkError: When this process has pinned others, as when a store is committed to at this very moment.
    """
    import torch

    own = int(pinned.digest, 16)
    told = torch.tensor([own, int((run_dir / RECORD_FILE).is_file())], device=runtime.device)
    runtime.workers.same([told])
    if int(told[0]) != own:
        raise WorkError(
            f"process {runtime.workers.rank} reads other inputs than the first one: expected the run ending in "
            f"{int(told[0]):08x}, got {pinned.run_id}; dataset or stores changed at the start, so start again"
        )
    return bool(told[1])


def _train(
    pinned: Pinned,
    inputs: RunInputs,
    run_dir: Path,
    workers: Workers,
    *,
    progress: ProgressCallback | None,
    on_epoch: EpochCallback | None,
) -> None:
    from flows.jobs.ranking import describe, rank_splits
    from flows.jobs.run_inputs import build_model
    from models.evaluation.figures import check_figures
    from models.evaluation.ranking import as_module, write_ranks
    from models.evaluation.seal import open_test_split
    from models.training.config import TrainingConfig
    from models.training.loop import fit

    training = TrainingConfig.model_validate(pinned.config.training)
    seed = pinned.config.seed
    model = build_model(pinned, inputs)
    if workers.first:
        (run_dir / CONFIG_FILE).write_text(dump_toml(pinned.resolved), encoding="utf-8")
    result = fit(model, inputs.data, training, seed=seed, run_dir=run_dir, progress=progress, on_epoch=on_epoch)
    # In every process: what is refused is refused in all of them, and they would write the same.
    open_test_split(run_dir, selected_epoch=result.best_epoch, configuration=pinned.run_id)
    started = time.perf_counter()
    told = progress if workers.first else None
    tables = rank_splits(model, inputs.data, training, seed=seed, progress=told, workers=workers)
    if not workers.first:
        return
    write_ranks(run_dir / RANKS_FILE, [inputs.with_dataset_numbers(table) for table in tables])
    timings = {"fit": result.seconds, "evaluate": time.perf_counter() - started}
    found = {
        "model": describe(model, inputs.data, training, seed=seed),
        "parameters": sum(parameter.numel() for parameter in as_module(model).parameters()),
        "peak_memory_bytes": peak_memory(training.device),
        "processes": workers.world,
    }
    record = _record(pinned, inputs, result, tables, run_dir=run_dir, timings=timings, found=found)
    check_figures(record, {table.split: table for table in tables})
    record.write(run_dir)


def _record(
    pinned: Pinned,
    inputs: RunInputs,
    result: FitResult,
    tables: list[RankTable],
    *,
    run_dir: Path,
    timings: dict[str, float],
    found: dict[str, Any],
) -> RunRecord:
    from datasets_spec.partfile import sha256_of
    from flows.jobs.finished_run import WEIGHTS_HASH, best_weights
    from flows.jobs.ranking import split_metrics

    config, data = pinned.config, inputs.data
    cutoffs = tuple(config.training["cutoffs"])
    protocol = EvaluationProtocol(
        n_candidates=data.n_items,
        n_users={table.split: len(table) for table in tables},
        without_history={table.split: data.without_history(table.split) for table in tables},
        n_tied={table.split: table.n_tied for table in tables},
        n_errors={table.split: table.n_errors for table in tables},
        selected_by=f"valid {config.training['select']}",
    )
    weights = best_weights(run_dir)
    return RunRecord(
        run_id=pinned.run_id,
        model=config.model,
        dataset=config.dataset,
        dataset_version=pinned.dataset_version,
        stores=pinned.stores,
        seed=config.seed,
        config=pinned.resolved,
        git_sha=git_sha(),
        lock_hash=lock_hash(),
        protocol=protocol,
        metrics={"valid": split_metrics(tables[0], cutoffs), "test": split_metrics(tables[1], cutoffs)},
        selected_epoch=result.best_epoch,
        timings=timings,
        extra={
            "epochs": result.epochs,
            "steps": result.steps,
            "stopped_early": result.stopped_early,
            "machine": machine(config.training["device"]),
            **found,
            "missing": inputs.missing,
            WEIGHTS_HASH: None if weights is None else sha256_of(weights),
        },
    )
