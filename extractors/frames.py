"""Sampled frames of a video file: the one way in, whichever decoder serves."""

from __future__ import annotations

import difflib
import os
from importlib import import_module
from pathlib import Path

from extractors.decoders.batch import FrameBatch
from extractors.errors import FrameError, UnknownDecoderError

__all__ = ["DECODERS", "FrameBatch", "FrameError", "require_decoder", "sample_frames"]

DECODERS = ("planned", "sequential", "decord", "torchcodec")
"""``planned`` (default) equals ``sequential``, the full decode, frame for frame; ``decord`` and ``torchcodec`` do not
always, and ``torchcodec`` is an optional extra."""


def sample_frames(path: str | os.PathLike[str], n: int = 5, fps: float = 1.0, decoder: str = "planned") -> FrameBatch:
    """Take ``n`` frames at ``fps`` around the centre of a video.

    The targets are ``c + (j - (n-1)/2) / fps`` for ``j = 0 .. n-1``, where ``c`` is the middle of what the first
    decodable video stream presents; a video shorter than ``n / fps`` seconds is cut into ``n`` equal parts and looked
    at in the middle of each. Each target takes the frame on screen at that time. See :mod:`extractors.sampling`.

    Args:
        path: Video file.
        n: How many frames, at least 1.
        fps: Frames per second around the centre, above 0.
        decoder: One of ``DECODERS``.

    Returns:
        ``data`` uint8 ``[n, h, w, 3]`` RGB, upright; ``pts_seconds`` float64 ``[n]``; ``n_distinct``.

    Raises:
        FrameError: Why the file gives no frames: ``reason`` is a code, ``detail`` a sentence.
        UnknownDecoderError: When there is no such decoder, or it cannot work here.
        SamplingError: When ``n`` or ``fps`` cannot be sampled.
    """
    require_decoder(decoder)
    return import_module(f"extractors.decoders.{decoder}").read(Path(path), n=n, fps=fps)


def require_decoder(decoder: str) -> None:
    """Check that there is such a decoder and that it can work here.

    Raises:
        UnknownDecoderError: When there is none, or what it needs is not installed.
    """
    if decoder not in DECODERS:
        near = difflib.get_close_matches(decoder, DECODERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownDecoderError(f"decoder: expected one of {', '.join(DECODERS)}, got {decoder!r}{hint}")
    if decoder == "torchcodec":
        import_module("extractors.decoders.torchcodec").require()
