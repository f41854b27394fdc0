import pytest
import torch

from models.sequences.batch import SequenceBatch


def batch_of(ids, **changes):
    item_ids = torch.tensor(ids)
    rows = len(item_ids)
    values = {"item_ids": item_ids, "mask": item_ids > 0, "target": torch.ones(rows).long(), "user": torch.arange(rows)}
    return SequenceBatch(**values | changes)


def test_what_stands_last():
    batch = batch_of([[4, 5, 0], [6, 0, 0], [1, 2, 3], [0, 0, 0]])
    assert batch.lengths.tolist() == [2, 1, 3, 0]
    assert batch.last_position.tolist() == [1, 0, 2, 0]
    assert batch.last_item.tolist() == [5, 6, 3, 0]
    assert len(batch) == 4


def test_padding_moves_to_the_front():
    ids, mask = batch_of([[4, 5, 0], [6, 0, 0], [1, 2, 3], [0, 0, 0]]).left_padded()
    assert ids.tolist() == [[0, 4, 5], [0, 0, 6], [1, 2, 3], [0, 0, 0]]
    assert mask.tolist() == [[False, True, True], [False, False, True], [True] * 3, [False] * 3]


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"item_ids: expected shape \[b, l\]"):
        batch_of([1, 2, 3])
    with pytest.raises(ValueError, match=r"target: expected shape \[2\], got \[3\]"):
        batch_of([[1, 2], [3, 0]], target=torch.ones(3).long())
    with pytest.raises(ValueError, match=r"targets: expected shape \[2, 2\], got \[2, 1\]"):
        batch_of([[1, 2], [3, 0]], targets=torch.ones(2, 1).long())


def test_repr_shows_shapes():
    assert repr(batch_of([[1, 2]])) == "SequenceBatch(item_ids=[1, 2], last position, device=cpu)"
    assert "all positions" in repr(batch_of([[1, 2]], targets=torch.tensor([[2, 3]])))


def test_moving_keeps_everything():
    batch = batch_of([[1, 2]], targets=torch.tensor([[2, 3]]))
    moved = batch.to("cpu")
    assert all(torch.equal(getattr(moved, name), getattr(batch, name)) for name in ("item_ids", "mask", "targets"))
    assert batch_of([[1, 2]]).to("cpu").targets is None
