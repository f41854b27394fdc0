"""The thirty real clips: each ends as the frames of a full decode, or as a failure with the true reason."""

import csv
import os
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest

from extractors.frames import FrameError, sample_frames

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared"
VIDEOS = Path(os.environ.get("REELSTORE_SHARED", _DEFAULT)) / "data" / "videos"

FAILURES = {
    "decord_corrupted.mp4": ("corrupt", "damaged"),
    "exo_full_blocks.mkv": ("no_video", "only subtitle streams"),
    "exo_invalid-bitstream.webm": ("corrupt", "none of 51 packets"),
    "exo_sample_fragmented_clearkey.mp4": ("encrypted", "is encrypted"),
    "exo_sample_opus.mp4": ("no_video", "only audio streams"),
}
CLIPS = (
    "decord_flipping_a_pancake.mkv",
    "decord_unordered.mov",
    "decord_video_0.mov",
    "decord_video_180.mov",
    "decord_video_270.mov",
    "decord_video_90.mov",
    "exo_bear-vp9-odd-dimensions.webm",
    "exo_dolbyVision-hdr.MOV",
    "exo_hdr10-video-with-sdr-container.mp4",
    "exo_midroll-5s.mp4",
    "exo_portrait_4k60.mp4",
    "exo_sample.avi",
    "exo_sample.flv",
    "exo_sample.mkv",
    "exo_sample_android_slow_motion.mp4",
    "exo_sample_av1.mp4",
    "exo_sample_fragmented.mp4",
    "exo_sample_h263.ts",
    "exo_sample_with_increasing_timestamps_320w_240h.mp4",
    "torchcodec_av1_video.mkv",
    "torchcodec_bt709_full_range.mp4",
    "torchcodec_h264_10bits.mp4",
    "torchcodec_h265_10bits.mp4",
    "torchcodec_h265_video.mp4",
    "torchcodec_nasa_13013.mp4",
)


def probed():
    """What an earlier full decode with another program found, by file name."""
    with (VIDEOS / "probe.csv").open(newline="") as stream:
        return {row["file"]: row for row in csv.DictReader(stream)}


def reference(path, n=5):
    """Every frame of the first video stream, decoded in order; then the frames on screen at the targets."""
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        base = stream.time_base
        times = [(frame.pts, frame.duration) for frame in container.decode(stream)]
    stamps = [pts * base for pts, _ in times]
    span = stamps[-1] + times[-1][1] * base - stamps[0]
    if span < n:
        targets = [stamps[0] + span * Fraction(2 * j + 1, 2 * n) for j in range(n)]
    else:
        targets = [stamps[0] + span / 2 + (j - 2) for j in range(n)]
    chosen = [max(i for i, stamp in enumerate(stamps) if stamp <= target) for target in targets]
    pictures = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for i, frame in enumerate(container.decode(stream)):
            if i in chosen:
                pictures[i] = np.rot90(frame.to_ndarray(format="rgb24", threads=1), frame.rotation // 90)
    return np.stack([pictures[i] for i in chosen]), [float(stamps[i]) for i in chosen], len(set(chosen)), float(span)


def test_the_lists_above_are_all_the_clips():
    assert VIDEOS.is_dir(), f"the test videos are missing: {VIDEOS}; set REELSTORE_SHARED to the folder above data/"
    present = {path.name for path in VIDEOS.iterdir() if path.suffix not in (".md", ".csv")}
    assert present == set(CLIPS) | set(FAILURES) == set(probed())
    assert len(present) == 30


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_a_full_decode(name):
    data, stamps, n_distinct, span = reference(VIDEOS / name)
    planned = sample_frames(VIDEOS / name)
    np.testing.assert_array_equal(planned.data, data)
    assert planned.pts_seconds.tolist() == stamps
    assert (planned.n_distinct, planned.duration_seconds) == (n_distinct, span)
    assert planned.decoder == "planned"
    whole = sample_frames(VIDEOS / name, decoder="sequential")
    np.testing.assert_array_equal(whole.data, data)
    assert whole.pts_seconds.tolist() == stamps
    assert (whole.n_distinct, whole.duration_seconds, whole.codec) == (n_distinct, span, planned.codec)
    row = probed()[name]
    sides = int(row["h"]), int(row["w"])
    assert data.shape == (5, *(sides[::-1] if row["rotation"] in ("90", "-90") else sides), 3)


@pytest.mark.parametrize("decoder", ["planned", "sequential"])
@pytest.mark.parametrize("name", FAILURES)
def test_failures_tell_the_true_reason(name, decoder):
    reason, words = FAILURES[name]
    with pytest.raises(FrameError, match=words) as caught:
        sample_frames(VIDEOS / name, decoder=decoder)
    assert caught.value.reason == reason


def test_the_reasons_agree_with_what_was_probed():
    rows = probed()
    for name, (reason, _) in FAILURES.items():
        row = rows[name]
        if reason == "no_video":
            assert row["n_video"] == "0"
        elif reason == "corrupt":
            assert row["decode_error"]
        else:
            assert b"encv" in (VIDEOS / name).read_bytes()
            assert row["open_error"]
    assert all(not rows[name]["decode_error"] and not rows[name]["open_error"] for name in CLIPS)


def test_where_decord_differs():
    """Wrong frames without an error, and files it cannot open, are why it is not the default."""
    right = sample_frames(VIDEOS / "torchcodec_h265_video.mp4")
    wrong = sample_frames(VIDEOS / "torchcodec_h265_video.mp4", decoder="decord")
    assert wrong.data.shape == right.data.shape
    same = (wrong.data == right.data).all(axis=(1, 2, 3))
    assert 0 < same.sum() < 5  # the same pts are claimed for other pictures
    np.testing.assert_allclose(wrong.pts_seconds, right.pts_seconds, atol=1e-6)
    with pytest.raises(FrameError, match="decord cannot open") as caught:
        sample_frames(VIDEOS / "torchcodec_av1_video.mkv", decoder="decord")
    assert caught.value.reason == "unreadable"
    easy = sample_frames(VIDEOS / "exo_midroll-5s.mp4", decoder="decord")
    np.testing.assert_array_equal(easy.data, sample_frames(VIDEOS / "exo_midroll-5s.mp4").data)
    turned = sample_frames(VIDEOS / "decord_video_90.mov", decoder="decord")
    np.testing.assert_array_equal(turned.data, sample_frames(VIDEOS / "decord_video_90.mov").data)
