"""The papers' ablations: each variant beside the complete model with all other settings equal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flows.reporting import charts
from flows.reporting.charts import Bar
from flows.reporting.intervals import over_seeds
from flows.reporting.published import FULL, Paper, papers
from flows.reporting.runs import Group
from flows.reporting.significance import (
    ABOUT_NO_SPREAD,
    common_seeds,
    interval_text,
    over_users,
    p_text,
    paired_over_seeds,
)
from flows.reporting.view import ABSENT, Cell, Part, Picture, Table, plural
from models.evaluation.comparison import PairedComparison, holm_within

_METRICS = ("hr@10", "ndcg@10")
_EFFECT = "ndcg@10"
_ABOUT_EFFECTS = (
    " Right: variant minus complete model, the first bar, with the same seeds, mean and Student's 95 % interval; a "
    "variant that loses lies left of 0."
)


@dataclass(frozen=True)
class Family:
    """A complete model and its variants by name, equal in everything that the ablation does not change."""

    paper: Paper
    full: Group
    variants: dict[str, Group]


def collect(groups: Sequence[Group]) -> Part:
    """Figure and table of every family among the groups of one dataset."""
    found = [family for paper in papers() for family in families(paper, groups)]
    return Part(
        "Ablations",
        tables=tuple(_table(family) for family in found),
        pictures=tuple(_picture(family) for family in found),
    )


def families(paper: Paper, groups: Sequence[Group]) -> list[Family]:
    """Complete models of a paper for which at least one variant was run."""
    named = [(paper.variant_of(group.parameters), group) for group in groups if group.record.model == paper.model]
    found: list[Family] = []
    for full in (group for name, group in named if name == FULL):
        like = {name: group for name, group in named if name != FULL and _alike(paper, full, group)}
        variants = {name: like[name] for name in paper.variants if name in like}
        if variants and full.values("unmasked", _EFFECT):
            found.append(Family(paper, full, variants))
    return found


def _alike(paper: Paper, full: Group, variant: Group) -> bool:
    """Equal but for the ablation; a variant may read fewer stores, but none in another version."""
    theirs, mine = ({store.name: store.version for store in group.record.stores} for group in (full, variant))
    same_stores = all(mine[name] == version for name, version in theirs.items() if name in mine)
    return same_stores and _rest(paper, full) == _rest(paper, variant)


def _rest(paper: Paper, group: Group) -> str:
    config = {key: value for key, value in group.record.config.items() if key not in ("seed", "stores", "parameters")}
    parameters = {key: value for key, value in group.parameters.items() if key not in paper.full}
    return json.dumps([config, parameters, group.record.dataset_version], sort_keys=True, default=str)


def _effect(family: Family, variant: Group) -> PairedComparison | None:
    seeds = common_seeds(variant, family.full)
    return paired_over_seeds(variant, family.full, seeds, "unmasked", _EFFECT)


def _picture(family: Family) -> Picture:
    bars = [Bar(family.paper.name, _metric_values(family.full), None)]
    bars += [Bar(name, _metric_values(group), _effect(family, group)) for name, group in family.variants.items()]
    counts = {len(group.runs) for group in (family.full, *family.variants.values())}
    seeds = " to ".join(plural(number, "seed") for number in sorted({min(counts), max(counts)}))
    return charts.ablation_bars(
        bars,
        metrics=_METRICS,
        effect=_EFFECT,
        caption=f"Ablations of {family.full.label} on {family.full.record.dataset} ({', '.join(family.variants)}; "
        f"{seeds} each), test split, history unmasked. Bar: mean over seeds; whisker: Student's 95 % interval of the "
        f"mean; dot: one seed.{_ABOUT_EFFECTS if any(bar.effect for bar in bars) else ''}",
    )


def _metric_values(group: Group) -> dict[str, list[float]]:
    return {metric: values for metric in _METRICS if (values := group.values("unmasked", metric))}


def _table(family: Family) -> Table:
    effects = {name: _effect(family, group) for name, group in family.variants.items()}
    by_user = {name: _users(family, group) for name, group in family.variants.items()}
    columns = {"seeds": effects, "users": by_user}
    tests = [(over, one) for over, column in columns.items() for one in column.values() if one is not None]
    p_values = holm_within([over for over, _ in tests], [one.p for _, one in tests])
    adjusted = dict(zip([one for _, one in tests], p_values, strict=True))
    rows = [(*_means(f"{family.paper.name} (complete)", family.full), *[Cell(ABSENT, "number")] * 4)]
    for name, group in family.variants.items():
        effect_cells = [cell for result in (effects[name], by_user[name]) for cell in _effect_cells(result, adjusted)]
        rows.append((*_means(name, group), *effect_cells))
    names = [metric.upper() for metric in _METRICS]
    header = ("variant", "runs", *names, "difference over seeds", "p (Holm)", "difference over users", "p (Holm)")
    return Table(
        caption=f"Ablations of {family.full.label} on {family.full.record.dataset}, test split, history unmasked.",
        header=header,
        rows=tuple(rows),
        note=f"Below each figure its 95 % interval. Differences are variant minus complete model in {_EFFECT.upper()}: "
        "over the common seeds (Student's interval), and over the users of the first common seed (percentile "
        f"bootstrap). Holm's adjustment is over the tests of a column. {ABOUT_NO_SPREAD}",
    )


def _means(name: str, group: Group) -> tuple[Cell, ...]:
    cells = [over_seeds(values).cell if (values := group.values("unmasked", m)) else Cell(ABSENT) for m in _METRICS]
    return (Cell(name), Cell(f"{group.label}, {group.seeds_text}"), *cells)


def _users(family: Family, variant: Group) -> PairedComparison | None:
    seeds = common_seeds(variant, family.full)
    return over_users(variant, family.full, seeds[0]) if seeds else None


def _effect_cells(result: PairedComparison | None, adjusted: dict[PairedComparison, float]) -> tuple[Cell, Cell]:
    if result is None:
        return Cell(ABSENT, "number"), Cell(ABSENT, "number")
    difference = Cell(f"{result.difference:+.4f}", "number", below=interval_text(result))
    return difference, Cell(p_text(adjusted[result]), "number")
