"""Exports to Lance, read back by Lance itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feature_store import FeatureShard

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("lance_process.py")


@pytest.fixture
def videos(store, toy):
    """20 items with embeddings and frames, ids out of order; the reference by id."""
    ids = [f"v{number:02d}" for number in np.random.default_rng(1).permutation(20)]
    items = toy.catalogue({item_id: item_id for item_id in ids})
    generator = np.random.default_rng(2)
    embedding = generator.standard_normal((20, 4)).astype(np.float16)
    frames = generator.standard_normal((20, 5, 4)).astype(np.float16)
    distinct = generator.integers(1, 6, 20).astype(np.uint8)
    plan = store.plan({"encoder": "videos"}, items)
    store.write_shard(FeatureShard(ids, [items[item_id] for item_id in ids], embedding, frames, distinct), plan)
    store.commit(plan)
    return dict(zip(ids, zip(embedding, frames, distinct, strict=True), strict=True))


def test_lance_reads_every_row_back(videos, root, tmp_path):
    """Written in batches of a few rows."""
    command = [sys.executable, "-W", "error", str(SCRIPT), str(root), str(tmp_path / "out"), "200"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["form"], said["rows"]) == ("lance", 20)
    assert said["types"]["embedding"] == "fixed_size_list<item: halffloat>[4]"
    assert [row["item_id"] for row in said["table"]] == sorted(videos)
    for row in said["table"]:
        embedding, frames, distinct = videos[row["item_id"]]
        np.testing.assert_array_equal(np.array(row["embedding"], np.float16), embedding)
        np.testing.assert_array_equal(np.array(row["frames"], np.float16), frames)
        assert row["n_distinct"] == distinct
    assert said["taken"] == ["v17", "v03"]
