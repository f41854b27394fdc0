"""Numbers for users and items: 1..n, 0 is padding; append-only.

A prepared dataset that grows keeps the number of every user and item it had, so that row i of a feature table stays
item i. When a member of the old map is gone, numbers could not stay without gaps, and all are given anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

#: Digits that surely fit into int64.
_NUMERIC = r"^[0-9]{1,18}$"


@dataclass(frozen=True)
class IdMap:
    """Texts in the order of their numbers.

    Attributes:
        ids: ``ids[i]`` has the number ``i + 1``.
        kept: How many have the number they had before.
        renumbered: An earlier map was there and could not be kept.
    """

    ids: tuple[str, ...]
    kept: int
    renumbered: bool

    def __len__(self) -> int:
        return len(self.ids)

    def frame(self, number: str, text: str) -> pl.DataFrame:
        """The map as a table: int32 column ``number`` and string column ``text``."""
        numbers = pl.int_range(1, len(self.ids) + 1, dtype=pl.Int32, eager=True)
        return pl.DataFrame({number: numbers, text: pl.Series(self.ids, dtype=pl.String)})


def natural_order(ids: pl.Series) -> pl.Series:
    """Sort distinct ids: those of digits only come first by value, then the others by code point."""
    frame = pl.DataFrame({"id": ids.unique()})
    value = pl.when(pl.col("id").str.contains(_NUMERIC)).then(pl.col("id")).cast(pl.Int64)
    return frame.sort(value, pl.col("id"), nulls_last=True)["id"]


def number(ids: pl.Series, previous: Sequence[str] = ()) -> IdMap:
    """Number the distinct values of ``ids``.

    Args:
        ids: String ``[rows]``, repeated values allowed.
        previous: The ids of an earlier map, in the order of their numbers.

    Returns:
        The map. Old numbers are kept when all of ``previous`` are still there; new ids follow in natural order.
    """
    distinct = natural_order(ids)
    keep = set(previous) <= set(distinct.to_list())
    old = list(previous) if keep else []
    new = distinct.filter(~distinct.is_in(old)) if old else distinct
    return IdMap((*old, *new.to_list()), kept=len(old), renumbered=not keep)
