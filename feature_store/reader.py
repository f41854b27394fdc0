"""Reading shards: who is in a file, and its vectors one row group at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.errors import DamagedStoreError, ShardError
from feature_store.files import Files
from feature_store.manifest import shard_path
from feature_store.pages import read_plain
from feature_store.schema import Layout, layout_of, number_type, to_numpy
from feature_store.writer import SPEC_HASH_KEY

#: Bytes that are hashed at a time.
_PIECE_BYTES = 1 << 18

_ADVICE = "remove it and extract again: only its items are encoded anew"


@dataclass(frozen=True)
class Footer:
    """What a shard says about itself.

    Attributes:
        spec_hash: Hash of the spec that its rows were made by.
        layout: Shape and type of its rows.
        rows: Their number.
    """

    spec_hash: str
    layout: Layout
    rows: int


def read_footer(files: Files, sha256: str) -> Footer:
    """Read the footer of a shard.

    Raises:
        DamagedStoreError: When the file is missing or not a shard.
    """
    with open_shard(files, sha256) as parquet:
        schema: pa.Schema = parquet.schema_arrow
        metadata = schema.metadata or {}
        try:
            layout = layout_of(schema)
        except ShardError as error:
            raise DamagedStoreError(f"{files.location}/{shard_path(sha256)}: {error}") from None
        return Footer(metadata.get(SPEC_HASH_KEY.encode(), b"").decode(), layout, parquet.metadata.num_rows)


def read_ids(files: Files, sha256: str) -> pl.DataFrame:
    """``item_id``, ``content_sha256`` and ``row`` (uint32) of every row of a shard, dead ones included.

    Raises:
        DamagedStoreError: When the file is missing or damaged.
    """
    with open_shard(files, sha256) as parquet:
        table = _read(files, sha256, parquet, columns=["item_id", "content_sha256"])
    frame = pl.DataFrame(table, schema={"item_id": pl.String, "content_sha256": pl.Binary})
    return frame.with_columns(row=pl.int_range(pl.len(), dtype=pl.UInt32))


def read_blocks(
    files: Files, sha256: str, rows: NDArray[np.integer], *, column: str, shape: tuple[int, ...]
) -> Iterator[tuple[slice, NDArray[np.generic]]]:
    """Vectors of some rows of a shard; row groups in which none of them lies are not read.

    Args:
        files: The store.
        sha256: The shard.
        rows: Row numbers, ascending; repeats are allowed.
        column: Name of the column.
        shape: Shape of one row of it.

    Yields:
        Which part of ``rows`` this is, and their values ``[b, *shape]`` of the stored type.

    Raises:
        DamagedStoreError: When the file is missing or damaged.
    """
    with Column(files, sha256, column, shape) as stored:
        for group, part, inside in stored.parts(rows):
            yield part, stored.read(group)[inside]


def copy_rows(
    files: Files,
    sha256: str,
    rows: NDArray[np.integer],
    *,
    column: str,
    target: NDArray[np.generic],
    positions: NDArray[np.integer],
) -> None:
    """Write row ``rows[k]`` of a shard to ``target[positions[k]]``; a whole row group lands there without a detour.

    Args:
        files: The store.
        sha256: The shard.
        rows: Row numbers, ascending; repeats are allowed.
        column: Name of the column.
        target: ``[n, *shape]`` of any type of numbers.
        positions: Where each row goes.

    Raises:
        DamagedStoreError: When the file is missing or damaged.
    """
    with Column(files, sha256, column, target.shape[1:]) as stored:
        scratch = np.empty(0, stored.dtype)
        for group, part, inside in stored.parts(rows):
            length = stored.lengths[group]
            place = as_slice(positions[part])
            straight = isinstance(place, slice) and isinstance(inside, slice) and inside == slice(0, length)
            if straight and target.dtype == stored.dtype:
                wanted = target[place]
            else:
                scratch = scratch if len(scratch) >= length else np.empty((length, *target.shape[1:]), stored.dtype)
                wanted = scratch[:length]
            block = stored.read(group, wanted)
            if not straight or block is not wanted or block.dtype != target.dtype:
                target[place] = block[inside]


class Column:
    """One column of a shard, a row group at a time; of a file on disk without Arrow where that is possible.

    A context manager that keeps the file open.
    """

    def __init__(self, files: Files, sha256: str, column: str, shape: tuple[int, ...]) -> None:
        self._files, self._sha256 = files, sha256
        self._column, self._shape = column, shape
        with ExitStack() as stack:
            self._parquet = stack.enter_context(open_shard(files, sha256))
            schema: pa.Schema = self._parquet.schema_arrow
            self._leaf = schema.names.index(column)  # every column of a shard has one leaf
            self.dtype = number_type(schema.field(column).type)
            source = files.source(shard_path(sha256))
            self._file = stack.enter_context(Path(source).open("rb")) if isinstance(source, str) else None
            self._stack = stack.pop_all()
        metadata = self._parquet.metadata
        self.lengths = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def __enter__(self) -> Column:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def parts(self, rows: NDArray[np.integer]) -> Iterator[tuple[int, slice, slice | NDArray[np.integer]]]:
        """Where ascending rows lie: the row group, which part of ``rows`` it holds, and their places inside it."""
        start = 0
        for group, length in enumerate(self.lengths):
            low, high = (int(bound) for bound in np.searchsorted(rows, [start, start + length]))
            if low < high:
                yield group, slice(low, high), as_slice(rows[low:high] - start)
            start += length

    def read(self, group: int, target: NDArray[np.generic] | None = None) -> NDArray[np.generic]:
        """A row group.

        Args:
            group: Its number.
            target: ``[rows of the group, *shape]`` of the stored type, contiguous, to read into where that is possible.

        Returns:
            ``target``, or another array of that shape and type.
        """
        if self._file is not None:
            block = np.empty((self.lengths[group], *self._shape), self.dtype) if target is None else target
            if read_plain(self._file.fileno(), self._parquet.metadata.row_group(group).column(self._leaf), block):
                return block
        table = _read(self._files, self._sha256, self._parquet, columns=[self._column], row_groups=[group])
        return to_numpy(table.column(self._column), self._shape)


def as_slice(indices: NDArray[np.integer]) -> slice | NDArray[np.integer]:
    """A slice where the indices are consecutive, so that numpy copies once instead of gathering."""
    consecutive = len(indices) > 0 and bool((np.diff(indices) == 1).all())
    return slice(int(indices[0]), int(indices[-1]) + 1) if consecutive else indices


def check_bytes(files: Files, sha256: str, size: int | None = None) -> str | None:
    """Compare a shard with its name: None when it is intact, else what is wrong."""
    try:
        found_size, found = _digest(files, shard_path(sha256))
    except FileNotFoundError:
        return f"missing; {_ADVICE.removeprefix('remove it and ')}"
    if size is not None and found_size != size:
        return f"expected {size} bytes, found {found_size}; {_ADVICE}"
    return None if found == sha256 else f"its bytes hash to {found[:12]}…, not to its name; {_ADVICE}"


def _digest(files: Files, path: str) -> tuple[int, str]:
    """Size and SHA-256 of a file; one on disk is hashed piece by piece, as it is read."""
    if files.folder is None:
        data = files.read(path)
        return len(data), hashlib.sha256(data).hexdigest()
    digest, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_PIECE_BYTES))
    with (files.folder / path).open("rb", buffering=0) as stream:
        while count := stream.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return size, digest.hexdigest()


def open_shard(files: Files, sha256: str) -> pq.ParquetFile:
    """Open a shard.

    Raises:
        DamagedStoreError: When the file is missing or not Parquet.
    """
    path = shard_path(sha256)
    try:
        return pq.ParquetFile(files.source(path))
    except FileNotFoundError:
        raise DamagedStoreError(f"{files.location}/{path} is missing; extract again: only its items are") from None
    except (pa.ArrowException, OSError) as error:
        raise DamagedStoreError(f"{files.location}/{path} is damaged ({_first_line(error)}); {_ADVICE}") from None


def _read(
    files: Files,
    sha256: str,
    parquet: pq.ParquetFile,
    *,
    columns: Sequence[str],
    row_groups: Sequence[int] | None = None,
) -> pa.Table:
    try:
        if row_groups is None:
            return parquet.read(columns=list(columns))
        return parquet.read_row_groups(list(row_groups), columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        path = f"{files.location}/{shard_path(sha256)}"
        raise DamagedStoreError(f"{path} is damaged ({_first_line(error)}); {_ADVICE}") from None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
