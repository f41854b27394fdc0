"""Switching a model between training and evaluation, and always back."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def eval_mode(model: nn.Module) -> Generator[None]:
    """No dropout and no gradients inside; afterwards every submodule is back in the mode that it was in."""
    with _mode(model, training=False), torch.no_grad():
        yield


@contextmanager
def train_mode(model: nn.Module) -> Generator[None]:
    """Training mode inside; afterwards every submodule is back in the mode that it was in."""
    with _mode(model, training=True):
        yield


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Generator[None]:
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before.items():
            module.training = was_training


def model_device(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lives; the CPU for a model that has none."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
