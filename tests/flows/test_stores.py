"""``reelstore store ACTION NAME`` on a small store, called in this process."""

import hashlib
import json
import os
import shutil
import time

import numpy as np
import pytest
from s3_server import s3_server

from extractors.extract import extract_text, hash_texts, open_feature
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


@pytest.fixture(params=["root", "url"])
def place(request, root, monkeypatch):
    """The same store by its name below the root, and by its URL in a bucket."""
    if request.param == "root":
        yield NAME
        return
    with s3_server() as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        server.make_bucket("features")
        url = f"s3://features/stores/{NAME}"
        store = FeatureStore.open(url, create=True)
        extract(store, {"a": "a", "b": "b", "c": "c"})
        extract(store, {"a": "a", "b": "changed", "c": "c"})
        shutil.rmtree(root / "stores")  # nothing here can be read instead
        yield url


def test_every_action_takes_a_name_or_a_url(place, call, tmp_path):
    shown = call("show", place)[1]
    assert (shown["name"], shown["version"], shown["rows"], shown["versions"]) == (NAME, 2, 3, [1, 2])
    assert call("verify", place) == (0, {"name": NAME, "intact": True, "damage": []})
    assert call("diff", place)[1]["replaced"] == ["b"]
    assert call("quarantine", place)[1]["quarantine"] == []
    assert call("retry", place)[1]["marked"] == 0
    assert call("tag", place, "paper", "1")[1]["tags"]["paper"]["version"] == 1
    assert call("compact", place)[1]["version"] == 3
    assert call("export", place, "paper", "--npy", str(tmp_path / "out"))[1]["version"] == 1
    code, said = call("gc", place, "--keep", "1", "--grace", "0s", "--apply")
    assert (code, said["manifests"]) == (0, [2])
    assert call("show", place)[1]["versions"] == [1, 3]
    assert call("verify", place)[1]["intact"] is True


def test_diff_after_an_incremental_extraction(tmp_path, capsys):
    """Twelve titles; then one is corrected, one is new and one was dropped from the catalogue, which keeps its row."""
    store = FeatureStore.open(tmp_path / "stores" / "synthetic" / "bert", create=True)

    def encode(texts):
        feature = open_feature(
            "bert", {"checkpoint": "tiny"}, contents=hash_texts(texts), store=store, toy_root=tmp_path / "toys"
        )
        return extract_text(texts, feature)

    titles = {f"v{number:02d}": f"how to cook noodles, part {number}" for number in range(12)}
    assert encode(titles).encoded == 12
    corrected = titles | {"v03": "a cat on a piano", "v12": "the best of the week"}
    del corrected["v11"]
    report = encode(corrected)
    assert (report.version, report.encoded, report.reused) == (2, 2, 10)
    capsys.readouterr()
    assert main(["--root", str(tmp_path), "store", "diff", "synthetic/bert"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["synthetic/bert", "1", "->", "2"]
    assert [line for line in lines if line[0] in ("added", "removed", "replaced", "spec")] == [
        ["added", "1", "v12"],
        ["removed", "0"],
        ["replaced", "1", "v03"],
    ]
    cosine = {line[1]: float(line[2]) for line in lines if line[0] == "cosine"}
    before, after = (store.at(version).matrix(["v03"]).values[0] for version in (1, 2))
    expected = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
    assert cosine["min"] == pytest.approx(expected, abs=1e-3)


def test_a_url_without_a_store_is_a_wrong_call(call):
    code, said = call("show", "memory:///nothing/here")
    assert (code, said["kind"]) == (2, "StoreNotFoundError")


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
