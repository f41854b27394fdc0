import gzip
import json

import polars as pl
import pytest

from datasets_spec.errors import DamagedFileError
from datasets_spec.lines import json_columns, read_chunks, read_json_lines, read_lines


def test_plain_and_compressed_files_read_alike(tmp_path):
    (tmp_path / "plain").write_bytes(b"a\nb\n")
    (tmp_path / "packed").write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))  # two members
    assert list(read_lines(tmp_path / "plain")) == list(read_lines(tmp_path / "packed")) == [(1, b"a\n"), (2, b"b\n")]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_chunks_are_whole_lines_and_know_their_number(tmp_path, size, end):
    text = b"a\nbb\n\n" + b"c" * 12 + b"\r\nd" + end
    (tmp_path / "x").write_bytes(text)
    chunks = list(read_chunks(tmp_path / "x", size=size))
    assert b"".join(chunk for _, chunk in chunks) == text
    assert all(chunk.endswith(b"\n") for _, chunk in chunks[:-1])
    for number, chunk in chunks:
        assert text.split(b"\n")[number - 1] == chunk.split(b"\n")[0]


def test_bad_lines_are_counted_and_reading_goes_on(tmp_path):
    deep = b"[" * 100_000
    lines = [b'{"a": 1}', b'{"a": ', b"", b"[1]", b'{"a": "\xff"}', deep, b'{"a": 2}']
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    bad = []
    assert list(read_json_lines(tmp_path / "x.json.gz", bad)) == [(1, {"a": 1}), (7, {"a": 2})]
    assert [(row.file, row.line, row.reason) for row in bad] == [
        ("x.json.gz", line, "malformed_json") for line in (2, 4, 5, 6)
    ]
    assert bad[1].detail == "expected an object, got list"
    assert max(len(row.detail) for row in bad) <= 300


def test_unwanted_lines_may_be_left_out_but_bad_ones_are_still_found(tmp_path):
    wanted = ("id", {"b"})
    (tmp_path / "good").write_bytes(b'{"id": "a", "x": [1]}\n{"x": {"y": 2}, "id": "b"}\n{"id": "c"}\n')
    bad = []
    assert list(read_json_lines(tmp_path / "good", bad, where=wanted)) == [(2, {"x": {"y": 2}, "id": "b"})]
    (tmp_path / "mixed").write_bytes(b'{"id": "a"}\n{"id": \n{"id": 3}\n{"id": "b"}\n')
    read = list(read_json_lines(tmp_path / "mixed", bad, where=wanted))
    assert [(line, row) for line, row in read if row["id"] != "a"] == [(3, {"id": 3}), (4, {"id": "b"})]
    assert [(row.line, row.reason) for row in bad] == [(2, "malformed_json")]


COLUMNS = {"id": pl.String(), "n": pl.Int64()}


def test_columns_hold_what_the_json_says():
    rows = [
        {"id": "a", "n": 1, "rest": {"deep": [{"n": 5}]}},
        {"n": -(2**63), "id": '\u00e9 " \\ \n \U0001f600'},
        {"id": "0001", "n": 2**63 - 1, "rest": [1, "x", None]},  # another type under the same unread key
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    for chunk in (text.encode(), text.encode() + b"\n"):
        frame = json_columns(chunk, COLUMNS)
        assert frame is not None
        assert frame.schema == COLUMNS
        assert frame.rows() == [(row["id"], row["n"]) for row in rows]


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": "a"}',
        b'{"id": null, "n": 1}',
        b'{"id": "a", "n": null}',
        b'{"id": 1, "n": 1}',
        b'{"id": ["a"], "n": 1}',
        b'{"id": "a", "n": "1"}',
        b'{"id": "a", "n": 1.0}',
        b'{"id": "a", "n": 1.5}',
        b'{"id": "a", "n": true}',
        b'{"id": "a", "n": 9223372036854775808}',
        b'{"id": "a", "n": NaN}',
        b'{"id": "a", "n": 1',
        b'{"id": "a", "n": 1}, {"id": "a", "n": 2}',
        b'{"id": "a", "n": 1}{"id": "a", "n": 2}',
        b'{"id": "a",\n"n": 1}',
        b'[{"id": "a", "n": 1}]',
        b'{"id": "\xff", "n": 1}',
        b'{"id": "a", "n": 1, "rest": "\xff"}',
        b'{"id": "\\ud800", "n": 1}',
        b'{"id": "tab\there", "n": 1}',
        b"{'id': 'a', 'n': 1}",
        b"  ",
        b"{}",
        b"null",
    ],
)
def test_whatever_is_not_one_whole_object_is_left_to_the_slow_way(line):
    good = b'{"id": "b", "n": 3}'
    assert json_columns(good, COLUMNS) is not None
    assert json_columns(b"", COLUMNS) is None
    for chunk in (line, line + b"\n" + good + b"\n", good + b"\n" + line, good + b"\n" + line + b"\n" + good):
        assert json_columns(chunk, COLUMNS) is None


def test_a_truncated_gzip_is_one_clear_error(tmp_path):
    packed = gzip.compress(b"".join(b"line %d\n" % i for i in range(20_000)))
    path = tmp_path / "cut.json.gz"
    path.write_bytes(packed[: len(packed) // 2])
    message = rf"cut.json.gz: the gzip stream is truncated .* of {len(packed) // 2} bytes, \d+ lines, .* Remove .*cut"
    with pytest.raises(DamagedFileError, match=message):
        list(read_lines(path))


def test_a_flipped_byte_is_found(tmp_path):
    packed = bytearray(gzip.compress(b"line\n" * 1000))
    packed[-6] ^= 1  # in the checksum
    (tmp_path / "bad.gz").write_bytes(packed)
    with pytest.raises(DamagedFileError, match=r"truncated or corrupt.*CRC"):
        list(read_lines(tmp_path / "bad.gz"))


def test_an_empty_file_is_no_dataset(tmp_path):
    (tmp_path / "none.gz").touch()
    with pytest.raises(DamagedFileError, match=r"none.gz: the file is empty"):
        list(read_lines(tmp_path / "none.gz"))
