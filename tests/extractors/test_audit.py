"""The decoder audit: which videos it takes, and that it tells right frames from wrong ones."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from extractors import audit as module
from extractors.audit import Comparison, DecoderCount, audit, choose, compare, count
from extractors.decoders.batch import FrameBatch
from extractors.errors import FrameError
from extractors.pool import DecodePool

SHARED = Path(os.environ.get("REELSTORE_SHARED", Path(__file__).parents[2].parent / "shared"))
VIDEOS = SHARED / "data" / "videos"


def digest(number):
    return hashlib.sha256(str(number).encode()).digest()


def test_the_smallest_hashes_are_chosen_whatever_the_order_and_the_names():
    hashes = {f"item {number}": digest(number) for number in range(250)}
    chosen = choose(hashes, 0.01)
    assert len(chosen) == 3  # 2.5, rounded up
    assert {hashes[name] for name in chosen} == set(sorted(hashes.values())[:3])
    assert choose(dict(reversed(hashes.items())), 0.01) == chosen
    assert choose({name.upper(): content for name, content in hashes.items()}, 0.01) == [n.upper() for n in chosen]


def test_equal_contents_are_looked_at_once():
    hashes = {"a": digest(1), "b": digest(1), "c": digest(2)}
    assert sorted(choose(hashes, 1)) == ["a", "c"]
    assert len(choose(hashes, 0.5)) == 1


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="share: expected"):
        choose({"a": digest(1)}, share)


def test_nothing_to_choose_from():
    assert choose({}, 1) == []


def batch(shade=10, **changes):
    values = {
        "data": np.full((5, 4, 6, 3), shade, np.uint8),
        "pts_seconds": np.arange(5.0),
        "n_distinct": 5,
        "decoder": "planned",
        "codec": "h264",
        "duration_seconds": 9.0,
        "policy": "centre",
    }
    return FrameBatch(**(values | changes))


def one_wrong():
    data = np.full((5, 4, 6, 3), 10, np.uint8)
    data[3] = 7
    return batch(data=data, pts_seconds=np.array([0, 1, 2, 2.5, 4]))


@pytest.mark.parametrize(
    ("given", "full", "verdict", "detail"),
    [
        (batch(), batch(), "equal", ""),
        (batch(pts_seconds=np.arange(5.0) + 1), batch(), "equal", ""),
        (
            one_wrong(),
            batch(),
            "different",
            "1 of 5 pictures differ, by up to 3.0 grey levels on average; on screen at 0.000, 1.000, 2.000, 2.500, "
            "4.000 s, of the full decode at 0.000, 1.000, 2.000, 3.000, 4.000 s",
        ),
        (batch(255), batch(0), "different", "5 of 5 pictures differ, by up to 255.0 grey levels on average"),
        (batch(n_distinct=4), batch(), "different", "4 distinct pictures, of the full decode 5"),
        (
            batch(data=np.zeros((5, 6, 4, 3), np.uint8)),
            batch(),
            "different",
            "pictures 5 of 4×6, of the full decode 5 of 6×4",
        ),
        (FrameError("corrupt", "x"), batch(), "different", "no pictures where the full decode has them: corrupt: x"),
        (batch(), FrameError("corrupt", "y"), "different", "pictures where the full decode has none: corrupt: y"),
        (
            FrameError("corrupt", "x"),
            FrameError("no_video", "y"),
            "failed",
            "corrupt: x; the full decode: no_video: y",
        ),
    ],
)
def test_verdicts(monkeypatch, given, full, verdict, detail):
    def sample(path, n, fps, decoder):
        outcome = full if decoder == "sequential" else given
        if isinstance(outcome, FrameError):
            raise outcome
        return outcome

    monkeypatch.setattr(module, "sample_frames", sample)
    found = compare(Path("a.mp4"), n=5, fps=1.0, decoder="planned")
    assert found == {"decoder": "planned", "verdict": verdict, "detail": detail}


def test_counts_are_by_rung():
    found = [
        Comparison("a", "planned", "equal", ""),
        Comparison("b", "planned:sequential", "equal", ""),
        Comparison("c", "planned", "different", "x"),
        Comparison("d", "planned", "failed", "y"),
    ]
    assert count(found) == [DecoderCount("planned", 3, 1, 1, 1), DecoderCount("planned:sequential", 1, 1, 0, 0)]


def test_a_decoder_that_shows_wrong_pictures_is_found_out(tmp_path):
    (tmp_path / "page.mp4").write_text("<html>")
    names = ("torchcodec_h265_video.mp4", "torchcodec_nasa_13013.mp4", "decord_video_90.mov")
    items = [*((name, VIDEOS / name) for name in names), ("page", tmp_path / "page.mp4")]
    with DecodePool(1) as pool:
        ours = {c.item_id: c for c in audit(items, n=5, fps=1.0, decoder="planned", pool=pool)}
        theirs = {c.item_id: c for c in audit(items, n=5, fps=1.0, decoder="decord", pool=pool)}
    hevc, nasa, turned = names
    assert {name: c.verdict for name, c in ours.items()} == dict.fromkeys(names, "equal") | {"page": "failed"}
    assert all(c.decoder.startswith("planned") for c in ours.values())
    # Small groups of pictures, of which decord takes positions in decoding order for positions in display order ...
    assert theirs[hevc].verdict == "different"
    assert theirs[hevc].detail.startswith("4 of 5 pictures differ")
    # ... and two video streams, of which it takes another one.
    assert (theirs[nasa].verdict, theirs[turned].verdict, theirs["page"].verdict) == ("different", "equal", "failed")
    assert theirs[nasa].detail == "pictures 5 of 480×270, of the full decode 5 of 320×180"


def test_a_comparison_that_takes_too_long_has_failed(tmp_path):
    endless = tmp_path / "endless.mkv"
    endless.write_bytes((VIDEOS / "exo_sample.mkv").read_bytes())
    os.truncate(endless, 1 << 36)
    with DecodePool(1, deadline_seconds=1) as pool:
        (found,) = audit([("endless", endless)], n=5, fps=1.0, decoder="sequential", pool=pool)
    assert found == Comparison("endless", "sequential", "failed", "timeout: decoding took longer than 1 s")
