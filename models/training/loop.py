"""The training loop: one for all recommenders.

Order and draws are functions of (seed, epoch, step), so a run that was killed and is started again with the same
folder ends with the same weights, bit for bit on a CPU with the same number of threads. Only training and validation
rows are read; the test split is another call.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.errors import ConfigError, ResumeError, TrainingError
from models.evaluation.mode import train_mode
from models.evaluation.ranking import as_module, evaluate
from models.files import write_atomically
from models.interface import CountsFitted, ProgressCallback, Recommender
from models.sequences.batch import SequenceBatch
from models.sequences.dataset import Positions, SequenceData
from models.sequences.seeding import Stream, stream_generator, stream_seed
from models.training.checkpoint import find_checkpoint, load_state, load_weights, save_checkpoint
from models.training.config import TrainingConfig
from models.training.runtime import choose_device, runtime

log = logging.getLogger(__name__)

METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"

#: Steps between two looks at the losses: reading one from an accelerator waits for it.
CHECK_STEPS = 50

#: Settings that may differ between a run and its resumption without changing what it computes.
_FREE_SETTINGS = {"epochs", "device", "threads", "checkpoint_steps", "eval_batch_size"}


@dataclass(frozen=True)
class FitResult:
    """How a training went; the model holds the weights of ``best_epoch``.

    Attributes:
        best_epoch: Epoch with the best validation metric; the last one without validation rows; 0 before training.
        best_value: That metric; None without validation rows.
        epochs: Epochs trained.
        steps: Steps trained.
        stopped_early: Whether patience ended the training.
        seconds: Training and validation time, over all resumptions.
        rows: The rows of ``metrics.jsonl``.
    """

    best_epoch: int
    best_value: float | None
    epochs: int
    steps: int
    stopped_early: bool
    seconds: float
    rows: list[dict[str, Any]] = field(repr=False)


@dataclass
class _Counters:
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


def fit(
    model: Recommender,
    data: SequenceData,
    config: TrainingConfig,
    *,
    seed: int,
    run_dir: Path,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Train, validate, keep the best epoch; resume when ``run_dir`` holds an unfinished run.

    Writes ``metrics.jsonl`` (one row per epoch) and ``checkpoints/last`` and ``checkpoints/best`` into ``run_dir``.
    The model is moved to the configured device and ends there, with the best weights, in the mode that it came in.

    Args:
        model: A freshly built recommender (its initialisation is the caller's, and seeded by it).
        data: Interactions; rows labelled ``test`` are not read.
        config: Settings.
        seed: Of order, draws and dropout.
        run_dir: The run's folder.
        progress: Called as ``progress("epoch <n>", steps done, steps)``, and by :func:`evaluate`.

    Raises:
        ConfigError: For all positions with a model that is not causal, or a device that is not there.
        ResumeError: When ``run_dir`` holds a run with other data, model, seed or settings.
        TrainingError: When a loss is not finite; with epoch, step and parts.
    """
    return _Fit(model, data, config, seed=seed, run_dir=run_dir, progress=progress).run()


class _Fit:
    """The state of one call of :func:`fit`."""

    def __init__(
        self,
        model: Recommender,
        data: SequenceData,
        config: TrainingConfig,
        *,
        seed: int,
        run_dir: Path,
        progress: ProgressCallback | None,
    ) -> None:
        self.model, self.data, self.config, self.seed, self.run_dir = model, data, config, seed, run_dir
        self.progress = progress
        self.module = as_module(model)
        self.positions: Positions = choose_positions(config, causal=model.causal)
        self.device = choose_device(config.device)
        self.module.to(self.device)
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        # Not fused=True: that kernel does not raise the weights' version counters, which caches of derived tables read.
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.counters = _Counters()
        self.folder = run_dir / CHECKPOINTS
        self.validated = data.has_split("valid")

    def run(self) -> FitResult:
        """All epochs."""
        with runtime(self.config, self.device), train_mode(self.module):
            if not self._resume():
                self._start()
            if not self._finished():
                self._train()
        load_best(self.run_dir, self.model)
        counters = self.counters
        return FitResult(
            best_epoch=counters.best_epoch,
            best_value=counters.best_value,
            epochs=counters.epoch - 1,
            steps=counters.steps,
            stopped_early=self._out_of_patience(),
            seconds=sum(row["seconds"] + row["eval_seconds"] for row in counters.rows),
            rows=counters.rows,
        )

    def _start(self) -> None:
        """Begin a run: empty log, closed-form parts, and their validation when there is something to validate."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._write_log()
        model = self.model
        if isinstance(model, CountsFitted):
            model.fit_counts(self.data.item_counts().to(self.device))
        if isinstance(model, CountsFitted) or self.config.epochs == 0:
            self._finish_epoch(0, losses={})

    def _train(self) -> None:
        examples = self.data.training_examples(self.positions, max_length=self.config.max_length).to(self.device)
        share = len(examples) / examples.n_predictions
        batch_size = max(1, round(self.config.batch_size * share))
        per_epoch = -(-len(examples) // batch_size)
        while not self._finished():
            epoch = self.counters.epoch
            batches = examples.shuffled(
                batch_size,
                max_length=self.config.max_length,
                seed=self.seed,
                epoch=epoch,
                first=self.counters.step,
            )
            self._epoch(batches, per_epoch)
            means = {name: total / per_epoch for name, total in self.counters.sums.items()}
            self.counters.epoch, self.counters.step = epoch + 1, 0
            self._finish_epoch(epoch, losses=means)

    def _epoch(self, batches: Iterator[SequenceBatch], per_epoch: int) -> None:
        """Train on what is left of an epoch."""
        counters, every = self.counters, self.config.checkpoint_steps
        pending: list[dict[str, Tensor]] = []
        started = time.perf_counter()
        for batch in batches:
            pending.append(self._step(batch))
            counters.step += 1
            counters.steps += 1
            save = bool(every) and counters.step % every == 0 and counters.step < per_epoch
            if save or len(pending) == CHECK_STEPS or counters.step == per_epoch:
                self._add_losses(pending)
                pending.clear()
                counters.seconds += time.perf_counter() - started
                started = time.perf_counter()
                if self.progress is not None:
                    self.progress(f"epoch {counters.epoch}", counters.step, per_epoch)
            if save:
                self._save_last()

    def _step(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """One update; the losses stay on the device."""
        path = (self.counters.epoch, self.counters.step)
        torch.manual_seed(stream_seed(self.seed, Stream.DROPOUT, *path))
        generator = stream_generator(self.seed, Stream.STEP, *path, device=self.device)
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")
        with autocast:
            terms = self.model.training_loss(batch, generator=generator)
        self.optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        self.optimiser.step()
        return {"loss": terms.total.detach(), **terms.parts}

    def _add_losses(self, pending: list[dict[str, Tensor]]) -> None:
        """Add the losses of the last steps to the epoch's sums.

        Raises:
            TrainingError: When one of them is not finite.
        """
        names = list(pending[0])
        table = torch.stack([torch.stack([row[name].double() for name in names]) for row in pending]).cpu()
        bad = (~table.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            step = self.counters.step - len(pending) + bad[0] + 1
            parts = ", ".join(f"{name}={value:g}" for name, value in zip(names, table[bad[0]].tolist(), strict=True))
            raise TrainingError(
                f"the loss is not finite at epoch {self.counters.epoch}, step {step}: {parts}; "
                f"try a lower learning_rate than {self.config.learning_rate:g} or grad_clip=1"
            )
        for row in table.tolist():
            for name, value in zip(names, row, strict=True):
                self.counters.sums[name] = self.counters.sums.get(name, 0.0) + value

    def _finish_epoch(self, epoch: int, *, losses: dict[str, float]) -> None:
        """Validate when it is time, log, keep the best, save."""
        counters, config = self.counters, self.config
        row: dict[str, Any] = {"epoch": epoch, "steps": counters.steps, "seconds": counters.seconds}
        if losses:
            row["loss"] = losses.pop("loss")
            row["parts"] = losses
        counters.seconds, counters.sums = 0.0, {}
        started = time.perf_counter()
        if not self.validated:
            counters.best_epoch = epoch
        elif epoch % config.eval_every == 0 or epoch >= config.epochs:
            self._validate(epoch, row)
        row["eval_seconds"] = time.perf_counter() - started
        counters.rows.append(row)
        if counters.best_epoch == epoch:
            save_checkpoint(self.folder / "best", self.module, {"epoch": epoch, "value": counters.best_value})
        self._save_last()
        self._write_log()

    def _validate(self, epoch: int, row: dict[str, Any]) -> None:
        counters, config = self.counters, self.config
        table = evaluate(
            self.model,
            self.data,
            "valid",
            max_length=config.max_length,
            batch_size=config.eval_batch_size,
            seed=self.seed,
            progress=self.progress,
        )
        row["valid"] = table.metrics(config.cutoffs)
        row["valid_masked"] = table.metrics(config.cutoffs, masked=True)
        value = row["valid"][config.select]
        if counters.best_value is None or value > counters.best_value:
            counters.best_epoch, counters.best_value, counters.stale = epoch, value, 0
        else:
            counters.stale += 1
        log.info(
            "epoch %d: %s %.5f (best %.5f at %d)", epoch, config.select, value, counters.best_value, counters.best_epoch
        )

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.counters.stale

    def _finished(self) -> bool:
        return self.counters.epoch > self.config.epochs or self._out_of_patience()

    def _identity(self) -> dict[str, str]:
        """What must be equal for a run to go on: settings, data, model, seed."""
        settings = self.config.model_dump(mode="json", exclude=_FREE_SETTINGS)
        settings["positions"] = self.positions
        shapes = {name: list(parameter.shape) for name, parameter in self.module.named_parameters()}
        return {
            "seed": str(self.seed),
            "data": self.data.fingerprint,
            "model": json.dumps([type(self.module).__qualname__, shapes]),
            **{f"training.{name}": json.dumps(value) for name, value in settings.items()},
        }

    def _save_last(self) -> None:
        counters = asdict(self.counters)
        counters["rows"] = json.dumps(self.counters.rows)
        state = {"identity": self._identity(), "counters": counters, "optimiser": self.optimiser.state_dict()}
        save_checkpoint(self.folder / "last", self.module, state)

    def _resume(self) -> bool:
        """Continue from ``checkpoints/last`` when there is one."""
        found = find_checkpoint(self.folder / "last")
        if found is None:
            return False
        state = load_state(found)
        now = self._identity()
        for key in sorted(now.keys() | state["identity"].keys()):
            before, after = state["identity"].get(key), now.get(key)
            if before != after:
                raise ResumeError(
                    f"{found}: this folder holds another run: {key} was {before}, now {after}; "
                    f"use another run folder, or delete this one's checkpoints"
                )
        load_weights(found, self.module)
        self.optimiser.load_state_dict(state["optimiser"])
        state["counters"]["rows"] = json.loads(state["counters"]["rows"])
        self.counters = _Counters(**state["counters"])
        self._write_log()
        log.info("resumed at epoch %d, step %d", self.counters.epoch, self.counters.step)
        return True

    def _write_log(self) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.counters.rows)
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


def choose_positions(config: TrainingConfig, *, causal: bool) -> Positions:
    """Which positions are trained.

    Raises:
        ConfigError: For all positions with a model that is not causal.
    """
    if config.positions == "auto":
        return "all" if causal else "last"
    if config.positions == "all" and not causal:
        raise ConfigError(
            "positions: 'all' needs a causal model; this one reads the whole sequence, so inner positions would see "
            "their own targets; use 'last' or 'auto'"
        )
    return config.positions
