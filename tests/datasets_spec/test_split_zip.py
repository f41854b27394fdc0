"""Split zip archives, written here byte by byte, read from a folder and from an HTTP server that misbehaves."""

import hashlib
import io
import logging
import re
import struct
import threading
import zipfile
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from datasets_spec.archive_media import open_local, open_remote, take, take_remote
from datasets_spec.download import Retry, Transfer
from datasets_spec.errors import DamagedFileError, DownloadError, MissingSourceError
from datasets_spec.prepare import prepare
from datasets_spec.remote_ranges import WindowError, Windows
from datasets_spec.spec import PrepareConfig
from datasets_spec.split_zip import unpack, volume_names

RNG = np.random.default_rng(0)
QUICK = Transfer(retry=Retry(attempts=3, first_delay=0.001))
ONCE = Transfer(retry=Retry(attempts=1))
FILES = {
    "v/1.mp4": RNG.bytes(5_000),
    "v/2.mp4": b"the same again " * 2_000,
    "v/3.mp4": b"",
    "v/4.mp4": RNG.bytes(700) + bytes(3_000),
    "v/ä.mp4": b"a name that is not ASCII",
}
LARGE = {f"v/{i}.mp4": RNG.bytes(40_000 + i) for i in range(10)}  # does not compress: about 40 kB each


@dataclass
class Entry:
    name: str
    body: bytes
    method: int = 8
    extra: int = 0  # bytes of extra fields in the local header alone
    flags: int = 0
    attributes: int = 0o100644 << 16
    crc: int | None = None
    size: int | None = None
    local_name: str | None = None


def entries(files=FILES):
    return [Entry(name, body, method=0 if name == "v/4.mp4" else 8) for name, body in files.items()]


def build(members, *, volume=1 << 30, zip64=False, comment=b"", archive="v.zip"):
    """Volumes by name: all but the last have `volume` bytes; places are counted from the start of each volume."""
    body, directory = bytearray(b"PK\7\x08"), bytearray()  # split archives begin with this mark
    for member in members:
        name = member.name.encode()
        compressor = zlib.compressobj(wbits=-15)
        packed = compressor.compress(member.body) + compressor.flush() if member.method == 8 else member.body
        crc = zlib.crc32(member.body) if member.crc is None else member.crc
        size = len(member.body) if member.size is None else member.size
        disk, offset = divmod(len(body), volume)
        common = (45, member.flags | 0x800, member.method, 0, 33, crc)
        local = (member.local_name or member.name).encode()
        body += struct.pack("<4s5H3L2H", b"PK\3\4", *common, len(packed), size, len(local), member.extra)
        body += local + bytes(member.extra) + packed
        numbers, extra = (len(packed), size, offset), b""
        if zip64:
            extra = struct.pack("<2H3Q", 1, 24, size, len(packed), offset)
            numbers = (0xFFFFFFFF,) * 3
        directory += struct.pack("<4s6H3L", b"PK\1\2", 0x031E, *common, *numbers[:2])
        directory += struct.pack("<5H2L", len(name), len(extra), 0, disk, 0, member.attributes, numbers[2])
        directory += name + extra
    (first, offset), count = divmod(len(body), volume), len(members)
    body += directory
    record, fields = divmod(len(body), volume), (count, count, len(directory), offset)
    if zip64:
        last = (len(body) + 55) // volume
        body += struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, last, first, *fields)
    last = (len(body) - 1) // volume
    end = struct.pack("<4sLQL", b"PK\6\7", *record, last + 1) if zip64 else b""
    fields = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2 if zip64 else (last, first, *fields)
    parts = [bytes(body[i : i + volume]) for i in range(0, len(body), volume)]
    parts[-1] += end + struct.pack("<4s4H2LH", b"PK\5\6", *fields, len(comment)) + comment  # these are never split
    names = [f"{archive.removesuffix('.zip')}.z{i + 1:02d}" for i in range(len(parts) - 1)] + [archive]
    return dict(zip(names, parts, strict=True))


def write(folder, volumes):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in volumes.items():
        (folder / name).write_bytes(data)
    return folder


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Site:
    """Files on a server, and how it behaves."""

    url: str
    files: dict[str, bytes]
    validators: bool = True
    ranges: bool = True
    check_if_range: bool = True
    short: int | None = None  # give at most so many bytes of a range
    cuts: list[int] = field(default_factory=list)  # long answers break off after so many bytes
    statuses: list[int] = field(default_factory=list)  # answers to give first
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)  # path, Range, bytes sent

    def sent(self):
        return sum(sent for _, _, sent in self.requests)

    def answer(self, path, headers):
        """Status, headers and body."""
        if path.startswith("old/"):
            return 302, {"Location": f"/{path.removeprefix('old/')}"}, b""
        if path not in self.files:
            return 404, {}, b""
        if self.statuses:
            return self.statuses.pop(0), {"Retry-After": "0"}, b""
        data = self.files[path]
        etag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
        common = {"ETag": etag} if self.validators else {}
        honoured = self.ranges and (not self.check_if_range or headers.get("If-Range") in (None, etag))
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", ""))
        if match is None or not honoured:
            return 200, common, data
        start, stop = int(match[1]), min(int(match[2]) + 1, len(data))
        if start >= stop:
            return 416, {"Content-Range": f"bytes */{len(data)}"}, b""
        stop = min(stop, start + (self.short or len(data)))
        return 206, {**common, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, data[start:stop]


@pytest.fixture
def site():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, headers, body = made.answer(self.path.lstrip("/"), self.headers)
            cut = made.cuts.pop(0) if made.cuts and len(body) > 10_000 else len(body)
            made.requests.append((self.path.lstrip("/"), self.headers.get("Range"), len(body[:cut])))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body[:cut])
            self.close_connection = cut < len(body)

        def log_message(self, *_):
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # a client leaves in the middle of an answer that is of no use to it
    made = Site(f"http://127.0.0.1:{http.server_address[1]}", {})
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def windows():
    made = Windows(transfer=QUICK)
    yield made
    made.close()


@pytest.fixture
def impatient():
    made = Windows(transfer=ONCE)
    yield made
    made.close()


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


def test_only_the_bytes_of_the_wanted_members_are_fetched(tmp_path, site, windows):
    site.files = build(entries(LARGE), volume=150_000)
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    directory = site.sent()
    assert directory < 70_000  # at most 64 kB hold the end, and the directory has less than 1 kB
    assert take(archive, ["v/5.mp4"], tmp_path) == []
    assert (tmp_path / "v/5.mp4").read_bytes() == LARGE["v/5.mp4"]
    assert 40_000 < site.sent() - directory < 42_000


def test_the_directory_is_read_again_only_when_the_archive_changes(tmp_path, site, windows):
    site.files = build(entries(LARGE), volume=150_000)
    open_remote(site.url, "v.zip", tmp_path, windows)
    before = site.sent()
    kept = open_remote(site.url, "v.zip", tmp_path, windows)
    assert site.sent() == before + 1  # the first byte of the last volume, for its validators
    assert len(kept.directory.members) == 10
    site.files = build(entries(FILES), volume=150_000)
    assert len(open_remote(site.url, "v.zip", tmp_path, windows).directory.members) == 5
    (tmp_path / "v.zip.json").write_text("{")
    assert len(open_remote(site.url, "v.zip", tmp_path, windows).directory.members) == 5


def test_without_validators_the_directory_is_read_each_time(tmp_path, site, windows):
    site.validators = False
    for members in (entries(LARGE), [*entries(LARGE)[:-1], Entry("v/x.mp4", LARGE["v/9.mp4"])]):
        site.files = build(members)
        names = [member.name for member in open_remote(site.url, "v.zip", tmp_path, windows).directory.members]
        assert names == [member.name for member in members]


def test_a_cut_connection_is_resumed_where_it_broke_off(tmp_path, site, windows):
    site.files = build(entries(LARGE), volume=150_000)
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    before, asked = site.sent(), len(site.requests)
    site.cuts = [15_000, 11_000]
    assert take(archive, ["v/3.mp4"], tmp_path) == []  # from 120 kB on: the volume ends within it
    assert (tmp_path / "v/3.mp4").read_bytes() == LARGE["v/3.mp4"]
    assert site.sent() - before < 42_000  # not one byte twice
    start = archive.directory.member("v/3.mp4").offset
    (name, first), (_, second), (_, third) = [request[:2] for request in site.requests[asked : asked + 3]]
    assert (name, first.partition("-")[0]) == ("v.z01", f"bytes={start}")
    assert second.partition("-")[0] == f"bytes={start + 15_000}"
    assert third.partition("-")[0] == f"bytes={start + 26_000}"


def test_an_interrupted_member_is_resumed_by_the_next_call(tmp_path, site, impatient):
    site.files = build(entries(LARGE))
    archive = open_remote(site.url, "v.zip", tmp_path, impatient)
    before = site.sent()
    site.cuts = [15_000]
    (failure,) = take(archive, ["v/3.mp4"], tmp_path)
    assert (failure.file.path, failure.reason) == ("v/3.mp4", "network")
    assert {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "v").rglob("*.part")} == {
        "v/3.mp4.pieces/0.part"
    }
    assert take(archive, ["v/3.mp4"], tmp_path) == []
    assert read(tmp_path / "v") == {"3.mp4": LARGE["v/3.mp4"]}
    assert site.sent() - before < 42_000


def test_an_interruption_stops_the_others(tmp_path, site, windows):
    site.files = build(entries(LARGE))
    archive = open_remote(site.url, "v.zip", tmp_path, windows)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(archive, list(LARGE), tmp_path / "out", workers=1, progress=interrupt)
    assert 1 <= len(list((tmp_path / "out").rglob("*.mp4"))) < len(LARGE)
    with pytest.raises(DownloadError, match="stopped"):
        windows.fetch(f"{site.url}/v.zip", 0, 5, tmp_path / "x")


@pytest.mark.parametrize("check_if_range", [True, False], ids=["honours If-Range", "ignores If-Range"])
def test_volumes_that_change_are_never_mixed(tmp_path, site, windows, impatient, caplog, check_if_range):
    site.check_if_range = check_if_range
    site.files = build(entries(LARGE))
    archive = open_remote(site.url, "v.zip", tmp_path, impatient)
    site.cuts = [15_000]
    assert [failure.reason for failure in take(archive, ["v/3.mp4"], tmp_path)] == ["network"]
    other = {name: RNG.bytes(len(body)) for name, body in LARGE.items()}
    site.files = build(entries(other))
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    assert take(archive, ["v/3.mp4"], tmp_path) == []
    assert (tmp_path / "v/3.mp4").read_bytes() == other["v/3.mp4"]
    assert "fetching it again" not in caplog.text  # it was noticed at the request, not at the CRC-32


def test_packed_bytes_of_an_older_archive_are_fetched_again(tmp_path, site, windows, caplog):
    site.files = build(entries(LARGE))
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    (tmp_path / "v/3.mp4.pieces").mkdir(parents=True)
    (tmp_path / "v/3.mp4.pieces/0").write_bytes(b"something else")
    assert take(archive, ["v/3.mp4"], tmp_path) == []
    assert read(tmp_path / "v") == {"3.mp4": LARGE["v/3.mp4"]}
    assert "no member begins where the directory says; fetching it again from the start" in caplog.text


def test_passing_errors_are_retried_and_others_are_not(tmp_path, site, windows):
    site.files = build(entries())
    site.statuses = [502, 429]
    archive = open_remote(site.url, "v.zip", tmp_path, windows)
    site.statuses = [502, 429]
    assert take(archive, ["v/1.mp4"], tmp_path) == []
    site.statuses = [403]
    (failure,) = take(archive, ["v/2.mp4"], tmp_path)
    assert (failure.reason, "answered HTTP 403 Forbidden" in failure.detail) == ("http", True)
    site.statuses = [502] * 3
    with pytest.raises(WindowError, match="failed 3 times in a row; last: TransientError: HTTP 502"):
        open_remote(site.url, "v.zip", tmp_path, windows)


def test_a_place_beyond_the_end_of_a_volume_is_an_error(tmp_path, site, windows):
    site.files = build(entries())
    with pytest.raises(WindowError, match="answered HTTP 416"):
        windows.fetch(f"{site.url}/v.zip", len(site.files["v.zip"]), 1, tmp_path / "x")


def test_a_server_without_ranges_is_said(tmp_path, site, windows):
    site.files, site.ranges = build(entries(LARGE)), False
    with pytest.raises(WindowError, match=r"v.zip: asked for bytes 0-0, got the whole file.*gives no byte ranges"):
        open_remote(site.url, "v.zip", tmp_path, windows)


def test_a_server_that_gives_fewer_bytes_than_asked_is_said(tmp_path, site, windows):
    site.files, site.short = build(entries(LARGE)), 1_000
    with pytest.raises(WindowError, match=r"the server gives 'bytes \d+-\d+/\d+'"):
        open_remote(site.url, "v.zip", tmp_path, windows)


def test_redirects_are_followed(tmp_path, site, windows):
    site.files = build(entries(), volume=1_009)
    archive = open_remote(f"{site.url}/old", "v.zip", tmp_path, windows)
    assert take(archive, list(FILES), tmp_path / "out") == []
    assert read(tmp_path / "out") == FILES


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


def _tables(items=("1", "2")):
    pairs = "".join(f"{user},{item},1583378629552\n" for user in (1, 2) for item in items)
    titles = "".join(f"{item},title {item}\n" for item in items)
    return {
        "MicroLens-100k_pairs.csv": f"user,item,timestamp\n{pairs}".encode(),
        "MicroLens-100k_title_en.csv": titles.encode(),
    }


VIDEOS = {f"MicroLens-100k_videos/{i}.mp4": RNG.bytes(3_000 + i) for i in range(1, 30)}
ZIPPED = build(entries(VIDEOS), volume=10_000, archive="MicroLens-100k_videos.zip")
CONFIG = PrepareConfig(k_user=1, k_item=1, media=("video",))


def _check(prepared, expected):
    found = {item_id: path.read_bytes() for item_id, path in prepared.media("video")}
    assert found == {item_id: VIDEOS[f"MicroLens-100k_videos/{item_id}.mp4"] for item_id in expected}


@pytest.mark.parametrize("where", ["site", "folder", "placed by hand"])
def test_videos_of_microlens_come_out_of_the_split_zip(tmp_path, site, caplog, where):
    tables = _tables(["1", "2", "77"])
    site.files = tables if where == "placed by hand" else {**tables, **ZIPPED}
    config, source = CONFIG.model_copy(update={"base_url": site.url}), None
    if where == "folder":
        source = str(write(tmp_path / "mine", site.files))
    elif where == "placed by hand":
        write(tmp_path / "raw" / "microlens-100k", ZIPPED)
    with caplog.at_level(logging.INFO, logger="datasets_spec"):
        prepared = prepare("microlens-100k", root=tmp_path, config=config, source=source)
    _check(prepared, ["1", "2"])
    assert re.search(r"3 files are read one by one out of (its 29 members|MicroLens-100k_videos.zip)", caplog.text)
    (row,) = prepared.quarantine.filter(stage="media").iter_rows(named=True)
    assert (row["item_id"], row["reason"]) == ("77", "missing")
    assert row["detail"].startswith("not in MicroLens-100k_videos.zip at ")
    before = len(site.requests)
    _check(prepare("microlens-100k", root=tmp_path, config=config), ["1", "2"])
    assert not [path for path, _, _ in site.requests[before:] if ".z0" in path]  # what is there is not fetched again
    if where == "folder":
        assert {path.name for path in (tmp_path / "mine").iterdir()} == set(tables) | set(ZIPPED)


def test_single_files_are_preferred_to_the_zip(tmp_path, site, caplog):
    site.files = {**_tables(), **ZIPPED, **VIDEOS}
    with caplog.at_level(logging.INFO, logger="datasets_spec"):
        _check(prepare("microlens-100k", root=tmp_path, config=CONFIG, source=site.url), ["1", "2"])
    assert not [path for path, _, _ in site.requests if ".z" in path]
    assert "MicroLens-100k_videos/1.mp4 is there: the files are fetched one by one" in caplog.text


def test_items_may_be_required_to_have_a_video_in_the_zip(tmp_path):
    folder = write(tmp_path / "mine", {**_tables(["1", "2", "77"]), **ZIPPED})
    config = CONFIG.model_copy(update={"require": ("video",)})
    prepared = prepare("microlens-100k", root=tmp_path, config=config, source=str(folder))
    assert prepared.items["item_id"].to_list() == ["1", "2"]


def test_what_one_address_lacks_is_tried_at_the_next(tmp_path, site, windows):
    for name, data in ZIPPED.items():
        site.files[f"b/{name}"] = data
        if not name.endswith("z01"):
            site.files[f"a/{name}"] = data
    bases = [f"{site.url}/none", f"{site.url}/a", f"{site.url}/b"]
    taken = take_remote(*("MicroLens-100k_videos.zip", list(VIDEOS), tmp_path, bases), transfer=QUICK, windows=windows)
    assert taken == ([], [])
    assert {name: (tmp_path / name).read_bytes() for name in VIDEOS} == VIDEOS
    asked = {path for path, _, _ in site.requests}
    assert {"a/MicroLens-100k_videos.z02", "b/MicroLens-100k_videos.z01"} <= asked
    assert "b/MicroLens-100k_videos.z05" not in asked
    absent = take_remote("x.zip", ["x/1.mp4"], tmp_path, bases, transfer=QUICK, windows=windows)
    assert absent is None


def test_a_zip_that_cannot_be_read_is_an_error_that_says_what_to_place_where(tmp_path, site):
    site.files = {**_tables(), **ZIPPED}
    site.ranges = False
    with pytest.raises(
        DownloadError, match=r"(?s)gives no byte ranges.*all volumes of MicroLens-100k_videos.zip.* by hand"
    ):
        prepare("microlens-100k", root=tmp_path, config=CONFIG, source=site.url)
