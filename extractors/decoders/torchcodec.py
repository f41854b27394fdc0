"""torchcodec in its exact mode, selectable: an optional extra that needs FFmpeg's shared libraries on the system.

It reads the timestamps of all packets when it opens a file, as the default decoder does, and gives the same frames on
almost every intact file; MPEG transport streams are the exception. Rotation is applied by torchcodec itself.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from extractors.decoders.batch import FrameBatch
from extractors.decoders.floats import float_targets
from extractors.errors import FrameError, UnknownDecoderError

_HELP = (
    "decoder torchcodec cannot work here: {why}. Install it with `pip install 'reelstore[torchcodec]'`, and FFmpeg's "
    "shared libraries (4 to 9) with the system's package manager (`apt install ffmpeg`); or use decoder planned, which "
    "needs neither"
)


def require() -> Any:
    """Check that torchcodec and its libraries load.

    Returns:
        The class ``torchcodec.decoders.VideoDecoder``.

    Raises:
        UnknownDecoderError: When they do not, with what to install.
    """
    try:
        torchcodec = import_module("torchcodec")
        decoders = import_module("torchcodec.decoders")
    except ImportError as error:
        raise UnknownDecoderError(_HELP.format(why="the package torchcodec is not installed")) from error
    except (OSError, RuntimeError) as error:  # versions up to 0.13 load FFmpeg, all load torch's libraries, on import
        raise UnknownDecoderError(_HELP.format(why=f"its libraries do not load ({_first_line(error)})")) from error
    if getattr(torchcodec, "ffmpeg_major_version", None) is None:
        raise UnknownDecoderError(_HELP.format(why="it finds no FFmpeg libraries"))
    return decoders.VideoDecoder


def read(path: Path, *, n: int, fps: float) -> FrameBatch:
    """Sample a video with torchcodec, by its own timestamps.

    Args:
        path: Video file.
        n: How many frames.
        fps: Frames per second around the centre.

    Returns:
        The frames as torchcodec gives them.

    Raises:
        FrameError: Why there are none.
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
        UnknownDecoderError: When torchcodec cannot work here.
    """
    decoder_class = require()
    if not path.exists():
        raise FrameError("missing_file", f"{path} does not exist")
    if not path.is_file() or path.stat().st_size == 0:
        raise FrameError("unreadable", f"{path} is empty or not a regular file")
    try:
        decoder = decoder_class(str(path.absolute()), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        about = decoder.metadata
        first, end = about.begin_stream_seconds, about.end_stream_seconds
    except (RuntimeError, ValueError, AssertionError) as error:
        raise FrameError("unreadable", f"torchcodec cannot open {path.name}: {_first_line(error)}") from error
    targets, policy, duration = float_targets(first, end, n=n, fps=fps)
    try:
        batch = decoder.get_frames_played_at(targets)
    except (RuntimeError, IndexError) as error:
        raise FrameError("corrupt", f"torchcodec cannot decode {path.name}: {_first_line(error)}") from error
    times = batch.pts_seconds.numpy().astype(np.float64)
    return FrameBatch(
        data=batch.data.numpy(),
        pts_seconds=times,
        n_distinct=len(np.unique(times)),
        decoder="torchcodec",
        codec=about.codec or "unknown",
        duration_seconds=duration,
        policy=policy,
        rotation=round(about.rotation or 0) % 360,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
