import polars as pl

from datasets_spec.idmap import natural_order, number


def test_digits_come_first_by_value_and_the_rest_by_code_point():
    ids = pl.Series(["b", "10", "9", "B", "010", "a", "9", "99999999999999999999"])
    assert natural_order(ids).to_list() == ["9", "010", "10", "99999999999999999999", "B", "a", "b"]


def test_numbers_start_at_one():
    made = number(pl.Series(["30", "4", "30"]))
    assert made.frame("item", "item_id").to_dict(as_series=False) == {"item": [1, 2], "item_id": ["4", "30"]}
    assert made.frame("item", "item_id").schema == {"item": pl.Int32, "item_id": pl.String}
    assert (len(made), made.kept, made.renumbered) == (2, 0, False)


def test_old_numbers_are_kept_and_new_ones_follow():
    made = number(pl.Series(["1", "2", "3", "4"]), previous=["3", "1"])
    assert made.ids == ("3", "1", "2", "4")
    assert (made.kept, made.renumbered) == (2, False)


def test_all_are_numbered_anew_when_one_is_gone():
    made = number(pl.Series(["1", "3"]), previous=["3", "2", "1"])
    assert made.ids == ("1", "3")
    assert (made.kept, made.renumbered) == (0, True)
