"""Shards and Parquet exports are read by other programs without this one."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, disable_progress_bars

from feature_store import FeatureShard
from feature_store.writer import encode_shard


@pytest.fixture(params=[("float16", "none"), ("float32", "none"), ("float16", "zstd"), ("float32", "zstd")])
def written(request, tmp_path, toy):
    """A shard of videos on disk, and its arrays."""
    dtype, compression = request.param
    generator = np.random.default_rng(0)
    ids = [f"item {number}" for number in range(50)]
    arrays = {
        "embedding": generator.standard_normal((50, 8)).astype(dtype),
        "frames": generator.standard_normal((50, 5, 8)).astype(dtype),
        "n_distinct": generator.integers(1, 6, 50).astype(np.uint8),
    }
    shard = FeatureShard(ids, [toy.digest(item_id) for item_id in ids], *arrays.values())
    path = tmp_path / "shard.parquet"
    path.write_bytes(encode_shard(shard, "spec", compression=compression, row_group_bytes=16 * shard.layout.row_bytes))
    return path, ids, arrays


def test_pyarrow(written):
    path, ids, arrays = written
    table = pq.read_table(path)
    number = pa.from_numpy_dtype(arrays["embedding"].dtype)
    inner = pa.list_(pa.field("element", number, nullable=False), 8)
    assert table.schema.field("embedding") == pa.field("embedding", inner, nullable=False)
    frames = pa.list_(pa.field("element", inner, nullable=False), 5)
    assert table.schema.field("frames") == pa.field("frames", frames, nullable=False)
    assert table["item_id"].to_pylist() == ids
    flat = table["frames"].combine_chunks().flatten().flatten().to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(flat.reshape(50, 5, 8), arrays["frames"])


def test_the_file_is_laid_out_as_documented(written):
    path, _, arrays = written
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [16, 16, 16, 2]
    group = metadata.row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    assert [column.statistics is not None for column in columns] == [True, False, False, False, False]
    assert not any(column.has_dictionary_page for column in columns)
    split = group.column(2).compression == "ZSTD" and arrays["embedding"].dtype == np.float32
    assert ["BYTE_STREAM_SPLIT" in column.encodings for column in columns] == [False, False, split, split, False]


def test_polars(written):
    path, ids, arrays = written
    frame = pl.read_parquet(path)
    assert frame["item_id"].to_list() == ids
    for name, array in arrays.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), array)
    assert frame.schema["frames"].shape == (5, 8)


def test_duckdb(written):
    path, ids, arrays = written
    rows = duckdb.sql(
        f"SELECT item_id, embedding, frames, n_distinct FROM '{path}' ORDER BY file_row_number"
    ).fetchall()
    assert [row[0] for row in rows] == ids
    np.testing.assert_array_equal(np.array([row[1] for row in rows]), arrays["embedding"])
    np.testing.assert_array_equal(np.array([row[2] for row in rows]), arrays["frames"])
    assert [row[3] for row in rows] == arrays["n_distinct"].tolist()


def test_pandas(written):
    path, ids, arrays = written
    frame = pd.read_parquet(path)
    assert frame["item_id"].tolist() == ids
    np.testing.assert_array_equal(np.stack(frame["embedding"]), arrays["embedding"])
    np.testing.assert_array_equal(np.stack([np.stack(row) for row in frame["frames"]]), arrays["frames"])


def test_hugging_face(written, tmp_path):
    path, ids, arrays = written
    disable_progress_bars()
    data = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache")).with_format("numpy")
    assert list(data["item_id"]) == ids
    for name, array in arrays.items():
        np.testing.assert_array_equal(data[name][:], array)
