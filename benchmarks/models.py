"""What a model's training step, evaluation and serving cost beside those of the model that it builds upon.

``python -m benchmarks.models [--only mealrec] [--repeats 7]``; CPU seconds of one thread, medians, all on generated
data:

- ``mealrec``: MealRec and its ablations against their own backbones, SASRec, CL4SRec and TedRec, at d=64, two layers,
  two heads, the last 10 items, batches of 2,048, 18,700 items with five frames of 768 each. All models train on
  prefixes (positions = "last"): MealRec reads the content of the last video, so a history gives it one prediction. A
  step is loss, gradient and Adam; an evaluation is scores and ranks of 2,048 users, all at once and 256 at a time (the
  default of a training, kinder to a CPU's cache).
- ``dimerec``: the ten best items for 10,000 users, 256 at a time, by DimeRec with 20 reverse steps and by SASRec.
- ``imecd``: peak memory of a process that trains IMECD at the size of Amazon Toys, tables and histories included, with
  feature tables given in float32 and in float16.

CPU seconds depend on what else a machine does: compare the ratios of one run, not seconds of two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.evaluation.mode import eval_mode
from models.evaluation.ranking import count_ranks
from models.registry import build
from models.sequences.batch import SequenceBatch

ITEMS, BATCH, LENGTH = 18_700, 2048, 10
EVALUATED = (BATCH, 256)
FRAMES, WIDTH = 5, 768
NETWORK = {"d": 64, "layers": 2, "heads": 2, "inner": 256, "dropout": 0.5, "max_length": LENGTH}

#: The paper configurations' frames reduced to 64 and U-Net of 16 channels.
SMALL: dict[str, Any] = {"content_width": 64, "unet_channels": 16}

#: [(what is measured, model, parameters, what it is compared with)]; None: nothing.
CASES: list[tuple[str, str, dict[str, Any], str | None]] = [
    ("SASRec", "sasrec", {}, None),
    ("MealRec", "mealrec", SMALL, "SASRec"),
    ("the same, one reverse step", "mealrec", SMALL | {"sampler": "one_step"}, "SASRec"),
    ("- TCD", "mealrec", SMALL | {"use_tcd": False}, "SASRec"),
    ("- NPD", "mealrec", SMALL | {"use_npd": False}, "SASRec"),
    ("- TCD - NPD", "mealrec", SMALL | {"use_tcd": False, "use_npd": False}, "SASRec"),
    ("MealRec, a U-Net of 64 channels", "mealrec", {"content_width": 64}, "SASRec"),
    ("MealRec, frames of 768, as printed", "mealrec", {}, "SASRec"),
    ("CL4SRec", "cl4srec", {}, None),
    ("MealRec on CL4SRec", "mealrec", SMALL | {"backbone": "cl4srec"}, "CL4SRec"),
    ("TedRec", "tedrec", {}, None),
    ("MealRec on TedRec", "mealrec", SMALL | {"backbone": "tedrec"}, "TedRec"),
]

#: Amazon Toys in IMECD's Table II, and the sizes of its section IV-A-4 that are no defaults.
TOYS_USERS, TOYS_ITEMS, TOYS_BATCH, TOYS_LENGTH = 147_356, 49_637, 1280, 50
TOYS: dict[str, Any] = {"max_length": TOYS_LENGTH, "d": 128, "experts": 10}

SERVED, SERVED_AT_ONCE, LIST = 10_000, 256, 10


def histories(generator: torch.Generator, users: int = BATCH) -> SequenceBatch:
    """One batch: 3 to 10 items each, drawn with a long tail."""
    popularity = 1 / torch.arange(1, ITEMS + 1) ** 0.6
    drawn = torch.multinomial(popularity, users * (LENGTH + 1), replacement=True, generator=generator)
    items = torch.randperm(ITEMS, generator=generator)[drawn].view(users, LENGTH + 1) + 1
    mask = torch.arange(LENGTH) < torch.randint(3, LENGTH + 1, (users, 1), generator=generator)
    return SequenceBatch(items[:, :LENGTH] * mask, mask, items[:, LENGTH], torch.arange(users))


def pieces(batch: SequenceBatch, size: int) -> list[SequenceBatch]:
    """The batch, ``size`` rows at a time."""
    return [
        SequenceBatch(batch.item_ids[rows], batch.mask[rows], batch.target[rows], batch.user[rows])
        for rows in torch.arange(len(batch)).split(size)
    ]


def features(generator: torch.Generator) -> dict[str, Tensor]:
    """Tables as the stores give them."""
    shapes = {"videomae.frames": (FRAMES, WIDTH), "videomae": (WIDTH,), "bert": (WIDTH,)}
    return {name: torch.randn(ITEMS + 1, *shape, generator=generator) for name, shape in shapes.items()}


class Measured:
    """One model with its optimiser, and the seconds that it took so far."""

    def __init__(self, name: str, parameters: dict[str, Any], tables: dict[str, Tensor]) -> None:
        torch.manual_seed(0)
        self.model: Any = build(name, NETWORK | parameters, n_items=ITEMS, features=tables)
        assert isinstance(self.model, nn.Module)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.steps: list[float] = []
        self.evaluations: dict[int, list[float]] = {size: [] for size in EVALUATED}

    def step(self, batch: SequenceBatch, generator: torch.Generator) -> None:
        """Train once on the batch."""
        begin = time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        self.model.training_loss(batch, generator=generator).total.backward()
        self.optimiser.step()
        self.steps.append(time.process_time() - begin)

    def evaluate(self, batch: SequenceBatch, generator: torch.Generator) -> None:
        """Rank the targets of the batch."""
        for size, seconds in self.evaluations.items():
            begin = time.process_time()
            with eval_mode(self.model):
                for part in pieces(batch, size):
                    count_ranks(self.model.score(part, generator=generator), part.target, part.item_ids)
            seconds.append(time.process_time() - begin)

    def medians(self) -> tuple[float, ...]:
        """Of a step and of both evaluations; the first of each, which allocates, is left out."""
        return tuple(statistics.median(seconds[1:]) for seconds in (self.steps, *self.evaluations.values()))


def measure_mealrec(repeats: int) -> None:
    """Run the cases in turn, and print."""
    generator = torch.Generator().manual_seed(0)
    batch, tables = histories(generator), features(generator)
    measured = {case: Measured(model, parameters, tables) for case, model, parameters, _ in CASES}
    for _ in range(repeats + 1):
        for one in measured.values():
            one.step(batch, generator)
            one.evaluate(batch, generator)
    columns = ("step", *(f"eval, {size}" for size in EVALUATED))
    print(" " * 36 + "".join(f"{f'{name}: s':>16}{'ratio':>7}" for name in columns))
    for case, _, _, base in CASES:
        seconds = measured[case].medians()
        ratios = [""] * len(seconds)
        if base is not None:
            ratios = [f"{own / its:.2f}" for own, its in zip(seconds, measured[base].medians(), strict=True)]
        print(f"{case:36}" + "".join(f"{own:16.3f}{ratio:>7}" for own, ratio in zip(seconds, ratios, strict=True)))


def measure_dimerec(repeats: int) -> None:
    """Recommend with both models in turn, and print."""
    generator = torch.Generator().manual_seed(0)
    batch, served, seconds = histories(generator, SERVED), dict[str, Any](), dict[str, list[float]]()
    for name, parameters in (("sasrec", NETWORK), ("dimerec", {"d": NETWORK["d"], "max_length": LENGTH, "steps": 20})):
        torch.manual_seed(0)
        served[name], seconds[name] = build(name, parameters, n_items=ITEMS), []
    for _ in range(repeats + 1):
        for name, model in served.items():
            begin = time.process_time()
            with eval_mode(model):
                for part in pieces(batch, SERVED_AT_ONCE):
                    model.recommend(part, k=LIST, exclude=part.item_ids, generator=generator)
            seconds[name].append(time.process_time() - begin)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    for name, median in medians.items():
        share = medians["sasrec"] / median
        print(f"{name:10}{median:8.2f} CPU-s{SERVED / median:10.0f} users/s, {share:.2f} of SASRec's throughput")


def measure_imecd(repeats: int) -> None:
    """Train in processes of their own, and print."""
    for table in ("float32", "float16"):
        command = [sys.executable, "-m", "benchmarks.models", "--train-imecd", table, "--repeats", str(repeats)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(f"tables of {table}: {done.stdout.strip()}", flush=True)


def train_imecd(table: str, steps: int) -> None:
    """Train ``steps`` steps after a first one, and print what it took."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    dtype = {"float32": torch.float32, "float16": torch.float16}[table]
    shape = (TOYS_ITEMS + 1, WIDTH)
    given = {name: torch.empty(shape, dtype=dtype).normal_(generator=generator) for name in ("roberta", "vit")}
    items = torch.randint(1, TOYS_ITEMS + 1, (TOYS_USERS, TOYS_LENGTH + 1), generator=generator)
    model: Any = build("imecd", TOYS, n_items=TOYS_ITEMS, features=given)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    seconds: list[float] = []
    for _ in range(steps + 1):
        user = torch.randint(TOYS_USERS, (TOYS_BATCH,), generator=generator)
        lengths = torch.randint(3, TOYS_LENGTH + 1, (TOYS_BATCH, 1), generator=generator)
        lengths[0] = TOYS_LENGTH  # one full history makes the whole batch that long
        mask = torch.arange(TOYS_LENGTH) < lengths
        batch = SequenceBatch(items[user, :TOYS_LENGTH] * mask, mask, items[user, TOYS_LENGTH], user)
        begin = time.process_time()
        optimiser.zero_grad(set_to_none=True)
        model.training_loss(batch, generator=generator).total.backward()
        optimiser.step()
        seconds.append(time.process_time() - begin)
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))  # KiB
    print(f"peak {peak * 1024 / 1e9:.2f} GB, {statistics.median(seconds[1:]):.1f} CPU-s a step, {steps + 1} steps")


SUBJECTS: dict[str, Callable[[int], None]] = {
    "mealrec": measure_mealrec,
    "dimerec": measure_dimerec,
    "imecd": measure_imecd,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(SUBJECTS), help="one subject; default all")
    parser.add_argument("--repeats", type=int, default=7, help="measured repetitions")
    parser.add_argument("--train-imecd", choices=("float32", "float16"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.train_imecd:
        train_imecd(options.train_imecd, options.repeats)
        return
    for subject in [options.only] if options.only else SUBJECTS:
        print(
            f"{subject}: torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
        SUBJECTS[subject](options.repeats)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
