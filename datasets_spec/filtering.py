"""From raw rows to the rows that stay: order, duplicates, modalities, limit, k-core.

Every step is a set operation or a sort by content, so that no permutation of the raw rows changes anything.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from datasets_spec.errors import ConfigConflictError, EmptyResultError
from datasets_spec.idmap import natural_order
from datasets_spec.kcore import KCoreReport, k_core
from datasets_spec.schema import MEDIA_COLUMNS, RawTables
from datasets_spec.spec import Modality, PrepareConfig


@dataclass(frozen=True)
class Step:
    """What was left after one step.

    Attributes:
        name: ``parsed``, ``dedupe``, ``require``, ``limit`` or ``k_core``.
        rows: Interactions.
        users: Distinct users.
        items: Distinct items.
        note: What the step did, where the counts do not say it.
    """

    name: str
    rows: int
    users: int
    items: int
    note: str = ""

    @classmethod
    def after(cls, name: str, rows: pl.DataFrame, note: str = "") -> Step:
        """Count."""
        return cls(name, rows.height, rows["user_id"].n_unique(), rows["item_id"].n_unique(), note)

    def __str__(self) -> str:
        counts = f"{self.name}: {self.rows} rows, {self.users} users, {self.items} items"
        return f"{counts} ({self.note})" if self.note else counts

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class Filtered:
    """The rows that stay.

    Attributes:
        interactions: Raw columns, sorted by user and, within each, by time.
        steps: What was left after each step.
        kcore: What the k-core removed.
    """

    interactions: pl.DataFrame
    steps: list[Step]
    kcore: KCoreReport


def keep_rows(tables: RawTables, config: PrepareConfig, *, name: str) -> Filtered:
    """Apply all steps.

    Args:
        tables: What the source parsed.
        config: Which steps, with which bounds.
        name: The dataset, for messages.

    Returns:
        The rows that stay, at least one.

    Raises:
        ConfigConflictError: ``require`` names a modality that the dataset does not have.
        EmptyResultError: Nothing stays.
    """
    rows = in_time(tables.interactions)
    steps = [Step.after("parsed", rows)]
    if rows.is_empty():
        raise EmptyResultError(f"{name}: no usable row. {_first_bad_rows(tables)}")
    if config.dedupe:
        rows = rows.unique(["user_id", "item_id"], keep="first", maintain_order=True)
        steps.append(Step.after("dedupe", rows))
    if config.require:
        kept = _with_modalities(tables.items, config.require, name=name)
        rows = rows.join(kept, on="item_id", how="semi", maintain_order="left")
        steps.append(Step.after("require", rows, f"items must have {', '.join(config.require)}"))
        if rows.is_empty():
            raise EmptyResultError(_nothing_left(name, steps, tables.notes, "Ask for less with require="))
    if config.limit is not None:
        first = natural_order(rows["item_id"]).head(config.limit).rename("item_id").to_frame()
        rows = rows.join(first, on="item_id", how="semi", maintain_order="left")
        steps.append(Step.after("limit", rows, f"first {config.limit} items by item id"))
    mask, report = k_core(rows["user_id"], rows["item_id"], k_user=config.k_user, k_item=config.k_item)
    if not mask.any():
        facts = (*report.lines(), *tables.notes)
        raise EmptyResultError(_nothing_left(name, steps, facts, _what_to_lower(rows, config)))
    rows = rows.filter(pl.Series(mask))
    steps.append(Step.after("k_core", rows, f"k_user={config.k_user}, k_item={config.k_item}"))
    return Filtered(rows, steps, report)


def in_time(interactions: pl.DataFrame) -> pl.DataFrame:
    """Sort by user, then time, then item id; where a row has no time, its ``order`` is the time (after the others)."""
    order = pl.when(pl.col("timestamp").is_null()).then(pl.col("order"))
    return interactions.sort("user_id", "timestamp", order, "item_id", nulls_last=True)


def has_modality(items: pl.DataFrame, modality: Modality) -> pl.Expr | None:
    """Which items have a modality; None when the table has no column for it.

    ``text`` is a title that is not blank; ``image`` and ``video`` are a file or an address where it can be had.
    """
    if modality == "text":
        return pl.col("title").str.strip_chars().fill_null("") != ""
    columns = [column for column in MEDIA_COLUMNS[modality] if column in items.columns]
    return pl.any_horizontal(pl.col(column).is_not_null() for column in columns) if columns else None


def _with_modalities(items: pl.DataFrame, require: tuple[Modality, ...], *, name: str) -> pl.DataFrame:
    for modality in require:
        has = has_modality(items, modality)
        if has is None:
            raise ConfigConflictError(
                f"{name}: require={','.join(require)}, but its items have no {modality}; "
                f"they have the columns {', '.join(items.columns)}"
            )
        items = items.filter(has)
    return items.select("item_id")


def _nothing_left(name: str, steps: list[Step], facts: tuple[str, ...], advice: str) -> str:
    lines = [*(str(step) for step in steps), *facts]
    return f"{name}: no interaction is left.\n  " + "\n  ".join(lines) + f"\n{advice}"


def _what_to_lower(rows: pl.DataFrame, config: PrepareConfig) -> str:
    """The highest bounds that leave something: one of the two lowered, else both."""
    most = {side: int(rows.group_by(side).len()["len"].to_numpy().max()) for side in ("user_id", "item_id")}
    facts = f"No user has more than {most['user_id']} rows, no item more than {most['item_id']}."
    k_user, k_item = config.k_user, config.k_item
    one = [_first_that_leaves(rows, [(k, k_item) for k in range(k_user - 1, 0, -1)])]
    one += [_first_that_leaves(rows, [(k_user, k) for k in range(k_item - 1, 0, -1)])]
    both = [(min(k, k_user), min(k, k_item)) for k in range(max(k_user, k_item) - 1, 0, -1)]
    found = [advice for advice in one if advice] or [_first_that_leaves(rows, both)]
    return f"{facts} Lower the bounds: {', or '.join(found)}."


def _first_that_leaves(rows: pl.DataFrame, bounds: list[tuple[int, int]]) -> str:
    for k_user, k_item in bounds:
        left = int(k_core(rows["user_id"], rows["item_id"], k_user=k_user, k_item=k_item)[0].sum())
        if left:
            return f"k_user={k_user} k_item={k_item} leaves {left} rows"
    return ""


def _first_bad_rows(tables: RawTables) -> str:
    if not tables.bad_rows:
        return "The raw files hold no row at all."
    shown = "; ".join(f"{row.file} line {row.line}: {row.reason}: {row.detail}" for row in tables.bad_rows[:3])
    return f"{len(tables.bad_rows)} rows could not be read, the first: {shown}"
