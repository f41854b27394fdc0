"""MealRec against its own backbone on the demo data over paired seeds: ``python -m benchmarks.paired_seeds [seeds]``.

Needs the stores that ``make demo`` leaves below the root; runs that are there already are read, not repeated.
"""

import sys

from flows import settings
from flows.jobs.train import find_experiment, run_experiment
from models.evaluation.comparison import compare_seeds

METRICS = ("hr@10", "ndcg@10")


def main() -> None:
    """Print the test figures of every seed and the paired comparison."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    place = settings.load()
    figures = {}
    for name in ("mealrec-synthetic", "sasrec-synthetic"):
        records = [run_experiment(place, find_experiment(place, name, {"seed": seed})).record for seed in seeds]
        figures[name] = [record.metrics["test"].unmasked for record in records]
        for seed, values in zip(seeds, figures[name], strict=True):
            print(f"{name} seed {seed}: " + ", ".join(f"{metric} {values[metric]:.4f}" for metric in METRICS))
    for metric in METRICS:
        ours, theirs = ([values[metric] for values in figures[name]] for name in figures)
        result = compare_seeds(ours, theirs)
        print(
            f"{metric}: MealRec - SASRec = {result.difference:+.4f} ({100 * result.relative:+.1f} %), 95 % interval "
            f"{result.low:+.4f} to {result.high:+.4f}, t({result.df}) = {result.t:.2f}, p = {result.p:.4f}"
        )


if __name__ == "__main__":
    main()
