"""Resizing, against Pillow's bilinear filter."""

import pickle

import numpy as np
import pytest
from PIL import Image

from extractors.resize import FrameTransform, resize


def texture(height, width, n=2):
    rng = np.random.default_rng(height * width)
    noise = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    noise[:, : height // 2] = (noise[:, : height // 2].astype(int) // 8 + np.arange(width)[:, None] % 200).astype(
        np.uint8
    )
    return noise


def pillow(frames, height, width):
    size = (width, height)
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)) for frame in frames])


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ((720, 1280), (224, 224)),
        ((720, 1280), (224, 398)),
        ((1280, 720), (398, 224)),
        ((225, 226), (224, 224)),
        ((121, 161), (224, 298)),
        ((16, 28), (224, 224)),
        ((1, 1), (7, 5)),
        ((500, 3), (10, 10)),
        ((224, 400), (224, 224)),
    ],
)
def test_within_one_grey_level_of_pillow(have, want):
    frames = texture(*have)
    found = resize(frames, *want)
    assert (found.shape, found.dtype) == ((2, *want, 3), np.uint8)
    assert np.abs(found.astype(int) - pillow(frames, *want)).max() <= 1


def test_a_view_that_is_not_contiguous():
    frames = texture(60, 80)[:, ::-1, ::-1]
    expected = pillow(np.ascontiguousarray(frames), 30, 40)
    assert np.abs(resize(frames, 30, 40).astype(int) - expected).max() <= 1


def test_the_same_size_changes_nothing():
    frames = texture(224, 224)
    np.testing.assert_array_equal(FrameTransform.of("squash")(frames), frames)
    np.testing.assert_array_equal(FrameTransform.of("centre_crop")(frames), frames)


def test_squash_keeps_the_whole_picture():
    frames = texture(100, 60)
    assert np.abs(FrameTransform.of("squash", 32)(frames).astype(int) - pillow(frames, 32, 32)).max() <= 1


@pytest.mark.parametrize(("have", "scaled"), [((120, 90), (42, 32)), ((90, 120), (32, 42)), ((64, 64), (32, 32))])
def test_centre_crop_cuts_the_longer_side(have, scaled):
    frames = texture(*have)
    height, width = scaled  # the longer side is cut down to whole pixels: 32 * 120 / 90 = 42.67
    top, left = (height - 32) // 2, (width - 32) // 2
    expected = pillow(frames, height, width)[:, top : top + 32, left : left + 32]
    found = FrameTransform.of("centre_crop", 32)(frames)
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_what_is_missing_is_black():
    frames = np.full((1, 4, 4, 3), 200, np.uint8)
    found = FrameTransform(size=4, crop=(7, 3))(frames)
    expected = np.zeros((1, 7, 3, 3), np.uint8)
    expected[:, 1:5] = 200
    np.testing.assert_array_equal(found, expected)


def test_a_transform_travels_to_another_process():
    transform = FrameTransform.of("centre_crop", 32)
    assert pickle.loads(pickle.dumps(transform)) == transform


def test_wrong_calls():
    with pytest.raises(ValueError, match="expected uint8"):
        resize(np.zeros((2, 8, 8, 3), np.float32), 4, 4)
    with pytest.raises(ValueError, match="squash or centre_crop"):
        FrameTransform.of("stretch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1 pixel"):
        FrameTransform(size=0, crop=(4, 4))
