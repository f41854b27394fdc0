"""Files that are no files, never end or never begin, through hashing, decoding and the store: each is one row."""

import os

import av
import numpy as np
import pytest
from PIL import Image

from extractors.content import file_sha256, hash_files
from extractors.extract import extract_visual, hash_media, open_feature
from extractors.pool import DecodePool
from feature_store import FeatureStore

ENDLESS = 1 << 36
"""64 GiB without a byte on disk: a decoder that looks through them needs minutes."""


def write_clip(path, codec="mpeg4", shade=0):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for position in range(30):
            pixels = np.full((32, 48, 3), (4 * position + shade) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def odd(tmp_path):
    """A pipe that nobody writes to, a device that never ends, a folder, and a name that leads nowhere."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere")
    return {name: tmp_path / f"{name}.mp4" for name in ("pipe", "zero", "folder", "lost")}


def test_what_is_no_regular_file_is_not_read_for_its_hash(odd):
    hashes, errors = hash_files(odd.items())
    assert hashes == {}
    assert {name: error.strerror for name, error in errors.items()} == {
        "pipe": "not a regular file",
        "zero": "not a regular file",
        "folder": "not a regular file",
        "lost": "No such file or directory",
    }


def test_a_file_that_grows_all_the_time_is_not_read_for_ever(tmp_path, monkeypatch):
    """Each time something is read, more than that is appended."""
    growing = tmp_path / "growing.mp4"
    growing.write_bytes(b"x" * 5000)
    read = os.readv

    def read_and_grow(descriptor, buffers):
        with growing.open("ab") as stream:
            stream.write(b"x" * 4096)
        return read(descriptor, [buffers[0][:1024]])

    monkeypatch.setattr("extractors.content.os.readv", read_and_grow)
    with pytest.raises(OSError, match="length changes while it is read") as caught:
        file_sha256(growing)
    assert caught.value.filename == str(growing)
    assert growing.stat().st_size == 5000 + 5 * 4096  # five reads of 1 KiB go beyond the 5,000 bytes that it had


def test_what_is_no_regular_file_is_not_decoded(odd):
    with DecodePool(1, deadline_seconds=60) as pool:
        videos = {item_id: failure.reason for item_id, failure in pool.map(odd.items())}
        pictures = {item_id: failure.reason for item_id, failure in pool.map_images(odd.items())}
    assert videos == pictures == dict.fromkeys(["pipe", "zero", "folder"], "unreadable") | {"lost": "missing_file"}


@pytest.mark.parametrize("decoder", ["planned", "sequential"])
def test_a_video_that_never_ends_runs_into_the_deadline(tmp_path, decoder):
    endless, fine = write_clip(tmp_path / "endless.mkv"), write_clip(tmp_path / "fine.mkv")
    os.truncate(endless, ENDLESS)
    with DecodePool(1, deadline_seconds=6) as pool:
        found = dict(pool.map([("endless", endless), ("fine", fine)], decoder=decoder))
    assert (found["endless"].reason, found["endless"].detail) == ("timeout", "decoding took longer than 6 s")
    assert found["fine"].data.shape == (5, 32, 48, 3)


def test_a_picture_that_claims_gigabytes_is_not_decoded(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")  # 50 KB that become 1.2 GB
    with DecodePool(1, memory_limit_bytes=500 << 20) as pool:
        ((_, failure),) = pool.map_images([("bomb", tmp_path / "bomb.png")])
    assert failure.reason == "too_large"


def test_every_item_ends_as_a_row_or_in_quarantine(tmp_path, odd, toy_root):
    files = odd | {f"clip{shade}": write_clip(tmp_path / f"clip{shade}.mkv", shade=shade) for shade in range(4)}
    files["page"] = tmp_path / "page.mp4"
    files["page"].write_text("<html>502 Bad Gateway</html>")
    files["empty"] = tmp_path / "empty.mp4"
    files["empty"].touch()
    files["endless"] = write_clip(tmp_path / "endless.h264", "libx264")
    contents = hash_media({name: path for name, path in files.items() if name != "endless"})
    os.truncate(files["endless"], ENDLESS)
    contents.hashes["endless"] = bytes(32)  # hashing 64 GiB would take minutes; that it ends is shown above
    store = FeatureStore.open(tmp_path / "odd" / "videomae", create=True)
    settings = {"checkpoint": "tiny", "shard_size": 3}
    feature = open_feature("videomae", settings, contents=contents, store=store, toy_root=toy_root)
    readable = {name: files[name] for name in contents.hashes}
    with DecodePool(2, deadline_seconds=10) as pool:
        extract_visual(readable, [feature], contents=contents, pool=pool, catalogue_size=len(files))
    bad = dict(store.quarantined().select("item_id", "reason").iter_rows())
    assert bad == {
        "pipe": "unreadable",
        "zero": "unreadable",
        "folder": "unreadable",
        "lost": "missing_file",
        "page": "unreadable",
        "empty": "unreadable",
        "endless": "timeout",
    }
    assert sorted(store.latest().item_ids) == ["clip0", "clip1", "clip2", "clip3"]
    assert len(store.latest()) + len(bad) == len(files)
