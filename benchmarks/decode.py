"""Five frames of a video: CPU seconds of each decoder, on real clips and on one long clip made here.

Times are of the process (user and system, all threads), the best of several rounds, with the decoders in turn within
each round. The real clips are read from ``$REELSTORE_SHARED/data/videos`` (or ``../shared``); without them, only the
long clip is measured.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from extractors.frames import DECODERS, FrameBatch, FrameError, sample_frames

ROUNDS = 3
LONG_SECONDS = 60


def make_clip(path: Path, seconds: int) -> Path:
    """A noisy moving texture at 30 frames per second, 640×360, with the encoder's usual keyframes and B-frames."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for position in range(30 * seconds):
            y, x = position % 300, (2 * position) % 400
            frame = texture[y : y + 360, x : x + 640] ^ rng.integers(0, 8, (360, 640, 1), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def measure(path: Path) -> dict[str, tuple[float, FrameBatch | None]]:
    """Best CPU seconds of each decoder, and what it returned (None where it fails)."""
    best: dict[str, tuple[float, FrameBatch | None]] = {}
    for _ in range(ROUNDS):
        for decoder in DECODERS:
            begin = time.process_time()
            try:
                batch = sample_frames(path, decoder=decoder)
            except FrameError:
                batch = None
            spent = time.process_time() - begin
            best[decoder] = min(best.get(decoder, (math.inf, batch)), (spent, batch), key=lambda pair: pair[0])
    return best


def same(batch: FrameBatch | None, reference: FrameBatch | None) -> str:
    """How many frames are those of the full decode."""
    if batch is None or reference is None:
        return "-"
    if batch.data.shape != reference.data.shape:
        return "other stream"
    return f"{(batch.data == reference.data).all(axis=(1, 2, 3)).sum()}/{len(batch.data)}"


def main() -> None:
    """Measure and print one line for each clip, then medians and ratios over the clips that all can read."""
    shared = Path(os.environ.get("REELSTORE_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    clips = sorted(path for path in (shared / "data" / "videos").glob("*") if path.suffix not in (".md", ".csv"))
    rows: list[dict[str, tuple[float, FrameBatch | None]]] = []
    print(f"{'clip':<54}" + "".join(f"{decoder + ' ms':>15}" for decoder in DECODERS) + "   decord = full decode")
    with tempfile.TemporaryDirectory() as folder:
        clips.append(make_clip(Path(folder) / f"long_{LONG_SECONDS}s_h264.mp4", LONG_SECONDS))
        for decoder in DECODERS:  # imports and first allocations are not the clip's
            sample_frames(clips[-1], decoder=decoder)
        for path in clips:
            row = measure(path)
            times = "".join(
                f"{row[decoder][0] * 1e3:>15.1f}" if row[decoder][1] else f"{'fails':>15}" for decoder in DECODERS
            )
            print(f"{path.name:<54}{times}   {same(row['decord'][1], row['sequential'][1])}", flush=True)
            if same(row["planned"][1], row["sequential"][1]) not in ("-", "5/5"):
                raise SystemExit(f"{path.name}: planned and sequential differ")
            if all(batch is not None for _, batch in row.values()):
                rows.append(row)
    print(f"\nover the {len(rows)} clips that every decoder reads:")
    for decoder in DECODERS:
        times = [row[decoder][0] for row in rows]
        ratio = statistics.geometric_mean(row[decoder][0] / row["planned"][0] for row in rows)
        print(
            f"{decoder:<12} median {statistics.median(times) * 1e3:7.1f} ms   {ratio:5.2f} × planned (geometric mean)"
        )


if __name__ == "__main__":
    main()
