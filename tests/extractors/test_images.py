"""Pictures from files, against pictures that Pillow wrote."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from extractors.errors import FrameError
from extractors.images import read_image

GRADIENT = np.stack(np.broadcast_arrays(np.arange(40)[:, None] * 6, np.arange(60)[None] * 4, 99), axis=-1).astype(
    np.uint8
)


def save(path, picture, **settings):
    picture.save(path, **settings)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm"])
def test_lossless_formats_come_back_as_they_were(tmp_path, ending):
    np.testing.assert_array_equal(read_image(save(tmp_path / f"a.{ending}", Image.fromarray(GRADIENT))), GRADIENT)


@pytest.mark.parametrize("ending", ["jpg", "webp", "avif"])
def test_lossy_formats_come_back_nearly(tmp_path, ending):
    found = read_image(save(tmp_path / f"a.{ending}", Image.fromarray(GRADIENT), quality=95))
    assert (found.dtype, found.shape) == (np.uint8, GRADIENT.shape)
    assert np.abs(found.astype(int) - GRADIENT).mean() < 3


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_rotation(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(GRADIENT), exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(GRADIENT, turns))


def test_damaged_exif_data_does_not_matter(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(GRADIENT), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(read_image(path), GRADIENT)


def test_grey_palette_alpha_and_cmyk(tmp_path):
    grey = GRADIENT[..., 0]
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "grey.png", Image.fromarray(grey))), np.repeat(grey[..., None], 3, axis=2)
    )
    red = Image.new("RGBA", (8, 4), (200, 10, 20, 0))
    assert (read_image(save(tmp_path / "alpha.png", red)) == (200, 10, 20)).all()
    palette = Image.new("P", (8, 4), 1)
    palette.putpalette([0, 0, 0, 5, 6, 7])
    assert (read_image(save(tmp_path / "palette.gif", palette)) == (5, 6, 7)).all()
    cyan = read_image(save(tmp_path / "cmyk.tiff", Image.new("CMYK", (8, 4), (255, 0, 0, 0))))
    assert (cyan == (0, 255, 255)).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    found = read_image(save(tmp_path / "deep.png", Image.fromarray(deep)))
    np.testing.assert_array_equal(found, np.repeat((deep // 256).astype(np.uint8)[..., None], 3, axis=2))


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "a.gif") == (255, 0, 0)).all()


def reason_of(path, words, **settings):
    with pytest.raises(FrameError, match=words) as caught:
        read_image(path, **settings)
    return caught.value.reason


def test_what_is_no_picture(tmp_path):
    assert reason_of(tmp_path / "none.jpg", "does not exist") == "missing_file"
    assert reason_of(tmp_path, "regular file") == "unreadable"
    (tmp_path / "empty.jpg").touch()
    assert reason_of(tmp_path / "empty.jpg", "is empty") == "unreadable"
    (tmp_path / "page.jpg").write_bytes(b"<html>Not found</html>" * 30)
    assert reason_of(tmp_path / "page.jpg", "no picture of the formats") == "unreadable"
    (tmp_path / "program.eps").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    assert reason_of(tmp_path / "program.eps", "no picture of the formats") == "unreadable"


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_truncated(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{ending}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason_of(path, "cannot be decoded") == "corrupt"


def png_of(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_decompression_bombs_are_not_decoded(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_of(side, side))
    assert reason_of(tmp_path / "bomb.png", r"pixels") == "too_large"


def test_the_limit_can_be_set(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(GRADIENT))
    assert reason_of(path, "60×40 pixels, more than 2399", max_pixels=2399) == "too_large"
    assert read_image(path, max_pixels=2400).shape == (40, 60, 3)


def test_random_damage_is_a_picture_or_a_reason(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(GRADIENT).save(buffer, format="PNG")
    reasons = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        content = bytearray(buffer.getvalue())
        content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        (tmp_path / "a.png").write_bytes(content)
        try:
            assert read_image(tmp_path / "a.png").dtype == np.uint8
        except FrameError as error:
            reasons.add(error.reason)
    assert {"corrupt"} <= reasons <= {"corrupt", "unreadable", "too_large"}
