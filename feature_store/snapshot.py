"""``Snapshot``: one version of a store, read-only. It never lists the shards folder; the manifest is all it knows.

Shape legend: n requested items, r rows of the snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.typing import NDArray

from feature_store import cache
from feature_store.errors import SpecError, UnknownColumnError
from feature_store.files import Files
from feature_store.lookup import IdIndex
from feature_store.manifest import Manifest, ShardRecord
from feature_store.quality import Quality
from feature_store.reader import read_ids
from feature_store.rows import StoredRows
from feature_store.schema import EMBEDDING


@dataclass(frozen=True, repr=False)
class FeatureMatrix:
    """Features in the order in which they were asked for.

    Attributes:
        values: float32 ``[n, *shape]``; rows of absent items are zero.
        present: bool ``[n]``: the snapshot has the item.
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Check that there is one flag per row."""
        if self.present.shape != self.values.shape[:1]:
            raise ValueError(f"present: expected {list(self.values.shape[:1])}, got {list(self.present.shape)}")

    def __repr__(self) -> str:
        """Shapes instead of numbers."""
        return f"FeatureMatrix(values float32 {list(self.values.shape)}, present {int(self.present.sum())})"


class Snapshot:
    """One committed version of a feature store.

    Attributes:
        manifest: Everything that is recorded about it.
    """

    def __init__(self, files: Files, manifest: Manifest) -> None:
        self._files = files
        self._maps: dict[str, NDArray[np.generic]] = {}
        self.manifest = manifest

    def __repr__(self) -> str:
        """Name, version and shapes."""
        shapes = " ".join(f"{name}{list(info.shape)}" for name, info in self.manifest.columns.items())
        return f"Snapshot({self.name}@{self.version}, rows={self.rows}, {shapes}, spec {self.spec_hash[:12]})"

    def __len__(self) -> int:
        """Number of items."""
        return self.rows

    @property
    def name(self) -> str:
        """``<dataset>/<feature>``."""
        return self.manifest.name

    @property
    def version(self) -> int:
        """Number of the version, from 1."""
        return self.manifest.version

    @property
    def spec(self) -> dict[str, Any]:
        """What determined the numbers, and under ``recorded`` what did not."""
        return self.manifest.spec

    @property
    def spec_hash(self) -> str:
        """Hash of the spec without ``recorded``."""
        return self.manifest.spec_hash

    @property
    def rows(self) -> int:
        """Number of items with features."""
        return self.manifest.counts.rows

    @property
    def quality(self) -> Quality:
        """Figures about the vectors."""
        return self.manifest.quality

    @property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """Shape of one row of each column."""
        return {name: info.shape for name, info in self.manifest.columns.items()}

    @property
    def item_ids(self) -> list[str]:
        """The items, in the order in which the shards hold them."""
        return self.index["item_id"].to_list()

    @cached_property
    def index(self) -> pl.DataFrame:
        """Where each item is: ``item_id``, ``content_sha256``, ``shard`` (index into the manifest's list), ``row``.

        Raises:
            DamagedStoreError: When a shard is missing or damaged.
        """
        return pl.concat([self._live_rows(number, shard) for number, shard in enumerate(self.manifest.shards)])

    def matrix(self, ids: Iterable[str], column: str = EMBEDDING) -> FeatureMatrix:
        """Features of some items.

        Row groups are streamed into one array, so that little more than the result is in memory; row groups that
        hold none of the items are skipped.

        Args:
            ids: Item ids in any order; unknown ones and repeats are allowed.
            column: Such as ``embedding`` or ``frames``.

        Returns:
            ``values`` float32 ``[n, *shape]`` in the order of ``ids``, and ``present`` bool ``[n]``.

        Raises:
            UnknownColumnError: Naming the columns there are.
            SpecError: When an id is not a string.
            DamagedStoreError: When a shard is missing or damaged.
        """
        wanted = _id_list(ids)
        values = np.zeros((len(wanted), *self.shape_of(column)), dtype=np.float32)
        return FeatureMatrix(values, self._fill(values, wanted, column))

    def table(
        self, ids: Iterable[str], column: str = EMBEDDING, *, dtype: npt.DTypeLike = np.float32
    ) -> NDArray[np.floating]:
        """A table to look features up by item number: row ``i`` is the feature of the ``i``-th item, from 1.

        Rows are streamed into it as by :meth:`matrix`. ``torch.from_numpy(table)`` shares its memory; with
        ``.to("cuda")`` after it the table is resident on the device.

        Args:
            ids: Items in the order of their numbers 1..n.
            column: Such as ``embedding`` or ``frames``.
            dtype: Type of the table.

        Returns:
            ``[n + 1, *shape]``; row 0 (padding) and the rows of items without the feature are zero.

        Raises:
            UnknownColumnError: Naming the columns there are.
            SpecError: When an id is not a string.
            DamagedStoreError: When a shard is missing or damaged.
        """
        wanted = _id_list(ids)
        values = np.zeros((len(wanted) + 1, *self.shape_of(column)), dtype=dtype)
        self._fill(values[1:], wanted, column)
        return values

    def tensor(
        self,
        ids: Iterable[str] | None = None,
        column: str = EMBEDDING,
        *,
        device: Any = "cpu",
        dtype: npt.DTypeLike = np.float32,
    ) -> Any:
        """What :meth:`table` returns, as a ``torch.Tensor`` that is resident on a device, for training.

        torch is imported by this method alone: stores are read and written without it.

        Args:
            ids: Items in the order of their numbers 1..n; None for all, in the order of ``item_ids``.
            column: Such as ``embedding`` or ``frames``.
            device: Such as ``cpu`` or ``cuda:0``; on ``cpu`` nothing is copied once more.
            dtype: Type of the numbers, as numpy names it.

        Returns:
            ``[n + 1, *shape]``; row 0 (padding) and the rows of items without the feature are zero.

        Raises:
            UnknownColumnError: Naming the columns there are.
            SpecError: When an id is not a string.
            DamagedStoreError: When a shard is missing or damaged.
            ImportError: Without torch.
        """
        import torch

        values = self.table(self.item_ids if ids is None else ids, column, dtype=dtype)
        return torch.from_numpy(values).to(device)

    def gather(self, ids: Iterable[str], column: str = EMBEDDING) -> FeatureMatrix:
        """What :meth:`matrix` returns, through :meth:`memory_map`: for few items at a time, again and again.

        The first call on a snapshot builds the map and an index of the ids; later calls read only the rows asked for.
        Who asks for the same items again saves the search for their ids by :meth:`locate` and :meth:`take`.

        Args:
            ids: Item ids in any order; unknown ones and repeats are allowed.
            column: Such as ``embedding`` or ``frames``.

        Raises:
            UnknownColumnError: Naming the columns there are.
            SpecError: When an id is not a string.
            DamagedStoreError: When a shard is missing or damaged.
            StoreError: When the store is not on this disk.
        """
        rows = self.locate(ids)
        return FeatureMatrix(self.take(rows, column), rows >= 0)

    def locate(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Row of each item in ``item_ids`` and in :meth:`memory_map`, int64 ``[n]``; -1 for unknown ones.

        Unknown ones are told apart by 64 bits of their hash, see :class:`feature_store.lookup.IdIndex`.

        Raises:
            SpecError: When an id is not a string.
            DamagedStoreError: When a shard is missing or damaged.
        """
        wanted = ids if isinstance(ids, list) else _id_list(ids)
        try:
            return self._places.find(wanted)
        except TypeError:  # names the id that is no string, or makes strings of numpy's
            return self._places.find(_id_list(wanted))

    def take(self, rows: NDArray[np.integer], column: str = EMBEDDING) -> NDArray[np.float32]:
        """Features by row, through :meth:`memory_map`: float32 ``[n, *shape]``, zero where the row is -1.

        Args:
            rows: What :meth:`locate` returned, ``[n]``.
            column: Such as ``embedding`` or ``frames``.

        Raises:
            IndexError: When there is no such row.
            UnknownColumnError: Naming the columns there are.
            DamagedStoreError: When a shard is missing or damaged.
            StoreError: When the store is not on this disk.
        """
        if rows.min(initial=0) < -1:
            raise IndexError(f"row {rows.min()} is out of bounds: rows are 0 to {self.rows - 1}, and -1 for none")
        values = self._mapped(column).take(rows, axis=0).astype(np.float32, copy=False)
        values[rows < 0] = 0
        return values

    def memory_map(self, column: str = EMBEDDING) -> NDArray[np.generic]:
        """The whole column as a read-only memory map ``[r, *shape]`` of the stored type, rows as in ``item_ids``.

        Built once under ``cache/`` and reused; the file can be removed at any time.

        Raises:
            UnknownColumnError: Naming the columns there are.
            DamagedStoreError: When a shard is missing or damaged.
            StoreError: When the store is not on this disk.
        """
        rows = self.stored(column)
        return cache.memory_map(
            self._files, self.manifest, column=column, shape=(self.rows, *rows.shape), blocks=rows.blocks
        )

    def cached(self, folder: str | Path) -> Snapshot:
        """This snapshot, read through a folder on this disk; what a remote store is worth copying to.

        A shard is downloaded when it is first needed, compared with its SHA-256, and kept for every later reader of
        any snapshot that has it. The folder is disposable, and one serves many stores.

        Args:
            folder: Made where it is absent.
        """
        return Snapshot(cache.LocalCopies(self._files, Path(folder), self.manifest), self.manifest)

    def stored(self, column: str = EMBEDDING) -> StoredRows:
        """The live rows of a column where they lie, in the order of ``item_ids``.

        Raises:
            UnknownColumnError: Naming the columns there are.
            DamagedStoreError: When a shard is missing or damaged.
        """
        shape = self.shape_of(column)
        dtype = np.dtype(self.manifest.columns[column].dtype)
        shards = [shard.sha256 for shard in self.manifest.shards]
        return StoredRows(self._files, shards, self.index, column=column, shape=shape, dtype=dtype)

    def shape_of(self, column: str) -> tuple[int, ...]:
        """Shape of one row of a column.

        Raises:
            UnknownColumnError: Naming the columns there are.
        """
        if column not in self.columns:
            there = ", ".join(f"{name}{list(shape)}" for name, shape in self.columns.items())
            raise UnknownColumnError(f"{self.name}@{self.version} has no column {column!r}; columns there are: {there}")
        return self.columns[column]

    def _live_rows(self, number: int, shard: ShardRecord) -> pl.DataFrame:
        rows = read_ids(self._files, shard.sha256)
        if dead := shard.dead():
            rows = rows.filter(~pl.col("row").is_in(dead))
        return rows.select("item_id", "content_sha256", pl.lit(number, pl.UInt32).alias("shard"), "row")

    def _fill(self, target: NDArray[np.floating], wanted: list[str], column: str) -> NDArray[np.bool_]:
        """Write the features of items into ``target``; says which are there."""
        request = pl.DataFrame({"item_id": wanted}, schema={"item_id": pl.String}).with_row_index("position")
        found = request.join(self.index.select("item_id").with_row_index("place"), on="item_id", how="inner")
        found = found.sort("place")
        positions = found["position"].to_numpy().astype(np.int64)
        present = np.zeros(len(wanted), dtype=np.bool_)
        present[positions] = True
        self.stored(column).copy_into(target, positions, found["place"].to_numpy().astype(np.int64))
        return present

    def _mapped(self, column: str) -> NDArray[np.generic]:
        if column not in self._maps:
            self._maps[column] = np.asarray(self.memory_map(column))
        return self._maps[column]

    @cached_property
    def _places(self) -> IdIndex:
        return IdIndex(self.index["item_id"])


def _id_list(ids: Iterable[str]) -> list[str]:
    if isinstance(ids, str):
        raise SpecError(f"expected a list of item ids, got the single string {ids!r}; put it into a list")
    wanted = list(ids)
    if set(map(type, wanted)) <= {str}:
        return wanted
    wanted = [str(entry) if isinstance(entry, np.str_) else entry for entry in wanted]
    for entry in wanted:
        if not isinstance(entry, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise SpecError(f"expected item ids to be strings, got {entry!r} ({type(entry).__name__})")
    return wanted
