"""verify, diff, gc."""

import json
import os
import time
from datetime import timedelta

import numpy as np
import pytest

from feature_store import DamagedStoreError, FeatureStore, NoSnapshotError, SpecError, UnknownVersionError
from feature_store.manifest import compress_ranges, expand_ranges

CONTENTS = {f"i{number}": f"text {number}" for number in range(6)}
CHANGED = CONTENTS | {"i1": "changed", "new": "new"}


@pytest.fixture
def full(store, toy):
    """Three versions, shards and a quarantine."""
    toy.extract(store, CONTENTS)
    toy.extract(store, CHANGED | {"bad": "bad"}, bad=["bad"])
    toy.extract(store, CHANGED, spec={**toy.SPEC, "pooling": "cls"})
    return store


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_an_intact_store_has_no_damage(full):
    told = []
    assert full.verify(progress=lambda *call: told.append(call)) == []
    assert told[-1] == ("verify", len(told), len(told))


@pytest.mark.parametrize("folder", ["shards", "manifests", "quarantine"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
def test_a_flipped_bit_anywhere_is_found_and_nothing_else(full, root, folder, share):
    for path in sorted((root / folder).iterdir()):
        intact = path.read_bytes()
        flip(path, int(share * len(intact)))
        damaged = full.verify()
        assert [damage.path for damage in damaged if damage.path == f"{folder}/{path.name}"]
        assert {damage.path for damage in damaged} == {f"{folder}/{path.name}"}
        path.write_bytes(intact)
    assert full.verify() == []


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_missing_manifest_is_found_unless_it_was_the_last(full, root, version):
    (root / "manifests" / f"{version:08d}.json").unlink()
    assert [damage.path for damage in full.verify()] == ([f"manifests/{version:08d}.json"] if version < 3 else [])


def test_missing_and_truncated_shards_are_found(full, root):
    first, second = (root / "shards" / f"{shard.sha256}.parquet" for shard in full.at(1).manifest.shards)
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    problems = {damage.path: damage.problem for damage in full.verify()}
    assert problems[f"shards/{first.name}"] == "missing; extract again: only its items are encoded anew"
    assert problems[f"shards/{second.name}"].startswith(
        f"expected {full.at(1).manifest.shards[1].bytes} bytes, found 100;"
    )
    assert len(problems) == 2


def test_a_rewritten_parent_breaks_the_chain(full, root, tmp_path, toy):
    other = FeatureStore.open(tmp_path / "stores" / "other" / "toy", create=True)
    toy.extract(other, CONTENTS)
    forged = (tmp_path / "stores" / "other" / "toy" / "manifests" / "00000001.json").read_bytes()
    (root / "manifests" / "00000001.json").write_bytes(forged)
    (damage,) = full.verify()
    assert (damage.path, damage.problem) == (
        "manifests/00000001.json",
        "version 2 was built on another file of that name",
    )


def test_a_damaged_latest_manifest_says_what_can_be_read(full, root):
    path = root / "manifests" / "00000003.json"
    flip(path, 200)
    with pytest.raises(
        DamagedStoreError, match=r"00000003\.json: .*Restore the file or remove it; version 2 can be read"
    ):
        full.latest()
    assert full.at(2).rows == 7
    path.write_text("[]")
    with pytest.raises(DamagedStoreError, match="not a manifest"):
        full.latest()
    path.write_text('{"format": 2}')
    with pytest.raises(DamagedStoreError, match="format 2, this program reads format 1; use a newer reelstore"):
        full.latest()
    path.write_bytes((root / "manifests" / "00000002.json").read_bytes())
    with pytest.raises(DamagedStoreError, match="says that it is version 2"):
        full.latest()
    assert {damage.problem for damage in full.verify()} == {"says that it is version 2"}


def test_foreign_files_are_left_alone(full, root):
    (root / "manifests" / "README.txt").write_text("hello")
    (root / "shards" / "notes.md").write_text("hello")
    assert full.versions() == [1, 2, 3]
    assert full.verify() == []


def test_diff_names_items_and_spec_keys(full, toy):
    change = full.diff(1, 2)
    assert (change.added, change.removed, change.replaced, change.spec) == (["new"], [], ["i1"], {})
    assert change.compared == 6
    old, new = (toy.vector(toy.digest(text)).astype(float) for text in ("text 1", "changed"))
    lowest = old @ new / np.sqrt((old @ old) * (new @ new))
    assert change.cosine["min"] == pytest.approx(lowest, abs=1e-6)
    assert change.cosine["p50"] == pytest.approx(1.0)
    back = full.diff(2, 1)
    assert (back.added, back.removed) == ([], ["new"])
    assert full.diff(2, 3).spec == {"pooling": (None, "cls")}
    with pytest.raises(UnknownVersionError, match="has no version 9; versions there are: 1, 2, 3"):
        full.diff(1, 9)


def test_diff_of_other_widths_compares_no_vectors(store, toy):
    toy.extract(store, CONTENTS)
    items = toy.catalogue(CONTENTS)
    plan = store.plan({"dim": 5}, items)
    store.write_shard(toy.shard(list(items), items, dim=5), plan)
    store.commit(plan)
    change = store.diff(1, 2)
    assert (change.compared, change.cosine) == (0, {})
    assert change.spec["dim"] == (4, 5)


def age(root, hours):
    """Make every file look older."""
    moment = time.time() - hours * 3600
    for path in root.rglob("*"):
        os.utime(path, (moment, moment))


def test_gc_lists_without_removing_then_removes(full, root):
    age(root, 48)
    full.latest().memory_map()
    (root / "shards" / ".ab.parquet.7-0.tmp").write_bytes(b"torn")
    age(root, 48)
    before = sorted(path for path in root.rglob("*") if path.is_file())
    listed = full.gc(1, timedelta(days=1), apply=False)
    assert sorted(path for path in root.rglob("*") if path.is_file()) == before
    removed = full.gc(1, timedelta(days=1))
    assert (removed.paths, removed.manifests, removed.applied) == (listed.paths, [1, 2], True)
    assert "shards/.ab.parquet.7-0.tmp" in removed.paths
    assert json.loads((root / "gc.json").read_text()) == {"oldest": 3, "removing": []}
    latest = full.latest()
    left = {path.stem for path in (root / "shards").iterdir()}
    assert left == {shard.sha256 for shard in latest.manifest.shards}
    assert len(list((root / "cache").iterdir())) == 1
    assert latest.matrix(list(CHANGED)).present.all()
    assert full.versions() == [3]
    assert full.verify() == []
    assert full.gc(1, timedelta(days=1)).paths == []


def test_gc_spares_what_is_young_and_versions_to_keep(full, root):
    assert full.gc(1, timedelta(days=1)).paths == []
    age(root, 48)
    assert full.gc(3, timedelta(days=1)).paths == []
    assert full.gc(2, timedelta(days=1)).manifests == [1]
    assert full.at(2).matrix(list(CHANGED)).present.all()


def test_a_plan_protects_the_shards_it_builds_on_from_gc(store, toy, root):
    toy.extract(store, {"a": "a"})
    items = toy.catalogue(CONTENTS | {"a": "a"})
    store.write_shard(toy.shard(list(CONTENTS), items), store.plan(toy.SPEC, items))
    age(root, 48)
    plan = store.plan(toy.SPEC, items)
    assert plan.todo == []
    assert store.gc(1, timedelta(days=1)).paths == []
    assert store.commit(plan).rows == 7


def test_gc_refuses_impossible_values(full):
    with pytest.raises(SpecError, match="expected keep >= 1 and grace >= 0, got keep=0"):
        full.gc(0, timedelta(days=1))
    with pytest.raises(SpecError, match="grace=-1 day"):
        full.gc(1, timedelta(days=-1))


def test_gc_of_an_empty_store_removes_old_leftovers_only(store, toy, root):
    items = toy.catalogue(CONTENTS)
    store.write_shard(toy.shard(list(items), items), store.plan(toy.SPEC, items))
    assert store.gc(1, timedelta(days=1)).paths == []
    with pytest.raises(NoSnapshotError, match="no committed snapshot yet"):
        store.latest()
    age(root, 48)
    assert len(store.gc(1, timedelta(days=1)).paths) == 1


@pytest.mark.parametrize(
    ("rows", "text"), [([], ""), ([5], "5"), ([0, 1, 2, 17], "0-2,17"), ([0, 2, 4], "0,2,4"), ([3, 4], "3-4")]
)
def test_ranges(rows, text):
    assert compress_ranges(rows) == text
    assert expand_ranges(text) == rows
