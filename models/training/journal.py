"""The run's folder during a training: log, checkpoints, and what must be equal for a run to go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.distributed import Workers
from models.errors import ResumeError
from models.evaluation.ranking import as_module
from models.files import write_atomically
from models.interface import Recommender
from models.sequences.dataset import Positions, SequenceData
from models.training.checkpoint import find_checkpoint, load_state, load_weights, save_checkpoint
from models.training.config import TrainingConfig

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

#: Settings that may differ between a run and its resumption without changing what it computes.
_FREE_SETTINGS = {"epochs", "device", "threads", "checkpoint_steps", "eval_batch_size"}


@dataclass
class Counters:
    """Everything about a run's progress that a checkpoint must hold besides weights and optimiser."""

    epoch: int = 1  # the epoch that comes next or is under way
    step: int = 0  # steps done within it
    steps: int = 0  # steps done in all
    best_epoch: int = 0
    best_value: float | None = None
    stale: int = 0  # validations since the best one
    seconds: float = 0.0  # of the epoch under way
    sums: dict[str, float] = field(default_factory=dict[str, float])  # of its losses
    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def run_identity(
    module: nn.Module, data: SequenceData, config: TrainingConfig, *, seed: int, positions: Positions, world: int
) -> dict[str, str]:
    """What must be equal for a run to go on: settings, data, model, seed, number of processes."""
    free = _FREE_SETTINGS - {"epochs"} if config.schedule == "cosine" and not config.schedule_steps else _FREE_SETTINGS
    settings = config.model_dump(mode="json", exclude=free) | {"positions": positions}
    shapes = {name: list(parameter.shape) for name, parameter in module.named_parameters()}
    return {
        "seed": str(seed),
        "data": data.fingerprint,
        "model": json.dumps([type(module).__qualname__, shapes]),
        "processes": str(world),
        **{f"training.{name}": json.dumps(value) for name, value in settings.items()},
    }


class Journal:
    """Writes and reads one run's folder; of several processes only the first writes."""

    def __init__(
        self,
        run_dir: Path,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        *,
        identity: dict[str, str],
        workers: Workers,
    ) -> None:
        """Keep a run whose identity is that of :func:`run_identity`."""
        self.run_dir, self.module, self.optimiser = run_dir, module, optimiser
        self.identity, self.workers = identity, workers
        self.folder = run_dir / CHECKPOINTS

    def resume(self) -> Counters | None:
        """Load ``checkpoints/last`` and write the log that belongs to it; None when there is none.

        Raises:
            ResumeError: When the folder holds another run.
        """
        found = find_checkpoint(self.folder / "last")
        if found is None:
            return None
        state = load_state(found)
        for key in sorted(self.identity.keys() | state["identity"].keys()):
            before, after = state["identity"].get(key), self.identity.get(key)
            if before != after:
                raise ResumeError(
                    f"{found}: this folder holds another run: {key} was {before}, now {after}; "
                    f"use another run folder, or delete this one's checkpoints"
                )
        load_weights(found, self.module)
        self.optimiser.load_state_dict(state["optimiser"])
        state["counters"]["rows"] = json.loads(state["counters"]["rows"])
        counters = Counters(**state["counters"])
        self.write_log(counters)
        return counters

    def save_last(self, counters: Counters) -> None:
        """Replace ``checkpoints/last``."""
        if not self.workers.first:
            return
        plain = asdict(counters)
        plain["rows"] = json.dumps(counters.rows)
        state = {"identity": self.identity, "counters": plain, "optimiser": self.optimiser.state_dict()}
        save_checkpoint(self.folder / "last", self.module, state)

    def save_best(self, counters: Counters) -> None:
        """Replace ``checkpoints/best``."""
        if self.workers.first:
            state = {"epoch": counters.best_epoch, "value": counters.best_value}
            save_checkpoint(self.folder / "best", self.module, state)

    def write_log(self, counters: Counters) -> None:
        """Write ``metrics.jsonl``."""
        if self.workers.first:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(row) + "\n" for row in counters.rows)
            write_atomically(self.run_dir / METRICS_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def load_best(run_dir: Path, model: Recommender) -> int:
    """Fill the model with the weights of the selected epoch of a run.

    Returns:
        The epoch.

    Raises:
        ResumeError: When the run has no such weights, or they belong to another model.
    """
    folder = run_dir / CHECKPOINTS / "best"
    found = find_checkpoint(folder)
    if found is None:
        raise ResumeError(f"{folder}: no weights here; the run has not finished an epoch (train it again to resume it)")
    load_weights(found, as_module(model))
    return int(load_state(found)["epoch"])
