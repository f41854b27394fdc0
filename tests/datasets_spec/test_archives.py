"""Archives: only what is wanted comes out, and nothing of what a stranger's archive would have done."""

import io
import stat
import struct
import zipfile
import zlib

import py7zr
import pytest

from datasets_spec.archives import unpack
from datasets_spec.errors import DamagedFileError

TABLE = b"1,10\n2,20\n" * 500
OTHER = b"other\n" * 300


def _zip(path, members, *, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _seven_zip(path, members, **options):
    with py7zr.SevenZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(data, name)
    return path


MAKERS = pytest.mark.parametrize("make", [_zip, _seven_zip], ids=["zip", "7z"])
MEMBERS = [
    ("Data/readme.txt", OTHER),
    ("Data/sub/table.csv", TABLE),
    ("Data/other.csv", OTHER),
    ("Data/empty.csv", b""),
]


def _refused(archive, tmp_path, match, **options):
    """Unpacking fails, says so, and leaves nothing behind, in the folder or beside it."""
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    with pytest.raises(DamagedFileError, match=match) as caught:
        unpack(archive, ["table.csv"], tmp_path / "deep" / "out", **options)
    assert str(archive) in str(caught.value)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


@MAKERS
def test_only_the_wanted_members_come_out_and_they_lie_flat(tmp_path, make):
    archive = make(tmp_path / "a.bin", MEMBERS)
    out = tmp_path / "out"
    found = unpack(archive, ["table.csv", "empty.csv"], out)
    assert found == {"table.csv": out / "table.csv", "empty.csv": out / "empty.csv"}
    assert found["table.csv"].read_bytes() == TABLE
    assert found["empty.csv"].read_bytes() == b""
    assert sorted(path.name for path in out.rglob("*")) == ["empty.csv", "table.csv"]


@MAKERS
def test_what_is_unpacked_is_not_unpacked_again(tmp_path, make):
    archive = make(tmp_path / "a.bin", MEMBERS)
    first = unpack(archive, ["table.csv"], tmp_path / "out")
    archive.unlink()
    assert unpack(archive, ["table.csv"], tmp_path / "out") == first


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_packing(tmp_path, method):
    archive = _zip(tmp_path / "a.zip", MEMBERS, method=method)
    assert unpack(archive, ["table.csv"], tmp_path / "out")["table.csv"].read_bytes() == TABLE


@MAKERS
def test_an_optional_member_may_be_missing_and_another_may_not(tmp_path, make):
    archive = make(tmp_path / "a.bin", [("x/readme.txt", OTHER)])
    assert unpack(archive, ["table.csv"], tmp_path / "out", optional=["table.csv"]) == {}
    _refused(archive, tmp_path, r"expected one member called table.csv, found 0; it holds x/readme.txt")


@MAKERS
def test_two_members_of_one_name_are_refused(tmp_path, make):
    archive = make(tmp_path / "a.bin", [("a/table.csv", TABLE), ("b/table.csv", OTHER)])
    _refused(archive, tmp_path, r"expected one member .*, found 2; it holds a/table.csv, b/table.csv")


def test_a_folder_of_that_name_is_no_file_and_marks_of_an_operating_system_are_not_it(tmp_path):
    members = [("table.csv/", b""), ("__MACOSX/data/._table.csv", b"junk"), ("data/table.csv", TABLE)]
    found = unpack(_zip(tmp_path / "a.zip", members), ["table.csv"], tmp_path / "out")
    assert found["table.csv"].read_bytes() == TABLE


@pytest.mark.parametrize(
    "name",
    ["../table.csv", "a/../../table.csv", "/etc/table.csv", "..\\table.csv", "\\\\host\\table.csv", "C:\\table.csv"],
)
def test_paths_that_lead_out_of_the_archive_are_refused(tmp_path, name):
    _refused(
        _zip(tmp_path / "a.zip", [(name, TABLE)]), tmp_path, r"refused, since the path of its member '.*' leads out"
    )
    beside = _zip(tmp_path / "b.zip", [("table.csv", TABLE), (name.replace("table", "other"), OTHER)])
    _refused(beside, tmp_path, "leads out of the archive")


def test_paths_that_lead_out_of_a_7z_archive_are_refused(tmp_path):
    path = tmp_path / "a.7z"
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.set_encoded_header_mode(False)
        archive.writestr(TABLE, "aa/table.csv")
    data = bytearray(path.read_bytes().replace("aa/table".encode("utf-16-le"), "../table".encode("utf-16-le")))
    offset, size = struct.unpack_from("<QQ", data, 12)
    struct.pack_into("<I", data, 28, zlib.crc32(data[32 + offset : 32 + offset + size]))
    struct.pack_into("<I", data, 8, zlib.crc32(data[12:32]))
    path.write_bytes(data)
    _refused(path, tmp_path, r"the path of its member '../table.csv' leads out")


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("data/table.csv")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    _refused(_zip(tmp_path / "a.zip", [(link, b"/etc/passwd")]), tmp_path, "expected a plain file, found a link")


def test_links_in_7z_are_refused(tmp_path):
    (tmp_path / "target.txt").write_bytes(TABLE)
    (tmp_path / "table.csv").symlink_to("target.txt")
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.write(tmp_path / "table.csv", "data/table.csv")
    (tmp_path / "table.csv").unlink()
    _refused(tmp_path / "a.7z", tmp_path, "expected a plain file, found a link")


@MAKERS
def test_members_beyond_the_bound_are_refused(tmp_path, make):
    archive = make(tmp_path / "a.bin", MEMBERS)
    _refused(archive, tmp_path, rf"it unpacks to {len(TABLE)} bytes, expected at most 4999", max_bytes=len(TABLE) - 1)
    assert unpack(archive, ["table.csv"], tmp_path / "out", max_bytes=len(TABLE))


@pytest.mark.parametrize("stated", [1, len(TABLE) - 1, len(TABLE) + 1, 1 << 30])
def test_a_size_that_is_not_true_is_found(tmp_path, stated):
    path = _zip(tmp_path / "a.zip", [("table.csv", TABLE)])
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, directory + 24, stated)
    path.write_bytes(data)
    _refused(path, tmp_path, "truncated, corrupt or encrypted")


@MAKERS
def test_archives_that_are_cut_short_are_refused_wherever_they_are_cut(tmp_path, make):
    whole = make(tmp_path / "whole.bin", MEMBERS).read_bytes()
    for length in [*range(6, len(whole), 37), len(whole) - 1]:
        (tmp_path / "a.bin").write_bytes(whole[:length])
        _refused(tmp_path / "a.bin", tmp_path, rf"the archive of {length} bytes is truncated.*Remove .* prepare again")


@MAKERS
def test_archives_with_overwritten_bytes_are_refused_or_give_the_right_table(tmp_path, make):
    whole = make(tmp_path / "whole.bin", MEMBERS).read_bytes()
    refused = 0
    for place in range(0, len(whole), 5):
        (tmp_path / "a.bin").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        out = tmp_path / f"out{place}"
        try:
            assert unpack(tmp_path / "a.bin", ["table.csv"], out)["table.csv"].read_bytes() == TABLE
        except DamagedFileError:
            refused += 1
            assert not out.exists() or not list(out.iterdir())
    assert refused > 10


def test_encrypted_archives_are_refused(tmp_path):
    path = _zip(tmp_path / "a.zip", [("table.csv", TABLE)])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    _refused(path, tmp_path, "truncated, corrupt or encrypted .*password")
    _refused(_seven_zip(tmp_path / "a.7z", MEMBERS, password="secret"), tmp_path, "encrypted .*PasswordRequired")


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"<html>502</html>", "the first bytes b'<html>'"), (b"", "an empty file"), (b"PK", "the first bytes b'PK'")],
)
def test_what_is_no_archive_is_named(tmp_path, data, found):
    (tmp_path / "a.7z").write_bytes(data)
    _refused(tmp_path / "a.7z", tmp_path, f"expected a zip or 7z archive, found {found}")


def test_an_archive_without_members_lacks_the_table(tmp_path):
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    (tmp_path / "a.zip").write_bytes(empty.getvalue())
    _refused(tmp_path / "a.zip", tmp_path, "found 0; it holds nothing")
