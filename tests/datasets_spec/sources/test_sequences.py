"""Ready sequences: lines ``user item item …`` in a folder, over HTTP, damaged, and the real file."""

import gzip

import pytest

from datasets_spec.errors import ChecksumError, ConfigConflictError, DamagedFileError, MissingSourceError
from datasets_spec.prepare import prepare
from datasets_spec.sources import sequences
from datasets_spec.spec import PrepareConfig

NAME = "amazon-beauty-2014"
LOOSE = PrepareConfig(k_user=1, k_item=1)


def folder(path, content):
    path.mkdir(parents=True, exist_ok=True)
    (path / sequences.FILE).write_bytes(content)
    return str(path)


def test_the_place_in_the_line_is_the_order(tmp_path):
    source = folder(tmp_path / "mine", b"2 30 4 100 5\n10 4 30 5\n")
    prepared = prepare(NAME, root=tmp_path / "root", config=LOOSE, source=source)
    assert prepared.interactions.select("user_id", "item_id", "timestamp", "position", "split").rows() == [
        ("2", "30", None, 0, "train"),
        ("2", "4", None, 1, "train"),
        ("2", "100", None, 2, "valid"),
        ("2", "5", None, 3, "test"),
        ("10", "4", None, 0, "train"),
        ("10", "30", None, 1, "valid"),
        ("10", "5", None, 2, "test"),
    ]
    assert prepared.items["item_id"].to_list() == ["4", "5", "30", "100"]
    assert prepared.items["title"].null_count() == 4


def test_lines_that_cannot_be_used_are_rows_with_their_line_numbers(tmp_path):
    lines = (
        *(b"\xef\xbb\xbf1 10 11\r", b"", b"2", b"3 12 x 13", b"1 14", b"-4 15", b"5 016", b"6 1.5", b"\xe9 17"),
        *(b"7 99999999999999999999", b"\t8  18\t19 ", b"9 20"),
    )
    path = tmp_path / "lines.txt"
    path.write_bytes(b"\n".join(lines))
    bad = []
    found = sequences.read_sequences(path, bad)
    assert found.select("user_id", "item_id", "order").rows() == [
        *((1, 10, 0), (1, 11, 1)),
        *((8, 18, 0), (8, 19, 1)),
        (9, 20, 0),
    ]
    assert [(row.file, row.line, row.reason) for row in bad] == [
        ("lines.txt", 3, "no_items"),
        ("lines.txt", 4, "bad_id"),
        ("lines.txt", 5, "repeated_user"),
        *[("lines.txt", line, "bad_id") for line in (6, 7, 8, 9, 10)],
    ]
    assert bad[1].detail == "'x' in '3 12 x 13'"


def test_bad_lines_go_to_the_quarantine_of_the_dataset(tmp_path):
    source = folder(tmp_path / "mine", b"1 10 11 12\nuser item item\n2 10 11 12\n")
    prepared = prepare(NAME, root=tmp_path / "root", config=LOOSE, source=source)
    assert prepared.manifest["bad_rows"] == {"bad_id": 1}
    assert (prepared.n_users, prepared.n_items) == (2, 3)


def test_packed_gives_the_same(tmp_path):
    content = b"1 3 1 2\n2 2 3 1\n"
    sources = [folder(tmp_path / "plain", content), folder(tmp_path / "packed", gzip.compress(content))]
    versions = {prepare(NAME, root=tmp_path / source[-5:], config=LOOSE, source=source).version for source in sources}
    assert len(versions) == 1


def test_it_is_fetched_and_checked_against_the_published_digest(tmp_path, server):
    server.put(sequences.FILE, b"1 2 3 4\n")
    with pytest.raises(ChecksumError, match=r"Beauty.txt"):
        prepare(NAME, root=tmp_path, config=LOOSE.model_copy(update={"base_url": server.url}))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DamagedFileError, match=r"Beauty.txt: the file is empty"):
        prepare(NAME, root=tmp_path / "root", source=folder(tmp_path / "empty", b""))
    (tmp_path / "empty" / sequences.FILE).unlink()
    with pytest.raises(MissingSourceError, match=r"expected Beauty.txt in .*empty; found there: nothing"):
        prepare(NAME, root=tmp_path / "other", source=str(tmp_path / "empty"))


def test_a_split_by_time_is_refused(tmp_path):
    source = folder(tmp_path / "mine", b"1 10 11 12\n")
    with pytest.raises(ConfigConflictError, match="3 of 3 rows have none"):
        prepare(NAME, root=tmp_path / "root", config=LOOSE.model_copy(update={"split": "temporal"}), source=source)


def test_the_real_file(tmp_path, shared_data):
    """The figures that papers print; the k-core takes nothing away."""
    prepared = prepare(NAME, root=tmp_path, source=str(shared_data / "amazon_beauty_2014"))
    stats = prepared.manifest["stats"]
    assert (stats["users"], stats["items"], stats["interactions"]) == (22_363, 12_101, 198_502)
    assert prepared.manifest["bad_rows"] == {}
    assert [step["rows"] for step in prepared.manifest["steps"]] == [198_502] * 3
    first = prepared.interactions.head(5)
    assert first["item_id"].to_list() == ["1", "2", "3", "4", "5"]
    assert first["split"].to_list() == ["train", "train", "train", "valid", "test"]
