"""``IdIndex``: the row of an item id, for thousands of ids at a time.

An open-addressing table of 64-bit hashes with the rows beside them, filled and searched by numpy. It takes 32 to 64
bytes for each id and touches one line of memory in most searches, where a dict of Python objects touches four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

_SLOT = np.dtype([("hash", np.uint64), ("row", np.int64)])


class IdIndex:
    """Rows by item id.

    An id of the index always finds its own row. The ids are not compared again, so one that is not in the index finds
    a wrong row with the probability n / 2^64, where its hash is by chance that of another id: 1e-14 for 200,000 items.

    Args:
        ids: Distinct ids; the row of each is its place.
        hashed: Gives 64 evenly spread bits for each id.
    """

    def __init__(self, ids: pl.Series, hashed: Callable[[pl.Series], pl.Series] = pl.Series.hash) -> None:
        self._hashed = hashed
        hashes = hashed(ids).to_numpy()
        order = np.argsort(hashes, kind="stable")
        ascending = hashes[order]
        # At least twice as many slots as ids. An id goes to the slot that the first bits of its hash name, or behind
        # those that have taken it: in ascending order, so that the places of all come from one running maximum.
        bits = (2 * len(ids)).bit_length()
        self._shift = np.uint64(64 - bits)
        home, place = self._home(ascending), np.arange(len(ids))
        slots = np.maximum.accumulate(home - place) + place
        self._longest = int((slots - home).max())
        self._table = np.zeros((1 << bits) + self._longest, dtype=_SLOT)
        self._table["row"] = -1
        self._table["hash"][slots] = ascending
        self._table["row"][slots] = order
        equal = np.flatnonzero(ascending[1:] == ascending[:-1])
        same = np.union1d(order[equal], order[equal + 1]).tolist()
        self._same = {ids[row]: row for row in same}

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of each id ``[n]``, -1 where it is not there.

        Raises:
            TypeError: When an id is not a string.
        """
        wanted = pl.Series(ids, dtype=pl.String)
        if wanted.null_count():
            raise TypeError("None is no item id")
        hashes = self._hashed(wanted).to_numpy()
        slots = self._home(hashes)
        found = self._table[slots]
        rows = np.ascontiguousarray(found["row"])
        other = np.flatnonzero(found["hash"] != hashes)
        for _ in range(self._longest):
            if not len(other):
                break
            slots[other] += 1
            found = self._table[slots[other]]
            rows[other] = found["row"]
            other = other[found["hash"] != hashes[other]]
        rows[other] = -1
        if self._same:
            for position, item_id in enumerate(ids):
                rows[position] = self._same.get(item_id, rows[position])
        return rows

    def _home(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (hashes >> self._shift).astype(np.int64)
