"""Equal and nearly equal rows against comparing all pairs."""

import numpy as np
import pytest

from feature_store import duplicates
from feature_store.duplicates import NEAR, DuplicateSearch


def search(vectors, contents=None, block_rows=100):
    """Near and exact rows; every row is of other content unless said."""
    finder = DuplicateSearch()
    for start in range(0, len(vectors), block_rows):
        finder.add(vectors[start : start + block_rows], vectors[start : start + block_rows].astype(np.float32))
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    rms = float(np.sqrt(2 * (centred**2).sum(axis=1).mean()))
    return finder.find(
        contents or [row.to_bytes(32, "big") for row in range(len(vectors))],
        usable=np.linalg.norm(vectors.astype(np.float64), axis=1) > 0,
        rms_distance=rms,
        take=lambda rows: vectors[rows].astype(np.float32),
    ), rms


def pairs_within(vectors, limit):
    """All pairs, the slow way."""
    distances = np.linalg.norm(vectors[:, None].astype(np.float64) - vectors[None], axis=2)
    return {(row, other) for row in range(len(vectors)) for other in range(row) if distances[row, other] <= limit}


@pytest.fixture
def catalogue():
    """300 rows around a common direction, as text encoders give them; 60 have a companion close by."""
    generator = np.random.default_rng(5)
    rows = generator.standard_normal((300, 64)).astype(np.float32) + 20
    noise = generator.standard_normal((60, 64)).astype(np.float32)
    return np.concatenate([rows, rows[:60] + 0.005 * noise])


def test_near_rows_are_found_and_no_others(catalogue):
    found, rms = search(catalogue)
    everything = pairs_within(catalogue, NEAR * rms)
    assert everything == {(300 + row, row) for row in range(60)}
    assert set(found.near) <= everything
    assert len(found.near) >= 55  # at a distance of 0.005 the two halves of the bits miss about 1 of 100
    assert found.exact == []


def test_no_pair_is_reported_that_is_further_than_the_limit():
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((200, 8)).astype(np.float32)
    rows = np.concatenate([rows, rows + 0.06 * generator.standard_normal((200, 8)).astype(np.float32)])
    found, rms = search(rows)
    assert set(found.near) <= pairs_within(rows, NEAR * rms)


def test_equal_rows_are_exact_and_not_near():
    generator = np.random.default_rng(2)
    rows = generator.standard_normal((6, 8)).astype(np.float16)
    rows[4] = rows[1]
    rows[5] = rows[1]
    contents = [bytes([row]) * 32 for row in (0, 1, 2, 3, 1, 5)]
    found, _ = search(rows, contents, block_rows=2)
    assert (found.exact, found.suspicious, found.near) == ([4, 5], [5], [])


def test_zero_vectors_are_near_to_nothing():
    rows = np.random.default_rng(3).standard_normal((50, 8)).astype(np.float32) * 100
    rows[7] = 0
    rows[8] = 1e-4
    assert search(rows)[0].near == []


def test_an_encoder_that_gives_everything_the_same_answer_is_seen():
    generator = np.random.default_rng(4)
    rows = (np.ones((1200, 16)) + 1e-6 * generator.standard_normal((1200, 16))).astype(np.float32)
    rows[:10] = generator.standard_normal((10, 16)) * 50
    found, _ = search(rows)
    assert len(found.near) >= 1150  # of each bucket of 512 the first has no earlier row


def test_the_work_is_bounded(monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_CANDIDATES", 1000)
    asked = []
    rows = np.random.default_rng(6).standard_normal((4000, 4)).astype(np.float32)
    finder = DuplicateSearch()
    finder.add(rows, rows)
    finder.find(
        [b""] * 4000,
        usable=np.ones(4000, dtype=bool),
        rms_distance=3.0,
        take=lambda wanted: asked.append(len(wanted)) or rows[wanted],
    )
    assert len(asked) <= 1
    assert sum(asked) <= 1000
