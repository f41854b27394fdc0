"""Device, threads, precision and torch's own random state during a training."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch

from models.errors import ConfigError
from models.training.config import TrainingConfig


def choose_device(name: str) -> torch.device:
    """The device of a configuration: ``auto`` takes CUDA when there is one.

    Raises:
        ConfigError: When the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device: {name!r} asked for, but torch finds no CUDA device here; use 'auto' or 'cpu'")
    return torch.device(name)


@contextmanager
def runtime(config: TrainingConfig, device: torch.device) -> Generator[None]:
    """Threads and matmul precision as configured, torch's default generators free to be seeded; all put back after."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(config.threads or threads)
            torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
