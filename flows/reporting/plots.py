"""Figures of the report, drawn without a display and returned as SVG data URIs. Every axis carries its unit."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.reporting.runs import CHOSEN
from flows.reporting.view import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

#: Okabe and Ito's colours, distinguishable without colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")

_STYLE: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a3",
    "axes.labelcolor": "#3c4756",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e8ee",
    "grid.linewidth": 0.7,
    "xtick.color": "#56606f",
    "ytick.color": "#56606f",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "svg.hashsalt": "reelstore",
    "svg.fonttype": "path",
}

#: Colour of the lines of one experiment.
_SEED = COLOURS[0]

_FEW_ROUNDS = 12
_FEW_LENGTHS = 60
_MANY_EPOCHS = 25


@dataclass(frozen=True)
class Curve:
    """The training of one run.

    Attributes:
        label: For the legend.
        loss: ``(epoch, mean loss)`` of every epoch.
        valid: ``(epoch, value)`` of every validation, by metric; history unmasked.
        selected_epoch: The epoch whose weights were kept.
    """

    label: str
    loss: tuple[tuple[int, float], ...]
    valid: Mapping[str, tuple[tuple[int, float], ...]]
    selected_epoch: int


def draw(
    paint: Callable[..., None],
    *,
    caption: str,
    alternative: str,
    panels: int = 1,
    size: tuple[float, float] = (4.0, 2.6),
) -> Picture:
    """Let ``paint`` draw on ``panels`` axes side by side; returns the picture.

    Args:
        paint: Called with one ``Axes`` per panel.
        caption: What the picture shows.
        alternative: Its message in words.
        panels: Number of axes.
        size: Width and height of one panel in inches.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(size[0] * panels, size[1]), layout="constrained")
        paint(*(figure.add_subplot(1, panels, number + 1) for number in range(panels)))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    uri = "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(uri, caption, alternative, wide=panels > 1)


def kcore_rounds(removed: Mapping[str, Sequence[int]]) -> Picture:
    """Users, items and rows that left in each round; ``removed`` holds one number per round for each."""
    rounds = np.arange(1, max(len(values) for values in removed.values()) + 1)

    def paint(axes: Axes) -> None:
        for (name, values), colour, shift in zip(removed.items(), COLOURS, (-0.27, 0.0, 0.27), strict=False):
            if len(rounds) <= _FEW_ROUNDS:
                axes.bar(rounds + shift, values, width=0.25, label=name, color=colour)
            else:
                axes.plot(rounds, values, label=name, color=colour)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, 5 * max(1, *(max(values) for values in removed.values())))
        axes.set_xlim(0.4, len(rounds) + 0.6)
        axes.grid(visible=False, axis="x")
        _whole_numbers(axes, x=True)
        _plain_log(axes, y=True)
        axes.set(xlabel="round", ylabel="removed (count, log scale)")
        axes.legend(loc="upper right", ncols=3, columnspacing=1.2)

    total = {name: sum(values) for name, values in removed.items()}
    return draw(
        paint,
        caption="k-core: what left in each round. Removing users takes rows from items, and the other way round.",
        alternative="removed in all: " + ", ".join(f"{number} {name}" for name, number in total.items()),
    )


def sequence_lengths(lengths: NDArray[np.integer[Any]]) -> Picture:
    """Histogram of interactions per user, ``lengths`` ``[users]``."""
    low, high = int(lengths.min()), int(lengths.max())
    wide = high - low > _FEW_LENGTHS
    bins = np.geomspace(low, high + 1, 40) if wide else np.arange(low, high + 2) - 0.5
    median = float(np.median(lengths))

    def paint(axes: Axes) -> None:
        axes.margins(x=0.02, y=0.12)
        axes.hist(lengths, bins=bins.tolist(), color=COLOURS[0], edgecolor="white", linewidth=0.4)
        axes.axvline(median, color=COLOURS[1], linestyle="--", linewidth=1.2, label=f"median {median:g}")
        axes.grid(visible=False, axis="x")
        if wide:
            axes.set_xscale("log")
            _plain_log(axes, x=True)
        else:
            _whole_numbers(axes, x=True)
        _whole_numbers(axes, y=True)
        axes.set(xlabel="interactions per user" + (" (log scale)" if wide else ""), ylabel="users")
        axes.legend(loc="upper right")

    return draw(
        paint,
        caption=f"Sequence lengths of the {len(lengths):,} users, all splits together.",
        alternative=f"from {low} to {high} interactions, median {median:g}",
    )


def popularity(counts: NDArray[np.integer[Any]]) -> Picture:
    """Interactions of each item, most popular first, ``counts`` ``[items]``."""
    from matplotlib.ticker import LogLocator

    ordered = np.sort(counts)[::-1]
    top = max(1, round(0.2 * len(ordered)))
    wide = ordered[0] >= 10 * ordered[-1]
    held = float(ordered[:top].sum() / ordered.sum())

    def paint(axes: Axes) -> None:
        axes.plot(np.arange(1, len(ordered) + 1), ordered, color=COLOURS[2])
        axes.axvline(
            top, color=COLOURS[1], linestyle="--", linewidth=1.2, label=f"top 20 %: {100 * held:.0f} % of rows"
        )
        axes.set(xscale="log", xlabel="popularity rank of the item (log scale)")
        _plain_log(axes, x=True)
        if wide:
            axes.set(yscale="log", ylabel="interactions (log scale)")
            _plain_log(axes, y=True)
            if ordered[0] < 1000 * ordered[-1]:
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        else:
            axes.set(ylim=(0, 1.08 * ordered[0]), ylabel="interactions")
            _whole_numbers(axes, y=True)
        axes.legend(loc="lower left")

    return draw(
        paint,
        caption=f"Popularity of the {len(ordered):,} items: interactions by popularity rank.",
        alternative=f"from {ordered[0]} to {ordered[-1]} interactions; the top fifth of the items holds {held:.0%}",
    )


def training_curves(title: str, curves: Sequence[Curve]) -> Picture:
    """Loss and each validation metric of one experiment: a thin line per seed, a bold one for their mean.

    The mean is drawn at the epochs that all seeds have: a mean over those that went on longest would jump where the
    others end.
    """
    metrics = list(dict.fromkeys(metric for curve in curves for metric in curve.valid))
    names = ["mean training loss", *(f"validation {metric.upper()}" for metric in metrics)]
    several = len(curves) > 1

    def paint(*panels: Axes) -> None:
        for number, axes in enumerate(panels):
            lines = [curve.loss if number == 0 else curve.valid.get(metrics[number - 1], ()) for curve in curves]
            for curve, points in zip(curves, lines, strict=True):
                _seed_line(axes, points, kept=curve.selected_epoch, thin=several)
            if several:
                axes.plot(*np.reshape(mean_curve(lines), (-1, 2)).T, color=_SEED, linewidth=2.6)
            axes.set(xlabel="epoch", ylabel=names[number])
            _whole_numbers(axes, x=True)
        for axes in panels[1:]:
            axes.set_ylim(0, 1.08 * max(1e-9, axes.dataLim.y1))
        _curve_legend(panels[-1], len(curves))

    kept = ", ".join(f"{curve.label}: epoch {curve.selected_epoch}" for curve in curves)
    lines = f"thin: one of {len(curves)} seeds; bold: their mean at the epochs that all have" if several else "one seed"
    return draw(
        paint,
        caption=f"{title}: training loss and validation metrics (history unmasked) by epoch; {lines}; ring: the epoch "
        f"whose weights were kept ({kept}).",
        alternative=f"kept epochs: {kept}",
        panels=len(names),
        size=(3.9, 2.7),
    )


def _seed_line(axes: Axes, points: Sequence[tuple[int, float]], *, kept: int, thin: bool) -> None:
    marker = "." if len(points) <= _MANY_EPOCHS and not thin else ""
    width, alpha = (0.8, 0.65) if thin else (1.6, 1.0)
    axes.plot([x for x, _ in points], [y for _, y in points], color=_SEED, marker=marker, linewidth=width, alpha=alpha)
    ring = [(x, y) for x, y in points if x == kept]
    axes.plot([x for x, _ in ring], [y for _, y in ring], "o", color=COLOURS[1], markersize=7, fillstyle="none")


def mean_curve(lines: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """``(epoch, mean)`` at the epochs that all lines have."""
    values = [dict(points) for points in lines]
    common = sorted(set[int].intersection(*(set(found) for found in values)))
    return [(epoch, float(np.mean([found[epoch] for found in values]))) for epoch in common]


def _curve_legend(axes: Axes, n: int) -> None:
    if n > 1:
        axes.plot([], [], color=_SEED, linewidth=0.8, alpha=0.65, label="one seed")
        axes.plot([], [], color=_SEED, linewidth=2.6, label=f"mean of {n} seeds")
    axes.plot([], [], "o", color=COLOURS[1], markersize=7, fillstyle="none", label="kept epoch")
    axes.legend(loc="lower right")


def hits_by_cutoff(ranks: Mapping[str, NDArray[np.integer[Any]]], *, n_candidates: int) -> Picture:
    """HR@k of every k for each model, and of a random order.

    Args:
        ranks: 0-based test ranks ``[users]`` (history unmasked) by model.
        n_candidates: Items that were ranked.
    """
    cutoffs = np.unique(np.geomspace(1, n_candidates, 120).astype(np.int64))

    def paint(axes: Axes) -> None:
        for number, (name, values) in enumerate(ranks.items()):
            hits = np.searchsorted(np.sort(values), cutoffs, side="left") / len(values)
            dashes = "-" if number < len(COLOURS) else "--"
            axes.plot(cutoffs, hits, dashes, label=name, color=COLOURS[number % len(COLOURS)])
        axes.plot(cutoffs, cutoffs / n_candidates, color="#9aa3af", linestyle=":", label="random order")
        axes.set(xscale="log", xlabel="k (log scale)", ylabel="HR@k, share of users", ylim=(0, 1))
        _plain_log(axes, x=True)
        axes.legend(loc="upper left")

    return draw(
        paint,
        caption=f"Test split: share of users whose target stands among the first k of {n_candidates:,} items, "
        f"history unmasked; all seeds together. {CHOSEN}",
        alternative="hit rate by cut-off for " + ", ".join(ranks),
    )


def metric_dots(values: Mapping[str, Sequence[float]], *, metric: str) -> Picture:
    """One metric of every model: a bar for the mean, a dot for every seed."""
    names = list(values)[::-1]

    def paint(axes: Axes) -> None:
        for row, name in enumerate(names):
            colour = COLOURS[(len(names) - 1 - row) % len(COLOURS)]
            axes.barh(row, float(np.mean(values[name])), height=0.55, color=colour, alpha=0.35)
            axes.plot(values[name], [row] * len(values[name]), "o", color=colour, markersize=4.5)
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{metric.upper()} on the test split (history unmasked)")

    return draw(
        paint,
        caption=f"{metric.upper()} on the test split, history unmasked: bar = mean over seeds, dot = one seed. "
        f"{CHOSEN}",
        alternative=", ".join(f"{name}: {float(np.mean(values[name])):.4f}" for name in values),
        size=(4.0, max(2.6, 0.7 + 0.24 * len(names))),
    )


def _whole_numbers(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    for axis in ([axes.xaxis] if x else []) + ([axes.yaxis] if y else []):
        axis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def _plain_log(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Write 10 and 1,000 on log axes instead of powers; few labels where the span is short."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    for axis in ([axes.xaxis] if x else []) + ([axes.yaxis] if y else []):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_minor_formatter(NullFormatter())
