"""The file format, read by other programs and by hand."""

import hashlib
import io

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import ShardError
from feature_store.pages import read_plain
from feature_store.schema import Layout, layout_of, to_arrow, to_numpy
from feature_store.shard import FeatureShard
from feature_store.writer import encode_shard


def video_shard(rows, dim=6, dtype=np.float16):
    generator = np.random.default_rng(7)
    return FeatureShard(
        [f"v{row:05d}" for row in range(rows)],
        [hashlib.sha256(str(row).encode()).digest() for row in range(rows)],
        generator.standard_normal((rows, dim)).astype(dtype),
        generator.standard_normal((rows, 5, dim)).astype(dtype),
        generator.integers(1, 6, rows).astype(np.uint8),
    )


@pytest.fixture
def written(tmp_path):
    """A file of 20 rows in several row groups, and the shard it was made from."""
    shard = video_shard(20)
    path = tmp_path / "shard.parquet"
    path.write_bytes(encode_shard(shard, "f" * 64, row_group_bytes=600))
    return path, shard


def test_the_arrow_schema_is_the_documented_one(written):
    path, _ = written
    schema = pq.read_schema(path)
    half = pa.field("element", pa.float16(), nullable=False)
    frame = pa.field("element", pa.list_(half, 6), nullable=False)
    assert schema.field("item_id") == pa.field("item_id", pa.string(), nullable=False)
    assert schema.field("content_sha256").type == pa.binary(32)
    assert schema.field("embedding") == pa.field("embedding", pa.list_(half, 6), nullable=False)
    assert schema.field("frames") == pa.field("frames", pa.list_(frame, 5), nullable=False)
    assert schema.field("n_distinct") == pa.field("n_distinct", pa.uint8(), nullable=False)
    assert schema.names == ["item_id", "content_sha256", "embedding", "frames", "n_distinct"]
    assert schema.metadata[b"reelstore.spec_hash"] == b"f" * 64
    assert (schema.metadata[b"reelstore.dim"], schema.metadata[b"reelstore.dtype"]) == (b"6", b"float16")


def test_no_compression_no_dictionary_and_statistics_on_the_id_alone(written):
    path, _ = written
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    assert {chunk.compression for chunk in chunks} == {"UNCOMPRESSED"}
    assert not any(chunk.has_dictionary_page for chunk in chunks)
    assert [chunk.path_in_schema for chunk in chunks if chunk.is_stats_set] == ["item_id"]
    assert (chunks[0].statistics.min, chunks[0].statistics.max) == ("v00000", "v00007")


@pytest.mark.parametrize(
    ("layout", "rows"),
    [(Layout("float32", 768), 4557), (Layout("float16", 768), 9114), (Layout("float16", 768, 5, True), 1519)],
)
def test_row_groups_hold_12_to_16_megabytes(layout, rows):
    assert 12e6 <= rows * layout.row_bytes <= 16e6
    shard = FeatureShard(
        [str(row) for row in range(rows + 1)],
        [bytes(32)] * (rows + 1),
        np.zeros((rows + 1, layout.dim), layout.dtype),
        None if layout.frames is None else np.zeros((rows + 1, layout.frames, layout.dim), layout.dtype),
        np.ones(rows + 1, np.uint8) if layout.n_distinct else None,
    )
    metadata = pq.ParquetFile(io.BytesIO(encode_shard(shard, ""))).metadata
    assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == [rows, 1]


def test_equal_shards_give_equal_bytes():
    assert encode_shard(video_shard(5), "a") == encode_shard(video_shard(5), "a")
    assert encode_shard(video_shard(5), "a") != encode_shard(video_shard(5), "b")


def test_polars_reads_it(written):
    path, shard = written
    frame = pl.read_parquet(path)
    assert frame.schema["embedding"] == pl.Array(pl.Float16, 6)
    assert frame.schema["frames"] == pl.Array(pl.Float16, (5, 6))
    assert frame.schema["n_distinct"] == pl.UInt8
    np.testing.assert_array_equal(frame["embedding"].to_numpy(), shard.embedding)
    np.testing.assert_array_equal(frame["frames"].to_numpy(), shard.frames)
    assert frame["item_id"].to_list() == shard.item_ids
    assert frame["content_sha256"].to_list() == shard.content_sha256


def test_duckdb_reads_it(written):
    path, shard = written
    with duckdb.connect() as connection:
        table = connection.sql(f"select item_id, embedding, frames, n_distinct from '{path}' order by item_id")
        assert [str(kind) for kind in table.types] == ["VARCHAR", "FLOAT[]", "FLOAT[][]", "UTINYINT"]
        rows = table.fetchall()
    assert [row[0] for row in rows] == shard.item_ids
    np.testing.assert_array_equal(np.array([row[1] for row in rows]), shard.embedding.astype(np.float64))
    np.testing.assert_array_equal(np.array([row[2] for row in rows]), shard.frames.astype(np.float64))


def test_pandas_reads_it(written):
    path, shard = written
    frame = pd.read_parquet(path)
    assert frame["embedding"][0].dtype == np.float16
    np.testing.assert_array_equal(np.stack(frame["embedding"].to_list()), shard.embedding)
    frames = np.stack([np.stack(list(value)) for value in frame["frames"]])
    np.testing.assert_array_equal(frames, shard.frames)
    np.testing.assert_array_equal(frame["n_distinct"].to_numpy(), shard.n_distinct)


def test_hugging_face_datasets_reads_it(written, tmp_path):
    path, shard = written
    loaded = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "hf"))
    assert loaded.features["embedding"].length == 6
    columns = loaded.with_format("numpy")[:]
    assert columns["frames"].shape == (20, 5, 6)
    assert loaded.features["frames"].feature.feature.dtype == "float16"
    np.testing.assert_array_equal(columns["frames"], shard.frames.astype(np.float32))  # its numpy format widens
    np.testing.assert_array_equal(columns["embedding"], shard.embedding.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_arrow_and_back_keeps_bits_even_of_a_slice(dtype, shape):
    values = np.random.default_rng(1).standard_normal((7, *shape)).astype(dtype)
    column = pa.chunked_array([to_arrow(values)[2:5], to_arrow(values)[5:]])
    np.testing.assert_array_equal(to_numpy(column, shape), values[2:])


@pytest.mark.parametrize(
    "layout",
    [Layout("float16", 3), Layout("float32", 3, 5), Layout("float32", 3, 5, True), Layout("float16", 1, None, True)],
)
def test_a_layout_reads_back_from_its_schema(layout):
    assert layout_of(layout.arrow_schema({"any": "thing"})) == layout


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (pa.schema([("item_id", pa.string())]), r"expected a column 'embedding' of fixed-size lists.*\['item_id'\]"),
        (pa.schema([("embedding", pa.list_(pa.float64(), 3))]), "expected float16 or float32, got float64"),
        (
            pa.schema([("embedding", pa.list_(pa.float32(), 3))]),
            r"expected the schema of a shard \(float32 embedding\[3\]\)",
        ),
    ],
)
def test_a_foreign_schema_is_refused(schema, message):
    with pytest.raises(ShardError, match=message):
        layout_of(schema)


def chunks_of(data, column):
    """The bytes as a file on disk would give them, and the metadata of one column in each row group."""
    parquet = pq.ParquetFile(io.BytesIO(data))
    leaf = parquet.schema_arrow.names.index(column)
    groups = range(parquet.metadata.num_row_groups)
    return parquet, [parquet.metadata.row_group(group).column(leaf) for group in groups]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("column", ["embedding", "frames"])
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (20, 6), (700, 500)])  # the last has several pages in a row group
def test_numbers_read_from_the_pages_are_those_that_arrow_reads(tmp_path, dtype, column, rows, dim):
    shard = video_shard(rows, dim, dtype)
    path = tmp_path / "shard.parquet"
    path.write_bytes(encode_shard(shard, "", row_group_bytes=shard.layout.row_bytes * 300))
    parquet, chunks = chunks_of(path.read_bytes(), column)
    with path.open("rb") as file:
        for group, chunk in enumerate(chunks):
            table = parquet.read_row_group(group, columns=[column])
            expected = to_numpy(table.column(column), shard.layout.columns[column])
            values = np.empty_like(expected)
            assert read_plain(file.fileno(), chunk, values)
            np.testing.assert_array_equal(values, expected)


def test_what_is_not_plain_is_left_to_arrow(tmp_path):
    shard = video_shard(20)
    table = pq.read_table(io.BytesIO(encode_shard(shard, "")))
    values = np.empty((20, 6), np.float16)
    for options in ({"compression": "zstd"}, {"use_dictionary": True}, {"data_page_version": "2.0"}):
        path = tmp_path / "other.parquet"
        pq.write_table(table, path, **{"compression": "none", "use_dictionary": False, **options})
        with path.open("rb") as file:
            assert not read_plain(file.fileno(), pq.ParquetFile(path).metadata.row_group(0).column(2), values)


def test_a_damaged_page_header_is_left_to_arrow_or_does_no_harm(tmp_path):
    shard = video_shard(20)
    data = encode_shard(shard, "")
    _, (chunk,) = chunks_of(data, "embedding")
    path = tmp_path / "damaged.parquet"
    refused = 0
    for position in range(chunk.data_page_offset, chunk.data_page_offset + 20):
        path.write_bytes(data[:position] + b"\xff" + data[position + 1 :])
        values = np.zeros((20, 6), np.float16)
        with path.open("rb") as file:
            if read_plain(file.fileno(), chunk, values):
                np.testing.assert_array_equal(values, shard.embedding)
            else:
                refused += 1
    assert refused >= 10


def test_other_columns_and_other_sizes_are_left_to_arrow(tmp_path):
    path = tmp_path / "shard.parquet"
    path.write_bytes(encode_shard(video_shard(20), ""))
    _, (distinct,) = chunks_of(path.read_bytes(), "n_distinct")
    _, (embedding,) = chunks_of(path.read_bytes(), "embedding")
    with path.open("rb") as file:
        assert not read_plain(file.fileno(), distinct, np.empty(20, np.uint8))
        assert not read_plain(file.fileno(), embedding, np.empty((20, 6), np.float32))
        assert not read_plain(file.fileno(), embedding, np.empty((19, 6), np.float16))
