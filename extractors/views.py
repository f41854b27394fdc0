"""One decode for several encoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extractors.resize import FrameTransform


@dataclass(frozen=True)
class Views:
    """Several transforms of the same frames, so that one decode serves several encoders.

    The results lie side by side in one array, which is what a decode worker sends back; :meth:`split` takes them apart.
    """

    transforms: tuple[FrameTransform, ...]

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Turn uint8 ``[n, h, w, 3]`` into uint8 ``[n, tallest, sum of widths, 3]``."""
        tallest = max(transform.crop[0] for transform in self.transforms)
        views = [transform(frames) for transform in self.transforms]
        return np.concatenate([np.pad(view, _below(tallest - view.shape[1])) for view in views], axis=2)

    def split(self, data: np.ndarray) -> dict[FrameTransform, np.ndarray]:
        """Take apart what was put side by side.

        Args:
            data: uint8 ``[n, tallest, sum of widths, 3]``, or one picture without ``n``.

        Returns:
            By transform, uint8 ``[n, *crop, 3]``, or ``[*crop, 3]``.
        """
        found: dict[FrameTransform, np.ndarray] = {}
        left = 0
        for transform in self.transforms:
            height, width = transform.crop
            found[transform] = data[..., :height, left : left + width, :]
            left += width
        return found


def _below(rows: int) -> list[tuple[int, int]]:
    return [(0, 0), (0, rows), (0, 0), (0, 0)]
