"""The figure of a study: bars, lines or a heat map over the test metrics of its points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.jobs.study import Measured
from flows.jobs.study_config import StudyConfig
from flows.reporting import charts
from flows.reporting.charts import Bar, Cells, Setting
from flows.reporting.intervals import over_seeds
from flows.reporting.plots import COLOURS, draw
from flows.reporting.view import Picture, plural
from models.evaluation.comparison import PairedComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_WIDTH = 11.4
#: Between the points of neighbouring lines at one value, so that their whiskers stand side by side.
_BESIDE = 0.07
#: Lines that a row of the legend names.
_ROW = 6
#: Characters of an axis's values from which on they are slanted.
_LONG = 32


@dataclass(frozen=True)
class Line:
    """One line: the seeds' values at each place of the axis; one place alone is drawn across."""

    label: str
    places: tuple[tuple[float, ...], ...]
    across: bool


def picture(
    config: StudyConfig, measured: Sequence[Measured], effects: Mapping[str, PairedComparison], *, about: str
) -> Picture:
    """Draw a study.

    Args:
        config: Of the study.
        measured: Its points.
        effects: By label of a bar, its paired difference from the first bar in the last metric; none where a bar is
            compared with another one.
        about: What was trained, for the caption.
    """
    failed = sum(len(found.failures) for found in measured)
    caption = f"{config.title}: {about}; test split, history unmasked."
    if failed:
        caption += f" {plural(failed, 'run')} failed and {'is' if failed == 1 else 'are'} not drawn."
    if config.figure == "bars":
        return _bars(config, measured, effects, caption)
    return _lines(config, measured, caption) if config.figure == "lines" else _heat_map(config, measured, caption)


def axis_name(config: StudyConfig, key: str) -> str:
    """What the figure calls an axis."""
    return config.names.get(key, key.split(".")[-1].replace("_", " "))


def _bars(
    config: StudyConfig, measured: Sequence[Measured], effects: Mapping[str, PairedComparison], caption: str
) -> Picture:
    bars = [Bar(found.point.label, _by_metric(config, found), effects.get(found.point.label)) for found in measured]
    right = f" Right: difference from {bars[0].name} with the same seeds, mean and Student's 95 % interval."
    return charts.ablation_bars(
        bars,
        metrics=config.metrics,
        effect=config.metrics[-1],
        caption=f"{caption} Bar: mean over seeds; whisker: Student's 95 % interval of the mean; dot: one seed."
        + (right if effects else ""),
    )


def _by_metric(config: StudyConfig, found: Measured) -> dict[str, list[float]]:
    return {metric: values for metric in config.metrics if (values := found.values(metric))}


def _heat_map(config: StudyConfig, measured: Sequence[Measured], caption: str) -> Picture:
    (across, columns), (upward, rows) = config.axes.items()
    maps: list[Cells] = []
    for metric in config.metrics:
        cells = {
            (columns.index(found.point.choice[across]), rows.index(found.point.choice[upward])): found.values(metric)
            for found in measured
            if found.finished
        }
        maps.append(Cells(f"test {metric.upper()}", cells))
    return charts.heat_maps(
        maps,
        columns=_setting(config, across),
        rows=_setting(config, upward),
        caption=f"{caption} Each cell: mean over seeds, ± half of Student's 95 % interval where there are several; "
        "×: no run.",
    )


def _setting(config: StudyConfig, key: str) -> Setting:
    return Setting(axis_name(config, key), tuple(_text(value) for value in config.axes[key]))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lines(config: StudyConfig, measured: Sequence[Measured], caption: str) -> Picture:
    panels = [(key, metric) for key in config.axes for metric in config.metrics]
    lines = {panel: _lines_of(measured, *panel) for panel in panels}

    def paint(*all_axes: Axes) -> None:
        for axes, (key, metric) in zip(all_axes, panels, strict=True):
            _panel(axes, lines[key, metric], config.axes[key])
            axes.set(xlabel=axis_name(config, key), ylabel=f"test {metric.upper()}")
        if len(lines[panels[0]]) > 1:
            all_axes[0].figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=_ROW)

    return draw(
        paint,
        caption=f"{caption} Point: mean over seeds; whisker: Student's 95 % interval of the mean. The values stand at "
        "equal distances; the vertical axis need not begin at 0.",
        alternative="; ".join(
            f"{metric} by {axis_name(config, key)}: {_means(lines[key, metric])}" for key, metric in panels
        ),
        panels=len(panels),
        size=(_WIDTH / max(2, len(panels)), 3.1),
    )


def _lines_of(measured: Sequence[Measured], key: str, metric: str) -> list[Line]:
    lines: list[Line] = []
    for label in dict.fromkeys(found.point.label for found in measured):
        mine = [found for found in measured if found.point.label == label]
        constant = [found for found in mine if not found.point.choice]
        along = constant or [found for found in mine if key in found.point.choice]
        lines.append(Line(label, tuple(tuple(found.values(metric)) for found in along), bool(constant)))
    return lines


def _panel(axes: Axes, lines: Sequence[Line], values: Sequence[Any]) -> None:
    joined = "-" if not any(isinstance(value, str) for value in values) else ""
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        if line.across:
            _across(axes, line, colour)
            continue
        aside = (number - (len(lines) - 1) / 2) * _BESIDE
        there = [(x + aside, over_seeds(found) if found else None) for x, found in enumerate(line.places)]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.plot(
            [x for x, _ in there],
            [math.nan if found is None else found.mean for _, found in there],  # a line breaks at NaN
            joined + marker,
            color=colour,
            markersize=5,
            label=line.label,
        )
        for x, found in there:
            if found is not None and found.half is not None:
                axes.errorbar(x, found.mean, yerr=found.half, fmt="none", ecolor=colour, elinewidth=1.0, capsize=3)
    texts = [_text(value) for value in values]
    axes.set_xticks(range(len(texts)), texts, rotation=30 if sum(map(len, texts)) > _LONG else 0)
    axes.set_xlim(-0.4, len(texts) - 0.6)
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low), min(1.0, high))  # no metric is outside, however wide an interval


def _across(axes: Axes, line: Line, colour: str) -> None:
    if not line.places[0]:
        return
    found = over_seeds(line.places[0])
    axes.axhline(found.mean, color=colour, linestyle="--", linewidth=1.4, label=line.label)
    if found.half is not None:
        axes.axhspan(found.mean - found.half, found.mean + found.half, color=colour, alpha=0.12, linewidth=0)


def _means(lines: Sequence[Line]) -> str:
    return ", ".join(
        f"{line.label} ".lstrip() + " ".join(f"{over_seeds(found).mean:.4f}" if found else "–" for found in line.places)
        for line in lines
    )
