"""Shards with stable numbers, and the part of the work that a run selects."""

import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from feature_store import FeatureShard, FeatureStore, QuarantineRow
from flows.errors import CallError
from flows.jobs.selection import Selection
from flows.jobs.shards import Shard, cut, parse_shards, states


def test_shards_follow_item_order_and_equal_contents_stay_with_the_first():
    contents = {"a": b"1", "b": b"2", "c": b"3", "d": b"1", "e": b"4"}
    assert cut("abxcdye", contents, 3) == [["a", "b", "x", "d"], ["c", "y"], ["e"]]
    assert cut("abcd", dict.fromkeys("abcd", b"same"), 2) == [["a", "b", "c", "d"], []]
    assert cut("", {}, 3) == []


def test_a_readable_item_more_moves_no_other_item():
    contents = {str(number): bytes([number]) for number in range(10)}
    before = cut(contents, {item: content for item, content in contents.items() if item != "4"}, 3)
    assert before == cut(contents, contents, 3)


def test_numbers_of_shards():
    assert parse_shards("3") == {3}
    assert parse_shards("3..7") == {3, 4, 5, 6, 7}
    assert parse_shards("3,5..9,0") == {0, 3, 5, 6, 7, 8, 9}


@pytest.mark.parametrize("text", ["", "-1", "3..", "..7", "3.7", "3, 5", "a", "3..7..9", "1,"])
def test_what_names_no_shards(text):
    with pytest.raises(CallError, match=r"expected numbers from 0 such as 3, 3\.\.7 or 3,5\.\.9"):
        parse_shards(text)


def test_a_range_that_ends_before_it_starts():
    with pytest.raises(CallError, match=r"did you mean 3\.\.7"):
        parse_shards("7..3")


def test_states():
    found = list(states("vit", [["a", "b", "c"], ["d"]], missing={"b"}, quarantined={"b", "c"}))
    assert found == [Shard("vit", 0, 3, 1, 1, 1), Shard("vit", 1, 1, 1, 0, 0)]


ITEMS = {name: bytes([ord(name)]) * 32 for name in "abcdef"}
CUT = [["a", "b"], ["c", "d"], ["e", "f"]]


@pytest.fixture
def opened(tmp_path):
    """A store that has a row of ``a``, and ``b`` and ``c`` in quarantine; and the files of the items."""
    store = FeatureStore.open(tmp_path / "d" / "f", create=True)
    plan = store.plan({"x": 1}, ITEMS)
    store.write_shard(FeatureShard(["a"], [ITEMS["a"]], np.ones((1, 2), np.float32)), plan)
    store.quarantine([QuarantineRow(item, "decode", "corrupt", "broken", ITEMS[item]) for item in "bc"], plan)
    files = {item: tmp_path / item for item in ITEMS}
    for day, file in enumerate(files.values(), start=1):
        file.touch()
        moment = datetime(2026, 11, day, tzinfo=UTC).timestamp()
        os.utime(file, (moment, moment))
    return store, store.plan({"x": 1}, ITEMS), files


@pytest.mark.parametrize(
    ("choice", "todo", "left_in_quarantine"),
    [
        ({}, "def", "bc"),
        ({"only": "failed"}, "bc", ""),
        ({"shards": frozenset({1, 2})}, "def", "bc"),
        ({"shards": frozenset({1})}, "d", "bc"),
        ({"shards": frozenset({1}), "only": "failed"}, "c", "b"),
        ({"since": datetime(2026, 11, 5, tzinfo=UTC)}, "ef", "bc"),
    ],
)
def test_what_is_selected(opened, choice, todo, left_in_quarantine):
    store, plan, files = opened
    selection = Selection(datetime.now(UTC) + timedelta(seconds=1), **choice)
    narrowed = selection.narrow(plan, store, shards=CUT, files=files)
    assert (narrowed.todo, narrowed.known_bad) == (list(todo), list(left_in_quarantine))
    assert selection.partial is bool(choice)


def test_what_failed_since_the_job_started_is_not_retried_again(opened):
    store, plan, files = opened
    started = datetime.now(UTC)
    store.quarantine([QuarantineRow("b", "decode", "corrupt", "broken still", ITEMS["b"])], plan)
    narrowed = Selection(started, only="failed").narrow(store.plan({"x": 1}, ITEMS), store, shards=CUT, files=files)
    assert narrowed.todo == ["c"]
