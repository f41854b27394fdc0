"""One self-contained HTML page: datasets, stores, quarantine, models, and how every number came about."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets_spec.dataset import PreparedDataset
from datasets_spec.errors import DatasetsError
from flows.reporting import ablations, contact_sheet, costs, datasets, making, papers, results, stores, sweeps, vectors
from flows.reporting.contact_sheet import ContactSheet
from flows.reporting.datasets import DatasetSection
from flows.reporting.making import RunSection
from flows.reporting.page import render
from flows.reporting.papers import PaperSection
from flows.reporting.results import Results
from flows.reporting.runs import Group, Run, group_runs, load_runs
from flows.reporting.stores import StoreSection
from flows.reporting.view import Part, bytes_text, plural, time_text
from flows.settings import Settings
from models.files import write_atomically

ProgressCallback = Callable[[str, int, int | None], None]

log = logging.getLogger(__name__)

#: Above this size a page is slow to open and to send; it is written all the same, with a warning.
LARGEST_BYTES = 8_000_000

#: Strips of frames per dataset, and on the whole page.
_VIDEOS, _VIDEOS_IN_ALL = 8, 48

#: Training curves of a dataset that are seen without opening anything.
_OPEN_CURVES = 4


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Attributes:
        path: The page.
        bytes: Its size.
        n_runs: Runs on it.
        datasets: Names of the datasets on it.
        metric_rows: The metric table as plain values (``results.MetricRow``): two rows per model and dataset, with the
            history unmasked and masked.
    """

    path: Path
    bytes: int
    n_runs: int
    datasets: tuple[str, ...]
    metric_rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Chapter:
    """All about one dataset: the tables, its stores, its models and its runs."""

    name: str
    dataset: DatasetSection
    stores: tuple[StoreSection, ...]
    results: Results | None
    parts: tuple[Part, ...]
    runs: tuple[RunSection, ...]
    lineage: tuple[LineageRow, ...]


@dataclass(frozen=True)
class LineageRow:
    """What one run was made from; ``stale`` says which input has moved on since."""

    run_id: str
    dataset_version: str
    stores: tuple[str, ...]
    code: str
    stale: str


def build_report(
    settings: Settings, run_ids: Sequence[str] | None, out: Path, *, progress: ProgressCallback | None = None
) -> ReportSummary:
    """Write the report.

    Args:
        settings: Places.
        run_ids: The runs to show, with their datasets; None for all runs, datasets and stores.
        out: The file to write; its folder is made.
        progress: Called as ``progress(stage, done, total)``.

    Returns:
        What was written.

    Raises:
        CallError: When a run that was asked for is not there, with the near name.
        RecordError: When a run that was asked for is unfinished.
    """
    runs, left_out = load_runs(settings, run_ids)
    groups = group_runs(runs)
    all_stores = stores.collect(settings)
    names = sorted({run.record.dataset for run in runs})
    if run_ids is None:
        names = sorted({*names, *datasets.names(settings), *(store.dataset for store in all_stores)})
    chapters: list[Chapter] = []
    for number, name in enumerate(names):
        mine = [store for store in all_stores if store.dataset == name]
        strips = max(2, min(_VIDEOS, _VIDEOS_IN_ALL // len(names)))
        section = _dataset(settings, name, mine, strips=strips, progress=progress)
        chapters.append(_chapter(settings, section, mine, _of(groups, name)))
        if progress is not None:
            progress("report", number + 1, len(names))
    toys = {name: _toy_models(_of(groups, name), all_stores) for name in names}
    page = _render(settings, chapters, papers.collect(groups, toy_models=toys), left_out)
    write_atomically(out, lambda path: path.write_text(page, encoding="utf-8"))
    size = out.stat().st_size
    if size > LARGEST_BYTES:
        log.warning("%s has %s; name the runs to show for a smaller page", out, bytes_text(size))
    rows = tuple(asdict(row) for chapter in chapters if chapter.results is not None for row in chapter.results.rows)
    return ReportSummary(out, size, len(runs), tuple(names), rows)


def _of(groups: Sequence[Group], dataset: str) -> list[Group]:
    return [group for group in groups if group.record.dataset == dataset]


def _dataset(
    settings: Settings, name: str, mine: Sequence[StoreSection], *, strips: int, progress: ProgressCallback | None
) -> DatasetSection:
    try:
        prepared = PreparedDataset.open(settings.prepared(name))
        sheet = _sheet(prepared, mine, strips=strips, progress=progress)
    except DatasetsError as error:
        return DatasetSection(name=name, fault=str(error))
    return datasets.collect(prepared, sheet)


def _sheet(
    prepared: PreparedDataset, mine: Sequence[StoreSection], *, strips: int, progress: ProgressCallback | None
) -> ContactSheet:
    sampling = next((store.sampling for store in mine if store.sampling), {})
    quarantined: frozenset[str] = frozenset[str]().union(*(store.quarantined_ids for store in mine))
    return contact_sheet.build(prepared, videos=strips, sampling=sampling, quarantined=quarantined, progress=progress)


def _chapter(
    settings: Settings, section: DatasetSection, mine: Sequence[StoreSection], groups: Sequence[Group]
) -> Chapter:
    runs = [run for group in groups for run in (*group.runs, *group.superseded)]
    return Chapter(
        name=section.name,
        dataset=section,
        stores=tuple(mine),
        results=results.collect(groups, toy_models=_toy_models(groups, mine)) if groups else None,
        parts=_parts(settings, groups),
        runs=tuple(making.describe(run, settings) for run in runs),
        lineage=tuple(_lineage(run, section, mine) for run in runs),
    )


def _parts(settings: Settings, groups: Sequence[Group]) -> tuple[Part, ...]:
    """What the runs of one dataset show beyond the table of models."""
    found = (
        ablations.collect(groups),
        sweeps.collect(groups),
        vectors.collect(settings, groups),
        costs.collect(groups),
    )
    return tuple(part for part in found if not part.empty)


def _toy_models(groups: Sequence[Group], mine: Sequence[StoreSection]) -> frozenset[str]:
    """Labels of the models that read features of toy checkpoints."""
    toys = {(store.name, version) for store in mine for version in store.toy_versions}
    read = {group.label: {(store.name, store.version) for store in group.record.stores} for group in groups}
    return frozenset(label for label, versions in read.items() if versions & toys)


def _lineage(run: Run, section: DatasetSection, mine: Sequence[StoreSection]) -> LineageRow:
    record = run.record
    moved: list[str] = []
    if section.version and record.dataset_version != section.version:
        moved.append(f"dataset is now {section.version[:12]}")
    latest = {store.name: store.version for store in mine}
    for store in record.stores:
        now = latest.get(store.name)
        if now is None:
            moved.append(f"{store.name} is gone")
        elif now != store.version:
            moved.append(f"{store.name} is now @{now}")
    return LineageRow(
        run_id=record.run_id,
        dataset_version=record.dataset_version[:12],
        stores=tuple(str(store) for store in record.stores),
        code=(record.git_sha or "unknown")[:12] + ("+dirty" if (record.git_sha or "").endswith("+dirty") else ""),
        stale="; ".join(moved),
    )


def headlines(chapters: Sequence[Chapter]) -> list[str]:
    """One sentence per dataset: which model stands first, by how much."""
    sentences: list[str] = []
    for chapter in chapters:
        found = chapter.results
        rows = [row for row in found.rows if row.history == "unmasked" and row.model in found.chosen] if found else []
        rows = [row for row in rows if "ndcg@10" in row.values]
        if not rows:
            continue
        whole = max(row.candidates for row in rows)  # a run that dropped items ranked fewer: no comparison
        rows = [row for row in rows if row.candidates == whole]
        best = max(rows, key=lambda row: row.values["ndcg@10"])
        ratio = f", {best.ratio:.2f} times popularity" if best.ratio is not None and best.model != "popularity" else ""
        sentences.append(
            f"{chapter.name}: of {plural(len(rows), 'model')}, {best.model} has the highest test NDCG@10: "
            f"{best.values['ndcg@10']:.4f} (history unmasked, {plural(len(best.seeds), 'seed')}, "
            f"{best.users:,} users{', on toy features' if best.toy else ''}){ratio}."
        )
    return sentences


def _render(
    settings: Settings, chapters: Sequence[Chapter], published: Sequence[PaperSection], left_out: Sequence[str]
) -> str:
    all_stores = [store for chapter in chapters for store in chapter.stores]
    numbers = {
        "dataset": len(chapters),
        "interaction": sum(chapter.dataset.interactions for chapter in chapters),
        "feature store": len(all_stores),
        "stored feature row": sum(store.rows for store in all_stores),
        "unusable raw row": sum(chapter.dataset.bad_rows for chapter in chapters),
        "quarantined item": sum(store.quarantined for store in all_stores),
        "run": sum(len(chapter.runs) for chapter in chapters),
    }
    return render(
        "page.html.j2",
        chapters=chapters,
        published=published,
        cards=[(name if number == 1 else f"{name}s", number) for name, number in numbers.items()],
        headlines=headlines(chapters),
        toys=[store.name for store in all_stores if store.toy],
        left_out=left_out,
        most_open=_OPEN_CURVES,
        root=str(settings.root),
        written=time_text(datetime.now(UTC)),
    )
