"""The machine that a training runs on: device, threads, precision, and the other processes that share the work.

One process is the normal case. Under ``torchrun`` each process takes every ``world``-th example of a batch and the
gradients are added, so that a step is the step of the whole batch. Plain sums over one flat buffer do that, not
``DistributedDataParallel``: the loss is a method and no ``forward``, a model may leave parameters without gradient in
some steps, and the sum can be weighed by the true number of targets instead of by processes.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from models.distributed import ALONE, Workers, workers
from models.errors import ConfigError
from models.interface import LossTerms, Recommender
from models.sequences.batch import SequenceBatch
from models.sequences.seeding import Stream, stream_generator, stream_seed
from models.training.config import TrainingConfig

#: glibc's ``malloc_trim``; None with other C libraries.
_MALLOC_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

#: How long a process waits for the others before it gives up.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Runtime:
    """What the loop asks of the machine.

    Attributes:
        device: Where this process computes.
        workers: The processes that train together.
        precision: Of the loss.
        compiled: Whether the loss goes through ``torch.compile``.
    """

    device: torch.device
    workers: Workers = ALONE
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    compiled: bool = False

    def wrap(self, model: Recommender) -> Callable[..., LossTerms]:
        """The model's loss, compiled when asked for; the model itself stays as it is and is evaluated uncompiled."""
        return torch.compile(model.training_loss) if self.compiled else model.training_loss

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a loss."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def draws(self, seed: int, epoch: int, step: int) -> torch.Generator:
        """Seed dropout and give the generator of a step; processes draw differently, a lone one as it always did."""
        path = (epoch, step) if self.workers.world == 1 else (epoch, step, self.workers.rank)
        torch.manual_seed(stream_seed(seed, Stream.DROPOUT, *path))
        return stream_generator(seed, Stream.STEP, *path, device=self.device)

    def share(self, batch: SequenceBatch) -> tuple[SequenceBatch, Tensor | float]:
        """This process's rows of a batch, and what part of all targets they hold.

        A process for which no row is left takes the first one with the weight 0, so that all take the same steps.
        """
        rank, world = self.workers.rank, self.workers.world
        if world == 1:
            return batch, 1.0
        rows = slice(rank, None, world) if rank < len(batch) else slice(0, 1)
        mine = SequenceBatch(
            item_ids=batch.item_ids[rows],
            mask=batch.mask[rows],
            target=batch.target[rows],
            user=batch.user[rows],
            targets=None if batch.targets is None else batch.targets[rows],
        )
        return mine, _n_targets(mine) / _n_targets(batch) * float(rank < len(batch))

    def give_back_memory(self) -> None:
        """Let the C library return what is free, where it can.

        Batches differ in size, and on a CPU what they leave between blocks in use would stay with the process: it grew
        by some 10 MB with every step of BERT4Rec.
        """
        if self.device.type == "cpu" and _MALLOC_TRIM is not None:
            _MALLOC_TRIM(0)

    def sum_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Replace each gradient by the sum over the processes; one that is None everywhere stays None."""
        if self.workers.world == 1:
            return
        present = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=self.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self.workers.total(torch.cat([present, *(part.flatten() for part in parts)]))
        present, *sums = total.split([len(parameters), *(part.numel() for part in parts)])
        for parameter, there, value in zip(parameters, present.tolist(), sums, strict=True):
            if there:
                parameter.grad = value.view_as(parameter)


def _n_targets(batch: SequenceBatch) -> Tensor:
    if batch.targets is None:
        return torch.tensor(float(len(batch)), dtype=torch.float64, device=batch.mask.device)
    return batch.mask.sum().double()


@contextmanager
def open_runtime(config: TrainingConfig) -> Generator[Runtime]:
    """Device, threads, matmul precision and, under ``torchrun``, a process group; all put back afterwards.

    Torch's default generators are free to be seeded inside.

    Raises:
        ConfigError: When the device is not there.
    """
    device = choose_device(config.device, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    found = Runtime(device=device, precision=config.precision, compiled=config.compile)
    with _process_group(device) as group, _settings(config, device):
        yield replace(found, workers=group)


def choose_device(name: str, *, local_rank: int = 0) -> torch.device:
    """The device of a configuration: ``auto`` takes CUDA when there is one.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
        local_rank: Number of this process on its machine; it chooses the card where the name leaves that open.

    Raises:
        ConfigError: When the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r} asked for, but torch finds no CUDA device here; use 'auto' or 'cpu'")
    return torch.device(f"cuda:{local_rank}" if name == "cuda" and local_rank else name)


@contextmanager
def _process_group(device: torch.device) -> Generator[Workers]:
    """The processes of the group that the caller or ``torchrun`` opened; a group made here is closed here."""
    launched = dist.is_available() and not dist.is_initialized() and dist.is_torchelastic_launched()
    if not launched:
        yield workers()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield workers()
    finally:
        dist.destroy_process_group()


@contextmanager
def _settings(config: TrainingConfig, device: torch.device) -> Generator[None]:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(config.threads or threads)
            torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
