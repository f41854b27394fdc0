"""The walks: their shape, and what the last item says about the next one."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from datasets_spec.synthetic.latent import MOTIONS, draw_catalogue, draw_walks, next_item_probabilities


def _draw(seed, *, users=900, items=320, topics=12):
    rng = np.random.default_rng(seed)
    catalogue = draw_catalogue(items, topics, rng)
    return catalogue, draw_walks(catalogue, users, rng)


@pytest.fixture(scope="module")
def drawn():
    return _draw(0)


def test_every_topic_and_motion_has_its_share_of_the_items(drawn):
    catalogue, _ = drawn
    cells = Counter(zip(catalogue.topic.tolist(), catalogue.motion.tolist(), strict=True))
    assert len(cells) == 12 * len(MOTIONS)
    assert set(cells.values()) <= {4, 5}  # 320 items in 72 cells


def test_the_default_size_is_that_of_a_small_microlens(drawn):
    _, walks = drawn
    per_user = np.bincount(walks.user)[1:]
    per_item = np.bincount(walks.item, minlength=321)[1:]
    assert len(per_user) == 900
    assert 6.5 < per_user.mean() < 7.5
    assert (per_user >= 5).mean() > 0.93
    assert (per_item >= 5).mean() > 0.97


def test_nobody_sees_an_item_twice_and_time_never_runs_back(drawn):
    _, walks = drawn
    assert len(set(zip(walks.user.tolist(), walks.item.tolist(), strict=True))) == len(walks.user)
    same_user = walks.user[1:] == walks.user[:-1]
    gaps = np.diff(walks.timestamp)[same_user]
    assert (gaps >= 0).all()
    assert 0 < (gaps == 0).sum() < 0.05 * len(gaps)
    assert 1_583_000_000_000 < walks.timestamp.min() < walks.timestamp.max() < 1_666_000_000_000


def test_the_same_seed_gives_the_same_walks():
    (_, first), (_, again), (_, other) = _draw(5, users=30, items=40), _draw(5, users=30, items=40), _draw(6, users=30)
    np.testing.assert_array_equal(first.item, again.item)
    np.testing.assert_array_equal(first.timestamp, again.timestamp)
    assert not np.array_equal(first.item[:50], other.item[:50])


def test_the_next_item_follows_the_motion_and_the_topic_of_the_last(drawn):
    catalogue, _ = drawn
    taste = np.full(12, 1 / 12)
    chances = next_item_probabilities(catalogue, 0, taste)
    assert chances.sum() == pytest.approx(1.0)
    led_to = catalogue.topic % len(MOTIONS) == catalogue.topic_group_after[catalogue.motion[0]]
    assert chances[led_to].sum() > 0.6
    same_motion = np.flatnonzero(catalogue.motion == catalogue.motion[0])
    other_motion = np.flatnonzero(catalogue.motion != catalogue.motion[0])
    assert next_item_probabilities(catalogue, int(same_motion[-1]), taste)[led_to].sum() > 0.6
    assert next_item_probabilities(catalogue, int(other_motion[-1]), taste)[led_to].sum() < 0.4


def _hit_rate(scores, targets):
    target = scores[np.arange(len(targets)), targets]
    return ((scores >= target[:, None]).sum(axis=1) <= 10).mean()


@pytest.mark.parametrize("seed", [0, 1])
def test_content_of_the_last_item_beats_ids_and_ids_beat_popularity(seed):
    """HR@10 of the last item of each user, with what counting over the other rows can know."""
    catalogue, walks = _draw(seed)
    n_items = len(catalogue.topic)
    starts = np.flatnonzero(np.diff(walks.user, prepend=0))
    sequences = [s - 1 for s in np.split(walks.item, starts[1:]) if len(s) >= 5]
    pairs = np.array([pair for s in sequences for pair in pairwise(s[:-1])])
    last, target = np.array([(s[-2], s[-1]) for s in sequences]).T
    popularity = np.bincount(pairs[:, 1], minlength=n_items) / len(pairs)

    by_id = np.zeros((n_items, n_items))
    np.add.at(by_id, (pairs[:, 0], pairs[:, 1]), 1.0)
    cell = catalogue.topic * len(MOTIONS) + catalogue.motion
    by_cell = np.zeros((12 * len(MOTIONS), 12 * len(MOTIONS)))
    np.add.at(by_cell, (cell[pairs[:, 0]], cell[pairs[:, 1]]), 1.0)
    by_topic = np.zeros((12, 12 * len(MOTIONS)))
    np.add.at(by_topic, (catalogue.topic[pairs[:, 0]], cell[pairs[:, 1]]), 1.0)
    within = popularity / np.bincount(cell, weights=popularity)[cell]

    chance = _hit_rate(np.broadcast_to(popularity, (len(target), n_items)), target)
    ids = _hit_rate(by_id[last] + popularity, target)
    topic = _hit_rate(by_topic[catalogue.topic[last]][:, cell] * within, target)
    content = _hit_rate(by_cell[cell[last]][:, cell] * within, target)
    assert ids > 2.0 * chance
    assert content > 1.3 * ids
    assert content > 1.5 * topic  # the motion says more than the topic alone, which titles and covers tell as well


def test_more_topics_than_there_are_words_for_are_refused():
    with pytest.raises(ValueError, match=r"topics must lie in 1\.\.12 .* got 13"):
        draw_catalogue(5, 13, np.random.default_rng(0))
