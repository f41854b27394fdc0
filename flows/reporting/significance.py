"""Is a difference more than luck? Paired comparisons over seeds and over users, adjusted for their number."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from flows.reporting.runs import CHOSEN, HISTORIES, Group, best_of_each_model, best_on_validation
from flows.reporting.view import Cell, Table, text
from models.evaluation.comparison import PairedComparison, compare_seeds, compare_users, holm_within
from models.evaluation.metrics import per_user

BASELINE = "sasrec"
REFERENCE = "popularity"
COMPARED = ("hr@10", "ndcg@10")

#: Bootstrap samples of a comparison over users.
SAMPLES = 1000

#: Stands where a comparison has no test, see ``PairedComparison``.
NO_SPREAD = "no spread"
ABOUT_NO_SPREAD = f"{NO_SPREAD.capitalize()}: all pairs differ by the same amount, so that nothing can be tested."


def comparison_table(groups: Sequence[Group]) -> tuple[Table | None, list[str]]:
    """Every learned model against SASRec: over seeds where two are common, and over the users of one seed.

    Of several configurations of a model one is compared, see ``runs.CHOSEN``.

    Returns:
        The table, None where nothing can be compared, and sentences that say why not.
    """
    baselines = [group for group in groups if group.record.model == BASELINE]
    learned = [group for group in groups if group.record.model not in (BASELINE, REFERENCE)]
    if not learned:
        return None, []
    if not baselines:
        return None, [f"No comparison: there is no {BASELINE} run on this dataset."]
    found: list[tuple[str, str, str, PairedComparison]] = []
    sentences: list[str] = []
    for group in best_of_each_model(learned):
        most = max(len(common_seeds(group, other)) for other in baselines)
        baseline = best_on_validation([other for other in baselines if len(common_seeds(group, other)) == most])
        pair = f"{group.label} − {baseline.label}"
        common = common_seeds(group, baseline)
        if not common:
            sentences.append(f"{pair}: not compared, the two have no seed or no dataset version in common.")
            continue
        if len(common) > 1:
            over = f"{len(common)} seeds ({', '.join(map(str, common))})"
            found += [(pair, over, label, result) for label, result in _over_seeds(group, baseline, common)]
        else:
            sentences.append(f"{pair}: one common seed; a comparison over seeds needs two or more.")
        by_user = over_users(group, baseline, common[0])
        if by_user is not None:
            found.append((pair, f"{by_user.n:,} users, seed {common[0]}", "NDCG@10, unmasked", by_user))
    return (_comparison_table(found) if found else None), sentences


def common_seeds(first: Group, second: Group) -> list[int]:
    """Seeds that both have; none where they were trained on different versions of the dataset."""
    if first.record.dataset_version != second.record.dataset_version:
        return []
    return sorted(set(first.seeds) & set(second.seeds))


def _over_seeds(group: Group, baseline: Group, seeds: Sequence[int]) -> list[tuple[str, PairedComparison]]:
    results: list[tuple[str, PairedComparison]] = []
    for history in HISTORIES:
        for metric in COMPARED:
            pairs = paired_over_seeds(group, baseline, seeds, history, metric)
            if pairs is not None:
                results.append((f"{metric.upper()}, {history}", pairs))
    return results


def paired_over_seeds(
    group: Group, baseline: Group, seeds: Sequence[int], history: str, metric: str
) -> PairedComparison | None:
    """One metric of two groups over their common seeds; None where it is missing or the seeds are fewer than two."""
    ours, theirs = (_by_seed(side, history, metric) for side in (group, baseline))
    if not ours or not theirs or len(seeds) < 2:
        return None
    return compare_seeds([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def _by_seed(group: Group, history: str, metric: str) -> dict[int, float]:
    return dict(zip(group.seeds, group.values(history, metric), strict=False))


def over_users(group: Group, baseline: Group, seed: int) -> PairedComparison | None:
    """NDCG@10 (history unmasked) of the users that both ranked with one seed; None where ranks are missing."""
    sides = [next(run.test_ranks for run in side.runs if run.record.seed == seed) for side in (group, baseline)]
    if sides[0] is None or sides[1] is None:
        return None
    paired = sides[0].join(sides[1], on=["user", "target"], how="inner", suffix="_other").sort("user")
    if len(paired) < 2:
        return None
    ours, theirs = (per_user(paired[column].to_numpy(), "ndcg@10") for column in ("rank", "rank_other"))
    return compare_users(ours, theirs, generator=np.random.default_rng(0), samples=SAMPLES)


def _comparison_table(found: Sequence[tuple[str, str, str, PairedComparison]]) -> Table:
    families = [(label, " users, " in over) for _, over, label, _ in found]
    adjusted = holm_within(families, [result.p for *_, result in found])
    rows = tuple(
        (
            text(pair),
            text(over),
            text(label),
            Cell(f"{result.difference:+.4f}", "number"),
            Cell(interval_text(result), "number"),
            Cell(f"{100 * result.relative:+.1f} %" if result.relative == result.relative else "–", "number"),
            Cell(NO_SPREAD if math.isnan(result.t) else f"{result.t:.2f} ({result.df})", "number"),
            Cell(p_text(result.p), "number"),
            Cell(p_text(p), "number"),
        )
        for (pair, over, label, result), p in zip(found, adjusted, strict=True)
    )
    return Table(
        caption=f"Paired comparisons with {BASELINE} on the test split.",
        header=("pair", "over", "metric", "mean difference", "95 % interval", "relative", "t (df)", "p", "p (Holm)"),
        rows=rows,
        note="Over seeds: does the method win again when it is trained again? Student's interval. Over users: does "
        f"this trained model win on other users? Percentile bootstrap, {SAMPLES:,} samples. The second says nothing "
        f"about the first. Holm's adjustment is over the rows of one metric, seeds apart from users. {ABOUT_NO_SPREAD} "
        f"{CHOSEN}",
    )


def p_text(value: float) -> str:
    """Four decimals, or the power of ten of a smaller one; ``NO_SPREAD`` for NaN."""
    if math.isnan(value):
        return NO_SPREAD
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def interval_text(result: PairedComparison) -> str:
    """Both ends with their signs; ``NO_SPREAD`` where there is no interval."""
    return NO_SPREAD if math.isnan(result.low) else f"[{result.low:+.4f}, {result.high:+.4f}]"
