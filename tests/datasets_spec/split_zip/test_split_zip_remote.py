"""Split archives on a server that cuts, changes, refuses and redirects."""

import pytest
from split_zips import FILES, LARGE, RNG, Entry, build, entries, read

from datasets_spec.archive_media import open_remote, take
from datasets_spec.errors import DownloadError
from datasets_spec.remote_ranges import WindowError


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
