"""Tags: names for versions, and garbage collection that respects them."""

import os
import time
from datetime import timedelta

import pytest

from feature_store import DamagedStoreError, NoSnapshotError, TagError, UnknownVersionError
from feature_store import garbage as garbage_module

CONTENTS = {f"i{number}": f"text {number}" for number in range(4)}
DAY = timedelta(days=1)


@pytest.fixture
def full(store, toy, root):
    """Four versions, two days old."""
    for number in range(4):
        toy.extract(store, CONTENTS | {"i0": f"edition {number}"})
    age(root)
    return store


def age(root):
    moment = time.time() - 2 * 86_400
    for path in root.rglob("*"):
        os.utime(path, (moment, moment))


def test_a_tag_names_a_version_until_it_is_moved(full):
    assert full.tag("paper", 2).version == 2
    assert full.at("paper").version == 2
    assert full.tag("paper", 2) == full.tags()["paper"]
    with pytest.raises(TagError, match=r"the tag 'paper' is version 2, not 4; move it explicitly \(--move\)"):
        full.tag("paper")
    assert full.tag("paper", move=True).version == 4
    assert full.tag("draft-1.0").version == 4
    assert {name: tag.version for name, tag in full.tags().items()} == {"draft-1.0": 4, "paper": 4}
    assert full.untag("paper").version == 4
    with pytest.raises(TagError, match=r"has no tag 'paper'; tags there are: draft-1\.0"):
        full.at("paper")
    with pytest.raises(TagError, match="has no tag 'paper'"):
        full.untag("paper")


@pytest.mark.parametrize("name", ["", "1", "../x", "a/b", ".hidden", "ü", "x" * 65])
def test_malformed_names_are_refused(full, name):
    with pytest.raises(TagError, match="expected a tag to be a letter"):
        full.tag(name)


def test_only_what_is_there_can_be_tagged(store, full, tmp_path):
    with pytest.raises(UnknownVersionError, match="versions there are: 1, 2, 3, 4"):
        full.tag("paper", 9)
    assert full.tags() == {}


def test_an_empty_store_has_nothing_to_tag(store):
    with pytest.raises(NoSnapshotError):
        store.tag("paper")


def test_gc_keeps_tagged_versions(full, root, toy):
    full.tag("paper", 2)
    age(root)
    assert full.gc(1, DAY, apply=False).manifests == [1, 3]
    removed = full.gc(1, DAY)
    assert (removed.manifests, full.versions()) == ([1, 3], [2, 4])
    expected = toy.vector(toy.digest("edition 1"))
    assert full.at("paper").matrix(["i0"]).values[0].tolist() == expected.tolist()
    assert full.verify() == []
    full.untag("paper")
    assert full.gc(1, DAY).manifests == [2]
    assert (full.versions(), full.verify()) == ([4], [])


def test_keeping_more_again_does_not_make_gaps_damage(full):
    full.tag("paper", 2)
    full.gc(1, DAY)
    full.gc(3, DAY)
    assert (full.versions(), full.verify()) == ([2, 4], [])


def test_a_tag_made_while_gc_runs_wins_or_is_refused(full, root, monkeypatch):
    """The tag comes at the moment at which the versions to remove are announced."""
    outcome = []

    def reached(point):
        if point == "gc.intent" and not outcome:
            try:
                outcome.append(full.tag("paper", 1))
            except TagError as error:
                outcome.append(str(error))

    monkeypatch.setattr(garbage_module.faults, "reached", reached)
    full.gc(1, DAY)
    assert "version 1 is being removed by `gc`; let it finish" in outcome[0]
    assert (full.tags(), full.versions()) == ({}, [4])


def test_a_tag_made_before_the_announcement_saves_the_version(full, monkeypatch):
    original = garbage_module.horizon.write

    def write(files, horizon):
        if not full.tags():
            full.tag("paper", 1)
        original(files, horizon)

    monkeypatch.setattr(garbage_module.horizon, "write", write)
    assert full.gc(1, DAY).manifests == [2, 3]
    assert full.at("paper").matrix(list(CONTENTS)).present.all()
    assert full.verify() == []


def test_an_interrupted_gc_is_finished_by_the_next(full, root):
    (root / "gc.json").write_text('{"oldest": 4, "removing": [1, 2, 3]}')
    with pytest.raises(TagError, match="version 3 is being removed"):
        full.tag("paper", 3)
    assert full.tags() == {}
    assert full.gc(4, DAY).manifests == []
    assert full.tag("paper", 3).version == 3


def test_damaged_tags_are_named_and_stop_gc(full, root):
    full.tag("paper", 2)
    path = root / "tags" / "paper.json"
    intact = path.read_text()
    path.write_text('{"version": "two"}')
    (damage,) = full.verify()
    assert damage.path == "tags/paper.json"
    assert "not a tag" in damage.problem
    with pytest.raises(DamagedStoreError, match=r"tags/paper\.json: not a tag"):
        full.gc(1, DAY)
    path.write_text(intact)
    (root / "manifests" / "00000002.json").unlink()
    problems = {damage.path: damage.problem for damage in full.verify()}
    assert problems["tags/paper.json"] == "version 2 is missing; restore it or move the tag"


def test_gc_leaves_foreign_files(full, root):
    mine = root / "shards" / "notes.md"
    mine.write_text("mine")
    age(root)
    full.gc(1, DAY)
    assert mine.read_text() == "mine"
