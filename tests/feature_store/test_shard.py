"""What a shard may hold."""

import numpy as np
import pytest

from feature_store import FeatureShard, ShardError, split_finite

IDS = ["a", "b", "c"]
CONTENT = [bytes([row]) * 32 for row in range(3)]


def test_repr_prints_shapes():
    shard = FeatureShard(
        IDS, CONTENT, np.zeros((3, 4), np.float16), np.zeros((3, 5, 4), np.float16), np.ones(3, np.uint8)
    )
    assert repr(shard) == "FeatureShard(rows=3, float16 embedding[4] frames[5, 4] n_distinct[])"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"item_ids": []}, "at least one row"),
        ({"item_ids": ["a", "b", "a"]}, "item 'a' occurs more than once"),
        ({"item_ids": ["a", "", "c"]}, "non-empty strings, got ''"),
        ({"content_sha256": CONTENT[:2]}, "expected 3 digests, one per row, got 2"),
        ({"content_sha256": [*CONTENT[:2], b"x"]}, "item 'c': expected a 32-byte content hash, got 1 bytes"),
        ({"embedding": np.zeros((2, 4), np.float32)}, r"expected \[3, d\] with d > 0, got \[2, 4\]"),
        ({"embedding": np.zeros((3, 0), np.float32)}, r"got \[3, 0\]"),
        ({"embedding": np.zeros((3, 2, 2), np.float32)}, r"got \[3, 2, 2\]"),
        ({"embedding": np.zeros((3, 4))}, "expected float16 or float32, got float64"),
        ({"frames": np.zeros((3, 5, 3), np.float32)}, r"frames: expected \[3, f, 4\] with f > 0, got \[3, 5, 3\]"),
        ({"frames": np.zeros((3, 5, 4), np.float16)}, "frames: expected float32 like embedding, got float16"),
        ({"n_distinct": np.ones(3, np.int64)}, r"n_distinct: expected uint8 \[3\], got int64 \[3\]"),
    ],
)
def test_malformed_shards_are_refused(changes, message):
    parts = {"item_ids": IDS, "content_sha256": CONTENT, "embedding": np.zeros((3, 4), np.float32)} | changes
    with pytest.raises(ShardError, match=message):
        FeatureShard(**parts)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["embedding", "frames"])
def test_a_row_that_is_not_finite_is_refused_and_split_off(poison, column):
    arrays = {"embedding": np.ones((3, 4), np.float32), "frames": np.ones((3, 5, 4), np.float32)}
    arrays[column][1].flat[2] = poison
    with pytest.raises(ShardError, match="1 of 3 rows hold numbers that are not finite, first 'b'"):
        FeatureShard(IDS, CONTENT, **arrays)

    shard, bad = split_finite(IDS, CONTENT, n_distinct=np.array([5, 4, 3], np.uint8), **arrays)
    assert (shard.item_ids, shard.content_sha256) == (["a", "c"], [CONTENT[0], CONTENT[2]])
    assert shard.frames.shape == (2, 5, 4)
    assert shard.n_distinct.tolist() == [5, 3]
    assert [(row.item_id, row.stage, row.reason, row.content_sha256) for row in bad] == [
        ("b", "encode", "not_finite", CONTENT[1])
    ]
    counts = {
        "embedding": "1 of 4 numbers of embedding, 0 of 20 of frames",
        "frames": "0 of 4 numbers of embedding, 1 of 20",
    }
    assert bad[0].detail.startswith(counts[column])


def test_splitting_rows_that_are_all_bad_leaves_no_shard():
    shard, bad = split_finite(IDS, CONTENT, embedding=np.full((3, 4), np.nan, np.float16))
    assert shard is None
    assert [row.item_id for row in bad] == IDS
