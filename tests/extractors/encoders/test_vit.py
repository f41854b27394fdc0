"""ViT beyond parity."""

import numpy as np
import pytest

from extractors import registry


def test_pictures_of_different_sizes_in_one_batch(tiny, rng):
    pictures = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((60, 40), (224, 224))]
    encoder = tiny("vit")
    together = encoder.encode(pictures).embedding
    assert together.shape == (2, 64)
    np.testing.assert_allclose(encoder.encode(pictures[:1]).embedding[0], together[0], atol=2e-5)


def test_modality_follows_the_input(toy_root):
    image = registry.describe("vit", {"checkpoint": "tiny"}, toy_root=toy_root)
    video = registry.describe("vit", {"checkpoint": "tiny", "input": "video"}, toy_root=toy_root)
    assert (image.modality, video.modality) == ("image", "video")
    assert (image.sampling, set(video.sampling)) == ({}, {"frames", "fps", "decoder"})
    assert (set(image.columns), set(video.columns)) == ({"embedding"}, {"embedding", "frames"})


def test_pictures_are_not_taken_for_videos(tiny, rng):
    with pytest.raises(ValueError, match=r"vit: expected uint8 \[b, 5, h, w, 3\]"):
        tiny("vit", input="video").encode(rng.integers(0, 256, (2, 224, 224, 3), dtype=np.uint8))


def test_grey_pictures_are_refused(tiny):
    with pytest.raises(ValueError, match=r"expected uint8 \[n, h, w, 3\], got uint8 \[1, 50, 50\]"):
        tiny("vit").encode([np.zeros((50, 50), np.uint8)])
