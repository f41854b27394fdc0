"""The index of item ids against a dict."""

import numpy as np
import polars as pl
import pytest

from feature_store.lookup import IdIndex


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 20_000])
def test_every_id_finds_its_row_and_others_find_none(size):
    generator = np.random.default_rng(size)
    ids = [f"item-{number}" for number in generator.permutation(3 * size)]
    known = {item_id: row for row, item_id in enumerate(ids[:size])}
    index = IdIndex(pl.Series(ids[:size]))
    assert index.find(ids).tolist() == [known.get(item_id, -1) for item_id in ids]
    wanted = [ids[place] for place in generator.integers(0, len(ids), 4096)] + ["", "日本", "item-0"]
    assert index.find(wanted).tolist() == [known.get(item_id, -1) for item_id in wanted]
    assert index.find([]).tolist() == []


@pytest.mark.parametrize("value", [0, 7, 2**64 - 1])
def test_ids_whose_hashes_are_all_alike_are_told_apart(value):
    index = IdIndex(pl.Series(["a", "b", "c"]), lambda ids: pl.Series([value] * len(ids), dtype=pl.UInt64))
    assert index.find(["c", "a", "b", "b"]).tolist() == [2, 0, 1, 1]


def test_hashes_that_fall_into_neighbouring_slots_are_told_apart():
    """First bits alike, so that each id stands behind the one before it; the last ones stand past the end."""
    numbers = pl.Series(range(40), dtype=pl.UInt64) + pl.Series([2**64 - 41], dtype=pl.UInt64)
    hashes = dict(zip((f"i{number}" for number in range(40)), numbers, strict=True))
    index = IdIndex(pl.Series(list(hashes))[:20], lambda ids: ids.replace_strict(hashes, return_dtype=pl.UInt64))
    assert index.find(list(hashes)).tolist() == [*range(20), *[-1] * 20]


def test_what_is_no_string_is_refused():
    with pytest.raises(TypeError, match="None is no item id"):
        IdIndex(pl.Series(["a"])).find(["a", None])
