"""The training loop: one for all recommenders.

Order and draws are functions of (seed, epoch, step), so a run that was killed and is started again with the same
folder ends with the same weights, bit for bit on a CPU with the same number of threads. Only training and validation
rows are read; the test split is another call.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.errors import ConfigError, TrainingError
from models.evaluation.metrics import per_user
from models.evaluation.mode import train_mode
from models.evaluation.ranking import as_module, evaluate
from models.interface import CountsFitted, HistoriesFitted, ProgressCallback, Recommender
from models.sequences.batch import SequenceBatch
from models.sequences.dataset import Examples, Positions, SequenceData
from models.training.config import TrainingConfig
from models.training.journal import Counters, Journal, load_best, run_identity
from models.training.runtime import Runtime, open_runtime
from models.training.schedule import learning_rate, make_optimiser, set_learning_rate
from models.training.watch import FAILED_BATCH_FILE, LossWatch, write_failed_batch

log = logging.getLogger(__name__)

EpochCallback = Callable[[Mapping[str, Any]], None]


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


def fit(
    model: Recommender,
    data: SequenceData,
    config: TrainingConfig,
    *,
    seed: int,
    run_dir: Path,
    progress: ProgressCallback | None = None,
    on_epoch: EpochCallback | None = None,
) -> FitResult:
    """Train, validate, keep the best epoch; resume when ``run_dir`` holds an unfinished run.

    Writes ``metrics.jsonl`` (one row per epoch) and ``checkpoints/last`` and ``checkpoints/best`` into ``run_dir``.
    The model is moved to the configured device and ends there, with the best weights, in the mode that it came in.

    Under ``torchrun`` every process calls this with the same arguments and a folder that all of them see; the batch
    is shared among them, the first one writes, and all return the same result.

    Args:
        model: A freshly built recommender (its initialisation is the caller's, and seeded by it).
        data: Interactions; rows labelled ``test`` are not read.
        config: Settings.
        seed: Of order, draws and dropout.
        run_dir: The run's folder.
        progress: Called as ``progress("epoch <n>", steps done, steps)``, and by :func:`evaluate`; in the first process
            only.
        on_epoch: Called with each new row of ``metrics.jsonl`` once it is written, in the first process only. Epochs
            that an earlier call finished are not told again; what the callback raises ends the training.

    Raises:
        ConfigError: For all positions with a model that is not causal, or a device that is not there.
        ResumeError: When ``run_dir`` holds a run with other data, model, seed or settings.
        TrainingError: When a loss is not finite; with epoch, step, parts and the file that holds the batch.
    """
    with open_runtime(config) as runtime:
        state = _Fit(model, data, config, seed=seed, run_dir=run_dir, runtime=runtime)
        if state.workers.first:
            state.progress, state.on_epoch = progress, on_epoch
        return state.run()


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
        runtime: Runtime,
    ) -> None:
        self.model, self.data, self.config, self.seed, self.run_dir = model, data, config, seed, run_dir
        self.runtime, self.workers, self.device = runtime, runtime.workers, runtime.device
        self.progress: ProgressCallback | None = None
        self.on_epoch: EpochCallback | None = None
        self.module = as_module(model)
        self.positions: Positions = choose_positions(config, causal=model.causal)
        self.module.to(self.device)
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimiser = make_optimiser(config, self.parameters)
        self.training_loss = runtime.wrap(model)
        self.counters = Counters()
        self.losses = LossWatch(self.workers)
        identity = run_identity(
            self.module, data, config, seed=seed, positions=self.positions, world=self.workers.world
        )
        self.journal = Journal(run_dir, self.module, self.optimiser, identity=identity, workers=self.workers)
        self.validated = data.has_split("valid")

    def run(self) -> FitResult:
        """All epochs."""
        with train_mode(self.module):
            if not self._resume():
                self._start()
            if not self._finished():
                self._train()
        self.workers.wait()  # until the first process has written the best weights
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

    def _resume(self) -> bool:
        """Continue from ``checkpoints/last`` when there is one."""
        found = self.journal.resume()
        self.workers.wait()  # nobody writes before everybody has read
        if found is None:
            return False
        self.counters = found
        log.info("resumed at epoch %d, step %d", found.epoch, found.step)
        return True

    def _start(self) -> None:
        """Begin a run: empty log, closed-form parts, and their validation when there is something to validate."""
        self.journal.write_log(self.counters)
        self.workers.same([*self.module.parameters(), *self.module.buffers()])
        model = self.model
        if isinstance(model, CountsFitted):
            model.fit_counts(self.data.item_counts().to(self.device))
        if isinstance(model, HistoriesFitted):
            model.fit_histories(*self.data.training_histories())
        if isinstance(model, CountsFitted | HistoriesFitted) or self.config.epochs == 0:
            self._finish_epoch(0, losses={})

    def _train(self) -> None:
        examples = self.data.training_examples(self.positions, max_length=self.config.max_length).to(self.device)
        share = len(examples) / examples.n_predictions
        batch_size = max(1, round(self.config.batch_size * share))
        per_epoch = -(-len(examples) // batch_size)
        while not self._finished():
            epoch = self.counters.epoch
            self._epoch(examples, batch_size, per_epoch)
            means = {name: total / per_epoch for name, total in self.counters.sums.items()}
            self.counters.epoch, self.counters.step = epoch + 1, 0
            self._finish_epoch(epoch, losses=means)

    def _epoch(self, examples: Examples, batch_size: int, per_epoch: int) -> None:
        """Train on what is left of an epoch.

        Raises:
            TrainingError: When a loss is not finite.
        """
        counters, config, epoch = self.counters, self.config, self.counters.epoch
        if self.progress is not None:
            self.progress(f"epoch {epoch}", counters.step, per_epoch)
        started = time.perf_counter()

        def batches(first: int) -> Iterator[SequenceBatch]:
            return examples.shuffled(
                batch_size,
                max_length=config.max_length,
                seed=self.seed,
                epoch=epoch,
                first=first,
                by_length=config.group_by_length,
            )

        for batch in batches(counters.step):
            rate = learning_rate(config, counters.steps, horizon=config.epochs * per_epoch)
            look = self.losses.add(self._step(batch, rate))
            counters.step += 1
            counters.steps += 1
            last = counters.step == per_epoch
            save = bool(config.checkpoint_steps) and counters.step % config.checkpoint_steps == 0 and not last
            if look or save or last:
                failed = self.losses.look(counters.sums)
                if failed is not None:
                    step = counters.step - failed[0] + 1
                    culprit = next(batches(step - 1))
                    raise self._failure(culprit, step, failed[1])
                counters.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self.runtime.give_back_memory()
                if self.progress is not None:
                    self.progress(f"epoch {epoch}", counters.step, per_epoch)
            if save:
                self.journal.save_last(counters)

    def _step(self, batch: SequenceBatch, rate: float) -> dict[str, Tensor]:
        """One update; the losses, weighted by this process's share of the targets, stay on the device."""
        generator = self.runtime.draws(self.seed, self.counters.epoch, self.counters.step)
        mine, share = self.runtime.share(batch)
        with self.runtime.autocast():
            terms = self.training_loss(mine, generator=generator)
        self.optimiser.zero_grad(set_to_none=True)
        (terms.total * share).backward()
        self.runtime.sum_gradients(self.parameters)
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.step()
        return {name: value * share for name, value in {"loss": terms.total.detach(), **terms.parts}.items()}

    def _failure(self, batch: SequenceBatch, step: int, losses: dict[str, float]) -> TrainingError:
        """What to raise for a loss that is not finite; the batch is saved first."""
        epoch = self.counters.epoch
        parts = ", ".join(f"{name}={value:g}" for name, value in losses.items())
        if self.workers.first:
            write_failed_batch(self.run_dir, batch, epoch=epoch, step=step, losses=losses)
        return TrainingError(
            f"the loss is not finite at epoch {epoch}, step {step}: {parts}; "
            f"try a lower learning_rate than {self.config.learning_rate:g} or grad_clip=1; "
            f"the batch is in {self.run_dir / FAILED_BATCH_FILE}"
        )

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
            self.journal.save_best(counters)
        self.journal.save_last(counters)
        self.journal.write_log(counters)
        if self.on_epoch is not None:
            self.on_epoch(row)

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
            workers=self.workers,
        )
        row["valid"] = table.metrics(config.cutoffs)
        row["valid_masked"] = table.metrics(config.cutoffs, masked=True)
        value = float(per_user(table.rank, config.select).mean())
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
