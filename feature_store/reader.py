"""Reading shards: who is in a file, and its vectors one row group at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.errors import DamagedStoreError, ShardError
from feature_store.files import Files
from feature_store.manifest import shard_path
from feature_store.schema import Layout, layout_of, to_numpy
from feature_store.writer import SPEC_HASH_KEY

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
    with open_shard(files, sha256) as parquet:
        start = 0
        for group in range(parquet.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            low, high = np.searchsorted(rows, [start, stop])
            if low < high:
                table = _read(files, sha256, parquet, columns=[column], row_groups=[group])
                block = to_numpy(table.column(column), shape)
                yield slice(low, high), block[as_slice(rows[low:high] - start)]
            start = stop


def as_slice(indices: NDArray[np.integer]) -> slice | NDArray[np.integer]:
    """A slice where the indices are consecutive, so that numpy copies once instead of gathering."""
    consecutive = len(indices) > 0 and bool((np.diff(indices) == 1).all())
    return slice(int(indices[0]), int(indices[-1]) + 1) if consecutive else indices


def check_bytes(files: Files, sha256: str, size: int | None = None) -> str | None:
    """Compare a shard with its name: None when it is intact, else what is wrong."""
    try:
        data = files.read(shard_path(sha256))
    except FileNotFoundError:
        return f"missing; {_ADVICE.removeprefix('remove it and ')}"
    if size is not None and len(data) != size:
        return f"expected {size} bytes, found {len(data)}; {_ADVICE}"
    found = hashlib.sha256(data).hexdigest()
    return None if found == sha256 else f"its bytes hash to {found[:12]}…, not to its name; {_ADVICE}"


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
