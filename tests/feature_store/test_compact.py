"""Compaction: the same rows in few shards; what else is committed meanwhile is kept."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_store import CommitConflictError, FeatureShard, FeatureStore, NoSnapshotError, SpecError
from feature_store import compaction as compaction_module

CONTENTS = {f"i{number}": f"text {number}" for number in range(8)}
CHANGED = CONTENTS | {"i3": "changed", "a": "new", "z": "new too"}

#: Three rows of four float16.
THREE_ROWS = 3 * 4 * 2


def by_id(snapshot):
    """Everything a reader sees: id to content and vector bytes."""
    ids = sorted(snapshot.item_ids)
    contents = dict(zip(snapshot.item_ids, snapshot.index["content_sha256"].to_list(), strict=True))
    return {
        item_id: (contents[item_id], row.tobytes())
        for item_id, row in zip(ids, snapshot.matrix(ids).values, strict=True)
    }


@pytest.fixture
def full(store, toy):
    """Two versions, one superseded row, small shards."""
    toy.extract(store, CONTENTS)
    toy.extract(store, CHANGED)
    return store


def test_rows_are_the_same_sorted_and_without_superseded_ones(full, root):
    before = full.latest()
    old = by_id(before)
    assert before.manifest.counts.dead_rows == 1
    after = full.compact(target_bytes=THREE_ROWS)
    assert (after.version, after.rows, after.manifest.counts.dead_rows) == (3, 10, 0)
    assert after.item_ids == sorted(CHANGED)
    assert [shard.rows for shard in after.manifest.shards] == [3, 3, 3, 1]
    ranges = [(shard.id_min, shard.id_max) for shard in after.manifest.shards]
    assert ranges == [("a", "i1"), ("i2", "i4"), ("i5", "i7"), ("z", "z")]
    assert by_id(after) == old
    assert by_id(before) == old  # a reader that holds the older version goes on
    assert (after.spec_hash, after.quality) == (before.spec_hash, before.quality)
    assert after.manifest.parent.version == 2
    assert full.verify() == []
    assert len(full.compact().manifest.shards) == 1


def test_what_is_compact_stays_as_it_is(full, root):
    first = full.compact(target_bytes=THREE_ROWS)
    files = sorted((root / "shards").iterdir())
    assert full.compact(target_bytes=THREE_ROWS).version == first.version
    assert sorted((root / "shards").iterdir()) == files


def test_all_columns_move_together(store, toy):
    ids = [f"v{number}" for number in np.random.default_rng(1).permutation(20)]
    items = toy.catalogue({item_id: item_id for item_id in ids})
    generator = np.random.default_rng(2)
    embedding = generator.standard_normal((20, 4)).astype(np.float32)
    frames = generator.standard_normal((20, 5, 4)).astype(np.float32)
    distinct = generator.integers(1, 6, 20).astype(np.uint8)
    plan = store.plan({"encoder": "videos"}, items)
    for start in range(0, 20, 6):
        part = slice(start, start + 6)
        content = [items[item_id] for item_id in ids[part]]
        store.write_shard(FeatureShard(ids[part], content, embedding[part], frames[part], distinct[part]), plan)
    store.commit(plan)
    snapshot = store.compact()
    order = np.argsort(ids)
    assert snapshot.item_ids == [ids[row] for row in order]
    for column, reference in (("embedding", embedding), ("frames", frames), ("n_distinct", distinct)):
        np.testing.assert_array_equal(snapshot.memory_map(column), reference[order])


def test_the_next_run_adds_to_the_large_shards(full, root, toy):
    full.compact()
    again = FeatureStore.open(root)
    plan, snapshot = toy.extract(again, CHANGED)
    assert (plan.todo, plan.changed, snapshot.version) == ([], False, 3)
    plan, snapshot = toy.extract(again, CHANGED | {"one": "one"})
    assert plan.todo == ["one"]
    assert [shard.rows for shard in snapshot.manifest.shards] == [10, 1]


def test_one_more_of_twenty_thousand_items_is_one_small_shard(store, root, toy):
    contents = {f"item-{number:05d}": f"t{number}" for number in range(20_000)}
    toy.extract(store, contents, shard_rows=20_000)
    before = {path.name for path in (root / "shards").iterdir()}
    plan, snapshot = toy.extract(store, contents | {"one more": "one more"})
    (added,) = {path for path in (root / "shards").iterdir() if path.name not in before}
    assert (plan.todo, plan.reused, snapshot.rows) == (["one more"], 20_000, 20_001)
    assert pq.read_metadata(added).num_rows == 1
    assert added.stat().st_size < 4_000


def test_zstd_is_an_encoding_and_no_other_spec(full, root):
    old = by_id(full.latest())
    compact = full.compact(compression="zstd")
    (shard,) = compact.manifest.shards
    column = pq.read_metadata(root / "shards" / f"{shard.sha256}.parquet").row_group(0).column(2)
    assert column.compression == "ZSTD"
    assert by_id(compact) == old
    assert full.compact(compression="zstd").version == compact.version
    plain = full.compact()
    assert (plain.version, plain.spec_hash, by_id(plain)) == (4, compact.spec_hash, old)


def between(monkeypatch, other):
    """Let something happen after the large shards were written and before they are published."""
    original = compaction_module._rewrite

    def rewrite(*arguments, **options):
        result = original(*arguments, **options)
        other()
        return result

    monkeypatch.setattr(compaction_module, "_rewrite", rewrite)


def test_a_commit_in_between_is_kept(full, root, toy, monkeypatch):
    later = CHANGED | {"i5": "changed later", "new": "newer"}
    between(monkeypatch, lambda: toy.extract(FeatureStore.open(root), later))
    after = full.compact(target_bytes=THREE_ROWS)
    assert (full.versions(), after.version) == ([1, 2, 3, 4], 4)
    assert by_id(after) == by_id(full.at(3))
    assert [(shard.rows, shard.dead_rows) for shard in after.manifest.shards if shard.dead_rows] == [(3, "0")]
    assert full.verify() == []
    plan, snapshot = toy.extract(FeatureStore.open(root), later)
    assert (plan.todo, plan.changed, snapshot.version) == ([], False, 4)


def test_two_compactions_make_one_version(full, root, monkeypatch):
    def other():
        monkeypatch.undo()
        FeatureStore.open(root).compact()

    between(monkeypatch, other)
    assert full.compact().version == 3
    assert full.versions() == [1, 2, 3]


def test_another_spec_in_between_is_a_conflict(full, root, toy, monkeypatch):
    between(monkeypatch, lambda: toy.extract(FeatureStore.open(root), CONTENTS, spec={"encoder": "other"}))
    with pytest.raises(CommitConflictError, match=r"version 3 was committed with the spec .* compact again"):
        full.compact(target_bytes=THREE_ROWS)
    assert full.verify() == []


def test_a_commit_planned_before_a_compaction_holds(full, root, toy):
    items = toy.catalogue(CHANGED | {"late": "late"})
    plan = full.plan(toy.SPEC, items)
    full.write_shard(toy.shard(plan.todo, items), plan)
    FeatureStore.open(root).compact()
    snapshot = full.commit(plan)
    assert (snapshot.version, [shard.rows for shard in snapshot.manifest.shards]) == (4, [10, 1])


def test_nothing_to_compact_and_impossible_sizes(store):
    with pytest.raises(NoSnapshotError):
        store.compact()
    with pytest.raises(SpecError, match="target_bytes >= 1, got 0"):
        store.compact(target_bytes=0)
