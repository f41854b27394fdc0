"""What a study came to: its figure, its paired comparisons, and a page with both beside the paper's printed figures."""

from __future__ import annotations

import base64
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from feature_store import FeatureStore
from flows.config import parse_overrides, toml_value
from flows.errors import CallError
from flows.jobs.study import COMPARISON_FILE, FIGURE_FILE, PAGE_FILE, Measured
from flows.jobs.study_config import Point, Study
from flows.reporting import study_figures
from flows.reporting.intervals import over_seeds
from flows.reporting.page import render
from flows.reporting.papers import beside
from flows.reporting.published import Paper, ResultTable, papers
from flows.reporting.runs import Group, Run, group_runs, read_run
from flows.reporting.significance import (
    ABOUT_NO_SPREAD,
    NO_SPREAD,
    SAMPLES,
    common_seeds,
    interval_text,
    over_users,
    p_text,
    paired_over_seeds,
)
from flows.reporting.study_figures import axis_name
from flows.reporting.view import ABSENT, Cell, Part, Picture, Table, plural, text, time_text
from models.config import suggest
from models.evaluation.comparison import PairedComparison, holm_within
from models.evaluation.record import RunRecord
from models.files import write_atomically


@dataclass(frozen=True)
class Compared:
    """One paired comparison of a bar.

    Attributes:
        variant: Label of the bar.
        reference: Label of the bar that it is compared with.
        over: ``seeds``, or ``users`` of the first common seed.
        metric: Of the test split, history unmasked.
        result: Variant minus reference.
        p_holm: Holm's adjustment over the comparisons of the study in this metric and over the same pairs (``over``).
    """

    variant: str
    reference: str
    over: str
    metric: str
    result: PairedComparison
    p_holm: float

    @property
    def effect_size(self) -> float:
        """Cohen's d of the pairs: the mean difference over the deviation of the differences, t / √n; NaN like t."""
        return self.result.t / math.sqrt(self.result.n)

    @property
    def row(self) -> dict[str, Any]:
        """As a row of ``comparison.csv``."""
        about = {"variant": self.variant, "reference": self.reference, "over": self.over, "metric": self.metric}
        return {**about, **asdict(self.result), "p_holm": self.p_holm, "effect_size": self.effect_size}


def printed_tables(study: Study) -> list[tuple[Paper, ResultTable]]:
    """The paper's tables that the study names: of its dataset where they have it, else all of them.

    Raises:
        CallError: For a table that is not known, with those that are.
    """
    experiment = study.experiment(Point(None, {}), study.config.seeds[0])
    known = [(paper, table) for paper in papers() if paper.model == experiment.model for table in paper.tables]
    names = list(dict.fromkeys(table.table for _, table in known))
    for name in study.config.printed:
        if name not in names:
            hint = suggest(name, names) if names else f"no paper about {experiment.model} is known"
            raise CallError(f"study {study.name}: printed: no {name!r}; {hint}")
    wanted = [(paper, table) for paper, table in known if table.table in study.config.printed]
    return [pair for pair in wanted if pair[1].dataset == experiment.dataset] or wanted


def compare(study: Study, measured: Sequence[Measured]) -> list[Compared]:
    """Each bar against its reference: every metric over the common seeds, NDCG@10 over the users of the first one."""
    if study.config.figure != "bars":
        return []
    groups = {found.point.label: _group(study, found) for found in measured if found.finished}
    pairs: list[tuple[str, str, str, str, PairedComparison]] = []
    for variant in study.config.variants:
        reference = study.config.reference_of(variant)
        if reference is None or variant.label not in groups or reference not in groups:
            continue
        mine, other = groups[variant.label], groups[reference]
        seeds = common_seeds(mine, other)
        for metric in study.config.metrics:
            result = paired_over_seeds(mine, other, seeds, "unmasked", metric)
            if result is not None:
                pairs.append((variant.label, reference, "seeds", metric, result))
        by_user = over_users(mine, other, seeds[0]) if seeds else None
        if by_user is not None:
            pairs.append((variant.label, reference, "users", "ndcg@10", by_user))
    adjusted = holm_within([(over, metric) for _, _, over, metric, _ in pairs], [result.p for *_, result in pairs])
    return [Compared(*pair, p) for pair, p in zip(pairs, adjusted, strict=True)]


def write_study(study: Study, measured: Sequence[Measured]) -> list[Compared]:
    """Write ``comparison.csv`` (where bars are compared), ``figure.svg`` and ``study.html`` into the folder of a study.

    Returns:
        The comparisons.
    """
    found = compare(study, measured)
    if found:
        rows = pl.DataFrame([one.row for one in found])
        write_atomically(study.folder / COMPARISON_FILE, rows.write_csv)
    record = RunRecord.read(study.settings.runs / next(one.finished[0] for one in measured if one.finished))
    about = f"{study.config.experiment} on {record.dataset}, {plural(len(study.config.seeds), 'seed')} each"
    picture = study_figures.picture(study.config, measured, _effects(study, found), about=about)
    svg = base64.b64decode(picture.uri.partition(",")[2])
    write_atomically(study.folder / FIGURE_FILE, lambda path: path.write_bytes(svg))
    page = _page(study, measured, found, picture)
    write_atomically(study.folder / PAGE_FILE, lambda path: path.write_text(page, encoding="utf-8"))
    return found


def _group(study: Study, found: Measured) -> Group:
    runs = [read_run(study.settings.runs / run_id) for run_id in found.finished]
    return Group(found.point.label, tuple(sorted(runs, key=lambda run: run.record.seed)), ())


def _effects(study: Study, found: Sequence[Compared]) -> dict[str, PairedComparison]:
    """What the figure draws beside the bars: nothing where one is compared with another than the first."""
    if any(one.reference != study.config.variants[0].label for one in found):
        return {}
    metric = study.config.metrics[-1]
    return {one.variant: one.result for one in found if (one.over, one.metric) == ("seeds", metric)}


def _page(study: Study, measured: Sequence[Measured], found: Sequence[Compared], picture: Picture) -> str:
    run_ids = dict.fromkeys(run_id for one in measured for run_id in one.finished)
    runs = [read_run(study.settings.runs / run_id) for run_id in run_ids]
    tables = [_results(study, measured), *_comparisons(found), *_failures(measured)]
    chapters = (
        Part("Figure", pictures=(picture,)),
        Part("Results", tables=tuple(tables)),
        Part("Printed in the paper", tables=tuple(_printed(study, runs))),
    )
    return render(
        "study.html.j2",
        title=study.config.title,
        source=study.config.source,
        command=command_line(study),
        chapters=[part for part in chapters if not part.empty],
        toys=_toys(study, runs),
        written=time_text(datetime.now(UTC)),
    )


def command_line(study: Study) -> str:
    """What makes this page again, for a shell; a file that is not in ``configs/studies`` by its absolute path."""
    pairs = [f"{key}={_override_text(value)}" for key, value in study.overrides.items()]
    called = study.name if study.listed else str(study.path.absolute())
    return " ".join(("reelstore study", *map(shlex.quote, (called, *pairs))))


def _override_text(value: Any) -> str:
    """What ``key=value`` reads as this value: plain text where that suffices, else TOML."""
    plain = isinstance(value, str) and parse_overrides([f"key={value}"]) == {"key": value}
    return value if plain else toml_value(value)


def _results(study: Study, measured: Sequence[Measured]) -> Table:
    config = study.config
    named = any(one.point.label for one in measured)
    rows: list[tuple[Cell, ...]] = []
    for one in measured:
        label = (text(one.point.label),) if named else ()
        choice = tuple(text(one.point.choice.get(key)) for key in config.axes)
        values = [one.values(metric) for metric in config.metrics]
        cells = [over_seeds(found).cell if found else Cell(ABSENT, "number") for found in values]
        rows.append((*label, *choice, *cells, Cell(f"{len(one.finished)} of {len(one.rows)}", "number")))
    unset = any(set(config.axes) - set(one.point.choice) for one in measured)
    header = (*(("variant",) if named else ()), *(axis_name(config, key) for key in config.axes))
    return Table(
        caption="Test split, history unmasked; results.csv holds every run, with the validation split and the history "
        "masked.",
        header=(*header, *(metric.upper() for metric in config.metrics), "runs"),
        rows=tuple(rows),
        note=f"Mean over seeds {', '.join(map(str, config.seeds))}, below it Student's 95 % interval. "
        + (f"{ABSENT}: as in the experiment." if unset else ""),
    )


def _comparisons(found: Sequence[Compared]) -> list[Table]:
    if not found:
        return []
    rows = tuple(
        (
            text(one.variant),
            text(one.reference),
            text(f"{one.result.n:,} {one.over}"),
            text(one.metric.upper()),
            Cell(f"{one.result.difference:+.4f}", "number", below=interval_text(one.result)),
            Cell(NO_SPREAD if math.isnan(one.effect_size) else f"{one.effect_size:+.2f}", "number"),
            Cell(p_text(one.result.p), "number"),
            Cell(p_text(one.p_holm), "number"),
        )
        for one in found
    )
    header = ("variant", "against", "over", "metric", "difference", "effect size", "p", "p (Holm)")
    note = (
        "Below each difference its 95 % interval: Student's over seeds; a percentile bootstrap of "
        f"{SAMPLES:,} samples over the users of the first common seed. Effect size: mean over deviation of the "
        f"differences. Holm's adjustment is over the rows of one metric, seeds apart from users. {ABOUT_NO_SPREAD}"
    )
    return [Table("Paired comparisons on the test split, history unmasked.", header, rows, note)]


def _failures(measured: Sequence[Measured]) -> list[Table]:
    rows = tuple(
        (text(one.point), Cell(str(seed), "number"), text(reason))
        for one in measured
        for seed, reason in one.failures.items()
    )
    return [Table("Runs that failed.", ("point", "seed", "reason"), rows)] if rows else []


def _printed(study: Study, runs: Sequence[Run]) -> list[Table]:
    """The paper's figures beside ours where the dataset is the paper's, else alone."""
    groups = group_runs(runs)
    dataset = runs[0].record.dataset
    return [
        beside(paper, table, groups, toys=frozenset()) if table.dataset == dataset else _alone(paper, table)
        for paper, table in printed_tables(study)
    ]


def _alone(paper: Paper, table: ResultTable) -> Table:
    rows = tuple(
        (
            text(row.name),
            *(
                Cell(f"{table.share(value):.4f}", "warning" if row.doubt else "number", row.doubt)
                for value in row.values
            ),
        )
        for row in table.rows
    )
    return Table(
        caption=f"{paper.name}, {table.table}, {table.called} ({table.dataset}), as printed; nothing of this study ran "
        "on that dataset.",
        header=("model", *(metric.upper() for metric in table.metrics)),
        rows=rows,
    )


def _toys(study: Study, runs: Sequence[Run]) -> list[str]:
    """Stores that were read and hold features of seeded random weights."""
    read = {store.name: store.version for run in runs for store in run.record.stores}
    toys: list[str] = []
    for name, version in sorted(read.items()):
        checkpoint = FeatureStore.open(study.settings.stores / name).at(version).spec.get("checkpoint")
        if isinstance(checkpoint, dict) and checkpoint.get("toy"):
            toys.append(name)
    return toys
