"""Five frames of a video: CPU time and wrong frames of our default decoder and of the readers people use.

The clips are made once (:mod:`benchmarks.clips`) and carry their numbers in the picture: a frame is wrong when the
number read back is not that of the picture on screen. Ours finds the five times itself and must equal the full decode
bit for bit; the others are told the times, five milliseconds after the wanted frame appears. CPU time is of the process
(user and system, all threads), opening included, medians of several rounds with the readers in turn within each round;
every reader uses one thread.

Readers that are not installed are left out and named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import av
import decord
import numpy as np

from benchmarks.clips import Clip, make_all, number_of
from extractors.errors import UnknownDecoderError
from extractors.frames import FrameError, require_decoder, sample_frames

ROUNDS = 5
OURS, REFERENCE = "planned", "sequential"

Reader = Callable[[Path, list[float]], np.ndarray]
"""Reads a file's frames on screen at given seconds; ours finds the times itself."""


@dataclass
class Score:
    """What one reader did over the clips: median seconds by clip, wrong frames, and frames in all."""

    seconds: dict[str, float] = field(default_factory=dict)
    wrong: int = 0
    frames: int = 0
    fails: int = 0


def by_decord(path: Path, times: list[float]) -> np.ndarray:
    """By decord's own timestamps of all frames."""
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    return reader.get_batch(np.searchsorted(starts, times, side="right") - 1).asnumpy()


def by_torchcodec(path: Path, times: list[float]) -> np.ndarray:
    """The exact mode of torchcodec."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
    return decoder.get_frames_played_at(times).data.numpy()


def by_seeking(path: Path, times: list[float]) -> np.ndarray:
    """PyAV as it is commonly used: for each time, seek back to a keyframe and decode up to the time."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        found = []
        for wanted in times:
            container.seek(int(wanted / stream.time_base), stream=stream)
            shown = None
            for frame in container.decode(stream):
                if shown is not None and frame.time > wanted:
                    break
                shown = frame
            found.append(shown.to_ndarray(format="rgb24"))
    return np.stack(found)


def by_opencv(path: Path, times: list[float]) -> np.ndarray:
    """OpenCV as it is commonly used: positions from the mean rate."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    rate = capture.get(cv2.CAP_PROP_FPS)
    found = []
    for wanted in times:
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(wanted * rate))
        good, picture = capture.read()
        if not good:
            raise FrameError("corrupt", f"OpenCV gives no frame at {wanted:.2f} s")
        found.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(found)


def readers() -> dict[str, Reader]:
    """The readers that can work here, ours first; says which cannot."""
    found: dict[str, Reader] = {
        OURS: lambda path, _: sample_frames(path, decoder=OURS).data,
        "decord": by_decord,
        "torchcodec": by_torchcodec,
        "pyav seek": by_seeking,
        "opencv": by_opencv,
    }
    try:
        require_decoder("torchcodec")
    except UnknownDecoderError as error:
        print(error)
        del found["torchcodec"]
    if find_spec("cv2") is None:
        print("opencv cannot work here; to measure it: pip install opencv-python-headless")
        del found["opencv"]
    return found


def truth(clip: Clip) -> tuple[np.ndarray, list[int], list[float]]:
    """What a full decode shows: pictures, their numbers, and times at which exactly these are on screen.

    Every number must be that of the picture which the clip shows at the frame's timestamp.
    """
    whole = sample_frames(clip.path, decoder=REFERENCE)
    numbers = [number_of(picture) for picture in whole.data]
    stamps = clip.stamps()
    for number, stamp in zip(numbers, whole.pts_seconds.tolist(), strict=True):
        if abs(float(stamps[number] * clip.tick) - stamp) > 0.001:  # Matroska rounds to milliseconds
            raise SystemExit(f"{clip.name}: the full decode shows picture {number} at {stamp} s")
    return whole.data, numbers, [stamp + 0.005 for stamp in whole.pts_seconds.tolist()]


def measure(clip: Clip, use: dict[str, Reader], scores: dict[str, Score], rounds: int) -> str:
    """Time all readers on one clip and count their wrong frames.

    Returns:
        A line to print.
    """
    spent: dict[str, list[float]] = {name: [] for name in use}
    pictures: dict[str, np.ndarray] = {}
    whole, numbers, times = truth(clip)
    for _ in range(rounds):
        for name, reader in use.items():
            begin = time.process_time()
            try:
                pictures[name] = reader(clip.path, times)
            except Exception:  # whatever a peer raises, it gives no frames
                continue
            spent[name].append(time.process_time() - begin)
    if not np.array_equal(pictures[OURS], whole):
        raise SystemExit(f"{clip.name}: {OURS} differs from the full decode")
    line = f"{clip.name:<42}"
    for name, score in scores.items():
        if not spent[name]:
            score.fails += 1
            line += f"{'fails':>14}"
            continue
        wrong = sum(number_of(got) != number for got, number in zip(pictures[name], numbers, strict=True))
        score.seconds[clip.name] = statistics.median(spent[name])
        score.wrong, score.frames = score.wrong + wrong, score.frames + len(numbers)
        line += f"{score.seconds[clip.name] * 1e3:>9.1f}{f' ({wrong}✗)' if wrong else '':<5}"
    return line


def ratio(scores: dict[str, Score], name: str, codec: str = "") -> str:
    """Ours over another's, geometric mean over the clips that both read."""
    ours, other = scores[OURS].seconds, scores[name].seconds
    shares = [ours[clip] / other[clip] for clip in other if clip.startswith(codec)]
    return f"{statistics.geometric_mean(shares):.2f}" if shares else "–"


def main() -> None:
    """Measure and print one line for each clip, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--match", default="", help="only clips whose name holds this")
    arguments = parser.parse_args()
    os.environ.setdefault("SVT_LOG", "1")  # errors alone
    clips = [clip for clip in make_all() if arguments.match in clip.name]
    use = readers()
    scores = {name: Score() for name in use}
    for reader in use.values():  # imports and first allocations are not a clip's
        reader(clips[0].path, truth(clips[0])[2])
    print(f"{'CPU ms':<42}" + "".join(f"{name:>11}   " for name in use))
    for clip in clips:
        print(measure(clip, use, scores, arguments.rounds), flush=True)
    codecs = ("h264", "hevc", "vp9", "av1")
    print(
        f"\n{'':<14}{'median ms':>10}{'wrong':>12}{'fails':>7}   ours / theirs{'':>4}"
        + "".join(f"{c:>7}" for c in codecs)
    )
    for name, score in scores.items():
        median = statistics.median(score.seconds.values()) * 1e3
        shares = "".join(f"{ratio(scores, name, codec):>7}" for codec in codecs)
        wrong = f"{score.wrong}/{score.frames}"
        print(f"{name:<14}{median:>10.1f}{wrong:>12}{score.fails:>7}   {ratio(scores, name):>13}{'':>4}{shares}")


if __name__ == "__main__":
    main()
