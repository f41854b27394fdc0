"""A small dataset and sweeps over it; as a program: run one and die by SIGKILL amid its training.

usage: sweep_case.py ROOT SWEEP RUN
"""

import os
import signal
import sys
from pathlib import Path

from flows.jobs.prepare import prepare_dataset
from flows.jobs.sweep import run_sweep
from flows.jobs.sweep_config import find_sweep
from flows.settings import Settings

EXPERIMENT = """
dataset = "movielens-10m"
model = "sasrec"
[parameters]
d = 8
layers = 1
inner = 16
dropout = 0.2
max_length = 5
[training]
epochs = 3
batch_size = 64
max_length = 5
cutoffs = [3, 5]
select = "recall@5"
device = "cpu"
threads = 1
"""
GRID = """
experiment = "sasrec-movielens-10m"
method = "grid"
seeds = [0, 1]
[axes]
"training.learning_rate" = [1e-3, 3e-2]
"parameters.loss" = ["full", "gbce"]
"""


def settings_at(root):
    return Settings(root=root / "data", configs=root / "configs", device="cpu", workers=1)


def write_sweep(root, name, text):
    path = root / "configs" / "sweeps" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def small_root(root):
    """36 users, each of whom walks along a circle of 12 films; half of them take two steps at a time."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    ratings = [
        f"{user + 1}::{1 + (5 * user + place * (1 + user % 2)) % 12}::4::{1_000_000 + 100 * user + place}"
        for user in range(36)
        for place in range(6)
    ]
    (raw / "ratings.dat").write_text("\n".join(ratings) + "\n")
    (raw / "movies.dat").write_text("".join(f"{film}::Film {film} (1999)::Drama\n" for film in range(1, 13)))
    settings = settings_at(root)
    (settings.configs / "experiments").mkdir(parents=True)
    (settings.configs / "experiments" / "sasrec-movielens-10m.toml").write_text(EXPERIMENT)
    prepare_dataset(settings, "movielens-10m", {"source": str(raw), "split": "leave_one_out", "k_user": 1, "k_item": 1})
    return settings


def dying(run):
    """A progress callback that kills the process at the last step of the last epoch of its ``run``-th training."""
    left = [run]

    def progress(stage, done, total):
        left[0] -= stage == "epoch 3" and done == total
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return progress


if __name__ == "__main__":
    place = settings_at(Path(sys.argv[1]))
    run_sweep(find_sweep(place, sys.argv[2], {}), progress=dying(int(sys.argv[3])))
