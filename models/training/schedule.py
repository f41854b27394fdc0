"""Optimiser and learning rate; the rate is a function of the step, so a resumed run needs no scheduler's state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from models.training.config import TrainingConfig


def make_optimiser(config: TrainingConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015) or AdamW (Loshchilov & Hutter 2019), at the configured rate."""
    # Not fused=True: that kernel does not raise the weights' version counters, which caches of derived tables read.
    kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)


def learning_rate(config: TrainingConfig, step: int, *, horizon: int) -> float:
    """The rate of a step.

    Args:
        config: Settings.
        step: Steps done before this one, over all epochs.
        horizon: Steps of the whole training; the cosine ends there when ``schedule_steps`` is 0.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    after = step - config.warmup_steps
    if config.schedule == "step":
        return config.learning_rate * config.decay ** (after // config.schedule_steps)
    if config.schedule == "cosine":
        length = config.schedule_steps or max(1, horizon - config.warmup_steps)
        return config.learning_rate * (1 + math.cos(math.pi * min(1.0, after / length))) / 2
    return config.learning_rate


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` for all parameters from the next step on."""
    for group in optimiser.param_groups:
        group["lr"] = rate
