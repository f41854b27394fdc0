"""One decode for several encoders."""

from __future__ import annotations

from collections.abc import Sequence
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
        return _beside([transform(frames) for transform in self.transforms])

    @property
    def crop(self) -> tuple[int, int]:
        """Height and width of what comes out."""
        return max(part.crop[0] for part in self.transforms), sum(part.crop[1] for part in self.transforms)

    def part(self, data: np.ndarray, transform: FrameTransform | Views) -> np.ndarray:
        """What another transform would have given.

        Args:
            data: uint8 ``[n, *crop, 3]``, or one picture without ``n``.
            transform: One or several of the transforms.

        Raises:
            KeyError: When they are not among them.
        """
        wanted = parts_of(transform)
        if wanted == self.transforms:
            return data
        found = self.split(data)
        return found[wanted[0]] if len(wanted) == 1 else _beside([found[each] for each in wanted])

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


def parts_of(transform: FrameTransform | Views) -> tuple[FrameTransform, ...]:
    """The transforms that one is made of."""
    return transform.transforms if isinstance(transform, Views) else (transform,)


def _beside(views: Sequence[np.ndarray]) -> np.ndarray:
    """Put uint8 ``[..., h, w, 3]`` side by side; what is less high is black below."""
    tallest = max(view.shape[-3] for view in views)
    flat = [(0, 0)] * (views[0].ndim - 3)
    padded = [np.pad(view, [*flat, (0, tallest - view.shape[-3]), (0, 0), (0, 0)]) for view in views]
    return np.concatenate(padded, axis=-2)
