"""What training costs, in the form of the papers: seconds of an epoch, of an evaluation, memory, parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

from flows.reporting.papers import NOT_BUILT, NOT_RUN
from flows.reporting.published import CostTable, papers
from flows.reporting.runs import Group, Run, best_on_validation
from flows.reporting.view import Cell, Part, Table, count, text

_NOT_RECORDED = Cell("not recorded", "absent")

#: Where a run keeps its peak memory (by epoch in the log, or once in the record) and its number of parameters.
_MEMORY, _PARAMETERS = "peak_memory_bytes", "parameters"


def collect(groups: Sequence[Group]) -> Part:
    """The table of our runs on one dataset, then the papers' costs on it beside ours."""
    trained = [group for group in groups if any(train_seconds(run) is not None for run in group.runs)]
    if not trained:
        return Part("Costs")
    dataset = trained[0].record.dataset
    printed = [(paper.name, table) for paper in papers() for table in paper.costs if table.dataset == dataset]
    return Part("Costs", tables=(_table(trained), *(_beside(name, table, trained) for name, table in printed)))


def train_seconds(run: Run) -> float | None:
    """Mean seconds of a training epoch, validation not counted."""
    return _mean([row["seconds"] for row in run.epochs if row.get("epoch", 0) > 0 and "seconds" in row])


def evaluate_seconds(run: Run) -> float | None:
    """Mean seconds of ranking the validation split once."""
    return _mean([row["eval_seconds"] for row in run.epochs if "valid" in row and "eval_seconds" in row])


def peak_memory_mb(run: Run) -> float | None:
    """Largest memory that the log or the record names, in 10^6 bytes."""
    named = [row[_MEMORY] for row in (*run.epochs, run.record.extra) if row.get(_MEMORY) is not None]
    return max(named) / 1e6 if named else None


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def _seconds(group: Group, of_run: Callable[[Run], float | None]) -> Cell:
    """The mean over the seeds, with their range below it."""
    found = [value for run in group.runs if (value := of_run(run)) is not None]
    if not found:
        return _NOT_RECORDED
    spread = f"{min(found):.2f} to {max(found):.2f}" if len(found) > 1 else ""
    return Cell(f"{mean(found):.2f}", "number", below=spread)


def _memory(group: Group) -> Cell:
    found = [value for run in group.runs if (value := peak_memory_mb(run)) is not None]
    return Cell(f"{max(found):,.0f}", "number") if found else _NOT_RECORDED


def _parameters(group: Group) -> Cell:
    number = group.record.extra.get(_PARAMETERS)
    return count(number) if isinstance(number, int) else _NOT_RECORDED


def _machine(group: Group) -> str:
    names = dict.fromkeys(str(run.record.extra.get("machine", "not recorded")) for run in group.runs)
    return " or ".join(names)


def _table(groups: Sequence[Group]) -> Table:
    rows = tuple(
        (
            Cell(group.label),
            _parameters(group),
            _seconds(group, train_seconds),
            _seconds(group, evaluate_seconds),
            _memory(group),
            count(max(len(run.epochs) for run in group.runs)),
            text(group.seeds_text),
            text(_machine(group)),
        )
        for group in groups
    )
    return Table(
        caption="Cost of training and evaluation.",
        header=(
            "model",
            "parameters",
            "training, s per epoch",
            "evaluation, s",
            "peak memory, MB",
            "longest run, epochs",
            "runs",
            "machine",
        ),
        rows=rows,
        note="Training: mean over epochs and seeds, below it the range of the seeds. Evaluation: full ranking of the "
        "validation split, once. Memory: the most that the process held during the training, with what it held before. "
        "Times of different machines, or of a machine that did other work too, are not comparable.",
    )


def _beside(name: str, printed: CostTable, groups: Sequence[Group]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for row in printed.rows:
        mine = [group for group in groups if group.record.model == row.model]
        group = best_on_validation(mine) if mine else None
        absent = NOT_BUILT if row.model is None else NOT_RUN
        ours = (
            (_seconds(group, train_seconds), _seconds(group, evaluate_seconds), _memory(group), text(_machine(group)))
            if group
            else (absent, absent, absent, text(absent.text))
        )
        paper = (f"{row.train_seconds:,.2f}", f"{row.evaluate_seconds:,.2f}", f"{row.memory_mb:,.0f}")
        pairs = [cell for theirs, here in zip(paper, ours[:3], strict=True) for cell in (Cell(theirs, "number"), here)]
        rows.append((Cell(row.name), *pairs, ours[3]))
    columns = ("training, s per epoch", "evaluation, s", "memory, MB")
    return Table(
        caption=f"{name}, {printed.table}: costs on {printed.dataset}; the paper's machine: {printed.machine}.",
        header=("model", *(f"{column}: {side}" for column in columns for side in ("paper", "ours")), "our machine"),
        rows=tuple(rows),
    )
