import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_spec.idmap import draw_order, encode, hash_ids, natural_order, number, split_mix

MASK = 2**64 - 1


def test_digits_come_first_by_value_and_the_rest_by_code_point():
    ids = pl.Series(["b", "10", "9", "B", "010", "a", "9", "99999999999999999999"])
    assert natural_order(ids).to_list() == ["9", "010", "10", "99999999999999999999", "B", "a", "b"]


def test_numbers_start_at_one():
    made = number(pl.Series(["30", "4", "30"]))
    assert made.frame("item", "item_id").to_dict(as_series=False) == {"item": [1, 2], "item_id": ["4", "30"]}
    assert made.frame("item", "item_id").schema == {"item": pl.Int32, "item_id": pl.String}
    assert (len(made), made.kept, made.renumbered) == (2, 0, False)


def test_old_numbers_are_kept_and_new_ones_follow():
    made = number(pl.Series(["1", "2", "3", "4"]), previous=pl.Series(["3", "1"]))
    assert made.ids.to_list() == ["3", "1", "2", "4"]
    assert (made.kept, made.renumbered) == (2, False)


def test_all_are_numbered_anew_when_one_is_gone():
    made = number(pl.Series(["1", "3"]), previous=pl.Series(["3", "2", "1"]))
    assert made.ids.to_list() == ["1", "3"]
    assert (made.kept, made.renumbered) == (0, True)


def test_numbers_of_given_ids():
    made = number(pl.Series(["a", "b", "c"]), previous=pl.Series(["c"]))
    assert made.numbers(pl.Series(["b", "c", "a"])).tolist() == [3, 1, 2]


@given(rounds=st.lists(st.sets(st.integers(0, 20), min_size=1), min_size=1, max_size=6))
def test_a_map_that_only_grows_never_changes_a_number(rounds):
    there, previous = set(), None
    for more in rounds:
        there |= more
        made = number(pl.Series([str(one) for one in there]), previous)
        assert set(made.ids) == {str(one) for one in there}
        assert not made.renumbered
        if previous is not None:
            assert made.ids.head(len(previous)).to_list() == previous.to_list()
        previous = made.ids


@pytest.mark.parametrize(
    "column",
    [
        pl.Series(["10", "9", "10", "b", "é", "9"]),
        pl.Series(["10", "9", "10", "b", "é", "9"], dtype=pl.Categorical),
        pl.Series(["10", "9", "10", "b", "é", "9"], dtype=pl.Enum(["é", "9", "b", "10", "never"])),
        pl.Series([10, 9, 10, -5, 9], dtype=pl.Int8),
        pl.Series([10, 9, 10, 2**40, 9]),
        pl.Series([2**64 - 1, 9, 9], dtype=pl.UInt64),
        pl.Series([], dtype=pl.String),
        pl.Series([], dtype=pl.Int64),
    ],
    ids=["texts", "categories", "enum", "close", "wide", "unsigned", "no texts", "no integers"],
)
def test_codes_stand_for_the_texts_in_their_order(column):
    texts = column.cast(pl.String).to_list()
    codes, ids = encode(column, natural=False)
    assert codes.dtype == np.int32
    assert ids.dtype == pl.String
    assert ids.to_list() == sorted(set(texts))
    assert [ids[code] for code in codes.tolist()] == texts
    codes, ids = encode(column, natural=True)
    assert ids.to_list() == natural_order(column.cast(pl.String)).to_list()
    assert [ids[code] for code in codes.tolist()] == texts


def test_split_mix_gives_its_published_first_outputs():
    # The first outputs of the reference generator started at 1234567: state k is the seed plus k golden-ratio steps.
    states = np.array([(1234567 + step * 0x9E3779B97F4A7C15) & MASK for step in range(3)], dtype=np.uint64)
    assert split_mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def plain_hash(text):
    """The same, word by word in Python integers."""

    def mix(x):
        x = (x + 0x9E3779B97F4A7C15) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    data = text.encode()
    state = mix(len(data))
    for start in range(0, len(data), 8):
        state = mix(state ^ int.from_bytes(data[start : start + 8], "little"))
    return state


@given(texts=st.lists(st.text(max_size=40), max_size=20))
def test_hashes_equal_those_of_plain_integers(texts):
    assert hash_ids(pl.Series(texts, dtype=pl.String)).tolist() == [plain_hash(text) for text in texts]


def test_a_draw_depends_on_seed_and_purpose_and_not_on_the_order_of_ids():
    ids = pl.Series([f"user {i}" for i in range(100)])
    drawn = ids.gather(draw_order(ids, seed=3, purpose="x")).to_list()
    assert sorted(drawn) == sorted(ids)
    backwards = ids.reverse()
    assert backwards.gather(draw_order(backwards, seed=3, purpose="x")).to_list() == drawn
    for other in (draw_order(ids, seed=4, purpose="x"), draw_order(ids, seed=3, purpose="y")):
        assert ids.gather(other).to_list() != drawn
