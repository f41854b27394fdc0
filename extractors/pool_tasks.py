"""What the processes of a decode pool do with one file: ``(path, **options) -> {name: array or plain value}``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

Transform = Callable[[np.ndarray], np.ndarray]
"""uint8 ``[n, h, w, 3]`` to uint8 ``[n, h', w', 3]``; must be picklable."""


def frames(path: str, *, n: int, fps: float, decoder: str, transform: Transform | None) -> dict[str, Any]:
    """The fields of a :class:`~extractors.decoders.batch.FrameBatch`, its pictures transformed.

    Raises:
        FrameError: Why the file gives no frames.
    """
    from extractors.frames import sample_frames  # the decoders load only in the process that decodes

    batch = sample_frames(path, n, fps, decoder)
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    if transform is not None:
        values["data"] = transform(batch.data)
    return values


def image(path: str, *, transform: Transform | None) -> dict[str, Any]:
    """One picture as ``data``, uint8 ``[h, w, 3]``, transformed.

    Raises:
        FrameError: Why the file gives no picture.
    """
    from extractors.images import read_image

    data = read_image(Path(path))
    return {"data": data if transform is None else transform(data[None])[0]}
