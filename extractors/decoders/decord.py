"""decord 0.6, selectable for comparison and for stores that were made with it.

It is not the default because it returns wrong frames without an error: it takes positions in decoding order for
positions in display order (open GOPs, small HEVC GOPs), and ignores edit lists; by default it replaces frames that do
not decode by the last one that did. It cannot open AV1 or truncated files. Rotation is applied by decord itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from extractors.decoders.batch import FrameBatch
from extractors.decoders.floats import float_targets
from extractors.errors import FrameError


def read(path: Path, *, n: int, fps: float) -> FrameBatch:
    """Sample a video with decord, by its own timestamps.

    Args:
        path: Video file.
        n: How many frames.
        fps: Frames per second around the centre.

    Returns:
        The frames as decord gives them.

    Raises:
        FrameError: Why there are none.
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """
    import decord  # its own copy of FFmpeg loads with it: only where it is asked for

    if not path.exists():
        raise FrameError("missing_file", f"{path} does not exist")
    if not path.is_file() or path.stat().st_size == 0:
        raise FrameError("unreadable", f"{path} is empty or not a regular file")
    decord.logging.set_level(decord.logging.QUIET)
    try:
        reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1)
        times = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise FrameError("unreadable", f"decord cannot open {path.name}: {_first_line(error)}") from error
    if len(times) == 0:
        raise FrameError("no_frames", f"decord finds no frame in {path.name}")
    order = np.argsort(times[:, 0], kind="stable")
    targets, policy, duration = float_targets(times[order[0], 0], times[order[-1], 1], n=n, fps=fps)
    shown = np.searchsorted(times[order, 0], targets, side="right") - 1
    taken = order[np.maximum(shown, 0)]
    try:
        data = reader.get_batch(taken.tolist()).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise FrameError("corrupt", f"decord cannot decode {path.name}: {_first_line(error)}") from error
    return FrameBatch(
        data=data,
        pts_seconds=times[taken, 0],
        n_distinct=len(np.unique(taken)),
        decoder="decord",
        codec="unknown",
        duration_seconds=duration,
        policy=policy,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
