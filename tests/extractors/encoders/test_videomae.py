"""VideoMAE beyond parity: shapes that are refused, other frame counts, the resize modes."""

import numpy as np
import pytest

from extractors import registry
from extractors.spec import EncoderSpec


def clip(rng, *shape):
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(2, 4, 32, 32), (5, 32, 32)])
def test_other_shapes_are_refused(shape, tiny, rng):
    with pytest.raises(ValueError, match=r"videomae: expected uint8 \[b, 5, h, w, 3\], got uint8"):
        tiny("videomae").encode(clip(rng, *shape))


def test_floats_are_refused(tiny):
    """Pixels that were normalised before must not be normalised again."""
    with pytest.raises(ValueError, match=r"expected uint8 \[n, h, w, 3\], got float32"):
        tiny("videomae").encode(np.zeros((1, 5, 224, 224, 3), np.float32))


def test_pixel_values_are_normalised_once(tiny):
    settings = tiny("videomae").settings
    grey = np.full((1, 224, 224, 3), 255, np.uint8)
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]  # ImageNet's mean and deviation
    np.testing.assert_allclose(settings.pixel_values(grey, "cpu")[0, :, 0, 0].tolist(), expected, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 3])
def test_other_frame_counts_give_a_vector_per_frame(frames, tiny, rng):
    encoder = tiny("videomae", frames=frames)
    encoded = encoder.encode(clip(rng, 2, frames, 224, 224))
    assert encoded.frames is not None
    assert encoded.frames.shape == (2, frames, 64)
    assert encoder.spec.columns["frames"] == (frames, 64)


def test_order_of_the_frames_matters(tiny, rng):
    video = clip(rng, 1, 5, 224, 224)
    encoder = tiny("videomae")
    forward, backward = encoder.encode(video).frames, encoder.encode(video[:, ::-1]).frames
    assert np.abs(forward - backward[:, ::-1]).max() > 1e-2


def test_resize_modes_differ_where_the_frame_is_not_square(tiny, rng):
    video = clip(rng, 1, 5, 320, 180)
    modes = {mode: tiny("videomae", resize=mode) for mode in ("checkpoint", "centre_crop", "squash")}
    vectors = {mode: encoder.encode(video).embedding for mode, encoder in modes.items()}
    np.testing.assert_array_equal(vectors["checkpoint"], vectors["centre_crop"])  # VideoMAE's own mode is the crop
    assert np.abs(vectors["checkpoint"] - vectors["squash"]).max() > 1e-2
    assert modes["squash"].spec != modes["checkpoint"].spec


@pytest.mark.parametrize(
    "changed", [{"frames": 3}, {"fps": 2.0}, {"decoder": "decord"}, {"precision": "bf16"}, {"dtype": "float16"}]
)
def test_what_changes_the_numbers_changes_the_identity(changed, toy_root):
    def identity(**settings):
        spec = registry.describe("videomae", {"checkpoint": "tiny", **settings}, toy_root=toy_root)
        assert isinstance(spec, EncoderSpec)
        return {key: value for key, value in spec.identity().items() if key != "recorded"}

    assert identity(**changed) != identity()
    assert identity(batch_size=3, shard_size=7) == identity()
