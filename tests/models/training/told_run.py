"""Train with several processes that each note what they are told after an epoch.

usage: torchrun --nproc-per-node N told_run.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from models.distributed import workers
from models.registry import build
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import fit

MODEL = {"d": 8, "layers": 1, "inner": 16, "max_length": 4}
SETTINGS = {"epochs": 3, "batch_size": 16, "max_length": 4, "threads": 1, "device": "cpu"}


def small_data():
    """12 users who read 6 items each."""
    rows = [
        (user, 1 + (user + place) % 12, place, {4: "valid", 5: "test"}.get(place, "train"))
        for user in range(12)
        for place in range(6)
    ]
    return SequenceData.from_arrays(*zip(*rows, strict=True), n_items=12)


def train(folder, told, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("sasrec", MODEL, n_items=12)
    return fit(model, small_data(), TrainingConfig(**SETTINGS | changes), seed=5, run_dir=folder, on_epoch=told)


def main(folder):
    dist.init_process_group("gloo")
    rows = []
    train(folder, rows.append)
    (folder / f"told_{workers().rank}.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
