"""Pictures: the motion is in the order of the frames, and in what a mean over the picture sees."""

import numpy as np
import pytest

from datasets_spec.synthetic.latent import MOTIONS
from datasets_spec.synthetic.pictures import Scene

TRAITS = np.full(8, 0.5)


def _frames(motion, topic=4):
    scene = Scene(topic, MOTIONS.index(motion), TRAITS, width=64, height=96)
    return np.stack([scene.frame(phase) for phase in (0.1, 0.3, 0.5, 0.7, 0.9)])


def test_a_frame_is_rgb_of_the_asked_size():
    frames = _frames("still")
    assert frames.shape == (5, 96, 64, 3)
    assert frames.dtype == np.uint8
    assert frames.std() > 20


@pytest.mark.parametrize(("motion", "sign"), [("brighten", 1), ("darken", -1)])
def test_light_changes_steadily(motion, sign):
    means = _frames(motion).mean(axis=(1, 2, 3))
    assert (np.diff(means) * sign > 5).all()


@pytest.mark.parametrize(("motion", "sign"), [("grow", 1), ("shrink", -1)])
def test_the_shape_covers_more_or_less_of_the_picture(motion, sign):
    still = _frames("still")[2]
    colour = still[48, 32].astype(int)  # the shape lies in the middle for these traits
    share = (np.abs(_frames(motion).astype(int) - colour).sum(axis=-1) < 120).mean(axis=(1, 2))
    assert (np.diff(share) * sign > 0.01).all()


def test_the_shape_crosses_from_left_to_right():
    scene_colour = _frames("still")[2][48, 32].astype(int)
    near = np.abs(_frames("cross")[1:4].astype(int) - scene_colour).sum(axis=-1) < 120
    centres = [np.nonzero(frame)[1].mean() for frame in near]
    assert centres[0] < centres[1] < centres[2]


def test_topics_differ_more_than_items_of_one_topic():
    rng = np.random.default_rng(0)
    means = np.array(
        [
            [Scene(topic, 0, rng.random(8), width=32, height=32).frame(0.5).mean(axis=(0, 1)) for _ in range(6)]
            for topic in range(12)
        ]
    )
    within = means.std(axis=1).mean()
    between = means.mean(axis=1).std(axis=0).mean()
    assert between > 1.5 * within
