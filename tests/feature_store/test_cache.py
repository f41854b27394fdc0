"""Copies of remote shards on this disk, the memory map, and rows through it."""

import numpy as np
import pytest
from obstore.store import MemoryStore

from feature_store import DamagedStoreError, FeatureShard, FeatureStore, SpecError, StoreError
from feature_store.files import ObjectFiles

CONTENTS = {f"i{number}": f"text {number}" for number in range(8)}


class Counting(ObjectFiles):
    """Remembers what was fetched."""

    def __init__(self):
        super().__init__(MemoryStore(), "memory://stores/tiny/toy")
        self.fetched = []

    def read(self, path):
        self.fetched.append(path)
        return super().read(path)


def expected(ids, toy, contents=CONTENTS):
    return np.stack([toy.vector(toy.digest(contents[item_id])) for item_id in ids])


@pytest.fixture
def remote(toy):
    """An object store with two versions; the second replaced two rows and added one."""
    files = Counting()
    store = FeatureStore(files, "tiny/toy")
    toy.extract(store, CONTENTS)
    toy.extract(store, CONTENTS | {"i1": "changed", "i2": "changed too", "new": "new"})
    files.fetched.clear()
    return store, files


def shards_of(files):
    return [path for path in files.fetched if path.startswith("shards/")]


def test_shards_are_fetched_once_for_all_snapshots(remote, toy, tmp_path):
    store, files = remote
    folder = tmp_path / "copies"
    for _ in range(2):
        np.testing.assert_array_equal(store.at(1).cached(folder).matrix(list(CONTENTS)).values, expected(CONTENTS, toy))
    after = CONTENTS | {"i1": "changed", "i2": "changed too", "new": "new"}
    matrix = store.latest().cached(folder).matrix(list(after))
    np.testing.assert_array_equal(matrix.values, expected(after, toy, after))
    fetched = shards_of(files)
    assert len(fetched) == len(set(fetched)) == 4
    assert {f"shards/{path.name}" for path in (folder / "shards").iterdir()} == set(fetched)


def test_a_copy_of_another_size_is_fetched_again(remote, toy, tmp_path):
    store, files = remote
    store.at(1).cached(tmp_path).matrix(["i0"])
    fetched = len(shards_of(files))
    torn = sorted((tmp_path / "shards").iterdir())[0]
    torn.write_bytes(torn.read_bytes()[:100])
    np.testing.assert_array_equal(store.at(1).cached(tmp_path).matrix(list(CONTENTS)).values, expected(CONTENTS, toy))
    assert len(shards_of(files)) == fetched + 1


def test_bytes_that_do_not_hash_to_the_name_are_refused(remote, tmp_path):
    store, files = remote
    path = f"shards/{store.at(1).manifest.shards[0].sha256}.parquet"
    data = bytearray(files.read(path))
    data[50] ^= 1
    files.put(path, bytes(data))
    with pytest.raises(DamagedStoreError, match=rf"memory://stores/tiny/toy/{path}: the {len(data)} bytes that came"):
        store.at(1).cached(tmp_path).matrix(["i0"])
    assert not (tmp_path / "shards").exists()


def test_a_shard_that_the_store_lost_is_named(remote, tmp_path):
    store, files = remote
    path = f"shards/{store.at(1).manifest.shards[0].sha256}.parquet"
    files.delete(path)
    with pytest.raises(DamagedStoreError, match=rf"copied to .*{path} is missing"):
        store.at(1).cached(tmp_path).matrix(["i0"])


def test_a_cached_snapshot_can_be_mapped_and_gathered_from(remote, toy, tmp_path):
    store, files = remote
    with pytest.raises(StoreError, match=r"is not on this disk.*\.cached\(FOLDER\) first"):
        store.latest().gather(["i0"])
    snapshot = store.at(1).cached(tmp_path)
    np.testing.assert_array_equal(snapshot.memory_map(), expected(snapshot.item_ids, toy))
    files.fetched.clear()
    again = store.at(1).cached(tmp_path).gather(["i7", "i0"])
    np.testing.assert_array_equal(again.values, expected(["i7", "i0"], toy))
    assert shards_of(files) == []


@pytest.mark.parametrize("ids", [["i3", "i0", "i3"], ["i3", "nobody", "i0"], ["nobody"], []])
def test_gathered_rows_equal_the_matrix(store, toy, ids):
    _, snapshot = toy.extract(store, CONTENTS | {"i0": "changed"})
    gathered, matrix = snapshot.gather(ids), snapshot.matrix(ids)
    assert gathered.values.dtype == np.float32
    assert gathered.values.shape == (len(ids), toy.DIM)
    np.testing.assert_array_equal(gathered.values, matrix.values)
    np.testing.assert_array_equal(gathered.present, matrix.present)
    assert type(gathered.values) is np.ndarray
    gathered.values[:] = 7  # the caller's own, not the map's
    np.testing.assert_array_equal(snapshot.gather(ids).values, matrix.values)


def test_ids_of_another_type_are_refused(store, toy):
    _, snapshot = toy.extract(store, CONTENTS)
    with pytest.raises(SpecError, match="got the single string 'i1'"):
        snapshot.gather("i1")


def test_superseded_rows_are_not_in_the_map(store, toy):
    toy.extract(store, CONTENTS)
    after = CONTENTS | {"i2": "another text"}
    _, snapshot = toy.extract(store, after)
    np.testing.assert_array_equal(snapshot.gather(list(after)).values, expected(after, toy, after))
    np.testing.assert_array_equal(store.at(1).gather(list(CONTENTS)).values, expected(CONTENTS, toy))


@pytest.mark.parametrize("column", ["embedding", "frames"])
def test_rows_that_were_located_once_are_taken_again_and_again(store, toy, column):
    items = toy.catalogue(CONTENTS)
    plan = store.plan({"encoder": "videos"}, items)
    frames = np.random.default_rng(5).standard_normal((len(items), 5, toy.DIM)).astype(np.float16)
    distinct = np.full(len(items), 5, np.uint8)
    store.write_shard(FeatureShard(list(items), list(items.values()), frames[:, 0], frames, distinct), plan)
    snapshot = store.commit(plan)
    rows = snapshot.locate(["i5", "nobody", "i0", "i5"])
    assert (rows.dtype, rows.tolist()) == (np.int64, [5, -1, 0, 5])
    expected = frames[[5, 0, 0, 5]] if column == "frames" else frames[[5, 0, 0, 5], 0]
    for _ in range(2):
        values = snapshot.take(rows, column)
        assert values.dtype == np.float32
        assert not values[1].any()
        np.testing.assert_array_equal(values[[0, 2, 3]], expected[[0, 2, 3]])


@pytest.mark.parametrize("row", [-2, len(CONTENTS)])
def test_a_row_that_is_not_there_is_refused(store, toy, row):
    _, snapshot = toy.extract(store, CONTENTS)
    with pytest.raises(IndexError, match=f"{row} is out of bounds"):
        snapshot.take(np.array([0, row]))


@pytest.mark.parametrize("ids", [["i1", None], ["i1", 3], [b"i1"], [["i1"]]])
def test_located_ids_of_another_type_are_refused(store, toy, ids):
    _, snapshot = toy.extract(store, CONTENTS)
    with pytest.raises(SpecError, match="expected item ids to be strings, got"):
        snapshot.locate(ids)
