"""Processes that are killed without warning, and processes that race."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from feature_store import CommitConflictError, FeatureStore
from feature_store.files import TEMPORARY, AlreadyThereError, LocalFiles

SCRIPT = Path(__file__).with_name("writer_process.py")
FIRST = {f"i{number}": f"text {number}" for number in range(5)} | {"x": "bad"}
SECOND = FIRST | {"i2": "changed", "i7": "new", "i8": "new too", "i9": "third", "x": "repaired", "y": "bad"}

#: Where the second run is killed: what the next one still has to encode, and which version it finds.
POINTS = {
    "shard written under its temporary name": (["i2", "x", "i7", "i8", "i9", "y"], 1),
    "shard finished": (["i8", "i9", "y"], 1),
    "quarantine written under its temporary name": (["y"], 1),
    "quarantine written": ([], 1),
    "manifest written under its temporary name": ([], 1),
    "manifest published": ([], 2),
    "quarantine folded, old files still there": ([], 2),
}


def child(*arguments):
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_values(snapshot, contents, toy):
    matrix = snapshot.matrix(list(contents))
    assert matrix.present.tolist() == [text != "bad" for text in contents.values()]
    for row, text in zip(matrix.values, contents.values(), strict=True):
        expected = np.zeros(toy.DIM) if text == "bad" else toy.vector(toy.digest(text))
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_is_continued(store, root, toy, point):
    todo, version = POINTS[point]
    toy.extract(store, FIRST, bad=["x"])
    process = child(point, str(root), json.dumps(SECOND))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr

    survivor = FeatureStore.open(root)
    assert survivor.latest().version == version
    check_values(survivor.latest(), FIRST if version == 1 else SECOND, toy)
    assert survivor.verify() == []

    plan, snapshot = toy.extract(survivor, SECOND, bad=["y"])
    assert plan.todo == todo
    assert snapshot.version == 2
    check_values(snapshot, SECOND, toy)
    check_values(survivor.at(1), FIRST, toy)
    quarantined = survivor.quarantined()
    assert (quarantined["item_id"].to_list(), quarantined["attempts"].to_list()) == (["y"], [1])
    assert survivor.verify() == []
    assert toy.extract(survivor, SECOND, bad=["y"])[0].changed is False


def test_a_run_killed_before_the_first_version_leaves_a_store_to_continue(root, toy):
    process = child("shard finished", str(root), json.dumps({"a": "a", "b": "b"}))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, stderr
    store = FeatureStore.open(root)
    plan, snapshot = toy.extract(store, {"a": "a", "b": "b"})
    assert (plan.todo, plan.reused, snapshot.version) == ([], 2, 1)


def race(first, second):
    """Two writers that planned on the same version and commit at the same moment, round after round.

    Each gets rounds of root and contents. Returns what the first and the second said in each round.
    """
    outcomes = []
    with child("race", json.dumps(first)) as one, child("race", json.dumps(second)) as other:
        for _ in first:
            for writer in (one, other):
                assert writer.stdout.readline() == "ready\n", writer.stderr.read()
            for writer in (one, other):
                writer.stdin.write("go\n")
                writer.stdin.flush()
            outcomes.append([writer.stdout.readline().strip() for writer in (one, other)])
        for writer in (one, other):
            _, stderr = writer.communicate(timeout=60)
            assert writer.returncode == 0, stderr
    return outcomes


def test_racing_writers(tmp_path, toy):
    """Other items: both get a version. The same items: both get the same. Contradicting contents: one is refused."""
    left = {f"left-{number}": f"l{number}" for number in range(4)}
    right = {f"right-{number}": f"r{number}" for number in range(4)}
    clash = {"a": "one content", "b": "b"}, {"a": "another content", "c": "c"}
    pairs = {"other": (left, right), "same": (left, left), "clash": clash}
    roots = {f"{kind}-{number}": kind for number in range(4) for kind in pairs}
    rounds = [[(str(tmp_path / root), pairs[kind][side]) for root, kind in roots.items()] for side in (0, 1)]
    for (root, kind), said in zip(roots.items(), race(*rounds), strict=True):
        store = FeatureStore.open(tmp_path / root)
        assert store.verify() == []
        if kind == "other":
            assert sorted(said) == ["version 1", "version 2"]
            check_values(store.latest(), left | right, toy)
            check_values(store.at(1), (left, right)[said.index("version 1")], toy)
        elif kind == "same":
            assert (said, store.versions()) == (["version 1", "version 1"], [1])
            check_values(store.latest(), left, toy)
        else:
            winner = said.index("version 1")
            assert said[1 - winner].startswith("CommitConflictError: ")
            assert said[1 - winner].endswith("with other contents for 1 of its items, first 'a'; plan again")
            assert store.versions() == [1]
            check_values(store.latest(), clash[winner], toy)


def test_a_plan_whose_store_moved_to_another_spec_is_refused(store, root, toy):
    items = toy.catalogue(FIRST)
    plan = store.plan(toy.SPEC, items)
    store.write_shard(toy.shard(list(FIRST), items), plan)
    toy.extract(FeatureStore.open(root), FIRST, spec={"encoder": "other"})
    with pytest.raises(CommitConflictError, match=r"version 1 was committed by another writer .* with the spec"):
        store.commit(plan)
    assert store.commit(store.plan(toy.SPEC, items)).version == 2


def test_a_commit_does_not_drop_what_another_writer_added(store, root, toy):
    toy.extract(store, FIRST)
    plan = store.plan(toy.SPEC, toy.catalogue({"i1": FIRST["i1"]}))
    toy.extract(FeatureStore.open(root), {"z": "z"})
    with pytest.raises(CommitConflictError, match="with 1 items that this commit would drop, first 'z'; plan again"):
        store.commit(plan, drop_gone=True)


def test_put_if_absent_has_one_winner_and_leaves_nothing_behind(tmp_path):
    files = LocalFiles(tmp_path)
    files.create("manifests/1.json", b"first")
    with pytest.raises(AlreadyThereError, match=r"manifests/1\.json"):
        files.create("manifests/1.json", b"second")
    assert files.read("manifests/1.json") == b"first"
    assert [path.name for path in (tmp_path / "manifests").iterdir()] == ["1.json"]


def test_a_full_disk_leaves_no_leftovers(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = LocalFiles(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        files.put("shards/a", b"1")
    assert list((tmp_path / "shards").iterdir()) == []


def test_a_file_reaches_the_device_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace", "link"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, original=original: calls.append(name) or original(*args))
    files = LocalFiles(tmp_path)
    (tmp_path / "shards").mkdir()
    files.put("shards/a", b"1")
    assert calls == ["fsync", "replace", "fsync"]
    files.create("manifests/b", b"2")
    assert calls[3:] == ["fsync", "fsync", "link", "fsync"]  # the first makes the new folder known
    files.delete("shards/a")
    assert calls[7:] == ["fsync"]
    assert not list(tmp_path.rglob(f"*{TEMPORARY}"))
