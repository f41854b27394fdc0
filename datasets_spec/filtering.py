"""From raw rows to the rows that stay: sample, order, duplicates, youngest rows, modalities, limit, k-core.

Every step is a set operation or a sort by content, so that no permutation of the raw rows changes anything. Users and
items are codes here (:func:`datasets_spec.idmap.encode`), whose order is that of the ids.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from datasets_spec.errors import ConfigConflictError, EmptyResultError
from datasets_spec.idmap import draw_order, encode, natural_order
from datasets_spec.kcore import KCoreReport, group_rows, k_core
from datasets_spec.schema import MEDIA_COLUMNS, RawTables, starts_of
from datasets_spec.spec import Modality, PrepareConfig

#: Rows that are sorted together: whole users, about this many.
_SORTED_TOGETHER = 1 << 21


@dataclass(frozen=True)
class Step:
    """What was left after one step.

    Attributes:
        name: ``parsed``, ``sample_users``, ``dedupe``, ``last_n``, ``require``, ``limit`` or ``k_core``.
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

    def __str__(self) -> str:
        counts = f"{self.name}: {self.rows} rows, {self.users} users, {self.items} items"
        return f"{counts} ({self.note})" if self.note else counts

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return asdict(self)


@dataclass
class Coded:
    """Rows with users and items as codes.

    Attributes:
        rows: ``user`` and ``item`` (Int32 codes), ``timestamp`` and, where it matters, ``order``.
        users: String ``[users]`` id of each code, in natural order.
        items: String ``[items]`` id of each code, by code point: that order breaks ties in time.
        steps: What was left after each step so far.
    """

    rows: pl.DataFrame
    users: pl.Series
    items: pl.Series
    steps: list[Step]

    def note(self, name: str, note: str = "") -> None:
        """Count what is left."""
        users, items = (int(np.count_nonzero(self.present(side))) for side in ("user", "item"))
        self.steps.append(Step(name, self.rows.height, users, items, note))

    def present(self, side: str) -> npt.NDArray[np.bool_]:
        """Which codes of ``user`` or ``item`` have rows: bool ``[codes]``."""
        there = np.zeros(len(self.users if side == "user" else self.items), dtype=np.bool_)
        there[self.rows[side].to_numpy()] = True
        return there

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Keep the rows where ``mask`` is true."""
        self.rows = self.rows.filter(pl.Series(mask))

    def keep_codes(self, side: str, wanted: npt.NDArray[np.bool_]) -> None:
        """Keep the rows of these users or items."""
        self.keep(wanted[self.rows[side].to_numpy()])


@dataclass(frozen=True)
class Filtered:
    """The rows that stay.

    Attributes:
        coded: The rows, sorted by user and, within each, by time.
        kcore: What the k-core removed.
    """

    coded: Coded
    kcore: KCoreReport


def code_rows(tables: RawTables) -> Coded:
    """Replace ids by codes; nothing leaves yet."""
    raw = tables.interactions
    user, users = encode(raw["user_id"], natural=True)
    item, items = encode(raw["item_id"], natural=False)
    columns = [pl.Series("user", user), pl.Series("item", item), raw["timestamp"]]
    if "order" in raw.columns and raw["timestamp"].null_count():
        columns.append(raw["order"])
    return Coded(pl.DataFrame(columns), users, items, [])


def keep_rows(tables: RawTables, config: PrepareConfig, *, name: str, coded: Coded | None = None) -> Filtered:
    """Apply all steps.

    Args:
        tables: What the source parsed.
        config: Which steps, with which bounds.
        name: The dataset, for messages.
        coded: What :func:`code_rows` made of ``tables``; then their interactions are not looked at.

    Returns:
        The rows that stay, at least one.

    Raises:
        ConfigConflictError: ``require`` names a modality that the dataset does not have.
        EmptyResultError: Nothing stays.
    """
    left = coded or code_rows(tables)
    left.note("parsed")
    if left.rows.is_empty():
        raise EmptyResultError(f"{name}: no usable row. {_first_bad_rows(tables)}")
    if config.sample_users is not None:
        _sample(left, config.sample_users, config.seed)
    left.rows = in_time(left.rows, users=len(left.users), dedupe=config.dedupe)
    if config.dedupe:
        left.note("dedupe")
    if config.last_n is not None:
        left.keep(_youngest(left.rows["user"].to_numpy(), config.last_n))
        left.note("last_n", f"youngest {config.last_n} rows of each user")
    if config.require:
        kept = _with_modalities(tables.items, config.require, name=name)
        left.keep_codes("item", left.items.is_in(kept["item_id"].implode()).to_numpy())
        left.note("require", f"items must have {', '.join(config.require)}")
        if left.rows.is_empty():
            raise EmptyResultError(_nothing_left(name, left.steps, tables.notes, "Ask for less with require="))
    if config.limit is not None:
        first = natural_order(left.items.filter(pl.Series(left.present("item")))).head(config.limit)
        left.keep_codes("item", left.items.is_in(first.implode()).to_numpy())
        left.note("limit", f"first {config.limit} items by item id")
    mask, report = k_core(left.rows["user"], left.rows["item"], k_user=config.k_user, k_item=config.k_item)
    if not mask.any():
        facts = (*report.lines(), *tables.notes)
        raise EmptyResultError(_nothing_left(name, left.steps, facts, _what_to_lower(left.rows, config)))
    left.keep(mask)
    left.note("k_core", f"k_user={config.k_user}, k_item={config.k_item}")
    return Filtered(left, report)


def _sample(left: Coded, wanted: int, seed: int) -> None:
    drawn = np.zeros(len(left.users), dtype=np.bool_)
    drawn[draw_order(left.users, seed=seed, purpose="sample")[:wanted]] = True
    left.keep_codes("user", drawn)
    left.note("sample_users", f"{min(wanted, len(drawn))} of {len(drawn)} users, seed={seed}")


def in_time(rows: pl.DataFrame, *, users: int, dedupe: bool) -> pl.DataFrame:
    """Sort by user, then time, then item; where a row has no time, its ``order`` is the time (after the others).

    Args:
        rows: ``user`` and ``item`` (Int32 codes), ``timestamp``, and ``order`` where rows have no time.
        users: Number of user codes.
        dedupe: Keep only the first of rows with equal user and item.

    Returns:
        ``user``, ``item`` and ``timestamp``.
    """
    starts, grouped = group_rows(rows["user"].to_numpy(), users)
    keys = ["user", "timestamp", *(["order"] if "order" in rows.columns else []), "item"]
    pair = pl.col("user").cast(pl.Int64) * (1 << 32) + pl.col("item")
    done = [rows.clear().select("user", "item", "timestamp")]
    first = 0
    while first < users:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _SORTED_TOGETHER, side="right")) - 1)
        piece = rows[grouped[starts[first] : starts[last]]]
        if "order" in rows.columns:
            piece = piece.with_columns(order=pl.when(pl.col("timestamp").is_null()).then(pl.col("order")))
        piece = piece.sort(keys, nulls_last=True)
        if dedupe:
            piece = piece.filter(pair.is_first_distinct())
        done.append(piece.select("user", "item", "timestamp"))
        first = last
    return pl.concat(done)


def _youngest(user: npt.NDArray[np.int32], n: int) -> npt.NDArray[np.bool_]:
    """The last ``n`` rows of each user: bool ``[rows]``; equal users are adjacent, oldest row first."""
    starts = starts_of(user)
    begins = np.maximum(starts[:-1], starts[1:] - n)
    return np.arange(len(user)) >= np.repeat(begins, np.diff(starts))


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
    most = [int(np.bincount(rows[side].to_numpy()).max()) for side in ("user", "item")]
    facts = f"No user has more than {most[0]} rows, no item more than {most[1]}."
    k_user, k_item = config.k_user, config.k_item
    one = [_first_that_leaves(rows, [(k, k_item) for k in range(k_user - 1, 0, -1)])]
    one += [_first_that_leaves(rows, [(k_user, k) for k in range(k_item - 1, 0, -1)])]
    both = [(min(k, k_user), min(k, k_item)) for k in range(max(k_user, k_item) - 1, 0, -1)]
    found = [advice for advice in one if advice] or [_first_that_leaves(rows, both)]
    return f"{facts} Lower the bounds: {', or '.join(found)}."


def _first_that_leaves(rows: pl.DataFrame, bounds: list[tuple[int, int]]) -> str:
    for k_user, k_item in bounds:
        left = int(k_core(rows["user"], rows["item"], k_user=k_user, k_item=k_item)[0].sum())
        if left:
            return f"k_user={k_user} k_item={k_item} leaves {left} rows"
    return ""


def _first_bad_rows(tables: RawTables) -> str:
    if not tables.bad_rows:
        return "The raw files hold no row at all."
    shown = "; ".join(f"{row.file} line {row.line}: {row.reason}: {row.detail}" for row in tables.bad_rows[:3])
    return f"{len(tables.bad_rows)} rows could not be read, the first: {shown}"
