"""The metric table, the paired comparisons and the training curves of one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np

from flows.reporting import plots
from flows.reporting.plots import Curve
from flows.reporting.runs import HISTORIES, Group, Run, pooled_ranks, settings_that_differ, test_metrics
from flows.reporting.view import Cell, Picture, Table, code, count, real, text
from models.evaluation.comparison import PairedComparison, compare_seeds, compare_users, holm
from models.evaluation.metrics import parse_metric, per_user

BASELINE = "sasrec"
REFERENCE = "popularity"
COMPARED = ("hr@10", "ndcg@10")

#: Besides HR and NDCG at every cut-off, MRR at the largest.
_KINDS = ("hr", "ndcg")
_CURVES = ("hr@10", "ndcg@10")


@dataclass(frozen=True)
class MetricRow:
    """Test metrics of one model with the history treated in one way.

    Attributes:
        dataset: Name.
        model: Label of the group.
        history: ``unmasked`` or ``masked``.
        seeds: Seeds that the values are over.
        users: Users of the test split.
        candidates: Items that were ranked.
        toy: The model reads features of a toy checkpoint.
        values: Mean over seeds by metric.
        deviations: Sample standard deviation over seeds by metric; empty for one seed.
        ratio: NDCG@10 divided by that of ``popularity`` on the same version of the dataset; None without it.
    """

    dataset: str
    model: str
    history: str
    seeds: tuple[int, ...]
    users: int
    candidates: int
    toy: bool
    values: Mapping[str, float]
    deviations: Mapping[str, float]
    ratio: float | None


@dataclass(frozen=True)
class Results:
    """Everything that the page says about the models of one dataset."""

    rows: tuple[MetricRow, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    curves: tuple[Picture, ...]
    comparison: Table | None
    sentences: tuple[str, ...]


def metric_rows(groups: Sequence[Group], *, toy_models: frozenset[str]) -> list[MetricRow]:
    """Both rows of every group, best NDCG@10 (history unmasked) first; ``toy_models`` are labels."""
    ordered = sorted(groups, key=lambda group: -_mean_or_zero(group.values("unmasked", "ndcg@10")))
    return [_row(group, history, groups, toy=group.label in toy_models) for history in HISTORIES for group in ordered]


def _row(group: Group, history: str, groups: Sequence[Group], *, toy: bool) -> MetricRow:
    record = group.record
    columns = {name: group.values(history, name) for name in test_metrics(record, history)}
    columns = {name: values for name, values in columns.items() if values}
    several = len(group.runs) > 1
    reference = _reference(groups, record.dataset_version)
    ours = columns.get("ndcg@10")
    theirs = reference.values(history, "ndcg@10") if reference else []
    return MetricRow(
        dataset=record.dataset,
        model=group.label,
        history=history,
        seeds=group.seeds,
        users=record.protocol.n_users.get("test", 0),
        candidates=record.protocol.n_candidates,
        toy=toy,
        values={name: mean(values) for name, values in columns.items()},
        deviations={name: stdev(values) for name, values in columns.items()} if several else {},
        ratio=mean(ours) / mean(theirs) if ours and theirs and mean(theirs) > 0 else None,
    )


def _reference(groups: Sequence[Group], dataset_version: str) -> Group | None:
    fitting = [g for g in groups if g.record.model == REFERENCE and g.record.dataset_version == dataset_version]
    return fitting[-1] if fitting else None


def _mean_or_zero(values: Sequence[float]) -> float:
    return mean(values) if values else 0.0


def metric_names(rows: Sequence[MetricRow]) -> list[str]:
    """HR and NDCG at every cut-off, then MRR at the largest."""
    cutoffs = sorted({parse_metric(name)[1] for row in rows for name in row.values})
    names = [f"{kind}@{k}" for k in cutoffs for kind in _KINDS]
    return [*names, f"mrr@{cutoffs[-1]}"] if cutoffs else []


def metric_table(rows: Sequence[MetricRow], history: str) -> Table:
    """The table of one way to treat the history; the best mean of every column stands out."""
    shown = [row for row in rows if row.history == history]
    names = metric_names(rows)
    best = {name: max((_printed(row, name) for row in shown), default="") for name in names}
    cells: list[tuple[Cell, ...]] = []
    for row in shown:
        figures = [_metric_cell(row, name, best=_printed(row, name) == best[name]) for name in names]
        ratio = Cell("–", "number") if row.ratio is None else Cell(f"{row.ratio:.2f}×", "number")
        label = Cell(row.model, below="toy features" if row.toy else "")
        seeds = ", ".join(map(str, row.seeds))
        cells.append((label, *figures, ratio, text(seeds), count(row.users), count(row.candidates)))
    explained = {
        "unmasked": "History unmasked: all items are candidates, those that the user has had included.",
        "masked": "History masked: items that the user has had are no candidates.",
    }
    return Table(
        caption=f"Test split. {explained[history]}",
        header=("model", *(name.upper() for name in names), "NDCG@10 ÷ popularity", "seeds", "users", "candidates"),
        rows=tuple(cells),
        note="Mean ± sample standard deviation where a model has several seeds. Ties count against the model.",
    )


def _printed(row: MetricRow, name: str) -> str:
    """The figure as it stands in the table, so that equal figures stand out together."""
    return f"{row.values[name]:.4f}" if name in row.values else ""


def _metric_cell(row: MetricRow, name: str, *, best: bool) -> Cell:
    if name not in row.values:
        return real(None)
    spread = f"± {row.deviations[name]:.4f}" if name in row.deviations else ""
    return Cell(_printed(row, name), "best" if best else "number", below=spread)


def comparison_table(groups: Sequence[Group]) -> tuple[Table | None, list[str]]:
    """Every learned model against SASRec: over seeds where two are common, and over the users of one seed.

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
    for group in learned:
        baseline = max(baselines, key=lambda other: len(_common_seeds(group, other)))
        pair = f"{group.label} − {baseline.label}"
        common = _common_seeds(group, baseline)
        if not common:
            sentences.append(f"{pair}: not compared, the two have no seed or no dataset version in common.")
            continue
        if len(common) > 1:
            over = f"{len(common)} seeds ({', '.join(map(str, common))})"
            found += [(pair, over, label, result) for label, result in _over_seeds(group, baseline, common)]
        else:
            sentences.append(f"{pair}: one common seed; a comparison over seeds needs two or more.")
        by_user = _over_users(group, baseline, common[0])
        if by_user is not None:
            found.append((pair, f"{by_user.n:,} users, seed {common[0]}", "NDCG@10, unmasked", by_user))
    return (_comparison_table(found) if found else None), sentences


def _common_seeds(first: Group, second: Group) -> list[int]:
    if first.record.dataset_version != second.record.dataset_version:
        return []
    return sorted(set(first.seeds) & set(second.seeds))


def _over_seeds(group: Group, baseline: Group, seeds: Sequence[int]) -> list[tuple[str, PairedComparison]]:
    results: list[tuple[str, PairedComparison]] = []
    for history in HISTORIES:
        for metric in COMPARED:
            ours, theirs = (_by_seed(side, history, metric) for side in (group, baseline))
            if ours and theirs:
                pairs = compare_seeds([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
                results.append((f"{metric.upper()}, {history}", pairs))
    return results


def _by_seed(group: Group, history: str, metric: str) -> dict[int, float]:
    return dict(zip(group.seeds, group.values(history, metric), strict=False))


def _over_users(group: Group, baseline: Group, seed: int) -> PairedComparison | None:
    sides = [next(run.test_ranks for run in side.runs if run.record.seed == seed) for side in (group, baseline)]
    if sides[0] is None or sides[1] is None:
        return None
    paired = sides[0].join(sides[1], on=["user", "target"], how="inner", suffix="_other").sort("user")
    if len(paired) < 2:
        return None
    ours, theirs = (per_user(paired[column].to_numpy(), "ndcg@10") for column in ("rank", "rank_other"))
    return compare_users(ours, theirs, generator=np.random.default_rng(0), samples=1000)


def _comparison_table(found: Sequence[tuple[str, str, str, PairedComparison]]) -> Table:
    adjusted = holm([result.p for *_, result in found])
    rows = tuple(
        (
            text(pair),
            text(over),
            text(label),
            Cell(f"{result.difference:+.4f}", "number"),
            Cell(f"[{result.low:+.4f}, {result.high:+.4f}]", "number"),
            Cell(f"{100 * result.relative:+.1f} %" if result.relative == result.relative else "–", "number"),
            Cell(f"{result.t:.2f} ({result.df})", "number"),
            Cell(_p_text(result.p), "number"),
            Cell(_p_text(p), "number"),
        )
        for (pair, over, label, result), p in zip(found, adjusted, strict=True)
    )
    return Table(
        caption=f"Paired comparisons with {BASELINE} on the test split.",
        header=("pair", "over", "metric", "mean difference", "95 % interval", "relative", "t (df)", "p", "p (Holm)"),
        rows=rows,
        note="Over seeds: does the method win again when it is trained again? Student's interval. Over users: does "
        "this trained model win on other users? Percentile bootstrap, 1000 samples. The second says nothing about the "
        "first.",
    )


def _p_text(value: float) -> str:
    return f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def variant_tables(groups: Sequence[Group]) -> list[Table]:
    """For each model with several configurations, the settings in which they differ."""
    tables: list[Table] = []
    for model in sorted({group.record.model for group in groups}):
        members = [group for group in groups if group.record.model == model]
        if len(members) > 1:
            different = settings_that_differ(members)
            rows = tuple((code(key), *(text(value) for value in values)) for key, values in different.items())
            header = ("setting", *(member.label for member in members))
            tables.append(Table(f"Where the {len(members)} configurations of {model} differ.", header, rows))
    return tables


def training_pictures(groups: Sequence[Group]) -> list[Picture]:
    """One picture per group that was trained for at least one epoch."""
    pictures: list[Picture] = []
    for group in groups:
        curves = [curve for run in group.runs if (curve := _curve(run)).loss]
        if curves:
            pictures.append(plots.training_curves(group.label, curves))
    return pictures


def _curve(run: Run) -> Curve:
    loss = tuple((int(row["epoch"]), float(row["loss"])) for row in run.epochs if "loss" in row)
    valid: dict[str, tuple[tuple[int, float], ...]] = {}
    for metric in _CURVES:
        points = tuple((int(row["epoch"]), float(row["valid"][metric])) for row in run.epochs if _has(row, metric))
        if points:
            valid[metric] = points
    return Curve(f"seed {run.record.seed}", loss, valid, run.record.selected_epoch)


def _has(row: Mapping[str, Any], metric: str) -> bool:
    return metric in row.get("valid", {})


def collect(groups: Sequence[Group], *, toy_models: frozenset[str]) -> Results:
    """All results of one dataset; ``groups`` are its groups."""
    rows = metric_rows(groups, toy_models=toy_models)
    tables = [metric_table(rows, history) for history in HISTORIES]
    comparison, sentences = comparison_table(groups)
    ordered = [row.model for row in rows if row.history == "unmasked"]
    by_label = {group.label: group for group in groups}
    dots = {label: values for label in ordered if (values := by_label[label].values("unmasked", "ndcg@10"))}
    pictures = [plots.metric_dots(dots, metric="ndcg@10")] if dots else []
    ranks = pooled_ranks([by_label[label] for label in ordered])
    if ranks:
        pictures.append(plots.hits_by_cutoff(ranks, n_candidates=max(row.candidates for row in rows)))
    older = [run.record.run_id for group in groups for run in group.superseded]
    if older:
        sentences.append(f"Not counted, as a newer run has the same configuration and seed: {', '.join(older)}.")
    sentences += [f"{run.record.run_id}: {fault}" for group in groups for run in group.runs for fault in run.faults]
    return Results(
        rows=tuple(rows),
        tables=(*tables, *variant_tables(groups)),
        pictures=tuple(pictures),
        curves=tuple(training_pictures([by_label[label] for label in ordered])),
        comparison=comparison,
        sentences=tuple(sentences),
    )
