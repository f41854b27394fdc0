"""What every decoder returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extractors.sampling import Policy


@dataclass(frozen=True)
class FrameBatch:
    """The sampled frames of one video.

    Attributes:
        data: uint8 ``[n, h, w, 3]``, RGB, upright (display rotation is applied; the pixel aspect ratio is not).
        pts_seconds: float64 ``[n]``, when each frame goes on screen, on the container's clock.
        n_distinct: How many different frames there are among the ``n``.
        decoder: Which decoder served, with the rung of its ladder, such as ``planned`` or ``planned:sequential``.
        codec: Name of the codec.
        duration_seconds: Presented duration of the video stream.
        policy: ``centre`` or ``short``, see :mod:`extractors.sampling`.
        rotation: Degrees, counter-clockwise, by which the stored picture was turned (0, 90, 180 or 270).
        truncated: True where the file ends before its index says so: the frames are right for what is there.
        decoded: How many frames were decoded to get these.
    """

    data: np.ndarray
    pts_seconds: np.ndarray
    n_distinct: int
    decoder: str
    codec: str
    duration_seconds: float
    policy: Policy
    rotation: int = 0
    truncated: bool = False
    decoded: int = 0

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim != 4 or self.data.shape[-1] != 3 or 0 in self.data.shape:
            raise ValueError(f"data: expected uint8 [n, h, w, 3], got {self.data.dtype} {list(self.data.shape)}")
        n = len(self.data)
        if self.pts_seconds.shape != (n,) or self.pts_seconds.dtype != np.float64:
            raise ValueError(f"pts_seconds: expected float64 [{n}], got {self.pts_seconds.dtype} "
                             f"{list(self.pts_seconds.shape)}")  # fmt: skip
        if not np.isfinite(self.pts_seconds).all() or (np.diff(self.pts_seconds) < 0).any():
            raise ValueError("pts_seconds: expected finite ascending times")
        if not 1 <= self.n_distinct <= n:
            raise ValueError(f"n_distinct: expected 1 to {n}, got {self.n_distinct}")

    def __repr__(self) -> str:
        return (
            f"FrameBatch(data=uint8 {list(self.data.shape)}, pts_seconds={np.round(self.pts_seconds, 3).tolist()}, "
            f"n_distinct={self.n_distinct}, {self.policy} of {self.duration_seconds:.3f} s, {self.codec}, "
            f"decoder={self.decoder}{', truncated' if self.truncated else ''})"
        )
