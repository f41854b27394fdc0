"""The same store in a bucket: a server that speaks S3 over HTTP, in a thread of this process."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from s3_server import s3_server

from feature_store import CommitConflictError, FeatureStore, StorageError, StoreError, StoreNotFoundError, TagError
from feature_store.files import AlreadyThereError

SCRIPT = Path(__file__).with_name("writer_process.py")
CONTENTS = {f"i{number}": f"text {number}" for number in range(6)}
CHANGED = CONTENTS | {"i1": "changed", "new": "new"}


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture
def url(server, monkeypatch, request):
    """A bucket of its own; its address and credentials come from the environment."""
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    bucket = "b" + str(abs(hash(request.node.name)))
    server.make_bucket(bucket)
    return f"s3://{bucket}/stores/tiny/toy"


def check(snapshot, contents, toy):
    matrix = snapshot.matrix(list(contents))
    assert matrix.present.all()
    expected = np.stack([toy.vector(toy.digest(text)) for text in contents.values()])
    np.testing.assert_array_equal(matrix.values, expected)


def test_a_store_in_a_bucket_does_what_one_on_disk_does(url, toy):
    with pytest.raises(StoreNotFoundError, match="no feature store there"):
        FeatureStore.open(url)
    store = FeatureStore.open(url, create=True)
    assert store.name == "tiny/toy"
    toy.extract(store, CONTENTS)
    plan, snapshot = toy.extract(store, CHANGED | {"bad": "bad"}, bad=["bad"])
    assert (plan.todo, plan.reused, snapshot.version) == (["i1", "new", "bad"], 5, 2)
    again = FeatureStore.open(url)
    check(again.latest(), CHANGED, toy)
    check(again.at(1), CONTENTS, toy)
    assert again.quarantined()["item_id"].to_list() == ["bad"]
    plan, snapshot = toy.extract(again, CHANGED)
    assert (plan.todo, snapshot.version, again.verify()) == ([], 2, [])


def test_compact_tag_and_gc_in_a_bucket(url, toy):
    store = FeatureStore.open(url, create=True)
    toy.extract(store, CONTENTS)
    toy.extract(store, CHANGED)
    store.tag("paper", 1)
    with pytest.raises(TagError, match="the tag 'paper' is version 1, not 2"):
        store.tag("paper", 2)
    compact = store.compact(compression="zstd")
    assert (compact.version, len(compact.manifest.shards)) == (3, 1)
    check(compact, CHANGED, toy)
    assert store.gc(1, timedelta(days=1)).paths == []  # all of it is young
    assert store.gc(1, timedelta(0)).manifests == [2]
    assert store.versions() == [1, 3]
    check(store.at("paper"), CONTENTS, toy)
    assert store.verify() == []


def test_damage_in_a_bucket_is_named(url, toy):
    store = FeatureStore.open(url, create=True)
    snapshot = toy.extract(store, CONTENTS, shard_rows=6)[1]
    path = f"shards/{snapshot.manifest.shards[0].sha256}.parquet"
    data = bytearray(store._files.read(path))
    data[100] ^= 1
    store._files.put(path, bytes(data))
    assert [damage.path for damage in store.verify()] == [path]
    store._files.delete(path)
    with pytest.raises(StoreError, match="is missing"):
        FeatureStore.open(url).latest().matrix(list(CONTENTS))


def test_a_refusal_is_a_sentence(url, server, toy, monkeypatch):
    store = FeatureStore.open(url, create=True)
    plan = store.plan(toy.SPEC, toy.catalogue(CONTENTS))
    monkeypatch.setattr(server, "refusing", True)
    with pytest.raises(StorageError, match=rf"{url}/shards/\w+\.parquet: the request failed \(.*403.*\); what is"):
        store.write_shard(toy.shard(plan.todo, plan.items), plan)
    with pytest.raises(StorageError, match=f"{url}/manifests"):
        store.latest()
    with pytest.raises(StoreNotFoundError, match="cannot be opened"):
        FeatureStore.open(url)


def test_put_if_absent_has_one_winner(url):
    files = FeatureStore.open(url, create=True)._files
    outcomes, barrier = [], threading.Barrier(8)

    def create(number):
        barrier.wait()
        try:
            files.create("manifests/x", bytes([number]))
            outcomes.append(number)
        except AlreadyThereError:
            outcomes.append(None)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number in outcomes if number is not None]
    assert len(outcomes) == 8
    assert files.read("manifests/x") == bytes([winner])


def child(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip


def test_two_writers_race_for_a_version(url, toy):
    left = {f"left-{number}": f"l{number}" for number in range(4)}
    right = {f"right-{number}": f"r{number}" for number in range(4)}
    clash = {"a": "one content"}, {"a": "another content"}
    rounds = [("other", left, right), ("same", left, left), ("clash", *clash)]
    arguments = [json.dumps([(f"{url}/{kind}", pair[side]) for kind, *pair in rounds]) for side in (0, 1)]
    with child("race", arguments[0]) as one, child("race", arguments[1]) as other:
        said = []
        for _ in rounds:
            for writer in (one, other):
                assert writer.stdout.readline() == "ready\n", writer.stderr.read()
            for writer in (one, other):
                writer.stdin.write("go\n")
                writer.stdin.flush()
            said.append([writer.stdout.readline().strip() for writer in (one, other)])
    assert sorted(said[0]) == ["version 1", "version 2"]
    check(FeatureStore.open(f"{url}/other").latest(), left | right, toy)
    assert said[1] == ["version 1", "version 1"]
    assert sorted(said[2])[1] == "version 1"
    assert sorted(said[2])[0].startswith(f"{CommitConflictError.__name__}: ")
    for kind, versions in (("other", [1, 2]), ("same", [1]), ("clash", [1])):
        store = FeatureStore.open(f"{url}/{kind}")
        assert (store.versions(), store.verify()) == (versions, [])


@pytest.mark.parametrize(("point", "todo", "version"), [("commit.manifest:1", [], 1), ("commit.published:1", [], 2)])
def test_a_killed_commit_is_continued(url, toy, point, todo, version):
    toy.extract(FeatureStore.open(url, create=True), CONTENTS)
    with child("environment", url, json.dumps(CHANGED), REELSTORE_FAULT=point) as process:
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL, stderr
    store = FeatureStore.open(url)
    assert (store.latest().version, store.verify()) == (version, [])
    check(store.at(1), CONTENTS, toy)
    plan, snapshot = toy.extract(store, CHANGED)
    assert (plan.todo, snapshot.version) == (todo, 2)
    check(snapshot, CHANGED, toy)
