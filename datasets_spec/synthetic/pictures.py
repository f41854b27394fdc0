"""Pictures of the made-up site: a textured background and one shape, coloured by topic, changed over time by motion.

A scene is a function of its phase in [0, 1]: the motions change what a mean over the picture also sees (share of the
shape's colour, brightness), so that the order of the frames matters to encoders that pool over patches.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from datasets_spec.synthetic.latent import MOTIONS, TOPICS

FloatArray = NDArray[np.float32]

_SHADES = 64
_HUES = np.arange(TOPICS) * 5 % TOPICS / TOPICS  # neighbouring topics lie far apart on the colour circle
_TEXTURES: tuple[Callable[[FloatArray, FloatArray], FloatArray], ...] = (
    lambda x, y: np.sin(x + 0 * y),
    lambda x, y: np.sin(y + 0 * x),
    lambda x, y: np.sin(x) * np.sin(y),
    lambda x, y: np.sin(x + y),
    lambda x, y: np.sin(np.hypot(x - 9, y - 9)),
    lambda x, y: np.sign(np.sin(x) * np.sin(y)),
)
_SHAPES: tuple[Callable[[FloatArray, FloatArray], FloatArray], ...] = (
    lambda x, y: np.hypot(x, y),  # disc
    lambda x, y: np.maximum(np.abs(x), np.abs(y)),  # square
    lambda x, y: np.abs(x) + np.abs(y),  # diamond
    lambda x, y: (np.minimum(np.abs(x), np.abs(y)) * 2 + np.hypot(x, y) * 0.4).astype(np.float32),  # star
)


class Scene:
    """One item's moving picture.

    Args:
        topic: Chooses colours, texture and shape.
        motion: Index into MOTIONS.
        traits: float64 [TRAITS] in [0, 1), the item's own deviations.
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, topic: int, motion: int, traits: NDArray[np.float64], *, width: int, height: int) -> None:
        hue = float(_HUES[topic]) + 0.05 * (float(traits[0]) - 0.5)
        self._motion = MOTIONS[motion]
        self._traits = traits
        self._unit = float(min(width, height))
        self._x = (np.arange(width, dtype=np.float32) - width / 2)[None, :]
        self._y = (np.arange(height, dtype=np.float32) - height / 2)[:, None]
        self._half_width = width / 2
        low = _rgb(hue, 0.55, 0.25 + 0.15 * float(traits[1]))
        high = _rgb(hue + 0.04, 0.65, 0.55 + 0.15 * float(traits[1]))
        front = _rgb(hue + 0.45 + 0.1 * float(traits[2]), 0.8, 0.95)
        share = np.linspace(0.0, 1.0, _SHADES, dtype=np.float32)[:, None]
        self._palette = np.concatenate([low + (high - low) * share, front * (0.85 + 0.15 * share)])
        self._texture = _TEXTURES[topic % len(_TEXTURES)]
        self._shape = _SHAPES[(topic // 3) % len(_SHAPES)]
        self._wavelength = self._unit / (14.0 + 10.0 * float(traits[3])) * 2.0

    def frame(self, phase: float) -> NDArray[np.uint8]:
        """Picture at a phase in [0, 1]: uint8 [height, width, 3], RGB."""
        radius, centre_x, centre_y, light, pan = self._pose(phase)
        texture = self._texture((self._x + pan) / self._wavelength, (self._y + 0.3 * pan) / self._wavelength)
        shade = ((0.5 + 0.5 * texture) * (_SHADES - 1)).astype(np.uint8)
        inside = self._shape(self._x - centre_x, self._y - centre_y) < radius
        # Every pixel is one of 2 x _SHADES colours: a palette look-up is far cheaper than arithmetic on three channels.
        palette = np.clip(self._palette * (255.0 * light), 0, 255).astype(np.uint8)
        return palette[shade + inside * np.uint8(_SHADES)]

    def _pose(self, phase: float) -> tuple[float, float, float, float, float]:
        """Radius, centre, light and background shift at a phase."""
        unit, traits = self._unit, self._traits
        radius = unit * (0.20 + 0.06 * float(traits[4]))
        centre_x, centre_y = unit * 0.3 * (float(traits[5]) - 0.5), unit * 0.5 * (float(traits[6]) - 0.5)
        light, pan = 1.0, 2.0 * float(np.sin(2 * np.pi * phase))
        if self._motion == "grow":
            radius = unit * (0.08 + 0.47 * phase)
        elif self._motion == "shrink":
            radius = unit * (0.55 - 0.47 * phase)
        elif self._motion == "brighten":
            light = 0.35 + 0.75 * phase
        elif self._motion == "darken":
            light = 1.10 - 0.75 * phase
        elif self._motion == "cross":
            centre_x = (2.4 * phase - 1.2) * self._half_width
            pan = unit * 0.8 * phase
        return radius, centre_x, centre_y, light, pan


def _rgb(hue: float, saturation: float, value: float) -> FloatArray:
    """HSV to RGB, float32 [3] in [0, 1]; hue wraps at 1."""
    offsets = np.asarray([5.0, 3.0, 1.0])
    k = (offsets + 6.0 * hue) % 6.0
    return (value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)).astype(np.float32)
