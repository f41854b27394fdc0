"""The live rows of one column of a store, wherever they lie: in pieces, or some of them.

Shape legend: r rows, m of them that were asked for, b rows of one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from feature_store.files import Files
from feature_store.reader import copy_rows, read_blocks


@dataclass(frozen=True)
class StoredRows:
    """Rows of a column, in the order of ``index``.

    Attributes:
        files: The store.
        shards: SHA-256 of each shard.
        index: ``item_id``, ``content_sha256``, ``shard`` (index into ``shards``), ``row``, sorted by the last two.
        column: Name of the column.
        shape: Shape of one row.
        dtype: Stored type.
    """

    files: Files
    shards: Sequence[str]
    index: pl.DataFrame = field(repr=False)
    column: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    def __len__(self) -> int:
        """Number of rows ``r``."""
        return len(self.index)

    @property
    def ids(self) -> list[str]:
        """Item ids ``[r]``."""
        return self.index["item_id"].to_list()

    @property
    def contents(self) -> list[bytes]:
        """Content hashes ``[r]``."""
        return self.index["content_sha256"].to_list()

    def blocks(self) -> Iterator[NDArray[np.generic]]:
        """All rows in order, in pieces ``[b, *shape]`` of the stored type."""
        for _, block in self.pieces(np.arange(len(self))):
            yield block

    def pieces(self, rows: NDArray[np.integer]) -> Iterator[tuple[slice, NDArray[np.generic]]]:
        """Some rows, in pieces; row groups in which none of them lies are not read.

        Args:
            rows: Positions in ``index``, ascending; repeats are allowed.

        Yields:
            Which part of ``rows`` this is, and their values ``[b, *shape]`` of the stored type.

        Raises:
            DamagedStoreError: When a shard is missing or damaged.
        """
        for whole, sha256, inside in self._by_shard(rows):
            for part, block in read_blocks(self.files, sha256, inside, column=self.column, shape=self.shape):
                yield slice(whole.start + part.start, whole.start + part.stop), block

    def _by_shard(self, rows: NDArray[np.integer]) -> Iterator[tuple[slice, str, NDArray[np.int64]]]:
        """Which part of ``rows`` lies in which shard, and their row numbers there."""
        shards, numbers = self._shard_of[rows], self._row_of[rows]
        borders = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(rows)]
        for start, stop in pairwise(borders):
            if start < stop:
                yield slice(start, stop), self.shards[int(shards[start])], numbers[start:stop]

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows as float32 ``[m, *shape]``; ``rows`` ascending."""
        values = np.empty((len(rows), *self.shape), dtype=np.float32)
        self.copy_into(values, np.arange(len(rows)), rows)
        return values

    def copy_into(self, target: NDArray[np.generic], positions: NDArray[np.integer], rows: NDArray[np.integer]) -> None:
        """Write row ``rows[k]`` to ``target[positions[k]]``; ``rows`` ascending."""
        for part, sha256, inside in self._by_shard(rows):
            copy_rows(self.files, sha256, inside, column=self.column, target=target, positions=positions[part])

    @cached_property
    def _shard_of(self) -> NDArray[np.int64]:
        return self.index["shard"].to_numpy().astype(np.int64)

    @cached_property
    def _row_of(self) -> NDArray[np.int64]:
        return self.index["row"].to_numpy().astype(np.int64)
