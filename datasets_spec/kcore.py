"""k-core of an interaction table: the largest set of rows in which every user and every item has enough rows.

With lower bounds only, that set is unique: it does not depend on the order of removal. It is found by peeling. A node
(user or item) whose degree falls below its bound enters the frontier once and takes its rows with it. The rows of the
first frontiers, which are large, are found by scanning the table; after a few scans, by an index of the rows of each
node, so that the work is linear in the number of rows whatever the number of rounds. A long thin chain has as many
rounds as nodes: small frontiers are peeled by a plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from scipy.sparse import csc_array, csr_array

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]
Column = npt.NDArray[Any] | pl.Series | Sequence[int] | Sequence[str]

_SMALL_FRONTIER = 64
#: How often the rows of a frontier may be found by scanning the table before an index is made.
_SCANS = 8
#: Later rounds are added up in the last entry of the report.
_ROUNDS_LISTED = 100


@dataclass
class KCoreRound:
    """One pass: users below their bound leave first, then items below theirs.

    Attributes:
        removed_users: Users that left.
        removed_items: Items that left.
        removed_rows: Rows that left with them.
        users: Users that remain.
        items: Items that remain.
        rows: Rows that remain.
        rows_by_users: Those of ``removed_rows`` that left with a user.
        passes: Passes added up here; more than 1 only in the last entry of a long report.
    """

    removed_users: int
    removed_items: int
    removed_rows: int
    users: int
    items: int
    rows: int
    rows_by_users: int
    passes: int = 1


@dataclass
class KCoreReport:
    """What the k-core removed.

    Attributes:
        k_user: Rows that every remaining user has at least.
        k_item: Rows that every remaining item has at least.
        users: Users that went in.
        items: Items that went in.
        rows: Rows that went in.
        rounds: Pass by pass; empty when nothing was removed.
    """

    k_user: int
    k_item: int
    users: int
    items: int
    rows: int
    rounds: list[KCoreRound] = field(default_factory=list[KCoreRound])

    @property
    def kept(self) -> tuple[int, int, int]:
        """Users, items and rows that remain."""
        if not self.rounds:
            return self.users, self.items, self.rows
        last = self.rounds[-1]
        return last.users, last.items, last.rows

    def full(self) -> bool:
        """Whether later passes go to the last entry."""
        return len(self.rounds) >= _ROUNDS_LISTED

    def add(self, users: int, items: int, rows_by_users: int, rows_by_items: int, passes: int = 1) -> None:
        """Note passes: users and items that left, and the rows that left with each."""
        n_users, n_items, n_rows = self.kept
        rows = rows_by_users + rows_by_items
        left = (n_users - users, n_items - items, n_rows - rows)
        if self.full():
            last = self.rounds.pop()
            users, items, rows = users + last.removed_users, items + last.removed_items, rows + last.removed_rows
            rows_by_users, passes = rows_by_users + last.rows_by_users, passes + last.passes
        self.rounds.append(KCoreRound(users, items, rows, *left, rows_by_users, passes))

    def lines(self) -> list[str]:
        """The report for people, one line per entry."""
        start = f"in: {self.rows} rows, {self.users} users, {self.items} items (k_user={self.k_user}, "
        lines = [f"{start}k_item={self.k_item})"]
        number = 1
        for entry in self.rounds:
            name = f"round {number}" if entry.passes == 1 else f"rounds {number}-{number + entry.passes - 1}"
            number += entry.passes
            lines.append(
                f"{name}: -{entry.removed_users} users below k_user with {entry.rows_by_users} rows, "
                f"-{entry.removed_items} items below k_item with {entry.removed_rows - entry.rows_by_users} rows; "
                f"left: {entry.rows} rows, {entry.users} users, {entry.items} items"
            )
        return lines


def k_core(user: Column, item: Column, *, k_user: int, k_item: int) -> tuple[Bools, KCoreReport]:
    """Find the rows of the k-core.

    Args:
        user: ``[rows]`` the user of each row: integers or strings, as numpy array, polars Series or sequence. Integers
            from a range not much wider than the table is long are the fastest: they need no look-up.
        item: ``[rows]`` the item of each row.
        k_user: Least number of rows of every user; 0 and 1 bind nothing.
        k_item: Least number of rows of every item. Rows are counted, not distinct partners: equal (user, item) rows
            count each, so remove duplicates before where they should not.

    Returns:
        bool ``[rows]``, True for rows that stay, and the report.

    Raises:
        ValueError: Columns of different length, with nulls or more than one dimension, or a negative bound.
    """
    for name, bound in (("k_user", k_user), ("k_item", k_item)):
        if bound < 0:
            raise ValueError(f"{name}: expected a number >= 0, got {bound}")
    users, items = _codes(user, "user"), _codes(item, "item")
    if len(users) != len(items):
        raise ValueError(f"expected equally long columns, got {len(users)} users and {len(items)} items")
    left, right = _Side(users, max(1, k_user)), _Side(items, max(1, k_item))
    left.other, right.other = right, left
    report = KCoreReport(k_user, k_item, left.count(), right.count(), len(users))
    by_user, by_item = left.below(), right.below()
    while len(by_user) or len(by_item):
        if len(by_user) + len(by_item) <= _SMALL_FRONTIER and left.indexed() and right.indexed():
            by_user, by_item = _peel_chain(by_user.tolist(), by_item.tolist(), left, right, report)
            continue
        rows_by_users, fallen = left.peel(by_user)
        by_item = np.concatenate([by_item, fallen])
        rows_by_items, next_users = right.peel(by_item)
        report.add(len(by_user), len(by_item), rows_by_users, rows_by_items)
        by_user, by_item = next_users, by_item[:0]
    return (left.degree > 0)[users] & (right.degree > 0)[items], report


def group_rows(of_row: Ints, groups: int) -> tuple[Ints, Ints]:
    """Rows by group, in linear time; within a group they keep their order.

    Args:
        of_row: int ``[rows]`` the group of each row, ``0 <= group < groups``.
        groups: Number of groups.

    Returns:
        ``[groups + 1]`` where the rows of each group begin in the second array, and ``[rows]`` row numbers.
    """
    grouped = _columns(of_row, groups, np.ones(len(of_row), dtype=np.int8))
    return grouped.indptr, grouped.indices


def _columns(of_row: Ints, groups: int, values: Ints) -> csc_array:
    """Values ``[rows]`` by group: one non-zero per row of the table, turned into columns, which takes linear time."""
    rows = len(of_row)
    index_type = np.int32 if rows < np.iinfo(np.int32).max else np.int64
    ends = np.arange(rows + 1, dtype=index_type)
    return csr_array((values, of_row.astype(index_type, copy=False), ends), (rows, groups)).tocsc()


class _Side:
    """Users, or items. A row is there as long as the degrees of its user and of its item are positive.

    Attributes:
        of_row: ``[rows]`` the node of each row.
        bound: Degree below which a node leaves.
        degree: int64 ``[nodes]`` rows of each node that are there; 0 for numbers that no row has.
        other: The items of these users, or the users of these items.
    """

    other: _Side

    def __init__(self, of_row: Ints, bound: int) -> None:
        self.of_row = of_row
        self.bound = bound
        self.degree: npt.NDArray[np.int64] = np.bincount(of_row)
        self._scans = 0
        self._index: tuple[Ints, Ints] | None = None

    def count(self) -> int:
        """Nodes that have rows."""
        return int(np.count_nonzero(self.degree))

    def below(self) -> npt.NDArray[np.int64]:
        """Nodes that have rows, and fewer than the bound."""
        return np.flatnonzero((self.degree < self.bound) & (self.degree > 0))

    def indexed(self) -> bool:
        """Whether the scans are used up."""
        return self._scans >= _SCANS

    def index(self) -> tuple[Ints, Ints]:
        """Where the partners of each node begin in the second array, and the partners, one per row."""
        if self._index is None:
            grouped = _columns(self.of_row, len(self.degree), self.other.of_row)
            starts: Ints = grouped.indptr
            partners: Any = grouped.data
            self._index = starts, partners
        return self._index

    def peel(self, frontier: Ints) -> tuple[int, Ints]:
        """Remove nodes with their rows.

        Returns:
            How many rows left, and the nodes of the other side that fell below their bound by this.
        """
        if len(frontier) == 0:
            return 0, frontier
        partners = self._partners(frontier)
        self.degree[frontier] = 0
        touched, losses = _count(partners, len(self.other.degree))
        before = self.other.degree[touched]
        after = before - losses
        self.other.degree[touched] = after
        return len(partners), touched[(before >= self.other.bound) & (after < self.other.bound)]

    def _partners(self, nodes: Ints) -> Ints:
        """The partner in each row of these nodes that is there."""
        if self.indexed():
            starts, partners = self.index()
            begins = starts[nodes].astype(np.int64)
            lengths = starts[nodes + 1] - begins
            ends = np.cumsum(lengths)
            found = partners[np.arange(int(ends[-1])) + np.repeat(begins - (ends - lengths), lengths)]
        else:
            self._scans += 1
            marked = np.zeros(len(self.degree), dtype=np.bool_)
            marked[nodes] = True
            found = self.other.of_row[marked[self.of_row]]
        return found[self.other.degree[found] > 0]


def _count(nodes: Ints, n_nodes: int) -> tuple[Ints, Ints]:
    """Distinct nodes and how often each occurs, in the cheaper of two ways."""
    if len(nodes) * 8 < n_nodes:
        return np.unique(nodes, return_counts=True)
    counts = np.bincount(nodes, minlength=n_nodes)
    touched = np.flatnonzero(counts)
    return touched, counts[touched]


def _peel_chain(
    by_user: list[int], by_item: list[int], left: _Side, right: _Side, report: KCoreReport
) -> tuple[Ints, Ints]:
    """Peel pass by pass while frontiers are small; return the frontiers of the next pass."""
    peel_users, peel_items = _few(left), _few(right)
    users = items = rows_by_users = rows_by_items = passes = 0
    while 0 < len(by_user) + len(by_item) <= _SMALL_FRONTIER:
        rows, fallen = peel_users(by_user)
        by_item += fallen
        users, rows_by_users = users + len(by_user), rows_by_users + rows
        rows, by_user = peel_items(by_item)
        items, rows_by_items, passes = items + len(by_item), rows_by_items + rows, passes + 1
        by_item = []
        if not report.full():
            report.add(users, items, rows_by_users, rows_by_items)
            users = items = rows_by_users = rows_by_items = passes = 0
    if passes:
        report.add(users, items, rows_by_users, rows_by_items, passes)
    return np.array(by_user, dtype=np.int64), np.array(by_item, dtype=np.int64)


def _few(side: _Side) -> Callable[[list[int]], tuple[int, list[int]]]:
    """:meth:`_Side.peel` for a few nodes."""
    # Views give and take plain Python integers, several times faster than numpy scalars.
    starts, partners = (array.data for array in side.index())
    own, degree, last = side.degree.data, side.other.degree.data, side.other.bound

    def peel(frontier: list[int]) -> tuple[int, list[int]]:
        removed, fallen = 0, list[int]()
        for node in frontier:
            own[node] = 0
            for place in range(starts[node], starts[node + 1]):
                partner = partners[place]
                before = degree[partner]
                if before:
                    degree[partner] = before - 1
                    removed += 1
                    if before == last:
                        fallen.append(partner)
        return removed, fallen

    return peel


def _codes(column: Column, name: str) -> Ints:
    """Numbers ``[rows]`` from 0, equal for equal values; not all numbers need occur."""
    if isinstance(column, np.ndarray) and column.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {list(column.shape)}")
    if isinstance(column, pl.Series) and column.dtype.is_integer() and not column.null_count():
        column = column.to_numpy()
    if isinstance(column, np.ndarray) and column.dtype.kind in "iu":
        close = _close_integers(column)
        if close is not None:
            return close
        column = pl.Series(column)  # pyarrow would import pandas to look at an array
    array = column.to_arrow() if isinstance(column, pl.Series) else pa.array(column, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        raise ValueError(f"{name}: expected no nulls, got {array.null_count}")
    if isinstance(array, pa.DictionaryArray):
        array = array.cast(array.type.value_type)
    return array.dictionary_encode().indices.to_numpy()


def _close_integers(values: Ints) -> Ints | None:
    """Integers as they are, or from their least on, when their range is not much wider than the table is long."""
    if len(values) == 0:
        return values
    low, high = int(values.min()), int(values.max())
    if high - low >= 4 * len(values) + 1024 or high >= 2**62:
        return None
    if 0 <= low < len(values) and values.dtype != np.uint64:
        return values
    return values.astype(np.int64) - low
