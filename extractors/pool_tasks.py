"""What the processes of a decode pool do with one file: ``(path, **options) -> {name: array or plain value}``.

Imported by those processes alone, before their first file: no file's deadline pays for loading the decoders.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extractors.audit import compare
from extractors.frames import sample_frames
from extractors.images import read_image

if TYPE_CHECKING:
    from extractors.pool import Transform

for _decoder in ("planned", "sequential"):
    import_module(f"extractors.decoders.{_decoder}")


def frames(path: str, *, n: int, fps: float, decoder: str, transform: Transform | None) -> dict[str, Any]:
    """The fields of a :class:`~extractors.decoders.batch.FrameBatch`, its pictures transformed.

    Raises:
        FrameError: Why the file gives no frames.
    """
    batch = sample_frames(path, n, fps, decoder)
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    if transform is not None:
        values["data"] = transform(batch.data)
    return values


def comparison(path: str, *, n: int, fps: float, decoder: str) -> dict[str, Any]:
    """The frames of a decoder beside those of the full decode, see :mod:`extractors.audit`."""
    return compare(Path(path), n=n, fps=fps, decoder=decoder)


def image(path: str, *, transform: Transform | None) -> dict[str, Any]:
    """One picture as ``data``, uint8 ``[h, w, 3]``, transformed.

    Raises:
        FrameError: Why the file gives no picture.
    """
    data = read_image(Path(path))
    return {"data": data if transform is None else transform(data[None])[0]}
