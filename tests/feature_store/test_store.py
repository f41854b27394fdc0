"""Plan, write, commit: what is encoded when, what a version holds, what is refused."""

import json

import numpy as np
import pytest

from feature_store import (
    EmptySnapshotError,
    FeatureStore,
    NoSnapshotError,
    ShardError,
    SpecError,
    StoreNotFoundError,
    UnknownVersionError,
    list_stores,
)
from feature_store import store as store_module

CONTENTS = {f"i{number}": f"text {number}" for number in range(8)}


def files(root):
    """Every file of the store and its bytes."""
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def values(snapshot, contents, toy):
    """Check the features of every item against its content."""
    matrix = snapshot.matrix(list(contents))
    assert matrix.present.all()
    np.testing.assert_array_equal(matrix.values, np.stack([toy.vector(toy.digest(text)) for text in contents.values()]))


def test_the_first_version(store, toy, root):
    plan, snapshot = toy.extract(store, CONTENTS, recorded={"torch": "2.13"}, catalogue_size=10)
    assert plan.todo == list(CONTENTS)
    assert (plan.reused, plan.known_bad, plan.gone, plan.changed, plan.base) == (0, [], 0, True, None)
    assert (snapshot.version, snapshot.rows, store.versions()) == (1, 8, [1])
    values(snapshot, CONTENTS, toy)
    manifest = json.loads((root / "manifests" / "00000001.json").read_text())
    assert manifest["parent"] is None
    assert manifest["spec"] == toy.SPEC
    assert manifest["spec_hash"] == plan.spec_hash
    assert manifest["recorded"] == {"torch": "2.13"}
    assert manifest["columns"] == {"embedding": {"dtype": "float16", "shape": [4]}}
    assert manifest["quality"]["coverage"] == {"catalogue": 10, "present": 8, "share": 0.8}
    names = {path.stem for path in (root / "shards").iterdir()}
    assert {shard["sha256"] for shard in manifest["shards"]} == names
    assert [(shard["id_min"], shard["id_max"], shard["rows"]) for shard in manifest["shards"]] == [
        ("i0", "i2", 3),
        ("i3", "i5", 3),
        ("i6", "i7", 2),
    ]


def test_an_unchanged_run_does_nothing(store, toy, root):
    toy.extract(store, CONTENTS)
    before = files(root)
    again = FeatureStore.open(root)
    plan, snapshot = toy.extract(again, CONTENTS, spec={**toy.SPEC, "recorded": {"library": "9.9"}})
    assert (plan.todo, plan.reused, plan.changed, plan.base) == ([], 8, False, 1)
    assert snapshot.version == 1
    assert files(root) == before


def test_new_and_changed_items_alone_are_encoded(store, toy):
    toy.extract(store, CONTENTS)
    contents = CONTENTS | {"i3": "changed", "new": "new"}
    plan, snapshot = toy.extract(store, contents)
    assert (plan.todo, plan.reused) == (["i3", "new"], 7)
    assert (snapshot.version, snapshot.rows, snapshot.manifest.parent.version) == (2, 9, 1)
    values(snapshot, contents, toy)
    values(store.at(1), CONTENTS, toy)


def test_a_content_that_comes_back_needs_no_encoding(store, toy):
    toy.extract(store, CONTENTS)
    toy.extract(store, CONTENTS | {"i3": "changed"})
    plan, snapshot = toy.extract(store, CONTENTS)
    assert (plan.todo, plan.changed, snapshot.version) == ([], True, 3)
    values(snapshot, CONTENTS, toy)
    assert store.plan(toy.SPEC, toy.catalogue(CONTENTS)).changed is False


def test_items_that_left_the_catalogue_stay_unless_dropped(store, toy):
    toy.extract(store, CONTENTS)
    part = {"i1": "text 1"}
    plan, snapshot = toy.extract(store, part)
    assert (plan.gone, plan.changed, snapshot.version) == (7, False, 1)
    plan, snapshot = toy.extract(store, part, drop_gone=True)
    assert (snapshot.version, snapshot.item_ids) == (2, ["i1"])
    assert [shard.dead_rows for shard in snapshot.manifest.shards] == ["0,2"]
    values(store.at(1), CONTENTS, toy)


def test_gone_items_are_counted_and_do_not_count_as_coverage(store, toy):
    toy.extract(store, CONTENTS)
    _, snapshot = toy.extract(store, {"i1": "text 1", "new": "new", "bad": "bad"}, bad=["bad"])
    assert (snapshot.manifest.counts.rows, snapshot.manifest.counts.gone) == (9, 7)
    assert snapshot.manifest.counts.quarantined == 1
    assert snapshot.quality.coverage.model_dump() == {"catalogue": 3, "present": 2, "share": 2 / 3}


def test_a_changed_item_that_cannot_be_encoded_loses_its_outdated_row(store, toy):
    toy.extract(store, CONTENTS)
    _, snapshot = toy.extract(store, CONTENTS | {"i3": "broken"}, bad=["i3"])
    assert snapshot.version == 2
    assert snapshot.matrix(["i3", "i4"]).present.tolist() == [False, True]
    assert store.at(1).matrix(["i3"]).present.all()


def test_a_new_spec_is_a_full_rebuild_and_old_versions_stay(store, toy):
    toy.extract(store, CONTENTS)
    spec = {**toy.SPEC, "pooling": "cls"}
    plan, snapshot = toy.extract(store, dict(list(CONTENTS.items())[:5]), spec=spec)
    assert (len(plan.todo), plan.reused, plan.base) == (5, 0, 1)
    assert (snapshot.version, snapshot.rows, snapshot.spec["pooling"]) == (2, 5, "cls")
    assert store.at(1).rows == 8
    values(store.at(1), CONTENTS, toy)
    # Back to the first spec: its shards are still there.
    plan, snapshot = toy.extract(store, CONTENTS)
    assert (plan.todo, plan.reused, snapshot.version) == ([], 8, 3)


def test_finished_shards_of_an_interrupted_run_are_reused(store, toy, root):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    store.write_shard(toy.shard(["i0", "i1", "i2"], items), plan)
    with pytest.raises(NoSnapshotError, match="no committed snapshot yet; `reelstore extract` builds one"):
        store.latest()
    again = FeatureStore.open(root)
    plan, snapshot = toy.extract(again, CONTENTS)
    assert (plan.todo, plan.reused) == (["i3", "i4", "i5", "i6", "i7"], 3)
    values(snapshot, CONTENTS, toy)


def test_a_lost_shard_is_encoded_again_into_the_same_version(store, toy, root):
    _, snapshot = toy.extract(store, CONTENTS)
    (root / "shards" / f"{snapshot.manifest.shards[1].sha256}.parquet").unlink()
    again = FeatureStore.open(root)
    plan, healed = toy.extract(again, CONTENTS)
    assert (plan.todo, plan.reused) == (["i3", "i4", "i5"], 5)
    assert healed.version == 1
    assert again.verify() == []
    values(healed, CONTENTS, toy)


def test_a_damaged_uncommitted_shard_is_not_used(store, toy, root, caplog):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    store.write_shard(toy.shard(["i0", "i1"], items), plan)
    (path,) = (root / "shards").iterdir()
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    again = FeatureStore.open(root)
    assert again.plan(toy.SPEC, items).todo == list(CONTENTS)
    assert "is left out: its bytes hash to" in caplog.text


def test_committing_twice_gives_one_version(store, toy):
    plan, first = toy.extract(store, CONTENTS)
    assert store.commit(plan).version == first.version == 1


def test_equal_rows_in_two_shards_count_once(store, toy):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    store.write_shard(toy.shard(list(items), items), plan)
    store.write_shard(toy.shard(["i1", "i2"], items), plan)
    snapshot = store.commit(plan)
    assert sorted(snapshot.item_ids) == sorted(CONTENTS)
    values(snapshot, CONTENTS, toy)


def test_a_commit_without_rows_is_refused(store, toy):
    with pytest.raises(EmptySnapshotError, match=r"none of the 2 items has features \(2 in quarantine\)"):
        toy.extract(store, {"a": "a", "b": "b"}, bad=["a", "b"])
    with pytest.raises(EmptySnapshotError, match="a catalogue without items has features"):
        toy.extract(store, {})
    assert store.versions() == []


def test_rows_outside_the_plan_are_refused(store, toy):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    with pytest.raises(ShardError, match="item 'x' is not in the plan's catalogue"):
        store.write_shard(toy.shard(["x"], {"x": bytes(32)}), plan)
    with pytest.raises(ShardError, match="item 'i0' has another content than the plan's catalogue"):
        store.write_shard(toy.shard(["i0"], {"i0": bytes(32)}), plan)


def test_shards_of_one_spec_must_agree_in_shape(store, toy):
    items = toy.catalogue(CONTENTS)
    plan = store.plan(toy.SPEC, items)
    store.write_shard(toy.shard(["i0"], items), plan)
    store.write_shard(toy.shard(["i1"], items, dim=5), plan)
    with pytest.raises(ShardError, match="shards of one spec must agree"):
        store.commit(plan)
    later = store.plan(toy.SPEC, items)
    with pytest.raises(ShardError, match=r"rows of this spec are float16 embedding\[\d\], got float32 embedding\[4\]"):
        store.write_shard(toy.shard(["i1"], items, dtype=np.float32), later)


def test_progress_is_told(store, toy):
    told = []
    toy.extract(store, CONTENTS, progress=lambda *call: told.append(call))
    assert told == [("measure", 3, 8), ("measure", 6, 8), ("measure", 8, 8)]


def test_a_plan_prints_counts(store, toy):
    plan = store.plan(toy.SPEC, toy.catalogue(CONTENTS))
    assert repr(plan).endswith("items=8, todo=8, reused=0, known_bad=0, gone=0, source_gone=0, changed=True)")


def test_unknown_versions_name_those_there_are(store, toy):
    with pytest.raises(UnknownVersionError, match="has no version 1; versions there are: none"):
        store.at(1)
    toy.extract(store, CONTENTS)
    with pytest.raises(UnknownVersionError, match="has no version 7; versions there are: 1"):
        store.at(7)


def test_a_path_without_store_names_what_is_near_and_the_command(store, tmp_path):
    with pytest.raises(
        StoreNotFoundError, match="does not exist; stores nearby: tiny/toy; `reelstore extract tiny --feat"
    ):
        FeatureStore.open(tmp_path / "stores" / "tiny" / "toi")
    with pytest.raises(StoreNotFoundError, match="is not a feature store; stores nearby: tiny/toy"):
        FeatureStore.open(tmp_path / "stores")
    empty = tmp_path / "a" / "b" / "empty"
    empty.mkdir(parents=True)
    with pytest.raises(StoreNotFoundError, match="is not a feature store; there are no stores nearby"):
        FeatureStore.open(empty)
    (empty / "letter.txt").write_text("dear")
    with pytest.raises(StoreNotFoundError, match="not empty; a new store needs its own folder"):
        FeatureStore.open(empty, create=True)


def test_a_store_that_another_process_creates_at_this_moment_is_opened(monkeypatch, tmp_path):
    """The other process makes its folders between the question whether a store is there and making them."""
    folder = tmp_path / "stores" / "tiny" / "toy"
    looked = store_module._is_store

    def looked_before_the_other(path):
        found = looked(path)
        monkeypatch.undo()
        FeatureStore.open(path, create=True)
        return found

    monkeypatch.setattr(store_module, "_is_store", looked_before_the_other)
    assert FeatureStore.open(folder, create=True).versions() == []


def test_urls(store, root):
    assert FeatureStore.open(f"file://{root}").name == "tiny/toy"
    with pytest.raises(StoreNotFoundError, match=r"ftp://host/x: cannot be opened \(.*expected"):
        FeatureStore.open("ftp://host/x")
    with pytest.raises(StoreNotFoundError, match="memory:///: no feature store there; expected the folders"):
        FeatureStore.open("memory:///")


def test_stores_are_listed_by_name(store, toy, tmp_path):
    (tmp_path / "stores" / "tiny" / "notes").mkdir()
    FeatureStore.open(tmp_path / "stores" / "other" / "vit", create=True)
    toy.extract(store, CONTENTS)
    listed = list_stores(tmp_path / "stores")
    assert [(name, found.versions()) for name, found in listed] == [("other/vit", []), ("tiny/toy", [1])]
    assert list_stores(tmp_path / "nowhere") == []


def test_a_malformed_spec_or_catalogue_is_refused(store, toy):
    with pytest.raises(SpecError, match=r"spec\.fps: nan"):
        store.plan({"fps": float("nan")}, {})
    with pytest.raises(SpecError, match="expected the 32-byte sha256"):
        store.plan(toy.SPEC, {"a": b"x"})
