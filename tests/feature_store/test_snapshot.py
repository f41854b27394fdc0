"""Reading: values against numpy, any order of ids, columns, superseded rows, the memory map."""

import numpy as np
import pytest
import torch

from feature_store import DamagedStoreError, FeatureShard, FeatureStore, SpecError, StoreError, UnknownColumnError
from feature_store import reader as reader_module
from feature_store import writer as writer_module
from feature_store.files import ObjectFiles


@pytest.fixture
def videos(store, toy, monkeypatch):
    """40 items in 3 shards of several row groups; returns the store and the float16 reference arrays."""
    monkeypatch.setattr(writer_module.encode_shard, "__kwdefaults__", {"row_group_bytes": 200})
    ids = [f"item-{number}" for number in range(40)]
    items = toy.catalogue({item_id: item_id for item_id in ids})
    generator = np.random.default_rng(3)
    embedding = generator.standard_normal((40, 4)).astype(np.float16)
    frames = generator.standard_normal((40, 5, 4)).astype(np.float16)
    distinct = generator.integers(1, 6, 40).astype(np.uint8)
    plan = store.plan({"encoder": "videos"}, items)
    for rows in (slice(0, 15), slice(15, 30), slice(30, 40)):
        content = [items[item_id] for item_id in ids[rows]]
        store.write_shard(FeatureShard(ids[rows], content, embedding[rows], frames[rows], distinct[rows]), plan)
    store.commit(plan)
    return store, {"ids": ids, "embedding": embedding, "frames": frames, "n_distinct": distinct}


@pytest.mark.parametrize(("column", "shape"), [("embedding", (4,)), ("frames", (5, 4)), ("n_distinct", ())])
def test_values_equal_the_reference_in_any_order(videos, column, shape):
    store, reference = videos
    order = np.random.default_rng(0).permutation(40)
    matrix = store.latest().matrix([reference["ids"][row] for row in order], column=column)
    assert matrix.values.dtype == np.float32
    assert matrix.values.shape == (40, *shape)
    assert matrix.present.all()
    np.testing.assert_array_equal(matrix.values, reference[column][order].astype(np.float32))


def test_unknown_and_repeated_ids(videos):
    store, reference = videos
    matrix = store.latest().matrix(["item-31", "nobody", "item-2", "item-31", ""], column="frames")
    assert matrix.present.tolist() == [True, False, True, True, False]
    expected = reference["frames"][[31, 31, 2, 31, 31]].astype(np.float32)
    expected[[1, 4]] = 0
    np.testing.assert_array_equal(matrix.values, expected)
    assert repr(matrix) == "FeatureMatrix(values float32 [5, 5, 4], present 3)"


def test_no_ids_give_no_rows(videos):
    matrix = videos[0].latest().matrix([])
    assert matrix.values.shape == (0, 4)
    assert matrix.present.shape == (0,)


def test_ids_may_be_a_numpy_array_or_an_iterator(videos):
    store, reference = videos
    snapshot = store.latest()
    expected = reference["embedding"][[1, 0]].astype(np.float32)
    np.testing.assert_array_equal(snapshot.matrix(np.array(["item-1", "item-0"])).values, expected)
    np.testing.assert_array_equal(snapshot.matrix(iter(["item-1", "item-0"])).values, expected)


@pytest.mark.parametrize(
    ("ids", "message"),
    [("item-1", "got the single string 'item-1'"), ([3], r"expected item ids to be strings, got 3 \(int\)")],
)
def test_ids_of_another_type_are_refused(videos, ids, message):
    with pytest.raises(SpecError, match=message):
        videos[0].latest().matrix(ids)


@pytest.mark.parametrize(("column", "shape"), [("embedding", (4,)), ("frames", (5, 4)), ("n_distinct", ())])
def test_a_table_has_a_row_of_zeros_first_and_then_the_items_in_order(videos, column, shape):
    store, reference = videos
    table = store.latest().table(["item-31", "nobody", "item-2"], column)
    assert (table.dtype, table.shape) == (np.float32, (4, *shape))
    np.testing.assert_array_equal(table[[1, 3]], reference[column][[31, 2]])
    assert not table[[0, 2]].any()
    half = store.latest().table(["item-31"], column, dtype=np.float16)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half[1], reference[column][31])


@pytest.mark.parametrize(("column", "shape"), [("embedding", (4,)), ("frames", (5, 4)), ("n_distinct", ())])
def test_a_tensor_is_the_table_on_a_device(videos, column, shape):
    store, reference = videos
    snapshot = store.latest()
    tensor = snapshot.tensor(["item-31", "nobody", "item-2"], column, device="cpu")
    assert (tensor.dtype, tuple(tensor.shape), tensor.device.type) == (torch.float32, (4, *shape), "cpu")
    np.testing.assert_array_equal(tensor[[1, 3]].numpy(), reference[column][[31, 2]])
    assert not tensor[[0, 2]].any()
    whole = snapshot.tensor(column=column, dtype=np.float16)
    assert (whole.dtype, tuple(whole.shape)) == (torch.float16, (41, *shape))
    assert not whole[0].any()
    rows = [reference["ids"].index(item_id) for item_id in snapshot.item_ids]
    np.testing.assert_array_equal(whole[1:].numpy(), reference[column][rows])


@pytest.mark.gpu
def test_a_tensor_can_be_resident_on_a_gpu(videos):
    store, reference = videos
    tensor = store.latest().tensor(["item-31"], device="cuda")
    assert tensor.device.type == "cuda"
    np.testing.assert_array_equal(tensor[1].cpu().numpy(), reference["embedding"][31])


def test_an_unknown_column_names_those_there_are(videos):
    with pytest.raises(
        UnknownColumnError, match=r"tiny/toy@1 has no column 'frame'.*embedding\[4\], frames\[5, 4\], n_dis"
    ):
        videos[0].latest().matrix(["item-1"], column="frame")


def test_a_snapshot_describes_itself(videos):
    store, reference = videos
    snapshot = store.latest()
    assert sorted(snapshot.item_ids) == sorted(reference["ids"])
    assert (snapshot.rows, len(snapshot), snapshot.version, snapshot.name) == (40, 40, 1, "tiny/toy")
    assert snapshot.spec == {"encoder": "videos"}
    assert snapshot.columns == {"embedding": (4,), "frames": (5, 4), "n_distinct": ()}
    assert repr(snapshot).startswith("Snapshot(tiny/toy@1, rows=40, embedding[4] frames[5, 4] n_distinct[], spec ")
    assert snapshot.quality.rows == 40


def test_row_groups_without_wanted_rows_are_not_read(videos, monkeypatch):
    store, _ = videos
    snapshot = store.latest()
    assert snapshot.index.height == 40  # reads the ids of every shard
    groups = []
    original = reader_module.Column.read
    monkeypatch.setattr(
        reader_module.Column, "read", lambda self, group, *more: groups.append(group) or original(self, group, *more)
    )
    snapshot.matrix(["item-0", "item-39"])
    assert groups == [0, 2]  # 4 rows of 48 bytes per group: rows 0..3 of 15, rows 8..9 of 10


def test_superseded_rows_are_not_read(store, toy):
    before = {f"i{number}": f"text {number}" for number in range(7)}
    toy.extract(store, before, shard_rows=7)
    after = before | {"i2": "another text", "i5": "and another"}
    plan, snapshot = toy.extract(store, after, shard_rows=7)
    assert plan.todo == ["i2", "i5"]
    assert {shard.rows: shard.dead_rows for shard in snapshot.manifest.shards} == {7: "2,5", 2: ""}
    assert (snapshot.manifest.counts.rows, snapshot.manifest.counts.dead_rows) == (7, 2)
    assert sorted(snapshot.item_ids) == sorted(after)
    for version, contents in ((1, before), (2, after)):
        values = store.at(version).matrix(list(contents)).values
        np.testing.assert_array_equal(values, np.stack([toy.vector(toy.digest(text)) for text in contents.values()]))


def test_the_memory_map_holds_the_column_in_the_order_of_item_ids(videos, root):
    store, reference = videos
    snapshot = store.latest()
    mapped = snapshot.memory_map("frames")
    assert isinstance(mapped, np.memmap)
    rows = [reference["ids"].index(item_id) for item_id in snapshot.item_ids]
    np.testing.assert_array_equal(mapped, reference["frames"][rows])
    (path,) = (root / "cache").iterdir()
    path.write_bytes(b"torn")
    np.testing.assert_array_equal(snapshot.memory_map("frames"), reference["frames"][rows])
    assert store.verify() == []


def test_a_missing_or_torn_shard_is_named(videos, root):
    store, _ = videos
    first, second, _ = (root / "shards" / f"{shard.sha256}.parquet" for shard in store.latest().manifest.shards)
    data = first.read_bytes()
    first.unlink()
    with pytest.raises(DamagedStoreError, match=f"{first.name} is missing; extract again"):
        store.latest().matrix(["item-0"])
    first.write_bytes(data)
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(DamagedStoreError, match=f"{second.name} is damaged .*; remove it and extract again"):
        store.latest().matrix(["item-0"])


def test_an_object_store_serves_the_same(toy):
    from obstore.store import MemoryStore

    store = FeatureStore(ObjectFiles(MemoryStore(), "memory://stores/tiny/toy"), "tiny/toy")
    contents = {f"i{number}": str(number) for number in range(5)}
    toy.extract(store, contents, bad=["i3"])
    toy.extract(store, contents | {"i1": "changed"}, bad=["i3"])
    assert store.versions() == [1, 2]
    matrix = store.latest().matrix(["i1", "i3"])
    assert matrix.present.tolist() == [True, False]
    np.testing.assert_array_equal(matrix.values[0], toy.vector(toy.digest("changed")))
    assert store.verify() == []
    assert store.quarantined()["item_id"].to_list() == ["i3"]
    with pytest.raises(StoreError, match="memory://stores/tiny/toy is not on this disk"):
        store.latest().memory_map()
