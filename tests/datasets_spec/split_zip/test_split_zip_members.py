"""Members of split archives: read wherever headers break, refused where they are unsafe, named where damaged."""

import io
import re
import struct
import zipfile

import pytest
from split_zips import FILES, LARGE, Entry, build, entries, read, write

from datasets_spec.archive_media import open_local, open_remote, take
from datasets_spec.errors import DamagedFileError, MissingSourceError
from datasets_spec.split_zip import unpack, volume_names


def test_what_is_written_here_are_zip_archives():
    for zip64 in (False, True):
        (data,) = build(entries(), zip64=zip64, comment=b"said").values()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == FILES


def test_volumes_are_numbered_with_two_digits_at_least():
    assert volume_names("v.zip", 1) == ["v.zip"]
    names = volume_names("v.zip", 223)
    assert (names[0], names[98], names[99], names[221], names[222]) == ("v.z01", "v.z99", "v.z100", "v.z222", "v.zip")


@pytest.mark.parametrize("zip64", [False, True], ids=["zip", "zip64"])
@pytest.mark.parametrize("volume", [61, 97, 400, 1_009, 5_000, 1 << 30])  # up to 97 all headers run over an end
def test_members_of_local_volumes(tmp_path, volume, zip64):
    comment = b"this PK\x05\x06 is not the end of the directory"
    write(tmp_path / "in", build(entries(), volume=volume, zip64=zip64, comment=comment))
    archive = open_local(tmp_path / "in", "v.zip")
    assert [member.name for member in archive.directory.members] == list(FILES)
    assert take(archive, list(FILES), tmp_path / "out") == []
    assert read(tmp_path / "out") == FILES


@pytest.mark.parametrize("zip64", [False, True], ids=["zip", "zip64"])
@pytest.mark.parametrize("volume", [397, 1_009, 1 << 30])
def test_members_of_remote_volumes(tmp_path, site, windows, volume, zip64):
    site.files = build(entries(), volume=volume, zip64=zip64)
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    assert take(archive, list(FILES), tmp_path / "out") == []
    assert read(tmp_path / "out") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "v.zip.json"]


def test_folders_are_no_members_and_a_path_may_be_found_by_its_last_part(tmp_path):
    write(tmp_path, build([Entry("deep/", b"", method=0), Entry("deep/v/1.mp4", b"x"), Entry("../2.mp4", b"y")]))
    archive = open_local(tmp_path, "v.zip")
    assert [member.name for member in archive.directory.members] == ["deep/v/1.mp4", "../2.mp4"]
    assert [archive.holds(path) for path in ("v/1.mp4", "v/2.mp4", "v/3.mp4")] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"crc": 1}, "Bad CRC-32"),
        ({"size": 4_000}, "Bad CRC-32"),  # bytes are left over
        ({"size": 6_000}, "Bad CRC-32|expected 6000 bytes, got 5000"),
        ({"local_name": "v/2.mp4"}, "another member begins where the directory says"),
        ({"method": 99}, "compression method is not supported"),
    ],
)
def test_a_member_that_is_not_what_the_directory_says_leaves_nothing(tmp_path, site, windows, change, detail):
    site.files = build([Entry("v/1.mp4", FILES["v/1.mp4"], **change)])
    for archive in (
        open_remote(site.url, "v.zip", tmp_path / "cache", windows),
        open_local(write(tmp_path / "in", site.files), "v.zip"),
    ):
        (failure,) = take(archive, ["v/1.mp4"], tmp_path / "out")
        assert failure.reason == "damaged"
        assert re.search(detail, failure.detail)
        assert read(tmp_path / "out") == {}


def test_a_long_local_header_is_read_too(tmp_path, site, windows):
    site.files = build([Entry("v/x.mp4", FILES["v/1.mp4"], extra=5_000), *entries(LARGE)])
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    assert take(archive, ["v/x.mp4"], tmp_path) == []
    assert read(tmp_path / "v") == {"x.mp4": FILES["v/1.mp4"]}


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (Entry("../1.mp4", b"x"), "leads out of the folder"),
        (Entry("v/../../1.mp4", b"x"), "leads out of the folder"),
        (Entry("/etc/1.mp4", b"x"), "absolute path"),
        (Entry("C:/1.mp4", b"x"), "absolute path"),
        (Entry("v\\1.mp4", b"x"), "backslashes"),
        (Entry("v/1.mp4\0.txt", b"x"), "control characters"),
        (Entry("v/1.mp4", b"/etc/passwd", attributes=0o120777 << 16), "a link or a device"),
        (Entry("v/1.mp4", b"x", flags=1), "encrypted"),
    ],
    ids=["up", "up within", "absolute", "drive", "backslash", "control", "link", "encrypted"],
)
def test_members_that_are_refused(tmp_path, member, why):
    write(tmp_path / "in", build([member, Entry("v/2.mp4", b"good")]))
    archive = open_local(tmp_path / "in", "v.zip")
    (row,) = archive.refused()
    assert (row.file, row.reason) == ("v.zip", "unsafe_member")
    assert repr(member.name) in row.detail
    assert why in row.detail
    with pytest.raises(DamagedFileError, match=f"is refused: .*{why}"):
        unpack(archive.volumes, archive.directory, archive.directory.members[0], tmp_path / "out" / "1.mp4")
    assert not archive.holds("v/1.mp4")
    assert [failure.file.path for failure in take(archive, ["v/1.mp4", "v/2.mp4"], tmp_path / "out")] == ["v/1.mp4"]
    assert read(tmp_path / "out") == {"v/2.mp4": b"good"}


def _patched(data, at, value):
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"<html>not here</html>", "found no end of a directory"),
        (lambda data: data[:-1], "found no end of a directory"),
        (lambda data: _patched(data, len(data) - 12, struct.pack("<H", 9)), "expected 9 entries in .* got 5"),
        (lambda data: _patched(data, len(data) - 18, struct.pack("<2H", 3, 7)), "names volume 7 of 4 and"),
        (lambda data: _patched(data, len(data) - 6, struct.pack("<L", 0)), "its directory cannot be read"),
        (lambda data: data.replace(b"PK\1\2", b"PK\1\3", 1), "its directory cannot be read"),
    ],
    ids=["html", "cut", "count", "volume", "offset", "entry"],
)
def test_a_damaged_directory_is_one_clear_error(tmp_path, damage, message):
    (data,) = build(entries()).values()
    write(tmp_path, {"v.zip": damage(data)})
    with pytest.raises(DamagedFileError, match=rf"v.zip: .*{message}"):
        open_local(tmp_path, "v.zip")


def test_a_volume_that_is_absent_is_named(tmp_path, site, windows):
    site.files = build(entries(LARGE), volume=150_000)
    del site.files["v.z02"]
    remote = open_remote(site.url, "v.zip", tmp_path, windows)
    for archive in (remote, open_local(write(tmp_path / "in", site.files), "v.zip")):
        (failure,) = take(archive, ["v/1.mp4", "v/5.mp4"], tmp_path / "out")
        assert (failure.file.path, failure.reason) == ("v/5.mp4", "not_found")
        assert "v.z02" in failure.detail
    *_, lost, _ = names = list(volumes := build(entries(), volume=100))  # the directory of 300 bytes is in several
    write(tmp_path / "small", volumes)
    (tmp_path / "small" / lost).unlink()
    with pytest.raises(MissingSourceError, match=rf"expected the volume {lost} of a split archive in .*small"):
        open_local(tmp_path / "small", "v.zip")
    assert len(names) > 50
