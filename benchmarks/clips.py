"""Clips for the frame sampling benchmark, made once and kept in the temp folder.

Every picture carries its own number as a pattern of bright and dark squares, so that what a decoder returns is read
back from the pixels. The pictures are a moving texture with a second motion and light noise over it; the encoders'
presets are fast ones, their B-frames and reference structures the usual ones.

`python -m benchmarks.clips` makes them and says where they lie.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np

FOLDER = Path(tempfile.gettempdir()) / "reelstore-clips-1"
"""Where the clips are kept; the number changes with their content."""

BITS, SQUARE = 12, 32
LANDSCAPE, PORTRAIT, PORTRAIT_HD = (640, 360), (360, 640), (720, 1280)

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}


@dataclass(frozen=True)
class Clip:
    """One clip: what it is made of, and when each picture goes on screen.

    Attributes:
        codec: ``h264``, ``hevc``, ``vp9`` or ``av1``.
        gop: Largest distance between keyframes, in pictures.
        seconds: Length.
        size: Width and height.
        suffix: Of the file, which names the container.
        kind: ``plain``; ``open`` (open GOPs), ``nob`` (no B-frames), ``vfr`` (steps of 20 to 120 ms).
    """

    codec: str
    gop: int
    seconds: int
    size: tuple[int, int] = LANDSCAPE
    suffix: str = "mp4"
    kind: str = "plain"

    @property
    def name(self) -> str:
        """Name of the file."""
        width, height = self.size
        return f"{self.codec}_g{self.gop}_{self.kind}_{self.seconds}s_{width}x{height}.{self.suffix}"

    @property
    def path(self) -> Path:
        """Where the file lies once it is made."""
        return FOLDER / self.name

    def stamps(self) -> list[int]:
        """Presentation times in milliseconds for ``vfr``, else the numbers of the pictures at 30 per second.

        A fraction of a second is added to the length, another one for each clip, so that what is sampled lies anywhere
        between two keyframes.
        """
        if self.kind != "vfr":
            return list(range(30 * self.seconds + (7 * self.gop + 11 * self.seconds + self.size[0]) % 30))
        steps = np.random.default_rng(self.gop + self.seconds).integers(2, 13, 100 * self.seconds) * 10
        times = np.concatenate([[0], np.cumsum(steps)])
        return times[times < 1000 * self.seconds].tolist()

    @property
    def tick(self) -> Fraction:
        """Seconds in one unit of :meth:`stamps`."""
        return Fraction(1, 1000) if self.kind == "vfr" else Fraction(1, 30)


def all_clips() -> list[Clip]:
    """The clips of the benchmark: four codecs, keyframe distances of 12 to 250, 3 to 60 seconds, both orientations."""
    clips = [
        Clip("h264", gop, seconds, size)
        for gop in (12, 30, 250)
        for seconds, sizes in (
            (3, (LANDSCAPE, PORTRAIT)),
            (10, (LANDSCAPE, PORTRAIT, PORTRAIT_HD)),
            (30, (LANDSCAPE, PORTRAIT)),
            (60, (PORTRAIT,)),
        )
        for size in sizes
    ]
    clips += [Clip("h264", 48, 15, size, kind="open") for size in (LANDSCAPE, PORTRAIT)]
    clips += [Clip("h264", 48, 15, PORTRAIT, kind="open", suffix="mkv"), Clip("h264", 60, 15, PORTRAIT, kind="nob")]
    clips += [Clip("h264", gop, 15, PORTRAIT, kind="vfr") for gop in (30, 250)]
    clips += [Clip("h264", gop, 15, LANDSCAPE, "mkv", kind="vfr") for gop in (30, 250)]
    clips += [Clip("h264", gop, 10, PORTRAIT, "mkv") for gop in (30, 250)]
    clips += [Clip("hevc", gop, seconds, PORTRAIT) for gop in (12, 30, 250) for seconds in (3, 10)]
    clips += [Clip("hevc", gop, 20, LANDSCAPE) for gop in (30, 250)]
    clips += [Clip("hevc", 48, 10, PORTRAIT, kind="open"), Clip("hevc", 30, 10, LANDSCAPE, kind="vfr")]
    clips += [Clip("vp9", gop, seconds, PORTRAIT, "webm") for gop in (30, 128) for seconds in (3, 10, 20)]
    clips += [Clip("vp9", 250, 10, LANDSCAPE, "webm"), Clip("vp9", 30, 10, LANDSCAPE, "webm", kind="vfr")]
    clips += [Clip("av1", gop, seconds, PORTRAIT) for gop in (30, 128) for seconds in (3, 10, 20)]
    clips += [Clip("av1", 250, 10, LANDSCAPE), Clip("av1", 60, 10, LANDSCAPE, "mkv")]
    return clips


def make_all() -> list[Clip]:
    """Make the clips that are not there yet.

    Returns:
        All clips.
    """
    FOLDER.mkdir(exist_ok=True)
    clips = all_clips()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(_make, [clip for clip in clips if not clip.path.exists()], chunksize=1)
    return clips


def number_of(picture: np.ndarray) -> int:
    """The number that a picture carries.

    Args:
        picture: uint8 ``[h, w, 3]``.
    """
    squares = picture[: 2 * SQUARE, : 6 * SQUARE].reshape(2, SQUARE, 6, SQUARE, 3)[:, 8:-8, :, 8:-8]
    bright = squares.mean(axis=(1, 3, 4)).reshape(-1) > 128
    return sum(1 << bit for bit, lit in enumerate(bright.tolist()) if lit)


def _make(clip: Clip) -> None:
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)
    unfinished = clip.path.with_name(f"unfinished-{clip.name}")
    _write(clip, unfinished)
    unfinished.rename(clip.path)


def _write(clip: Clip, path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(_ENCODERS[clip.codec], rate=30, options=_options(clip))
        stream.width, stream.height, stream.pix_fmt = *clip.size, "yuv420p"
        stream.codec_context.thread_count = 1
        if clip.kind == "vfr":
            stream.codec_context.time_base = clip.tick
        stamps = clip.stamps()
        for stamp, planes in zip(stamps, _pictures(*clip.size, len(stamps)), strict=True):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = stamp, clip.tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _options(clip: Clip) -> dict[str, str]:
    extra = {"open": "open-gop=1:", "nob": "bframes=0:"}.get(clip.kind, "")
    gop = f"keyint={clip.gop}:min-keyint={min(clip.gop, 25)}"
    return {
        "h264": {"preset": "superfast", "crf": "28", "x264-params": f"{extra}{gop}"},
        "hevc": {
            "preset": "ultrafast",
            "crf": "30",
            "x265-params": f"log-level=none:pools=none:frame-threads=1:{extra or 'open-gop=0:'}{gop}",
        },
        "vp9": {
            "deadline": "realtime",
            "cpu-used": "8",
            "crf": "33",
            "b": "0",
            "g": str(clip.gop),
            "arnr-max-frames": "0",
        },
        "av1": {"preset": "10", "crf": "28", "g": str(clip.gop), "svtav1-params": "lp=1:enable-tf=0:enable-overlays=0"},
    }[clip.codec]


def _pictures(width: int, height: int, count: int) -> Iterator[np.ndarray]:
    """Pictures as planar YUV 4:2:0, uint8 ``[height * 3 / 2, width]``."""
    rng = np.random.default_rng(width)
    size = 2 * max(width, height)
    y, x = np.mgrid[:size, :size]
    coarse = np.kron(rng.integers(-40, 40, (size // 40, size // 40)), np.ones((40, 40)))[:size, :size]
    back = (120 + coarse + 25 * np.sin(x / 11) + 25 * np.cos(y / 17)).clip(30, 220).astype(np.uint8)
    noise = rng.integers(0, 5, (8, height, width), dtype=np.uint8)
    sprite = rng.integers(40, 210, (6, 6)).astype(np.uint8).repeat(height // 24, 0).repeat(height // 24, 1)
    planes = np.full((height * 3 // 2, width), 118, np.uint8)
    for number in range(count):
        top, left = number % (size - height), (2 * number) % (size - width)
        luma = planes[:height]
        np.add(back[top : top + height, left : left + width], noise[number % 8], out=luma)
        across = (5 * number) % (width - sprite.shape[1])
        luma[height // 2 : height // 2 + len(sprite), across : across + sprite.shape[1]] = sprite
        for bit in range(BITS):
            row, column = SQUARE * (bit // 6), SQUARE * (bit % 6)
            luma[row : row + SQUARE, column : column + SQUARE] = 225 if number >> bit & 1 else 30
        planes[height:].fill(100 + number % 40)
        yield planes


if __name__ == "__main__":
    os.environ.setdefault("SVT_LOG", "1")  # errors alone
    begin = time.perf_counter()
    made = make_all()
    megabytes = sum(clip.path.stat().st_size for clip in made) / 1e6
    print(f"{len(made)} clips, {megabytes:.0f} MB, in {FOLDER}; {time.perf_counter() - begin:.0f} s")
