"""Many processes at once: writers lose nothing, readers notice nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).with_name("writers.py")


def run(root, kind):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(root), kind], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_eight_writers_get_a_version_each_and_lose_nothing(store, root, toy):
    made = run(root, "commit")
    assert [len(versions) for versions in made] == [2] * 8
    assert sorted(version for versions in made for version in versions) == list(range(1, 17))
    assert store.versions() == list(range(1, 17))
    contents = {f"w{writer}-{number}-{row}": f"{writer} {number} {row}"
                for writer in range(8) for number in range(2) for row in range(2)}  # fmt: skip
    latest = store.latest()
    assert sorted(latest.item_ids) == sorted(contents)
    expected = np.stack([toy.vector(toy.digest(text)) for text in contents.values()])
    np.testing.assert_array_equal(latest.matrix(list(contents)).values, expected)
    for version in store.versions():  # each adds two rows to the one before, and names it as its parent
        manifest = store.at(version).manifest
        assert manifest.counts.rows == 2 * version
        assert (manifest.parent.version if manifest.parent else 0) == version - 1
    assert store.verify() == []


def test_readers_notice_neither_commits_nor_compaction_nor_gc(store, root):
    kept, *seen = run(root, "readers")
    assert kept == store.versions()
    assert len(kept) == 6
    for versions in seen:
        assert versions == sorted(versions)
        assert versions[-1] == kept[-1]
    assert len({version for versions in seen for version in versions}) > 1
    assert store.verify() == []
