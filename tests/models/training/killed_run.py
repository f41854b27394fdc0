"""Train a small SASRec in its own process and die by SIGKILL in the middle of a step.

usage: killed_run.py RUN_DIR STEP
"""

import os
import signal
import sys
from pathlib import Path

import torch

from models.registry import build
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import fit

MODEL = {"d": 8, "layers": 1, "inner": 16, "dropout": 0.3, "max_length": 6}
SETTINGS = {"epochs": 4, "batch_size": 20, "max_length": 6, "threads": 1, "device": "cpu", "learning_rate": 0.01}


def small_data():
    rows = [
        (
            user,
            1 + (3 * user + place * (1 + user % 2)) % 15,
            place,
            "train" if place < 6 else ("valid", "test")[place - 6],
        )
        for user in range(24)
        for place in range(8)
    ]
    return SequenceData.from_arrays(*zip(*rows, strict=True), n_items=15)


def small_model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("sasrec", MODEL, n_items=15)


def dying(model, step, die):
    """The same model, whose loss dies at its ``step``-th call."""
    loss, calls = model.training_loss, []

    def training_loss(batch, *, generator):
        calls.append(batch)
        if len(calls) == step:
            die()
        return loss(batch, generator=generator)

    model.training_loss = training_loss
    return model


if __name__ == "__main__":
    model = dying(small_model(), int(sys.argv[2]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    fit(model, small_data(), TrainingConfig(**SETTINGS, checkpoint_steps=2), seed=5, run_dir=Path(sys.argv[1]))
