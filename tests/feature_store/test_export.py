"""Exports for other programs."""

import json
import sys

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk

from feature_store import DamagedStoreError, ExportError, export_snapshot

CONTENTS = {f"i{number}": f"text {number}" for number in (3, 1, 2, 0, 4)}


@pytest.fixture
def snapshot(store, toy):
    """One superseded row, ids out of order."""
    toy.extract(store, CONTENTS | {"i1": "old"})
    return toy.extract(store, CONTENTS)[1]


@pytest.fixture
def reference(toy):
    """Ids in order, and their vectors."""
    ids = sorted(CONTENTS)
    return ids, np.stack([toy.vector(toy.digest(CONTENTS[item_id])) for item_id in ids]).astype(np.float16)


def test_npy(snapshot, reference, tmp_path):
    folder = tmp_path / "out"
    made = export_snapshot(snapshot, folder, "npy")
    assert (made.form, made.version, made.rows, made.folder) == ("npy", 2, 5, str(folder))
    assert made.bytes == sum(path.stat().st_size for path in folder.iterdir())
    ids, vectors = reference
    assert json.loads((folder / "ids.json").read_text()) == ids
    array = np.load(folder / "embedding.npy")
    assert array.dtype == np.float16
    np.testing.assert_array_equal(array, vectors)
    assert json.loads((folder / "manifest.json").read_text())["version"] == 2


@pytest.mark.parametrize(("compression", "stored"), [("none", "UNCOMPRESSED"), ("zstd", "ZSTD")])
def test_parquet(snapshot, reference, tmp_path, compression, stored):
    export_snapshot(snapshot, tmp_path / "out", "parquet", compression=compression)
    (path,) = (tmp_path / "out").glob("*.parquet")
    assert pq.read_metadata(path).row_group(0).column(2).compression == stored
    frame = pl.read_parquet(path)
    assert frame["item_id"].to_list() == reference[0]
    np.testing.assert_array_equal(frame["embedding"].to_numpy(), reference[1])


def test_hugging_face(snapshot, reference, tmp_path):
    export_snapshot(snapshot, tmp_path / "out", "hf")
    data = load_from_disk(str(tmp_path / "out")).with_format("numpy")
    assert list(data["item_id"]) == reference[0]
    np.testing.assert_array_equal(data["embedding"][:], reference[1])
    assert not (tmp_path / "out" / "parts").exists()


def test_a_missing_library_is_named_before_anything_is_written(snapshot, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(ExportError, match="an export to lance needs the package 'pylance'"):
        export_snapshot(snapshot, tmp_path / "out", "lance")
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_never_overwritten(snapshot, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="not an empty folder"):
        export_snapshot(snapshot, tmp_path, "npy")
    with pytest.raises(ExportError, match="not an empty folder"):
        export_snapshot(snapshot, tmp_path / "letter.txt", "npy")
    (tmp_path / "empty").mkdir()
    export_snapshot(snapshot, tmp_path / "empty", "npy")
    assert (tmp_path / "empty" / "ids.json").exists()


def test_a_failed_export_leaves_nothing(snapshot, root, tmp_path):
    (root / "shards" / f"{snapshot.manifest.shards[0].sha256}.parquet").write_bytes(b"torn")
    with pytest.raises(DamagedStoreError):
        export_snapshot(snapshot, tmp_path / "new" / "out", "npy")
    assert list((tmp_path / "new").iterdir()) == []


def test_impossible_wishes_are_refused(snapshot, tmp_path):
    with pytest.raises(ExportError, match="expected one of npy, parquet, lance, hf, got 'csv'"):
        export_snapshot(snapshot, tmp_path / "out", "csv")
    with pytest.raises(ExportError, match="only an export to parquet is compressed"):
        export_snapshot(snapshot, tmp_path / "out", "npy", compression="zstd")
