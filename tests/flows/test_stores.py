"""``reelstore store ACTION NAME`` on a small store, called in this process."""

import hashlib
import json
import os
import time

import numpy as np
import pytest

from feature_store import FeatureShard, FeatureStore
from flows.cli import main

NAME = "tiny/toy"


def extract(store, contents):
    items = {item_id: hashlib.sha256(text.encode()).digest() for item_id, text in contents.items()}
    plan = store.plan({"encoder": "toy"}, items)
    for item_id in plan.todo:
        vector = np.frombuffer(items[item_id], np.uint8)[None, :4].astype(np.float16)
        store.write_shard(FeatureShard([item_id], [items[item_id]], vector), plan)
    store.commit(plan)


@pytest.fixture
def root(tmp_path):
    """Two versions of a few shards, one row superseded, two days old."""
    store = FeatureStore.open(tmp_path / "stores" / NAME, create=True)
    extract(store, {"a": "a", "b": "b", "c": "c"})
    extract(store, {"a": "a", "b": "changed", "c": "c"})
    moment = time.time() - 2 * 86_400
    for path in tmp_path.rglob("*"):
        os.utime(path, (moment, moment))
    return tmp_path


@pytest.fixture
def call(root, capsys):
    """Exit code and the JSON object on stdout."""

    def call(*words):
        code = main(["--json", "--root", str(root), "store", *words])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_compact(call):
    code, said = call("compact", NAME)
    assert code == 0
    assert {key: said[key] for key in ("version", "changed", "rows", "shards_before", "shards")} == {
        "version": 3, "changed": True, "rows": 3, "shards_before": 3, "shards": 1,
    }  # fmt: skip
    code, said = call("compact", NAME, "--target-mb", "1")
    assert (code, said["changed"], said["version"]) == (0, False, 3)
    assert call("compact", NAME, "--zstd")[1]["version"] == 4
    assert call("verify", NAME)[1]["intact"] is True


def test_tag(call):
    assert call("tag", NAME) == (0, {"name": NAME, "tags": {}})
    assert call("tag", NAME, "paper", "1")[1]["tags"]["paper"]["version"] == 1
    code, said = call("tag", NAME, "paper")
    assert (code, said["kind"]) == (2, "TagError")
    assert call("tag", NAME, "paper", "--move")[1]["tags"]["paper"]["version"] == 2
    assert call("tag", NAME, "paper", "--remove") == (0, {"name": NAME, "tags": {}})


def test_gc_lists_first_and_respects_tags(call):
    assert call("gc", NAME, "--keep", "1")[1]["manifests"] == []  # a week of grace
    code, said = call("gc", NAME, "--keep", "1", "--grace", "1d")
    assert (code, said["manifests"], said["applied"]) == (0, [1], False)
    call("tag", NAME, "paper", "1")
    assert call("gc", NAME, "--keep", "1", "--grace", "12h", "--apply")[1]["manifests"] == []
    call("tag", NAME, "paper", "--remove")
    assert call("gc", NAME, "--keep", "1", "--grace", "12h", "--apply")[1]["manifests"] == [1]
    assert call("show", NAME)[1]["versions"] == [2]


def test_export(call, tmp_path):
    target = tmp_path / "out"
    code, said = call("export", NAME, "--npy", str(target))
    assert (code, said["form"], said["rows"], said["version"]) == (0, "npy", 3, 2)
    assert json.loads((target / "ids.json").read_text()) == ["a", "b", "c"]
    assert np.load(target / "embedding.npy").shape == (3, 4)
    call("tag", NAME, "paper", "1")
    assert call("export", NAME, "paper", "--parquet", str(tmp_path / "p"), "--zstd")[1]["version"] == 1
    assert call("export", NAME, "1", "--hf", str(tmp_path / "h"))[1]["version"] == 1
    assert (tmp_path / "h" / "dataset_info.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export"], "exactly one of --npy DIR, --parquet DIR, --lance DIR, --hf DIR"),
        (["export", "--npy", "a", "--hf", "b"], "exactly one of"),
        (["export", "1", "2", "--npy", "a"], "at most one version or tag, got 1 2"),
        (["export", "nope", "--npy", "a"], "has no tag 'nope'"),
        (["export", "9", "--npy", "a"], "versions there are: 1, 2"),
        (["tag", "paper", "one"], "expected the number of a version, got 'one'"),
        (["tag", "a", "1", "2"], "expected TAG [VERSION], got a 1 2"),
        (["tag", "--remove"], "tag --remove needs the tag"),
        (["gc", "--grace", "week"], "such as 7d or 12h, got 'week'"),
        (["diff", "one", "2"], "expected the number of a version, got 'one'"),
        (["show", "more"], "show takes no further words, got more"),
    ],
)
def test_a_wrong_call_ends_with_2(call, words, message):
    code, said = call(words[0], NAME, *words[1:])
    assert code == 2
    assert message in said["error"]
