"""The metric table, the settings that differ and the training curves of one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from flows.reporting import plots
from flows.reporting.plots import Curve
from flows.reporting.runs import (
    HISTORIES,
    Group,
    Run,
    best_of_each_model,
    labels_text,
    pooled_ranks,
    settings_that_differ,
    test_metrics,
)
from flows.reporting.significance import REFERENCE, comparison_table
from flows.reporting.view import Cell, Picture, Table, count, real, text
from models.evaluation.metrics import parse_metric
from models.evaluation.record import RunRecord

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
    """What the page says about the models of one dataset before it comes to their experiments.

    Attributes:
        models: Labels of all configurations, short.
        chosen: Labels of the one configuration that stands for each model, see ``runs.CHOSEN``.
        rows: The metric table as plain values.
        tables: The metric table, and where configurations of a model differ.
        pictures: Figures about the chosen configurations.
        curves: Training curves, one picture per configuration.
        comparison: Paired comparisons of the chosen configurations; None where nothing can be compared.
        sentences: What was left out, and what is wrong with files of runs.
    """

    models: str
    chosen: frozenset[str]
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
    reference = _reference(groups, record)
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


def _reference(groups: Sequence[Group], record: RunRecord) -> Group | None:
    """Popularity on the same data among as many candidates."""

    def alike(other: RunRecord) -> bool:
        mine, theirs = record.protocol.n_candidates, other.protocol.n_candidates
        return other.model == REFERENCE and other.dataset_version == record.dataset_version and mine == theirs

    return next((group for group in reversed(groups) if alike(group.record)), None)


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


def variant_tables(groups: Sequence[Group]) -> list[Table]:
    """For each model with several configurations, the settings in which they differ."""
    tables: list[Table] = []
    for model in sorted({group.record.model for group in groups}):
        members = [group for group in groups if group.record.model == model]
        if len(members) > 1:
            different = settings_that_differ(members)
            rows = tuple(
                (text(member.label), *(text(values[number]) for values in different.values()))
                for number, member in enumerate(members)
            )
            header = ("configuration", *different)
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
    shown = best_of_each_model([by_label[label] for label in ordered])
    dots = {group.label: values for group in shown if (values := group.values("unmasked", "ndcg@10"))}
    pictures = [plots.metric_dots(dots, metric="ndcg@10")] if dots else []
    ranks = pooled_ranks(shown)
    if ranks:
        pictures.append(plots.hits_by_cutoff(ranks, n_candidates=max(row.candidates for row in rows)))
    older = [run.record.run_id for group in groups for run in group.superseded]
    if older:
        sentences.append(f"Not counted, as a newer run has the same configuration and seed: {', '.join(older)}.")
    sentences += [f"{run.record.run_id}: {fault}" for group in groups for run in group.runs for fault in run.faults]
    return Results(
        models=labels_text(groups),
        chosen=frozenset(group.label for group in shown),
        rows=tuple(rows),
        tables=(*tables, *variant_tables(groups)),
        pictures=tuple(pictures),
        curves=tuple(training_pictures([by_label[label] for label in ordered])),
        comparison=comparison,
        sentences=tuple(sentences),
    )
