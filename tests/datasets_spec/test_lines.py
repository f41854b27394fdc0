import gzip

import pytest

from datasets_spec.errors import DamagedFileError
from datasets_spec.lines import read_json_lines, read_lines


def test_plain_and_compressed_files_read_alike(tmp_path):
    (tmp_path / "plain").write_bytes(b"a\nb\n")
    (tmp_path / "packed").write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))  # two members
    assert list(read_lines(tmp_path / "plain")) == list(read_lines(tmp_path / "packed")) == [(1, b"a\n"), (2, b"b\n")]


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
