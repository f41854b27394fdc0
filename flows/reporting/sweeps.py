"""Runs of one model that differ in one setting (a line) or in two (a heat map), found without being told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from flows.reporting import charts
from flows.reporting.charts import Cells, Setting
from flows.reporting.runs import Group, labels_text
from flows.reporting.view import Part, Picture, plural

#: Values that a setting must have for a line; two are a comparison, which the tables make.
FEWEST_VALUES = 3

#: Begins the keys that are inputs, not settings.
_INPUT = "input "
_METRIC = "ndcg@10"
_LINES = ("hr@10", "ndcg@10")

#: How settings are called on an axis; others go by their last part.
_NAMES = {
    "parameters.steps": "diffusion steps T",
    "parameters.lambda_t": "λ_T, weight of the frame loss",
    "parameters.lambda_n": "λ_N, weight of the preference loss",
    "parameters.visual_noise_std": "σ of the visual noise (deviations of a feature)",
    "parameters.lambda_q": "λ_q, strength of the codes",
    "parameters.lambda_c": "λ_c, weight of the contrastive loss",
    "parameters.lambda_recon": "λ, weight of the reconstruction",
    "parameters.mu_ssm": "μ, weight of the ranking loss",
    "parameters.experts": "experts N",
    "parameters.codes": "codes Z",
    "parameters.interests": "interests K",
    "parameters.d": "width d",
}


@dataclass(frozen=True)
class Family:
    """Groups that agree in everything but ``keys``; values by group in the order of ``keys``."""

    keys: tuple[str, ...]
    members: tuple[Group, ...]
    values: tuple[tuple[Any, ...], ...]

    def axis(self, number: int) -> list[Any]:
        """The values of one key in order: numbers by size, names by the alphabet."""
        return sorted({values[number] for values in self.values}, key=_order)

    def setting(self, number: int) -> Setting:
        """The same, as it is written at an axis."""
        return Setting(_name(self.keys[number]), tuple(_value_text(value) for value in self.axis(number)))


def collect(groups: Sequence[Group]) -> Part:
    """Heat maps and lines of the groups of one dataset."""
    pictures: list[Picture] = []
    for model in sorted({group.record.model for group in groups}):
        grids, lines = families([group for group in groups if group.record.model == model])
        pictures += [_heat_map(grid) for grid in grids if _measured(grid)]
        pictures += [_line(line) for line in lines if _measured(line)]
    return Part("Settings", pictures=tuple(pictures))


def families(groups: Sequence[Group]) -> tuple[list[Family], list[Family]]:
    """Grids and lines among the groups of one model and dataset.

    A grid is a set of groups that differ in two settings and of which four form a rectangle; cells may be missing. A
    line has at least ``FEWEST_VALUES`` values of one setting and is no part of a grid. Switches make neither.
    """
    flat = [_settings(group) for group in groups]
    varying = _varying(flat)
    usable = [key for key in varying if _is_axis(key, [row.get(key) for row in flat])]
    grids: list[Family] = []
    for pair in combinations(usable, 2):
        grids += [found for found in _agreeing(groups, flat, varying, pair) if _has_rectangle(found.values)]
    lines = [found for key in usable for found in _agreeing(groups, flat, varying, (key,))]
    lines = [line for line in lines if len(line.axis(0)) >= FEWEST_VALUES]
    return grids, [line for line in lines if not any(_within(line, grid) for grid in grids)]


def _settings(group: Group) -> dict[str, Any]:
    """Dotted settings and inputs of a group; lists as text."""
    config = {key: value for key, value in group.record.config.items() if key not in ("seed", "stores")}
    inputs = {"dataset": group.record.dataset_version, "stores": [str(store) for store in group.record.stores]}
    return dict(_dotted({**config, **{_INPUT + key: value for key, value in inputs.items()}}))


def _dotted(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value) if isinstance(value, list | tuple) else value


def _varying(flat: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that are not equal everywhere; of keys that always change together with equal values, the first."""
    columns = {key: tuple(row.get(key) for row in flat) for key in dict.fromkeys(key for row in flat for key in row)}
    first: dict[tuple[Any, ...], str] = {}
    for key, column in columns.items():
        if len(set(column)) > 1:
            first.setdefault(column, key)
    return list(first.values())


def _is_axis(key: str, values: Sequence[Any]) -> bool:
    """Numbers or names; no inputs, no switches, no lists (which are text here), nothing that is unset somewhere."""
    plain = all(isinstance(value, int | float | str) and not isinstance(value, bool) for value in values)
    return plain and not key.startswith(_INPUT) and not any(str(value).startswith("[") for value in values)


def _agreeing(
    groups: Sequence[Group], flat: Sequence[Mapping[str, Any]], varying: Sequence[str], keys: tuple[str, ...]
) -> list[Family]:
    """Groups put together that are equal in all varying settings but ``keys``."""
    others = [key for key in varying if key not in keys]
    parts: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(flat):
        parts.setdefault(tuple(row.get(key) for key in others), []).append(number)
    return [
        Family(keys, tuple(groups[n] for n in part), tuple(tuple(flat[n].get(key) for key in keys) for n in part))
        for part in parts.values()
    ]


def _has_rectangle(cells: Sequence[tuple[Any, ...]]) -> bool:
    rows: dict[Any, set[Any]] = {}
    for x, y in cells:
        rows.setdefault(y, set()).add(x)
    return any(len(first & second) > 1 for first, second in combinations(rows.values(), 2))


def _within(line: Family, grid: Family) -> bool:
    labels = {group.label for group in grid.members}
    return line.keys[0] in grid.keys and all(group.label in labels for group in line.members)


def _measured(family: Family) -> bool:
    """Some group has the metric."""
    return any(group.values("unmasked", _METRIC) or group.valid_values(_METRIC) for group in family.members)


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _name(key: str) -> str:
    return _NAMES.get(key, key.removeprefix("parameters.").replace("_", " "))


def _value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _about(family: Family) -> str:
    record = family.members[0].record
    counts = {len(group.runs) for group in family.members}
    seeds = " to ".join(plural(number, "seed") for number in sorted({min(counts), max(counts)}))
    return f"{record.model} on {record.dataset}, all other settings equal: {labels_text(family.members)}; {seeds} each"


def _heat_map(grid: Family) -> Picture:
    axes = grid.axis(0), grid.axis(1)
    places = [(axes[0].index(x), axes[1].index(y)) for x, y in grid.values]
    sides = {
        f"validation {_METRIC.upper()}": [group.valid_values(_METRIC) for group in grid.members],
        f"test {_METRIC.upper()}": [group.values("unmasked", _METRIC) for group in grid.members],
    }
    maps = [
        Cells(title, {place: values for place, values in zip(places, found, strict=True) if values})
        for title, found in sides.items()
        if any(found)
    ]
    return charts.heat_maps(
        maps,
        columns=grid.setting(0),
        rows=grid.setting(1),
        caption=f"{_METRIC.upper()} (history unmasked) by two settings of {_about(grid)}. Each cell: mean over seeds, "
        "± half of Student's 95 % interval where there are several; ×: not run. Settings are to be chosen on the left; "
        "the right shows what the choice was worth.",
    )


def _line(line: Family) -> Picture:
    values = line.axis(0)
    by_value = {found[0]: group for group, found in zip(line.members, line.values, strict=True)}
    groups = [by_value[value] for value in values]
    panels = {f"validation {_METRIC.upper()}": [group.valid_values(_METRIC) for group in groups]}
    panels |= {f"test {name.upper()}": [group.values("unmasked", name) for group in groups] for name in _LINES}
    return charts.sweep_lines(
        line.setting(0),
        {title: points for title, points in panels.items() if any(points)},
        joined=not any(isinstance(value, str) for value in values),
        caption=f"{_name(line.keys[0])}: {_about(line)}. History unmasked; point: mean over seeds, "
        "whisker: Student's 95 % interval of the mean, small dots: seeds. The values stand at equal distances; the "
        "vertical axis need not begin at 0.",
    )
