"""``reelstore study``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.errors import CallError
from flows.jobs.progress import Progress
from flows.jobs.study import FIGURE_FILE, PAGE_FILE, Measured, run_study
from flows.jobs.study_config import Study, find_study, list_studies
from flows.reporting.intervals import over_seeds
from flows.reporting.significance import interval_text, p_text
from flows.reporting.study import Compared, printed_tables, write_study
from flows.settings import Settings


def study(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Train a figure or a table of a paper; without a name, list the studies."""
    if options.study is None:
        return _list(settings)
    if "=" in options.study:
        raise CallError(f"expected the name of a study before {options.study}")
    found = find_study(settings, options.study, parse_overrides(options.overrides))
    printed_tables(found)  # a table that is not known is said before anything is trained
    with Progress() as progress:
        measured = run_study(found, progress=progress)
    compared = write_study(found, measured)
    payload = {
        "study": found.name,
        "folder": str(found.folder),
        "figure": str(found.folder / FIGURE_FILE),
        "page": str(found.folder / PAGE_FILE),
        "points": [
            {
                "label": one.point.label,
                "choice": one.point.choice,
                "run_ids": [row["run_id"] for row in one.rows],
                "failed": one.failures,
                "test": {metric: one.values(metric) for metric in found.config.metrics},
            }
            for one in measured
        ],
        "comparisons": [one.row for one in compared],
    }
    return Outcome(payload, _text(found, measured, compared))


def _list(settings: Settings) -> Outcome:
    found = list_studies(settings)
    rows = [
        {
            "name": one.name,
            "title": one.config.title,
            "source": one.config.source,
            "figure": one.config.figure,
            "experiment": one.config.experiment,
            "runs": len(one.config.points) * len(one.config.seeds),
        }
        for one in found
    ]
    if not rows:
        return Outcome({"studies": []}, f"no study in {settings.configs / 'studies'}")
    return Outcome({"studies": rows}, table(tuple(rows[0]), [list(row.values()) for row in rows]))


def _text(found: Study, measured: Sequence[Measured], compared: Sequence[Compared]) -> str:
    metrics = found.config.metrics
    named = any(one.point.label for one in measured)
    header = (*(("variant",) if named else ()), *found.config.axes, *(f"test {metric}" for metric in metrics), "failed")
    rows = [
        [
            *((one.point.label,) if named else ()),
            *(one.point.choice.get(key, "") for key in found.config.axes),
            *(_mean(one.values(metric)) for metric in metrics),
            len(one.failures),
        ]
        for one in measured
    ]
    lines = [table(header, rows)]
    lines += [
        f"{one.variant} against {one.reference}, {one.metric} over {one.result.n} {one.over}: "
        f"{one.result.difference:+.4f} {interval_text(one.result)}, p (Holm) {p_text(one.p_holm)}"
        for one in compared
    ]
    return "\n".join((*lines, str(found.folder / FIGURE_FILE), str(found.folder / PAGE_FILE)))


def _mean(values: Sequence[float]) -> str:
    """Mean over the seeds, ± half of Student's 95 % interval."""
    if not values:
        return ""
    found = over_seeds(values)
    return f"{found.mean:.4f}" + ("" if found.half is None else f" ± {found.half:.4f}")
