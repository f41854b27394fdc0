import json

import pytest

from datasets_spec import registry
from datasets_spec.errors import ChecksumError, DownloadError, MissingSourceError
from datasets_spec.raw import acquire_files, on_disk, raw_file, raw_root
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig, RemoteFile


def spec(*files):
    return DatasetSpec("thing", "A thing", Licence("none", "", "none"), "Ask.", files, (), PrepareConfig())


TWO = spec(RemoteFile("a.txt", "sub/a.txt"), RemoteFile("b.txt", "sub/b.txt", required=False))


def test_a_local_folder_is_read_in_place_and_remembered(tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "raw"
    theirs.mkdir()
    (theirs / "a.txt").write_text("x")
    failures = acquire_files(TWO, PrepareConfig(), ours, source=str(theirs))
    assert [failure.file.path for failure in failures] == ["b.txt"]
    assert [path.name for path in ours.iterdir()] == ["source.json"]
    assert raw_file(ours, "a.txt") == theirs / "a.txt"
    acquire_files(TWO, PrepareConfig(), ours, source=None)
    assert raw_root(ours) == theirs


def test_a_file_address_is_a_local_folder(tmp_path):
    folder = tmp_path / "with blank"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    acquire_files(TWO, PrepareConfig(), tmp_path / "raw", source=folder.as_uri())
    assert raw_root(tmp_path / "raw") == folder


def test_a_missing_folder(tmp_path):
    with pytest.raises(MissingSourceError, match=r"expected a folder or an http.* found nothing at .*/nowhere"):
        acquire_files(TWO, PrepareConfig(), tmp_path, source=str(tmp_path / "nowhere"))
    assert MissingSourceError.usage


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(MissingSourceError, match=r"found a file at .*a.txt"):
        acquire_files(TWO, PrepareConfig(), tmp_path / "raw", source=str(tmp_path / "a.txt"))


def test_a_folder_without_the_required_file_says_what_is_there(tmp_path):
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(MissingSourceError, match=r"thing: expected a.txt in .*; found there: other.txt. Ask."):
        acquire_files(TWO, PrepareConfig(), tmp_path, source=str(tmp_path))


def test_an_address_serves_flat_or_as_the_publisher_does(server, tmp_path):
    server.put("flat/a.txt", b"flat a")
    server.put("tree/sub/a.txt", b"tree a")
    server.put("tree/sub/b.txt", b"tree b")
    missing = acquire_files(TWO, PrepareConfig(), tmp_path, source=f"{server.url}/flat")
    assert [failure.file.path for failure in missing] == ["b.txt"]
    assert raw_file(tmp_path, "a.txt").read_bytes() == b"flat a"
    assert acquire_files(TWO, PrepareConfig(), tmp_path, source=f"{server.url}/tree") == []
    assert raw_file(tmp_path, "a.txt").read_bytes() == b"tree a"  # another source, fetched anew


def test_an_address_is_remembered_and_nothing_is_fetched_twice(server, tmp_path):
    server.put("a.txt", b"a")
    server.put("b.txt", b"b")
    acquire_files(TWO, PrepareConfig(), tmp_path, source=server.url)
    acquire_files(TWO, PrepareConfig(), tmp_path, source=None)
    assert sorted(request.path for request in server.requests) == ["/a.txt", "/b.txt"]


def test_base_addresses_come_from_the_settings(server, tmp_path):
    server.put("mirror/sub/a.txt", b"a")
    config = PrepareConfig(base_url=f"{server.url}/down", mirrors=(f"{server.url}/mirror",))
    assert [failure.file.path for failure in acquire_files(TWO, config, tmp_path, source=None)] == ["b.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"a"


def test_a_required_file_that_cannot_be_had(server, tmp_path):
    message = rf"thing: 1 files could not be fetched. Place them .*Ask.\n{tmp_path}/a.txt: .*HTTP 404"
    with pytest.raises(DownloadError, match=message):
        acquire_files(TWO, PrepareConfig(base_url=server.url), tmp_path, source=None)
    assert not DownloadError.usage


def test_checksums_bind_the_publisher_and_not_a_source_of_ones_own(server, tmp_path):
    server.put("a.txt", b"other bytes")
    one = spec(RemoteFile("a.txt", "a.txt", sha256="0" * 64))
    with pytest.raises(ChecksumError, match="expected SHA-256 0000"):
        acquire_files(one, PrepareConfig(base_url=server.url), tmp_path, source=None)
    assert acquire_files(one, PrepareConfig(), tmp_path, source=server.url) == []


def test_a_pointer_that_is_no_json(tmp_path):
    (tmp_path / "source.json").write_text("{")
    with pytest.raises(MissingSourceError, match=r"source.json: expected JSON with 'path' or 'url'"):
        raw_root(tmp_path)


def test_what_is_on_disk(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "b.txt.part").write_bytes(b"ab")
    first, second = on_disk(TWO, tmp_path)
    assert (first.path, first.bytes, first.part) == (tmp_path / "a.txt", 3, 0)
    assert (second.bytes, second.part) == (None, 2)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "source.json").write_text(json.dumps({"path": str(tmp_path / "elsewhere")}))
    assert on_disk(TWO, tmp_path)[0].path == tmp_path / "elsewhere" / "a.txt"


@pytest.mark.parametrize("name", registry.names())
def test_what_is_on_disk_of_every_dataset(name, tmp_path):
    _, known = registry.load(name)
    assert [state.bytes for state in on_disk(known, tmp_path)] == [None] * len(known.files)
