"""Stores that keep the pictures themselves: bytes in, the same bytes out, one byte a number."""

import hashlib
import io

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from feature_store import FeatureStore
from feature_store.errors import ShardError
from feature_store.schema import Layout, layout_of
from feature_store.shard import FeatureShard
from feature_store.writer import encode_shard

SHAPE = (5, 8, 6, 3)


def shard(rows, seed=0):
    rng = np.random.default_rng(seed)
    return FeatureShard(
        [f"v{row:03d}" for row in range(rows)],
        [hashlib.sha256(str(row).encode()).digest() for row in range(rows)],
        rng.random((rows, 3), dtype=np.float32),
        rng.random((rows, 5, 3), dtype=np.float32),
        np.full(rows, 5, np.uint8),
        rng.integers(0, 256, (rows, *SHAPE), dtype=np.uint8),
    )


def test_the_schema_says_the_shape():
    layout = Layout("float32", 3, 5, True, SHAPE)
    assert layout_of(layout.arrow_schema({})) == layout
    assert layout.columns["pixels"] == SHAPE
    assert layout.row_bytes == 3 * 6 * 4 + 5 * 8 * 6 * 3
    assert shard(2).layout == layout


def test_a_number_takes_one_byte_and_any_reader_gets_it():
    written = shard(40)
    data = encode_shard(written, "a")
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    names = [metadata.row_group(0).column(index).path_in_schema for index in range(metadata.num_columns)]
    stored = metadata.row_group(0).column(names.index("pixels")).total_compressed_size
    assert stored < 1.05 * written.pixels.nbytes
    column = pl.read_parquet(io.BytesIO(data))["pixels"]
    assert column[7] == written.pixels[7].tobytes()


def test_committed_pixels_come_back(tmp_path):
    store = FeatureStore.open(tmp_path / "frames", create=True)
    written = shard(7)
    contents = dict(zip(written.item_ids, written.content_sha256, strict=True))
    plan = store.plan({"encoder": "x"}, contents)
    store.write_shard(written, plan)
    snapshot = store.commit(plan)
    assert snapshot.columns["pixels"] == SHAPE
    rows = snapshot.stored("pixels")
    places = np.array([1, 4, 5])
    np.testing.assert_array_equal(np.concatenate([block for _, block in rows.pieces(places)]), written.pixels[places])
    np.testing.assert_array_equal(snapshot.matrix(["v006"], column="pixels").values, written.pixels[6:])
    compact = store.compact()
    assert snapshot.manifest.columns == compact.manifest.columns
    np.testing.assert_array_equal(compact.matrix(["v002"], column="pixels").values, written.pixels[2:3])


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 4), np.uint8), np.zeros((1, 4), np.float32), np.zeros(1, np.uint8), np.zeros((1, 0), np.uint8)],
)
def test_other_shapes_and_types_are_refused(pixels):
    with pytest.raises(ShardError, match=r"pixels: expected uint8 \[1, \.\.\.\]"):
        FeatureShard(["a"], [bytes(32)], np.zeros((1, 3), np.float32), pixels=pixels)
