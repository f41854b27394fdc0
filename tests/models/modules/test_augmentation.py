"""Counts and shapes in closed form, and that every outcome is as likely as it should be."""

import math
from collections import Counter

import pytest
import torch

from models.modules.augmentation import crop, random_positions, reorder, share_of

WIDTH = 12
LENGTHS = torch.arange(WIDTH + 1).repeat(50)  # every length from 0, fifty times
PLACE = torch.arange(WIDTH)
MASK = LENGTHS.unsqueeze(1) > PLACE
IDS = (100 * (torch.arange(len(LENGTHS)).unsqueeze(1) + 1) + PLACE) * MASK  # row and place can be read off


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows():
    return [row[real].tolist() for row, real in zip(IDS, MASK, strict=True)]


def test_shares_are_of_the_written_ratio():
    lengths = torch.tensor([0, 1, 5, 10, 100])
    assert share_of(lengths, 0.29).tolist() == [0, 0, 1, 2, 29]  # 0.29 * 100 is 28.999999999999996
    assert share_of(lengths, 0.6).tolist() == [0, 0, 3, 6, 60]
    assert share_of(lengths, 1.0).tolist() == lengths.tolist()


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6, 1.0])
def test_a_crop_is_a_contiguous_run_of_the_right_length(ratio):
    ids, mask = crop(IDS, MASK, ratio, generator=seeded())
    for before, after, real in zip(rows(), ids, mask, strict=True):
        n = len(before)
        kept = min(n, max(1, math.floor(ratio * n + 1e-9)))
        found = after[:kept].tolist()
        assert real.tolist() == [place < kept for place in range(WIDTH)]
        assert after[kept:].tolist() == [0] * (WIDTH - kept)
        assert any(before[start : start + kept] == found for start in range(n - kept + 1))


def test_a_crop_begins_anywhere_equally_often():
    ids = torch.arange(1, 6).repeat(30_000, 1)
    found, _ = crop(ids, ids > 0, 0.6, generator=seeded())
    counts = Counter(found[:, 0].tolist())
    assert set(counts) == {1, 2, 3}
    assert max(abs(count - 10_000) for count in counts.values()) < 5 * math.sqrt(30_000 * 2 / 9)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
def test_exactly_so_many_real_positions_are_chosen(ratio):
    count = share_of(LENGTHS, ratio)
    chosen = random_positions(MASK, count, generator=seeded())
    assert torch.equal(chosen.sum(dim=1), count)
    assert not (chosen & ~MASK).any()


def test_every_set_of_positions_is_equally_likely():
    mask = torch.tensor([True, True, True, True, False]).repeat(30_000, 1)
    chosen = random_positions(mask, torch.full((30_000,), 2), generator=seeded())
    counts = Counter(tuple(row.nonzero().flatten().tolist()) for row in chosen)
    assert set(counts) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert max(abs(count - 5_000) for count in counts.values()) < 5 * math.sqrt(30_000 * 5 / 36)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.6, 1.0])
def test_reordering_permutes_one_contiguous_run(ratio):
    ids = reorder(IDS, MASK, ratio, generator=seeded())
    for before, after in zip(rows(), ids.tolist(), strict=True):
        n = len(before)
        assert sorted(after[:n]) == before
        assert after[n:] == [0] * (WIDTH - n)
        moved = [place for place in range(n) if after[place] != before[place]]
        if moved:
            assert moved[-1] - moved[0] < math.floor(ratio * n + 1e-9)


def test_every_order_of_every_run_is_equally_likely():
    """Runs of three in four places: 2 begins times 6 orders; the orders that also the other run gives add up."""
    ids = torch.arange(1, 5).repeat(48_000, 1)
    found = reorder(ids, ids > 0, 0.75, generator=seeded())
    counts = Counter(map(tuple, found.tolist()))
    assert len(counts) == 10
    # Identity and the swap of 2 and 3 come from both runs.
    expected = {order: 8_000 if order in ((1, 2, 3, 4), (1, 3, 2, 4)) else 4_000 for order in counts}
    assert max(abs(counts[order] - expected[order]) for order in counts) < 5 * math.sqrt(8_000)


def test_the_generator_alone_decides():
    for function in (lambda g: crop(IDS, MASK, 0.6, generator=g)[0], lambda g: reorder(IDS, MASK, 0.6, generator=g)):
        first = function(seeded(1))
        torch.manual_seed(5)
        assert torch.equal(function(seeded(1)), first)
        assert not torch.equal(function(seeded(2)), first)
