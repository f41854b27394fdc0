"""Content hashes and their cache."""

import hashlib
import json
import os

import pytest

from extractors import content
from extractors.content import HashCache, hash_files, text_sha256


@pytest.fixture
def later(monkeypatch):
    """A clock that is a minute ahead: every file was written long before it is hashed."""
    real = content.time.time_ns
    monkeypatch.setattr(content.time, "time_ns", lambda: real() + 60 * 10**9)


@pytest.fixture
def reads(monkeypatch):
    """Names of the files that are really read."""
    names = []
    original = content.file_sha256
    monkeypatch.setattr(content, "file_sha256", lambda path, **rest: names.append(path.name) or original(path))
    return names


def test_hashes_are_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    hashes, errors = hash_files([("x", tmp_path / "a")])
    # FIPS 180-4's own example
    assert hashes["x"].hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert errors == {}
    assert text_sha256("abc") == hashes["x"]
    assert len(text_sha256("\ud83d")) == 32


def test_missing_files_are_reported_and_the_rest_is_hashed(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    seen = []
    hashes, errors = hash_files(
        [("x", tmp_path / "none"), ("y", tmp_path / "a"), ("z", tmp_path)], progress=lambda *call: seen.append(call)
    )
    assert list(hashes) == ["y"]
    assert set(errors) == {"x", "z"}
    assert isinstance(errors["x"], FileNotFoundError)
    assert seen[-1] == ("hash", 3, 3)


def test_known_files_are_not_read_again(tmp_path, later, reads):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    files = [(name, tmp_path / name) for name in "ab"]
    cache = tmp_path / "cache" / "hashes.json"
    first = hash_files(files, cache=cache)
    assert sorted(reads) == ["a", "b"]
    assert hash_files(files, cache=cache) == first
    assert sorted(reads) == ["a", "b"]


def test_a_changed_file_is_read_again_even_with_its_old_size_and_time(tmp_path, later, reads):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    cache = tmp_path / "hashes.json"
    hash_files([("a", path)], cache=cache)
    before = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    hashes, _ = hash_files([("a", path)], cache=cache)
    assert hashes["a"] == hashlib.sha256(b"two").digest()
    assert reads == ["a", "a"]


def test_a_file_written_this_moment_is_not_remembered(tmp_path, reads, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    written = path.stat().st_mtime_ns
    monkeypatch.setattr(content.time, "time_ns", lambda: written + 10**9)  # a second later, however long it takes
    cache = tmp_path / "hashes.json"
    hash_files([("a", path)], cache=cache)
    hash_files([("a", path)], cache=cache)
    assert reads == ["a", "a"]
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"x": 3}', '{"x": [1, 2, 3, "zz"]}'])
def test_a_damaged_cache_costs_time_and_nothing_else(damage, tmp_path, later):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    cache = tmp_path / "hashes.json"
    cache.write_text(damage)
    hashes, _ = hash_files([("a", path)], cache=cache)
    assert hashes["a"] == hashlib.sha256(b"one").digest()
    assert len(json.loads(cache.read_text())) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path, later, caplog):
    (tmp_path / "a").write_bytes(b"one")
    cache = HashCache(tmp_path / "a" / "not-a-folder.json")
    cache.digest(tmp_path / "a")
    cache.save()
    assert "could not be written" in caplog.text
