"""The three models on the demo data against what is left of them, over paired seeds.

``python -m benchmarks.paired_seeds [--seeds 5] [--only MealRec]``: each model against its own backbone, against itself
without the modality that carries the planted signal (what a video's frames do leads to the next one; neither title nor
cover shows it), and against popularity. Needs the stores that ``make demo`` leaves below the root; runs that are there
already are read, not repeated. Holm's correction is over all comparisons of a metric.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import mean
from typing import Any

from flows import settings
from flows.jobs.train import find_experiment, run_experiment
from flows.settings import Settings
from models.evaluation.comparison import compare_seeds, holm

METRICS = ("hr@10", "ndcg@10")


@dataclass(frozen=True)
class Setting:
    """An experiment with overrides; ``fixed``: nothing in it depends on the seed."""

    label: str
    experiment: str
    overrides: tuple[tuple[str, Any], ...] = ()
    fixed: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the others."""
        return self.experiment, self.label

    def figures(self, place: Settings, seed: int) -> dict[str, float]:
        """Test metrics of one seed, history unmasked."""
        overrides = {**dict(self.overrides), "seed": 0 if self.fixed else seed}
        return run_experiment(place, find_experiment(place, self.experiment, overrides)).record.metrics["test"].unmasked


def _without(**parameters: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((f"parameters.{name}", value) for name, value in parameters.items())


POPULARITY = Setting("popularity", "popularity-synthetic", fixed=True)
MEALREC = Setting("MealRec", "mealrec-synthetic")
IMECD = Setting("IMECD", "imecd-synthetic")
DIMEREC = Setting("DimeRec", "dimerec-synthetic")

#: (model, what it is compared with).
PAIRS = [
    (MEALREC, Setting("SASRec, its backbone", "sasrec-synthetic")),
    (MEALREC, Setting("- TCD", "mealrec-synthetic", _without(use_tcd=False))),
    (MEALREC, Setting("- NPD", "mealrec-synthetic", _without(use_npd=False))),
    (MEALREC, Setting("- TCD - NPD", "mealrec-synthetic", _without(use_tcd=False, use_npd=False))),
    (MEALREC, POPULARITY),
    (IMECD, Setting("ids alone, its backbone", "imecd-synthetic", _without(modalities=["id"]))),
    (IMECD, Setting("w/o image (the video)", "imecd-synthetic", _without(modalities=["id", "txt"]))),
    (IMECD, Setting("w/o text", "imecd-synthetic", _without(modalities=["id", "img"]))),
    (IMECD, POPULARITY),
    (
        DIMEREC,
        Setting(
            "guidance alone, its backbone",
            "dimerec-synthetic",
            _without(use_recon=False, use_ssm=False, serve="interests"),
        ),
    ),
    (DIMEREC, POPULARITY),
]


def main() -> None:
    """Train what is missing, and print every seed's figures and the paired comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=[model.label for model in (MEALREC, IMECD, DIMEREC)])
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: a paired test needs at least 2")
    place = settings.load()
    pairs = [pair for pair in PAIRS if options.only in (None, pair[0].label)]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for setting in {setting.key: setting for pair in pairs for setting in pair}.values():
        runs = found[setting.key] = [setting.figures(place, seed) for seed in range(options.seeds)]
        rows = (f"{metric} " + " ".join(f"{run[metric]:.4f}" for run in runs) for metric in METRICS)
        print(f"{setting.experiment}, {setting.label}: {', '.join(rows)}", flush=True)
    for metric in METRICS:
        print(f"\n{metric}, test, {options.seeds} seeds: difference, 95 % interval, p and p by Holm")
        values = {key: [run[metric] for run in runs] for key, runs in found.items()}
        results = [compare_seeds(values[model.key], values[other.key]) for model, other in pairs]
        adjusted = holm([result.p for result in results])
        for (model, other), result, p in zip(pairs, results, adjusted, strict=True):
            print(
                f"{model.label} {mean(values[model.key]):.4f} against {other.label} {mean(values[other.key]):.4f}: "
                f"{result.difference:+.4f} ({result.low:+.4f} to {result.high:+.4f}), p {result.p:.2g}, {p:.2g}"
            )


if __name__ == "__main__":
    main()
