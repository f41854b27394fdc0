import polars as pl
import pytest
import torch

from models.errors import MissingFeatureError
from models.missing import apply_missing, complete_items, drop_items, present_items

IDS = ["a", "b", "c", "d"]


def table():
    """Items 2 and 4 have no row."""
    return torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0], [3.0, 0.0], [0.0, 0.0]])


def test_a_row_of_zeros_is_absent_and_padding_always_is():
    odd = table()
    odd[0] = 7.0
    assert present_items(odd).tolist() == [False, True, False, True, False]


def test_zero_leaves_the_tables_as_they_are():
    given = table()
    assert apply_missing({"x": given}, "zero", item_ids=IDS)["x"] is given


def test_mean_fills_rows_of_items_and_not_the_padding():
    given = table()
    filled = apply_missing({"x": given}, "mean", item_ids=IDS)["x"]
    assert filled.tolist() == [[0.0, 0.0], [1.0, 2.0], [2.0, 1.0], [3.0, 0.0], [2.0, 1.0]]
    assert torch.equal(given, table())


def test_mean_of_frames_is_taken_frame_by_frame():
    frames = torch.zeros(4, 2, 1)
    frames[1], frames[3] = torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0], [7.0]])
    assert apply_missing({"x": frames}, "mean", item_ids=IDS[:3])["x"][2].tolist() == [[2.0], [6.0]]


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_missing_items_are_listed(policy):
    with pytest.raises(MissingFeatureError, match="table 'x' has no row for 2 of 4 items: b, d; extract them"):
        apply_missing({"x": table()}, policy, item_ids=IDS)


def test_of_many_missing_items_ten_are_listed():
    ids = [f"i{number}" for number in range(25)]
    with pytest.raises(MissingFeatureError, match=r"25 of 25 items: i0, i1, .*, i9, …; extract"):
        apply_missing({"x": torch.zeros(26, 3)}, "error", item_ids=ids)


def test_complete_tables_are_no_error():
    given = {"x": torch.ones(5, 2)}
    assert apply_missing(given, "error", item_ids=IDS)["x"] is given["x"]


def test_there_is_no_mean_of_nothing():
    with pytest.raises(MissingFeatureError, match="no mean to put in"):
        apply_missing({"x": torch.zeros(3, 2)}, "mean", item_ids=IDS[:2])


def test_dropped_items_leave_both_tables_and_the_rest_is_numbered_anew():
    other = torch.ones(5, 1)
    other[3] = 0.0
    kept = complete_items({"x": table(), "y": other})  # only item 1 has both
    assert kept.tolist() == [False, True, False, False, False]
    interactions = pl.DataFrame(
        {"user": [0, 0, 0, 1], "item": [3, 1, 2, 3], "position": [0, 1, 2, 0], "split": ["train"] * 4},
        schema_overrides={"item": pl.Int32},
    )
    items = pl.DataFrame({"item": [1, 2, 3, 4], "item_id": IDS}, schema_overrides={"item": pl.Int32})
    rows, catalogue = drop_items(interactions, items, complete_items({"x": table()}))
    assert rows.rows() == [(0, 2, 0, "train"), (0, 1, 1, "train"), (1, 2, 0, "train")]
    assert catalogue.rows() == [(1, "a"), (2, "c")]
    assert (rows.schema, catalogue.schema) == (interactions.schema, items.schema)


def test_nothing_left_is_an_error():
    frame = pl.DataFrame({"item": [1, 2]})
    with pytest.raises(MissingFeatureError, match="take out all 2 items"):
        drop_items(frame, frame, torch.tensor([False, False, False]))
    with pytest.raises(ValueError, match="at least one"):
        complete_items({})
