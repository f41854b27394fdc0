"""decord and torchcodec behind the same call: right frames on easy files, and clear words where they cannot work."""

import sys
from types import ModuleType

import av
import numpy as np
import pytest

from extractors.decoders.floats import float_targets
from extractors.errors import UnknownDecoderError
from extractors.frames import FrameError, require_decoder, sample_frames
from extractors.pool import DecodePool


def works(decoder):
    """Whether an optional decoder can be tested here."""
    try:
        require_decoder(decoder)
    except UnknownDecoderError:
        return False
    return True


OTHERS = ["decord", *(["torchcodec"] if works("torchcodec") else [])]


def write(path, count=150):
    """Clean pictures at 30 per second, each of one grey level of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            picture = np.full((48, 64, 3), 30 + number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("decoder", OTHERS)
@pytest.mark.parametrize("count", [1, 4, 100, 150, 299])
def test_an_easy_file_gives_the_frames_of_the_full_decode(tmp_path, decoder, count):
    path = write(tmp_path / "clip.mp4", min(count, 200))
    found, whole = sample_frames(path, decoder=decoder), sample_frames(path, decoder="sequential")
    np.testing.assert_array_equal(found.data, whole.data)
    np.testing.assert_allclose(found.pts_seconds, whole.pts_seconds, atol=1e-5)
    assert (found.n_distinct, found.policy, found.decoder) == (whole.n_distinct, whole.policy, decoder)


@pytest.mark.parametrize("decoder", OTHERS)
@pytest.mark.parametrize(
    ("content", "reason"), [(None, "missing_file"), (b"", "unreadable"), (b"<html></html>" * 99, "unreadable")]
)
def test_what_is_no_video(tmp_path, decoder, content, reason):
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FrameError) as caught:
        sample_frames(path, decoder=decoder)
    assert caught.value.reason == reason


def test_without_torchcodec_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)  # an import of it fails from here on
    with pytest.raises(
        UnknownDecoderError, match=r"pip install 'reelstore\[torchcodec\]'.*apt install ffmpeg"
    ) as caught:
        sample_frames(tmp_path / "clip.mp4", decoder="torchcodec")
    assert "package torchcodec is not installed" in str(caught.value)
    with pytest.raises(UnknownDecoderError, match="or use decoder planned"):
        require_decoder("torchcodec")


def stub(monkeypatch, **attributes):
    """A package torchcodec with nothing in it but these."""
    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    package.__dict__.update(attributes)
    decoders.__dict__["VideoDecoder"] = object
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)


def test_without_ffmpeg_libraries_torchcodec_cannot_work(monkeypatch):
    stub(monkeypatch, ffmpeg_major_version=None)
    with pytest.raises(UnknownDecoderError, match="finds no FFmpeg libraries"):
        require_decoder("torchcodec")
    stub(monkeypatch, ffmpeg_major_version=5)
    require_decoder("torchcodec")


def test_a_pool_says_so_before_it_starts(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    with DecodePool(workers=1) as pool, pytest.raises(UnknownDecoderError, match="torchcodec"):
        next(iter(pool.map([("a", tmp_path / "clip.mp4")], decoder="torchcodec")))


def test_targets_from_times_that_are_not_exact():
    # 10 s from 2 s: targets 5, 6, 7, 8, 9 s, each a little later, so that a frame at 5.000001 s counts as on time
    targets, policy, duration = float_targets(1.9999998, 12.0000003, n=5, fps=1.0)
    assert (policy, duration) == ("centre", 10.0)
    np.testing.assert_allclose(targets, [5.00002, 6.00002, 7.00002, 8.00002, 9.00002], atol=1e-9)
    assert float_targets(3.0, 3.0, n=2, fps=1.0)[1:] == ("short", 0.0)
