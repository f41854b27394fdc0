"""Pictures from files, as upright RGB."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from extractors.errors import FrameError

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded, in pixels: a few bytes of a file can claim any size."""

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "ICO")
"""Formats that only hold pixels; Pillow reads others that start programs (EPS) or hold drawings."""


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read one picture.

    The rotation in its EXIF data is applied. Palettes, grey levels, CMYK and 16-bit samples become 8-bit RGB; an alpha
    channel is dropped, as the image processors of the encoders do. Of an animation, the first frame is read.

    Args:
        path: Picture file, of one of ``FORMATS``.
        max_pixels: Largest picture that is decoded.

    Returns:
        uint8 ``[h, w, 3]``.

    Raises:
        FrameError: ``missing_file``, ``unreadable``, ``too_large`` or ``corrupt``.
    """
    path = Path(path)
    if not path.exists():
        raise FrameError("missing_file", f"{path} does not exist")
    if not path.is_file():
        raise FrameError("unreadable", f"{path} is not a regular file")
    if path.stat().st_size == 0:
        raise FrameError("unreadable", f"{path.name} is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks about odd but readable files
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return _read(path, max_pixels)


def _read(path: Path, max_pixels: int) -> np.ndarray:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                raise FrameError(
                    "too_large",
                    f"{path.name} has {picture.width}×{picture.height} pixels, more than {max_pixels} are not decoded",
                )
            picture.load()
            return np.array(_to_rgb(_upright(picture)), dtype=np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FrameError("too_large", f"{path.name}: {error}") from error
    except UnidentifiedImageError as error:
        raise FrameError("unreadable", f"{path.name} is no picture of the formats {', '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError) as error:
        raise FrameError("corrupt", f"{path.name} cannot be decoded: {error}") from error


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF rotation; damaged EXIF data says nothing about the pixels and is left aside."""
    try:
        return ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error, ZeroDivisionError):
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB; Pillow alone would clip 16-bit grey levels to white instead of scaling them."""
    if picture.mode.startswith("I;16"):
        levels = np.asarray(picture).astype(np.uint16) >> 8
        return Image.fromarray(levels.astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")
