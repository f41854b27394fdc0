"""Train one experiment: pin the inputs, build, fit, open the test split once, write the record."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.config import ExperimentConfig, dump_toml, load_experiment
from flows.errors import CallError
from flows.jobs.prepare import open_prepared
from flows.settings import REPOSITORY, Settings, resolve_device
from models import registry
from models.evaluation.record import EvaluationProtocol, RunRecord, SplitMetrics, StoreVersion

if TYPE_CHECKING:
    import torch

    from datasets_spec.prepare import PreparedDataset
    from feature_store import Snapshot
    from models.evaluation.ranking import RankTable
    from models.interface import Recommender
    from models.sequences.dataset import SequenceData
    from models.training.config import TrainingConfig
    from models.training.loop import FitResult

ProgressCallback = Callable[[str, int, int | None], None]

RANKS_FILE = "ranks.parquet"
CONFIG_FILE = "config.toml"
RECORD_FILE = "record.json"
LOCK_FILE = ".lock"


@dataclass(frozen=True)
class Pinned:
    """An experiment with the exact inputs that it reads; ``run_id`` is a function of them."""

    config: ExperimentConfig
    dataset_version: str
    stores: tuple[StoreVersion, ...]

    @property
    def run_id(self) -> str:
        """``<model>-<dataset>-s<seed>-<8 digits of the hash of configuration and inputs>``."""
        facts = {
            "config": self.config.model_dump(mode="json", exclude={"stores"}),
            "dataset": self.dataset_version,
            "stores": [str(store) for store in self.stores],
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return f"{self.config.model}-{self.config.dataset}-s{self.config.seed}-{digest[:8]}"


@dataclass(frozen=True)
class TrainOutcome:
    """A finished run; ``fresh`` is False when it had been finished before."""

    record: RunRecord
    fresh: bool

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
    settings: Settings, config: ExperimentConfig, *, progress: ProgressCallback | None = None
) -> TrainOutcome:
    """Train, select on validation, rank the test split once, and write ``runs/<run id>/``.

    A finished run with the same configuration, dataset version and store versions is returned as it is; an unfinished
    one goes on from its last checkpoint. Of several calls at once for the same run one trains; the others wait for it
    and return what it made.

    Raises:
        CallError: When a store or a dataset is missing, with the command that makes it.
        TrainingError: When the loss is not finite.
    """
    prepared = open_prepared(settings, config.dataset)
    pinned, snapshots = pin(settings, config, prepared)
    run_dir = settings.runs / pinned.run_id
    if (run_dir / RECORD_FILE).is_file():
        return TrainOutcome(RunRecord.read(run_dir), fresh=False)
    with _alone(run_dir):
        if (run_dir / RECORD_FILE).is_file():
            return TrainOutcome(RunRecord.read(run_dir), fresh=False)
        return TrainOutcome(_train(pinned, prepared, snapshots, run_dir, progress=progress), fresh=True)


@contextmanager
def _alone(run_dir: Path) -> Generator[None]:
    """Hold the run's folder; the kernel lets go of it when the process ends, however that happens."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK_FILE).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def pin(settings: Settings, config: ExperimentConfig, prepared: PreparedDataset) -> tuple[Pinned, dict[str, Snapshot]]:
    """Choose the version of each store that the model needs: the configured one, else the latest.

    Returns:
        The pinned experiment and the opened snapshot of each feature.
    """
    from feature_store import FeatureStore

    features = stores_read(config)
    unread = sorted(set(config.stores) - set(features))
    if unread:
        raise CallError(f"stores: {config.model} reads {', '.join(features) or 'no features'}, not {', '.join(unread)}")
    snapshots: dict[str, Snapshot] = {}
    for feature in features:
        store = FeatureStore.open(settings.store(config.dataset, feature))
        snapshots[feature] = store.at(config.stores[feature]) if feature in config.stores else store.latest()
    versions = tuple(
        StoreVersion(name=f"{config.dataset}/{feature}", version=snapshot.version)
        for feature, snapshot in snapshots.items()
    )
    return Pinned(config, prepared.version, versions), snapshots


def stores_read(config: ExperimentConfig) -> list[str]:
    """Features whose stores an experiment reads."""
    module = registry.load(config.model)
    parameters = registry.parse_config(config.model, config.parameters)
    return sorted({table.split(".")[0] for table in module.required_features(parameters)})


def missing_stores(settings: Settings, config: ExperimentConfig) -> list[str]:
    """``<dataset>/<feature>`` of each store that an experiment reads and in which nothing was committed yet."""
    from feature_store import FeatureStore, NoSnapshotError, StoreNotFoundError

    missing: list[str] = []
    for feature in stores_read(config):
        try:
            FeatureStore.open(settings.store(config.dataset, feature)).latest()
        except (NoSnapshotError, StoreNotFoundError):
            missing.append(f"{config.dataset}/{feature}")
    return missing


def feature_tables(
    snapshots: Mapping[str, Snapshot], required: tuple[str, ...], item_ids: list[str]
) -> dict[str, torch.Tensor]:
    """Resident tables float32 ``[n + 1, *shape]``; row 0 and rows of items without the feature are zero."""
    import torch

    tables: dict[str, torch.Tensor] = {}
    for table in required:
        feature, _, column = table.partition(".")
        tables[table] = torch.from_numpy(snapshots[feature].table(item_ids, column or "embedding"))
    return tables


def build_model(pinned: Pinned, prepared: PreparedDataset, snapshots: Mapping[str, Snapshot]) -> Recommender:
    """The freshly initialised model of a pinned experiment; initialisation is seeded by the experiment."""
    import torch

    config = pinned.config
    parameters = registry.parse_config(config.model, config.parameters)
    required = registry.load(config.model).required_features(parameters)
    item_ids = prepared.items.sort("item")["item_id"].to_list()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        features = feature_tables(snapshots, required, item_ids)
        return registry.build(config.model, parameters, n_items=prepared.n_items, features=features)


def load_run(settings: Settings, run_id: str) -> tuple[RunRecord, PreparedDataset, Recommender, SequenceData]:
    """A finished run with its dataset and its model at the best weights.

    Raises:
        RecordError: When there is no finished run of that name.
        CallError: When the dataset was prepared anew since.
    """
    from models.sequences.dataset import SequenceData
    from models.training.loop import load_best

    record = RunRecord.read(settings.runs / run_id)
    prepared = open_prepared(settings, record.dataset)
    if prepared.version != record.dataset_version:
        raise CallError(
            f"run {run_id} was trained on version {record.dataset_version[:12]} of {record.dataset}, "
            f"{prepared.path} now holds {prepared.version[:12]}: train it again"
        )
    config = ExperimentConfig.model_validate(record.config).model_copy(
        update={"stores": {store.name.split("/")[-1]: store.version for store in record.stores}}
    )
    pinned, snapshots = pin(settings, config, prepared)
    model = build_model(pinned, prepared, snapshots)
    load_best(settings.runs / run_id, model)
    return record, prepared, model, SequenceData.from_prepared(prepared)


def _train(
    pinned: Pinned,
    prepared: PreparedDataset,
    snapshots: Mapping[str, Snapshot],
    run_dir: Path,
    *,
    progress: ProgressCallback | None,
) -> RunRecord:
    from models.evaluation.ranking import write_ranks
    from models.sequences.dataset import SequenceData
    from models.training.config import TrainingConfig
    from models.training.loop import fit

    training = TrainingConfig.model_validate(pinned.config.training)
    seed = pinned.config.seed
    data = SequenceData.from_prepared(prepared)
    model = build_model(pinned, prepared, snapshots)
    (run_dir / CONFIG_FILE).write_text(dump_toml(_resolved(pinned)), encoding="utf-8")
    result = fit(model, data, training, seed=seed, run_dir=run_dir, progress=progress)
    started = time.perf_counter()
    tables = rank_splits(model, data, training, seed=seed, progress=progress)
    write_ranks(run_dir / RANKS_FILE, tables)
    record = _record(pinned, data, result, tables, evaluation_seconds=time.perf_counter() - started)
    record.write(run_dir)
    return record


def _record(
    pinned: Pinned, data: SequenceData, result: FitResult, tables: list[RankTable], *, evaluation_seconds: float
) -> RunRecord:
    cutoffs = tuple(pinned.config.training["cutoffs"])
    protocol = EvaluationProtocol(
        n_candidates=data.n_items,
        n_users={table.split: len(table) for table in tables},
        without_history={table.split: data.without_history(table.split) for table in tables},
        n_tied={table.split: table.n_tied for table in tables},
        n_errors={table.split: table.n_errors for table in tables},
        selected_by=f"valid {pinned.config.training['select']}",
    )
    return RunRecord(
        run_id=pinned.run_id,
        model=pinned.config.model,
        dataset=pinned.config.dataset,
        dataset_version=pinned.dataset_version,
        stores=pinned.stores,
        seed=pinned.config.seed,
        config=_resolved(pinned),
        git_sha=git_sha(),
        lock_hash=lock_hash(),
        protocol=protocol,
        metrics={"valid": split_metrics(tables[0], cutoffs), "test": split_metrics(tables[1], cutoffs)},
        selected_epoch=result.best_epoch,
        timings={"fit": result.seconds, "evaluate": evaluation_seconds},
        extra={
            "epochs": result.epochs,
            "steps": result.steps,
            "stopped_early": result.stopped_early,
            "machine": machine(pinned.config.training["device"]),
        },
    )


def rank_splits(
    model: Recommender,
    data: SequenceData,
    training: TrainingConfig,
    *,
    seed: int,
    progress: ProgressCallback | None = None,
) -> list[RankTable]:
    """Ranks of the validation and of the test split, with the threads that the model was trained with."""
    import torch

    from models.evaluation.ranking import evaluate

    threads = torch.get_num_threads()
    torch.set_num_threads(training.threads or threads)
    try:
        return [
            evaluate(
                model,
                data,
                split,
                max_length=training.max_length,
                batch_size=training.eval_batch_size,
                seed=seed,
                progress=progress,
            )
            for split in ("valid", "test")
        ]
    finally:
        torch.set_num_threads(threads)


def split_metrics(ranks: RankTable, cutoffs: tuple[int, ...]) -> SplitMetrics:
    """Metrics of one split with the history among the candidates and without it."""
    return SplitMetrics(unmasked=ranks.metrics(cutoffs), masked=ranks.metrics(cutoffs, masked=True))


def _resolved(pinned: Pinned) -> dict[str, Any]:
    stores = {store.name.split("/")[-1]: store.version for store in pinned.stores}
    return pinned.config.model_copy(update={"stores": stores}).model_dump(mode="json")


def machine(device: str) -> str:
    """What computed: the accelerator, or the processor and its threads."""
    import torch

    name = resolve_device(device)
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def git_sha() -> str | None:
    """Commit of this checkout, with ``+dirty`` for uncommitted changes; None outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        return commit + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def lock_hash() -> str | None:
    """SHA-256 of ``requirements.lock``."""
    path = REPOSITORY / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
