"""What a model's training step and evaluation cost beside those of the model that it builds upon.

``python -m benchmarks.models [--only mealrec] [--repeats 7]``: MealRec and its ablations against their own backbones,
SASRec, CL4SRec and TedRec, at d=64, two layers, two heads, the last 10 items, batches of 2,048, 18,700 items with five
frames of 768 each (generated). All models train on prefixes (positions = "last"): MealRec reads the content of the last
video, so a history gives it one prediction. CPU seconds of one thread, medians of steps taken in turn.

A step is loss, gradient and Adam; an evaluation is scores and ranks of 2,048 users, 256 at a time. CPU seconds depend
on what else a machine does: compare the ratios of one run, not seconds of two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn

from models.evaluation.mode import eval_mode
from models.evaluation.ranking import count_ranks
from models.registry import build
from models.sequences.batch import SequenceBatch

ITEMS, BATCH, LENGTH, EVALUATED = 18_700, 2048, 10, 256
FRAMES, WIDTH = 5, 768
NETWORK = {"d": 64, "layers": 2, "heads": 2, "inner": 256, "dropout": 0.5, "max_length": LENGTH}

#: Subject -> [(what is measured, model, parameters, what it is compared with)]; None: nothing.
CASES: dict[str, list[tuple[str, str, dict[str, Any], str | None]]] = {
    "mealrec": [
        ("SASRec", "sasrec", {}, None),
        ("MealRec, frames reduced to 64", "mealrec", {"content_width": 64}, "SASRec"),
        ("the same, one reverse step", "mealrec", {"content_width": 64, "sampler": "one_step"}, "SASRec"),
        ("- TCD", "mealrec", {"content_width": 64, "use_tcd": False}, "SASRec"),
        ("- NPD", "mealrec", {"content_width": 64, "use_npd": False}, "SASRec"),
        ("- TCD - NPD", "mealrec", {"content_width": 64, "use_tcd": False, "use_npd": False}, "SASRec"),
        ("MealRec, frames reduced to 128", "mealrec", {"content_width": 128}, "SASRec"),
        ("MealRec, frames of 768", "mealrec", {}, "SASRec"),
        ("CL4SRec", "cl4srec", {}, None),
        ("MealRec on CL4SRec, 64", "mealrec", {"content_width": 64, "backbone": "cl4srec"}, "CL4SRec"),
        ("TedRec", "tedrec", {}, None),
        ("MealRec on TedRec, 64", "mealrec", {"content_width": 64, "backbone": "tedrec"}, "TedRec"),
    ]
}


def histories(generator: torch.Generator) -> SequenceBatch:
    """One batch: 3 to 10 items each, drawn with a long tail."""
    popularity = 1 / torch.arange(1, ITEMS + 1) ** 0.6
    drawn = torch.multinomial(popularity, BATCH * (LENGTH + 1), replacement=True, generator=generator)
    items = torch.randperm(ITEMS, generator=generator)[drawn].view(BATCH, LENGTH + 1) + 1
    mask = torch.arange(LENGTH) < torch.randint(3, LENGTH + 1, (BATCH, 1), generator=generator)
    return SequenceBatch(items[:, :LENGTH] * mask, mask, items[:, LENGTH], torch.arange(BATCH))


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
        self.evaluations: list[float] = []

    def step(self, batch: SequenceBatch, generator: torch.Generator) -> None:
        """Train once on the batch."""
        begin = time.process_time()
        self.optimiser.zero_grad(set_to_none=True)
        self.model.training_loss(batch, generator=generator).total.backward()
        self.optimiser.step()
        self.steps.append(time.process_time() - begin)

    def evaluate(self, batch: SequenceBatch, generator: torch.Generator) -> None:
        """Rank the targets of the batch."""
        begin = time.process_time()
        with eval_mode(self.model):
            for rows in torch.arange(len(batch)).split(EVALUATED):
                part = SequenceBatch(batch.item_ids[rows], batch.mask[rows], batch.target[rows], batch.user[rows])
                count_ranks(self.model.score(part, generator=generator), part.target, part.item_ids)
        self.evaluations.append(time.process_time() - begin)

    def medians(self) -> tuple[float, float]:
        """Of a step and of an evaluation; the first of each, which allocates, is left out."""
        return statistics.median(self.steps[1:]), statistics.median(self.evaluations[1:])


def measure(subject: str, repeats: int) -> None:
    """Run the cases of a subject in turn, and print."""
    generator = torch.Generator().manual_seed(0)
    batch, tables = histories(generator), features(generator)
    measured = {case: Measured(model, parameters, tables) for case, model, parameters, _ in CASES[subject]}
    for _ in range(repeats + 1):
        for one in measured.values():
            one.step(batch, generator)
            one.evaluate(batch, generator)
    print(f"{'':34}{'step, s':>9}{'ratio':>7}{'eval, s':>10}{'ratio':>7}")
    for case, _, _, base in CASES[subject]:
        step, evaluation = measured[case].medians()
        ratios = ("", "")
        if base is not None:
            ratios = tuple(
                f"{mine / its:.2f}" for mine, its in zip((step, evaluation), measured[base].medians(), strict=True)
            )
        print(f"{case:34}{step:9.3f}{ratios[0]:>7}{evaluation:10.3f}{ratios[1]:>7}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(CASES), help="one subject; default all")
    parser.add_argument("--repeats", type=int, default=7, help="measured steps and evaluations of every model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for subject in [options.only] if options.only else CASES:
        print(
            f"{subject}: torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        )
        measure(subject, options.repeats)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
