"""Memory of the decode pool over many videos: does it grow?

Small clips of several codecs, containers and sizes, among them a cut one and one that is no video, go through one
pool again and again, in passes of 500, with the transform of a real run. After each pass every process is idle and its
memory is read from the kernel: resident (RSS), and what no other process shares (USS).
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np

from extractors.pool import DecodePool, FrameFailure
from extractors.resize import FrameTransform

VIDEOS, PASS = 5_000, 500
CLIPS = (
    ("a.mp4", "libx264", (160, 120)),
    ("b.mkv", "libx264", (360, 640)),
    ("c.mp4", "libx265", (320, 180)),
    ("d.webm", "libvpx-vp9", (320, 180)),
    ("e.avi", "mpeg4", (640, 360)),
    ("f.ts", "mpeg2video", (320, 180)),
    ("g.mp4", "libx264", (1280, 720)),
)


def make_clips(folder: Path) -> list[Path]:
    """Four seconds each, and two files that give no frames or fewer."""
    paths = [_write(folder / name, codec, size) for name, codec, size in CLIPS]
    cut, page = folder / "cut.mkv", folder / "page.mp4"
    cut.write_bytes(paths[1].read_bytes()[: paths[1].stat().st_size // 2])
    page.write_text("<html>502 Bad Gateway</html>")
    return [*paths, cut, page]


def _write(path: Path, codec: str, size: tuple[int, int]) -> Path:
    rng = np.random.default_rng(size[0])
    options = {
        "x265-params": "log-level=none:pools=none:frame-threads=1",
        "preset": "ultrafast",
        "deadline": "realtime",
    }
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={} if codec.startswith("mpeg") else options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        texture = rng.integers(0, 256, (size[1] // 20, size[0] // 20 + 40, 3), dtype=np.uint8)
        texture = texture.repeat(20, 0).repeat(20, 1)
        for number in range(40):
            picture = np.ascontiguousarray(texture[:, 8 * number : 8 * number + size[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def memory_of(pid: int | str) -> tuple[float, float]:
    """Resident and unshared memory of a process in MiB (Linux)."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kib = {words[0]: int(words[1]) for words in lines}
    return kib["Rss:"] / 1024, (kib["Private_Clean:"] + kib["Private_Dirty:"]) / 1024


def children() -> list[int]:
    """Processes that this one started, by number."""
    found = Path("/proc/self/task").glob("*/children")
    return sorted(int(pid) for file in found for pid in file.read_text().split())


def main() -> None:
    """Print a line for each pass, and the growth from the first to the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=VIDEOS)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, DecodePool(arguments.workers) as pool:
        clips = make_clips(Path(folder))
        items = ((str(number), clips[number % len(clips)]) for number in range(arguments.videos))
        measure(pool, items)
    print(f"CPU of all processes, making the clips included: {sum(os.times()[:4]):.0f} s")


def measure(pool: DecodePool, items: Iterator[tuple[str, Path]]) -> None:
    done, failed, first = 0, 0, {}
    seen: set[int] = set()
    while batch := list(islice(items, PASS)):
        for _, outcome in pool.map(batch, transform=FrameTransform.of("centre_crop")):
            done, failed = done + 1, failed + isinstance(outcome, FrameFailure)
        gc.collect()
        time.sleep(2)  # idle processes give freed memory back
        now = {"parent": memory_of("self")}
        seen.update(children())
        for number, pid in enumerate(children(), start=1):
            now[f"child {number} ({pid})"] = memory_of(pid)
        first = first or now
        figures = "   ".join(f"{name}: {rss:.1f} / {uss:.1f}" for name, (rss, uss) in now.items())
        print(f"{done:>6} videos, {failed} failed; RSS / USS MiB   {figures}", flush=True)
    for name in now:
        if name in first:
            rss, uss = (after - before for before, after in zip(first[name], now[name], strict=True))
            print(f"growth from {PASS} to {done}: {name}: RSS {rss:+.1f} MiB, USS {uss:+.1f} MiB")
    print(f"child processes in all: {len(seen)}")


if __name__ == "__main__":
    main()
