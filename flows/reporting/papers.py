"""The papers' tables beside ours, dataset by dataset; where nothing was run, it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.reporting.intervals import over_seeds
from flows.reporting.published import Paper, ResultTable, Row, papers
from flows.reporting.runs import CHOSEN, Group, best_on_validation, labels_text
from flows.reporting.view import ABSENT, Cell, Table, plural, text

NOT_RUN = Cell("not run", "absent")
NOT_BUILT = Cell("not built", "absent")

#: Difference in the number of users or items from which on two datasets of one name are not the same data.
_SIZE_TOLERANCE = 0.1


@dataclass(frozen=True)
class PaperSection:
    """One paper, for the page.

    Attributes:
        name: Of its model.
        source: Authors, place, identifier.
        notes: What a reader of its tables has to know.
        tables: Of the datasets on which something was run.
        others: Of the other datasets.
        other_names: The papers' names of these datasets.
    """

    name: str
    source: str
    notes: tuple[str, ...]
    tables: tuple[Table, ...]
    others: tuple[Table, ...]
    other_names: str


def collect(groups: Sequence[Group], *, toy_models: Mapping[str, frozenset[str]]) -> list[PaperSection]:
    """All papers.

    Args:
        groups: Of all datasets.
        toy_models: By dataset, the labels of models that read features of toy checkpoints.
    """
    return [_section(paper, groups, toy_models) for paper in papers()]


def _section(paper: Paper, groups: Sequence[Group], toy_models: Mapping[str, frozenset[str]]) -> PaperSection:
    run = {group.record.dataset for group in groups}
    tables: list[Table] = []
    others: list[Table] = []
    for printed in paper.tables:
        here = [group for group in groups if group.record.dataset == printed.dataset]
        toys = toy_models.get(printed.dataset, frozenset())
        (tables if here else others).append(beside(paper, printed, here, toys=toys))
    names = dict.fromkeys(printed.called for printed in paper.tables if printed.dataset not in run)
    return PaperSection(paper.name, paper.source, paper.notes, tuple(tables), tuple(others), ", ".join(names))


def beside(paper: Paper, printed: ResultTable, groups: Sequence[Group], *, toys: frozenset[str]) -> Table:
    """One printed table with our figures beside it; ``groups`` are those of its dataset."""
    metrics = [metric.upper() for metric in printed.metrics]
    chosen = [_group_of(paper, row, groups) for row in printed.rows]
    rows = tuple(
        (Cell(row.name), *_figures(printed, row, group), _what_ran(row, group, toys=toys))
        for row, group in zip(printed.rows, chosen, strict=True)
    )
    return Table(
        caption=f"{paper.name}, {printed.table}, {printed.called} ({printed.dataset}).",
        header=("model", *(f"{metric} {side}" for metric in metrics for side in ("paper", "ours")), "our runs"),
        rows=rows,
        note=" ".join(_notes(paper, printed, groups, [group for group in chosen if group is not None])),
    )


def _group_of(paper: Paper, row: Row, groups: Sequence[Group]) -> Group | None:
    """Our runs of a printed row; of several configurations the one that validation chose."""
    mine = [group for group in groups if group.record.model == row.model]
    if row.model == paper.model:
        mine = [group for group in mine if paper.is_row(row, group.parameters)]
    return best_on_validation(mine) if mine else None


def _figures(printed: ResultTable, row: Row, group: Group | None) -> list[Cell]:
    cells: list[Cell] = []
    for number, metric in enumerate(printed.metrics):
        spread = f"± {printed.share(row.deviations[number]):.4f}" if row.deviations else ""
        value = f"{printed.share(row.values[number]):.4f}"
        cells.append(Cell(value, "warning" if row.doubt else "number", hint=row.doubt, below=spread))
        cells.append(_ours(row, group, metric))
    return cells


def _ours(row: Row, group: Group | None, metric: str) -> Cell:
    if row.model is None:
        return NOT_BUILT
    if group is None:
        return NOT_RUN
    values = group.values("unmasked", metric)
    return over_seeds(values).cell if values else Cell(ABSENT, "number")


def _what_ran(row: Row, group: Group | None, *, toys: frozenset[str]) -> Cell:
    if group is None:
        return text("not built" if row.model is None else "not run")
    return Cell(f"{group.label}, {group.seeds_text}", below="toy features" if group.label in toys else "")


def _notes(paper: Paper, printed: ResultTable, groups: Sequence[Group], chosen: Sequence[Group]) -> list[str]:
    notes = [f"{row.name}: {row.doubt}." for row in printed.rows if row.doubt]
    if not chosen:
        return notes
    notes.append(
        f"Ours: test split, history unmasked; mean over seeds, below it Student's 95 % interval of the mean. {CHOSEN}"
    )
    notes.append(_sizes(printed, chosen))
    unmatched = [group for group in groups if _matches_nothing(paper, group)]
    if unmatched:
        notes.append(f"In no row, as they are neither the complete model nor an ablation: {labels_text(unmatched)}.")
    return notes


def _matches_nothing(paper: Paper, group: Group) -> bool:
    return group.record.model == paper.model and paper.variant_of(group.parameters) is None


def _sizes(printed: ResultTable, chosen: Sequence[Group]) -> str:
    """Users and items, so that nobody takes another dataset of the same name for the paper's."""
    ours = sorted(
        {(group.record.protocol.n_users.get("test", 0), group.record.protocol.n_candidates) for group in chosen}
    )
    here = " or ".join(f"{plural(users, 'test user')} and {plural(items, 'item')}" for users, items in ours)
    if printed.sizes is None:
        return f"Our runs: {here}; the paper prints no sizes."
    theirs = f"{plural(printed.sizes.users, 'user')} and {plural(printed.sizes.items, 'item')}"
    theirs_too = (printed.sizes.users, printed.sizes.items)
    far = any(
        abs(mine / there - 1) > _SIZE_TOLERANCE for sizes in ours for mine, there in zip(sizes, theirs_too, strict=True)
    )
    warning = " These are not the same data: the numbers differ by more than a tenth." if far else ""
    return f"The paper: {theirs}; our runs: {here}.{warning}"
