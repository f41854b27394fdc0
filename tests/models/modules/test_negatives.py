import pytest
import torch

from models.errors import SequenceDataError
from models.modules.negatives import unseen_negatives


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_shape_type_and_range():
    drawn = unseen_negatives(torch.tensor([[1, 2], [0, 0]]), 10, n_items=9, generator=seeded())
    assert drawn.shape == (2, 10)
    assert drawn.dtype == torch.int64
    assert drawn.min() >= 1
    assert drawn.max() <= 9


@pytest.mark.parametrize(
    "exclude",
    [[3, 1, 2], [7, 0, 0], [5, 5, 5], [0, 0, 0], [1, 7, 4], [6, 7, 0], [2, 0, 2]],
    ids=str,
)
def test_every_allowed_item_is_drawn_equally_often_and_no_other(exclude):
    drawn = unseen_negatives(torch.tensor([exclude]), 70_000, n_items=7, generator=seeded())
    allowed = set(range(1, 8)) - set(exclude)
    counts = torch.bincount(drawn[0], minlength=8)
    assert {item for item in range(8) if counts[item]} == allowed
    share = 70_000 / len(allowed)  # standard deviation of a count is below sqrt(share)
    assert all(abs(counts[item] - share) < 5 * share**0.5 for item in allowed)


def test_random_histories_against_a_set():
    exclude = torch.randint(0, 31, (200, 25), generator=seeded(1))
    drawn = unseen_negatives(exclude, 10, n_items=30, generator=seeded(2))
    for row, items in zip(exclude.tolist(), drawn.tolist(), strict=True):
        assert not set(items) & {0, *row}


def test_the_only_item_left_is_drawn():
    drawn = unseen_negatives(torch.tensor([[4, 1, 2, 4, 0]]), 6, n_items=4, generator=seeded())
    assert drawn.tolist() == [[3] * 6]


def test_the_generator_fixes_the_draw():
    exclude = torch.tensor([[1, 2, 0]])
    first, second, other = (unseen_negatives(exclude, 20, n_items=50, generator=seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_history_of_everything_is_refused():
    exclude = torch.tensor([[1, 2, 3], [1, 2, 0]])
    with pytest.raises(SequenceDataError, match=r"no negative item is left for 1 rows: they exclude all 3 items"):
        unseen_negatives(exclude, 2, n_items=3, generator=seeded())
