"""What can go wrong between a file and its features."""

from __future__ import annotations

from typing import ClassVar

FRAME_REASONS = (
    "missing_file",
    "unreadable",
    "no_video",
    "no_frames",
    "unsupported",
    "encrypted",
    "corrupt",
    "too_large",
    "timeout",
    "crashed",
    "error",
)
"""Every reason code of a :class:`FrameError` and of a quarantined item of the decode stage."""


class ExtractionError(Exception):
    """Base of every error of this package.

    ``usage`` is True where the call was wrong (unknown name, bad setting) and False where the work failed.
    """

    usage: ClassVar[bool] = False


class SamplingError(ExtractionError, ValueError):
    """A frame count or a frame rate that cannot be sampled."""

    usage: ClassVar[bool] = True


class UnknownDecoderError(ExtractionError, ValueError):
    """A decoder name that does not exist."""

    usage: ClassVar[bool] = True


class FrameError(ExtractionError):
    """One file gives no frames (or no image).

    Attributes:
        reason: One of ``FRAME_REASONS``; stable, for counting.
        detail: One sentence for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in FRAME_REASONS:
            raise ValueError(f"reason: expected one of {', '.join(FRAME_REASONS)}, got {reason!r}")
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class PoolError(ExtractionError):
    """The decode pool itself cannot work: its processes do not start, or a task does not exist."""
