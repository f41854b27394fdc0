"""k-core of an interaction table: the largest set of rows in which every user and every item has enough rows.

With lower bounds only, that set is unique: it does not depend on the order of removal. It is found by peeling. A node
(user or item) whose degree falls below its bound enters the frontier once and takes its rows with it, so the work is
linear in the number of rows, whatever the number of rounds: large frontiers are peeled by numpy over a sparse index
of the rows of each node, small ones by a plain loop, since a long thin chain has as many rounds as nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from scipy.sparse import csr_array

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer[Any]]
Column = npt.NDArray[Any] | pl.Series | Sequence[int] | Sequence[str]

_SMALL_FRONTIER = 64
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

    def add(self, later: KCoreRound) -> None:
        """Add a later pass to this entry."""
        self.removed_users += later.removed_users
        self.removed_items += later.removed_items
        self.removed_rows += later.removed_rows
        self.rows_by_users += later.rows_by_users
        self.users, self.items, self.rows = later.users, later.items, later.rows
        self.passes += later.passes


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

    def add(self, done: KCoreRound) -> None:
        """Note a pass."""
        if len(self.rounds) < _ROUNDS_LISTED:
            self.rounds.append(done)
        else:
            self.rounds[-1].add(done)

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
        user: ``[rows]`` the user of each row: integers or strings, as numpy array, polars Series or sequence.
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
    alive = np.ones(len(users), dtype=np.bool_)
    left, right = _Side(users, max(1, k_user)), _Side(items, max(1, k_item))
    report = KCoreReport(k_user, k_item, left.nodes, right.nodes, len(users))
    user_frontier: Ints = left.below()
    item_frontier: Ints = right.below()
    n_users, n_items, n_rows = left.nodes, right.nodes, len(users)
    while len(user_frontier) or len(item_frontier):
        rows_by_users, more_items = _peel(user_frontier, left, right, alive)
        item_frontier = np.concatenate([item_frontier, more_items])
        rows_by_items, next_users = _peel(item_frontier, right, left, alive)
        n_users, n_items = n_users - len(user_frontier), n_items - len(item_frontier)
        removed = rows_by_users + rows_by_items
        n_rows -= removed
        report.add(KCoreRound(len(user_frontier), len(item_frontier), removed, n_users, n_items, n_rows, rows_by_users))
        user_frontier, item_frontier = next_users, item_frontier[:0]
    return alive, report


class _Side:
    """Users, or items: the degree of each node and the rows it has.

    Attributes:
        of_row: ``[rows]`` the node of each row.
        bound: Degree below which a node leaves.
        nodes: Number of nodes.
        degree: int64 ``[nodes]`` rows that are still there.
        starts: ``[nodes + 1]`` where the rows of each node begin in ``rows``.
        rows: ``[rows]`` row numbers, grouped by node.
    """

    def __init__(self, of_row: Ints, bound: int) -> None:
        self.of_row = of_row
        self.bound = bound
        self.nodes = int(of_row.max()) + 1 if len(of_row) else 0
        self.degree: npt.NDArray[np.int64] = np.bincount(of_row, minlength=self.nodes)
        # One non-zero per row of the table; turning the matrix into columns groups the rows by node in linear time.
        n_rows = len(of_row)
        matrix = csr_array(
            (np.ones(n_rows, dtype=np.int8), of_row, np.arange(n_rows + 1)), shape=(n_rows, self.nodes)
        ).tocsc()
        self.starts: Ints = matrix.indptr
        self.rows: Ints = matrix.indices

    def below(self) -> npt.NDArray[np.int64]:
        """Nodes whose degree is below the bound."""
        return np.flatnonzero(self.degree < self.bound)


def _peel(frontier: Ints, side: _Side, other: _Side, alive: Bools) -> tuple[int, Ints]:
    """Remove the nodes ``frontier`` of ``side`` with their rows.

    Returns:
        How many rows left, and the nodes of ``other`` that fell below their bound by this.
    """
    if len(frontier) == 0:
        return 0, frontier
    peel = _peel_one_by_one if len(frontier) <= _SMALL_FRONTIER else _peel_at_once
    return peel(frontier, side, other, alive)


def _peel_at_once(frontier: Ints, side: _Side, other: _Side, alive: Bools) -> tuple[int, Ints]:
    begins = side.starts[frontier]
    lengths = side.starts[frontier + 1] - begins
    ends = np.cumsum(lengths)
    places = np.arange(int(ends[-1])) + np.repeat(begins - (ends - lengths), lengths)
    rows = side.rows[places]
    rows = rows[alive[rows]]
    alive[rows] = False
    side.degree[frontier] = 0
    touched, losses = _count(other.of_row[rows], other.nodes)
    before = other.degree[touched]
    after = before - losses
    other.degree[touched] = after
    return len(rows), touched[(before >= other.bound) & (after < other.bound)]


def _count(nodes: Ints, n_nodes: int) -> tuple[Ints, Ints]:
    """Distinct nodes and how often each occurs, in the cheaper of two ways."""
    if len(nodes) * 8 < n_nodes:
        return np.unique(nodes, return_counts=True)
    counts = np.bincount(nodes, minlength=n_nodes)
    touched = np.flatnonzero(counts)
    return touched, counts[touched]


def _peel_one_by_one(frontier: Ints, side: _Side, other: _Side, alive: Bools) -> tuple[int, Ints]:
    # Views give and take plain Python integers, several times faster than numpy scalars.
    starts, rows, degree = side.starts.data, side.rows.data, other.degree.data
    there, partner = alive.data, other.of_row.data
    removed, fallen = 0, list[int]()
    for node in frontier.tolist():
        side.degree[node] = 0
        for place in range(starts[node], starts[node + 1]):
            row = rows[place]
            if not there[row]:
                continue
            there[row] = False
            removed += 1
            near = partner[row]
            degree[near] -= 1
            if degree[near] == other.bound - 1:
                fallen.append(near)
    return removed, np.array(fallen, dtype=np.int64)


def _codes(column: Column, name: str) -> Ints:
    """Number the distinct values from 0: int ``[rows]``."""
    values = column.to_arrow() if isinstance(column, pl.Series) else column
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {list(values.shape)}")
    array = pa.array(values, from_pandas=True)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if array.null_count:
        raise ValueError(f"{name}: expected no nulls, got {array.null_count}")
    if isinstance(array, pa.DictionaryArray):
        array = array.cast(array.type.value_type)
    return array.dictionary_encode().indices.to_numpy()
