"""The hidden variables of the made-up site: what each item shows, and how users walk from item to item.

An item has a topic (palette, texture, shape, words) and a motion (how its frames change over time). A user's next item
is drawn from a mixture: the two topics that the *motion* of the last item leads to, and there above all the motion that
the *topic* of the last item leads to; the topic of the last item once more; the user's own two topics; or anything
popular. Because the motion is seen in the frames alone (neither the title nor the cover tells it), the frames of the
last item say something about the next one that sparse item ids do not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOPICS = 12
MOTIONS = ("still", "grow", "shrink", "brighten", "darken", "cross")
TRAITS = 8

FOLLOW = 0.60
STAY_ON_TOPIC = 0.15
OWN_TASTE = 0.17  # what is left of the probability goes to popularity over the whole catalogue
MOTION_BOOST = 10.0  # how much likelier, among the items a motion leads to, those of the expected motion are

ZIPF = 0.45
SHORT_USERS = 0.04
FIRST_MS = 1_583_378_629_000
LAST_MS = 1_662_984_000_000
TIE_SHARE = 0.02


@dataclass(frozen=True)
class Catalogue:
    """Latent description of all items; row i is the item with id i + 1.

    Attributes:
        topic: int64 [items], 0..topics-1.
        motion: int64 [items], index into MOTIONS.
        weight: float64 [items], popularity, sums to 1.
        traits: float64 [items, TRAITS] in [0, 1), the individual look of an item.
        topic_group_after: int64 [len(MOTIONS)], the topic group (topic % len(MOTIONS)) that a motion leads to.
        motion_after: int64 [topics], the motion that a topic leads to.
        topics: Number of topics.
    """

    topic: NDArray[np.int64]
    motion: NDArray[np.int64]
    weight: NDArray[np.float64]
    traits: NDArray[np.float64]
    topic_group_after: NDArray[np.int64]
    motion_after: NDArray[np.int64]
    topics: int


@dataclass(frozen=True)
class Walks:
    """Interactions, sorted by (user, time): user and item ids from 1, timestamps in Unix milliseconds, all [rows]."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    timestamp: NDArray[np.int64]


def draw_catalogue(items: int, topics: int, rng: np.random.Generator) -> Catalogue:
    """Draw the items: topics evenly, motions evenly inside each topic, popularity Zipf-like in random order."""
    if not 1 <= topics <= TOPICS:
        raise ValueError(f"topics must lie in 1..{TOPICS} (each has its words and its look), got {topics}")
    order = rng.permutation(items)
    topic = order % topics
    motion = (order // topics) % len(MOTIONS)
    weight = 1.0 / (rng.permutation(items) + 4.0) ** ZIPF
    return Catalogue(
        topic=topic.astype(np.int64),
        motion=motion.astype(np.int64),
        weight=weight / weight.sum(),
        traits=rng.random((items, TRAITS)),
        topic_group_after=rng.permutation(len(MOTIONS)).astype(np.int64),
        motion_after=(rng.permutation(topics) % len(MOTIONS)).astype(np.int64),
        topics=topics,
    )


def next_item_probabilities(catalogue: Catalogue, last: int, taste: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution of the next item.

    Args:
        catalogue: The items.
        last: Row of the item seen last.
        taste: float64 [topics], the user's own preference over topics, sums to 1.

    Returns:
        float64 [items], sums to 1 (items already seen are not yet excluded).
    """
    topic, weight = catalogue.topic, catalogue.weight
    led_to = topic % len(MOTIONS) == catalogue.topic_group_after[catalogue.motion[last]]
    expected = catalogue.motion == catalogue.motion_after[topic[last]]
    parts = (
        (FOLLOW, _normalised(weight * led_to * np.where(expected, MOTION_BOOST, 1.0))),
        (STAY_ON_TOPIC, _normalised(weight * (topic == topic[last]))),
        (OWN_TASTE, _normalised(weight * taste[topic])),
        (1.0 - FOLLOW - STAY_ON_TOPIC - OWN_TASTE, weight),
    )
    return _normalised(np.sum([share * part for share, part in parts], axis=0))


def draw_walks(catalogue: Catalogue, users: int, rng: np.random.Generator) -> Walks:
    """Let every user walk over the catalogue; nobody sees an item twice."""
    n_items = len(catalogue.topic)
    lengths = np.minimum(_draw_lengths(users, rng), n_items)
    user_column: list[NDArray[np.int64]] = []
    item_column: list[NDArray[np.int64]] = []
    time_column: list[NDArray[np.int64]] = []
    for user, length in enumerate(lengths, start=1):
        rows = _walk(catalogue, int(length), rng)
        user_column.append(np.full(len(rows), user, dtype=np.int64))
        item_column.append(rows + 1)
        time_column.append(_draw_times(len(rows), rng))
    return Walks(np.concatenate(user_column), np.concatenate(item_column), np.concatenate(time_column))


def _walk(catalogue: Catalogue, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    taste = _draw_taste(catalogue.topics, rng)
    rows = [int(rng.choice(len(catalogue.weight), p=_normalised(catalogue.weight * taste[catalogue.topic])))]
    while len(rows) < length:
        chances = next_item_probabilities(catalogue, rows[-1], taste)
        chances[rows] = 0.0
        rows.append(int(rng.choice(len(chances), p=_normalised(chances))))
    return np.asarray(rows, dtype=np.int64)


def _draw_lengths(users: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Most users have 5 or more interactions (mean about 7.2, as MicroLens-50k); a few fall short of a 5-core."""
    lengths = 4 + rng.geometric(1 / 3.2, size=users)
    short = rng.random(users) < SHORT_USERS
    return np.where(short, rng.integers(2, 5, size=users), lengths).astype(np.int64)


def _draw_taste(topics: int, rng: np.random.Generator) -> NDArray[np.float64]:
    taste = np.full(topics, 0.02)
    taste[rng.choice(topics, size=min(2, topics), replace=False)] += 1.0
    return taste / taste.sum()


def _draw_times(length: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Non-decreasing times in milliseconds, hours to days apart, with a tie now and then."""
    gaps = np.exp(rng.normal(np.log(6 * 3_600_000), 1.5, size=length)).astype(np.int64)
    gaps[rng.random(length) < TIE_SHARE] = 0
    start = rng.integers(FIRST_MS, LAST_MS)
    return np.minimum(start + np.cumsum(gaps), LAST_MS + 30 * 86_400_000)


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights))
