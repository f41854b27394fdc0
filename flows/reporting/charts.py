"""Figures about experiments: ablations, sweeps over settings, and maps of vectors. Drawn by :func:`plots.draw`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.reporting.intervals import over_seeds
from flows.reporting.plots import COLOURS, draw
from flows.reporting.view import Picture
from models.evaluation.comparison import PairedComparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_FULL, _VARIANT = COLOURS[0], COLOURS[4]
_WHISKER: Any = {"fmt": "none", "ecolor": "#1c2430", "elinewidth": 1.1, "capsize": 3}
_DARK, _LIGHT = "#1c2430", "#ffffff"
_EDGE: Any = {"markeredgecolor": _DARK, "markeredgewidth": 0.4}

#: Share of the colour scale above which white text is easier to read than black.
_DARK_FROM = 0.55
#: Of a figure with several panels, in inches: one width, so that all text has one size on the page.
_WIDTH = 11.4
#: How far the seeds' dots stand beside the mean.
_ASIDE = 0.06
#: Characters of a setting's value from which on labels below an axis are slanted.
_LONG_LABELS = 32


@dataclass(frozen=True)
class Bar:
    """One variant: its values by metric, one per seed, and its difference from the first bar."""

    name: str
    values: Mapping[str, Sequence[float]]
    effect: PairedComparison | None


@dataclass(frozen=True)
class Setting:
    """A setting that varies: its name for an axis, and its values in order."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Cells:
    """A metric over two settings.

    Attributes:
        title: What the metric is.
        values: ``(column, row)`` -> the values of its seeds.
    """

    title: str
    values: Mapping[tuple[int, int], Sequence[float]]


@dataclass(frozen=True)
class UserVectors:
    """One user of a map: indices into its points.

    Attributes:
        user: The vector that scores.
        target: The item that came next.
        frames: The frames of that item; empty where the model reads none.
    """

    user: int
    target: int
    frames: tuple[int, ...] = ()


def ablation_bars(bars: Sequence[Bar], *, metrics: Sequence[str], effect: str, caption: str) -> Picture:
    """One panel of bars per metric and, where differences are known, one of paired differences.

    Args:
        bars: First the one that the differences are from.
        metrics: Names.
        effect: The metric of the differences.
        caption: What is shown.
    """
    rows = np.arange(len(bars))[::-1]
    compared = [(row, bar.effect) for row, bar in zip(rows, bars, strict=True) if bar.effect is not None]
    panels = len(metrics) + bool(compared)

    def paint(*all_axes: Axes) -> None:
        for axes, metric in zip(all_axes, metrics, strict=False):
            for row, bar in zip(rows, bars, strict=True):
                _bar(axes, float(row), bar.values.get(metric, ()), _FULL if bar is bars[0] else _VARIANT)
            axes.set(xlabel=f"{metric.upper()}, test split")
            axes.set_xlim(left=0)
        if compared:
            _differences(all_axes[-1], compared)
            all_axes[-1].set(xlabel=f"difference in {effect.upper()}, variant − {bars[0].name}")
        for number, axes in enumerate(all_axes):
            axes.set_yticks(rows, [bar.name for bar in bars] if number == 0 else [""] * len(bars))
            axes.set_ylim(-0.6, len(bars) - 0.4)
            axes.grid(visible=False, axis="y")
            _few_ticks(axes)

    return draw(
        paint,
        caption=caption,
        alternative="; ".join(f"{bar.name}: {_means_text(bar.values)}" for bar in bars),
        panels=panels,
        size=(_WIDTH / panels, 1.1 + 0.32 * len(bars)),
    )


def _bar(axes: Axes, row: float, values: Sequence[float], colour: str) -> None:
    if not values:
        return
    interval = over_seeds(values)
    axes.barh(row, interval.mean, height=0.62, color=colour, alpha=0.55)
    if interval.half is not None:
        axes.errorbar(interval.mean, row, xerr=interval.half, **_WHISKER)
    axes.plot(
        values, [row] * len(values), "o", color=colour, markersize=3.2, markeredgecolor=_DARK, markeredgewidth=0.4
    )


def _differences(axes: Axes, compared: Sequence[tuple[Any, PairedComparison]]) -> None:
    axes.axvline(0, color="#8a94a3", linewidth=1.0)
    for row, result in compared:
        if not math.isnan(result.low):
            around = [[result.difference - result.low], [result.high - result.difference]]
            axes.errorbar(result.difference, row, xerr=around, **_WHISKER)
        axes.plot(result.difference, row, "D", color=COLOURS[1], markersize=4.5)


def _means_text(values: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{metric} {over_seeds(found).mean:.4f}" for metric, found in values.items())


def _few_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def heat_maps(maps: Sequence[Cells], *, columns: Setting, rows: Setting, caption: str) -> Picture:
    """A metric over two settings, one panel per map; cells that were not run are crossed out.

    Args:
        maps: Each with values at ``(column, row)``.
        columns: The setting from left to right.
        rows: The setting from bottom to top.
        caption: What is shown.
    """

    def paint(*panels: Axes) -> None:
        for axes, cells in zip(panels, maps, strict=True):
            _heat_map(axes, cells, columns, rows)

    best = [(cells, max(cells.values, key=lambda place: over_seeds(cells.values[place]).mean)) for cells in maps]
    return draw(
        paint,
        caption=caption,
        alternative="; ".join(
            f"{cells.title} is highest at {columns.name} {columns.values[x]}, {rows.name} {rows.values[y]}"
            for cells, (x, y) in best
        ),
        panels=len(maps),
        size=(_WIDTH / len(maps), 1.2 + 0.42 * len(rows.values)),
    )


def _heat_map(axes: Axes, cells: Cells, columns: Setting, rows: Setting) -> None:
    table = np.full((len(rows.values), len(columns.values)), np.nan)
    for (x, y), values in cells.values.items():
        table[y, x] = over_seeds(values).mean
    image = axes.imshow(np.ma.masked_invalid(table), cmap="Blues", origin="lower", aspect="auto")
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    for y, x in np.ndindex(table.shape):
        if np.isnan(table[y, x]):
            axes.text(x, y, "×", ha="center", va="center", color="#8a94a3")
            continue
        dark = high > low and (table[y, x] - low) / (high - low) > _DARK_FROM
        axes.text(
            x, y, _cell_text(cells.values[x, y]), ha="center", va="center", fontsize=7, color=_LIGHT if dark else _DARK
        )
    axes.set_xticks(range(len(columns.values)), columns.values)
    axes.set_yticks(range(len(rows.values)), rows.values)
    axes.set(xlabel=columns.name, ylabel=rows.name, title=cells.title)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7)


def _cell_text(values: Sequence[float]) -> str:
    interval = over_seeds(values)
    spread = "" if interval.half is None else f"\n±{interval.half:.4f}".replace("±0.", "±.")
    return f"{interval.mean:.4f}".replace("0.", ".", 1) + spread


def sweep_lines(
    setting: Setting, values: Mapping[str, Sequence[Sequence[float]]], *, joined: bool, caption: str
) -> Picture:
    """One panel per metric: mean and interval at each value of a setting, which stand at equal distances.

    Args:
        setting: Its name and values.
        values: By name of the metric, the values of the seeds at each value of the setting; empty where they are
            missing.
        joined: The values of the setting are numbers, so that a line between them means something.
        caption: What is shown.
    """

    def paint(*panels: Axes) -> None:
        for axes, (title, points) in zip(panels, values.items(), strict=True):
            there = [(x, found, over_seeds(found)) for x, found in enumerate(points) if found]
            means = [over_seeds(found).mean if found else math.nan for found in points]  # a line breaks at NaN
            axes.plot(
                range(len(means)),
                means,
                "o-" if joined else "o",
                color=COLOURS[0],
                markersize=5,
            )
            for x, found, interval in there:
                axes.plot([x + _ASIDE] * len(found), found, ".", color=COLOURS[5], markersize=5)
                if interval.half is not None:
                    axes.errorbar(x, interval.mean, yerr=interval.half, **_WHISKER)
            long = sum(map(len, setting.values)) > _LONG_LABELS
            axes.set_xticks(range(len(setting.values)), setting.values, rotation=30 if long else 0)
            axes.set_xlim(-0.4, len(setting.values) - 0.6)
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))  # no metric is below 0, however wide an interval
            axes.set(xlabel=setting.name, ylabel=title)

    return draw(
        paint,
        caption=caption,
        alternative="; ".join(
            f"{title}: " + ", ".join(f"{over_seeds(found).mean:.4f}" for found in points if found)
            for title, points in values.items()
        ),
        panels=len(values),
        size=(_WIDTH / len(values), 2.8),
    )


def vector_map(
    places: NDArray[np.floating[Any]], users: Sequence[UserVectors], *, caption: str, alternative: str
) -> Picture:
    """Points ``[n, 2]`` in the plane: a user, the target and its frames in one colour, user and target joined."""

    def paint(axes: Axes) -> None:
        for number, mine in enumerate(users):
            colour = COLOURS[number % len(COLOURS)]
            pair = places[[mine.user, mine.target]]
            axes.plot(*pair.T, color=colour, linewidth=0.8, alpha=0.6)
            if mine.frames:
                axes.plot(*places[list(mine.frames)].T, "s", color=colour, markersize=3, alpha=0.7)
            axes.plot(*pair[0], "o", color=colour, markersize=7)
            axes.plot(*pair[1], "*", color=colour, markersize=11, **_EDGE)
        kinds = [("o", "user vector"), ("*", "target item"), ("s", "frame of the target")]
        for marker, name in kinds if any(mine.frames for mine in users) else kinds[:2]:
            axes.plot([], [], marker, color="#56606f", label=name, markersize=6)
        axes.set(xlabel="t-SNE, first coordinate (no unit)", ylabel="t-SNE, second coordinate (no unit)")
        axes.margins(0.08)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return draw(paint, caption=caption, alternative=alternative, size=(5.6, 3.6))
