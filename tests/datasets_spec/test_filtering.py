import random

import polars as pl
import pytest

from datasets_spec import filtering
from datasets_spec.errors import ConfigConflictError, EmptyResultError
from datasets_spec.filtering import keep_rows
from datasets_spec.schema import RAW_INTERACTIONS, TIME, BadRow, RawTables
from datasets_spec.spec import PrepareConfig

ANY = PrepareConfig(k_user=1, k_item=1)


def raw(rows, items=None, **more):
    """Rows of (user, item, milliseconds or None, order or None)."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * 4
    frame = pl.DataFrame(
        {
            "user_id": pl.Series(columns[0], dtype=pl.String),
            "item_id": pl.Series(columns[1], dtype=pl.String),
            "timestamp": pl.Series(columns[2], dtype=pl.Int64).cast(TIME),
            "order": pl.Series(columns[3], dtype=pl.Int64),
        }
    )
    assert frame.schema == RAW_INTERACTIONS
    if items is None:
        items = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String})
    return RawTables(frame, items, **more)


def pairs(kept):
    coded = kept.coded
    users, items = coded.users.gather(coded.rows["user"]), coded.items.gather(coded.rows["item"])
    return list(zip(users, items, strict=True))


def in_time(tables):
    """All rows, sorted."""
    return pairs(keep_rows(tables, PrepareConfig(k_user=1, k_item=1, dedupe=False), name="x"))


def test_time_decides_and_ties_break_by_item_id():
    tables = raw([("u", "c", 5, None), ("u", "b", 9, None), ("u", "a", 9, None), ("a", "z", 9, None)])
    assert in_time(tables) == [("a", "z"), ("u", "c"), ("u", "a"), ("u", "b")]


def test_order_is_the_time_only_where_there_is_none():
    ordered = raw([("u", "a", None, 2), ("u", "b", None, 1), ("u", "c", None, 1)])
    assert in_time(ordered) == [("u", "b"), ("u", "c"), ("u", "a")]
    timed = raw([("u", "b", 7, 1), ("u", "a", 7, 2)])  # the order of rows in a file is no time
    assert in_time(timed) == [("u", "a"), ("u", "b")]


def test_the_first_of_equal_pairs_in_time_stays():
    tables = raw([("u", "a", 9, None), ("u", "a", 5, None), ("u", "b", 7, None), ("v", "a", 1, None)])
    kept = keep_rows(tables, ANY, name="x")
    assert kept.coded.rows["timestamp"].to_physical().to_list() == [5, 7, 1]
    assert len(in_time(tables)) == 4


def test_rows_that_are_sorted_in_many_pieces_are_sorted_as_in_one(monkeypatch):
    generator = random.Random(0)
    rows = [
        (f"u{generator.randrange(40)}", str(generator.randrange(9)), generator.randrange(5), None) for _ in range(900)
    ]
    expected = sorted(rows, key=lambda row: (row[0], row[2], row[1]))
    first = {(user, item): (user, item) for user, item, *_ in reversed(expected)}
    tables = raw(rows)
    for together in (1, 100, 10_000):
        monkeypatch.setattr(filtering, "_SORTED_TOGETHER", together)
        in_order = sorted(in_time(tables), key=lambda pair: int(pair[0][1:]))
        assert in_order == sorted(((row[0], row[1]) for row in expected), key=lambda pair: int(pair[0][1:]))
        assert set(pairs(keep_rows(tables, ANY, name="x"))) == set(first)


def test_ids_may_be_integers_or_categories():
    rows = [(user, item, 1, None) for user in ("9", "10") for item in ("7", "100", "-3")]
    texts = raw(rows)
    frame = texts.interactions
    for dtype in (pl.Int64, pl.Int8, pl.Categorical):
        other = RawTables(frame.with_columns(pl.col("user_id", "item_id").cast(dtype)), texts.items)
        assert in_time(other) == in_time(texts)
    assert [item for _, item in in_time(texts)[:3]] == ["-3", "100", "7"]  # ties break by the text
    wide = frame.with_columns(user_id=pl.col("user_id").cast(pl.Int64) * 10**15)
    assert {user for user, _ in in_time(RawTables(wide, texts.items))} == {"9000000000000000", "10000000000000000"}


def test_a_sample_of_users_is_of_the_size_asked_for_and_does_not_depend_on_the_order_of_rows():
    rows = [(f"u{user}", item, 1, None) for user in range(50) for item in "ab"]
    config = PrepareConfig(k_user=1, k_item=1, sample_users=7)
    kept = keep_rows(raw(rows), config, name="x")
    assert [(step.name, step.rows, step.users) for step in kept.coded.steps[:2]] == [
        ("parsed", 100, 50),
        ("sample_users", 14, 7),
    ]
    assert kept.coded.steps[1].note == "7 of 50 users, seed=0"
    assert pairs(keep_rows(raw(rows[::-1]), config, name="x")) == pairs(kept)
    other = keep_rows(raw(rows), config.model_copy(update={"seed": 1}), name="x")
    assert set(pairs(other)) != set(pairs(kept))
    more = keep_rows(raw(rows), config.model_copy(update={"sample_users": 20}), name="x")
    assert set(pairs(kept)) < set(pairs(more))
    everyone = keep_rows(raw(rows), config.model_copy(update={"sample_users": 999}), name="x")
    assert everyone.coded.rows.height == 100


def test_the_youngest_rows_of_each_user_stay_after_duplicates_left():
    rows = [("u", item, time, None) for time, item in enumerate("abcda")] + [("v", "a", 3, None), ("v", "b", 1, None)]
    kept = keep_rows(raw(rows), PrepareConfig(k_user=1, k_item=1, last_n=3), name="x")
    # u: the second a is a duplicate, so that b, c, d are its youngest three; v has two rows.
    assert pairs(kept) == [("u", "b"), ("u", "c"), ("u", "d"), ("v", "b"), ("v", "a")]
    assert [(step.name, step.rows) for step in kept.coded.steps] == [
        ("parsed", 7),
        ("dedupe", 6),
        ("last_n", 5),
        ("k_core", 5),
    ]
    assert kept.coded.steps[2].note == "youngest 3 rows of each user"


def test_the_youngest_rows_are_counted_before_the_k_core():
    rows = [("u", item, time, None) for time, item in enumerate("abc")] + [("v", item, 1, None) for item in "ab"]
    kept = keep_rows(raw(rows), PrepareConfig(k_user=1, k_item=2, last_n=2), name="x")
    assert pairs(kept) == [("u", "b"), ("v", "b")]  # u's a is too old, so that only v has it


def test_items_without_a_modality_leave_before_the_k_core():
    # Without item b, user u has one row and leaves with k_user=2. Run after the k-core, u would have stayed.
    items = pl.DataFrame(
        {"item_id": ["a", "b", "c"], "title": ["A", " ", "C"], "image_url": ["http://a", "http://b", None]}
    )
    rows = [("u", "a", 1, None), ("u", "b", 2, None), ("v", "a", 1, None), ("v", "c", 2, None)]
    config = PrepareConfig(k_user=2, k_item=1, require=("text",))
    kept = keep_rows(raw(rows, items), config, name="x")
    assert pairs(kept) == [("v", "a"), ("v", "c")]
    assert [step.name for step in kept.coded.steps] == ["parsed", "dedupe", "require", "k_core"]
    both = PrepareConfig(k_user=1, k_item=1, require=("text", "image"))
    assert set(pairs(keep_rows(raw(rows, items), both, name="x"))) == {("u", "a"), ("v", "a")}


def test_a_modality_that_the_dataset_does_not_have():
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"]})
    with pytest.raises(ConfigConflictError, match=r"x: require=video, but its items have no video"):
        keep_rows(raw([("u", "a", 1, None)], items), PrepareConfig(require=("video",)), name="x")


def test_limit_takes_the_first_items_in_natural_order_before_the_k_core():
    rows = [("u", item, 1, None) for item in ("10", "9", "100", "x")] + [("v", "9", 1, None)]
    kept = keep_rows(raw(rows), PrepareConfig(k_user=1, k_item=1, limit=2), name="x")
    assert {item for _, item in pairs(kept)} == {"9", "10"}


def test_an_empty_result_says_what_went_in_what_removed_it_and_what_to_lower():
    rows = [(user, item, 1, None) for user in "uvw" for item in "ab"]
    with pytest.raises(EmptyResultError) as caught:
        keep_rows(raw(rows, notes=("no metadata",)), PrepareConfig(k_user=5, k_item=3), name="x")
    assert str(caught.value).splitlines() == [
        "x: no interaction is left.",
        "  parsed: 6 rows, 3 users, 2 items",
        "  dedupe: 6 rows, 3 users, 2 items",
        "  in: 6 rows, 3 users, 2 items (k_user=5, k_item=3)",
        "  round 1: -3 users below k_user with 6 rows, -2 items below k_item with 0 rows; "
        "left: 0 rows, 0 users, 0 items",
        "  no metadata",
        "No user has more than 2 rows, no item more than 3. Lower the bounds: k_user=2 k_item=3 leaves 6 rows.",
    ]


def test_when_no_item_has_what_is_required():
    items = pl.DataFrame({"item_id": ["a"], "title": [None]}, schema={"item_id": pl.String, "title": pl.String})
    with pytest.raises(EmptyResultError, match=r"require: 0 rows(.|\n)*Ask for less with require="):
        keep_rows(raw([("u", "a", 1, None)], items), PrepareConfig(require=("text",)), name="x")


def test_when_no_row_could_be_read():
    bad = [BadRow("f.json", 7, None, "malformed_json", "what came")]
    with pytest.raises(EmptyResultError, match=r"1 rows could not be read, the first: f.json line 7: malformed_json"):
        keep_rows(raw([], bad_rows=bad), ANY, name="x")
    with pytest.raises(EmptyResultError, match=r"x: no usable row. The raw files hold no row at all"):
        keep_rows(raw([]), ANY, name="x")


def test_when_one_bound_alone_does_not_help():
    rows = [(user, item, 1, None) for user in "uv" for item in "ab"]
    with pytest.raises(EmptyResultError, match=r"Lower the bounds: k_user=2 k_item=2 leaves 4 rows.$"):
        keep_rows(raw(rows), PrepareConfig(k_user=3, k_item=4), name="x")


def test_when_either_bound_helps():
    rows = [(user, item, 1, None) for user in "uv" for item in "ab"] + [("w", item, 1, None) for item in "cdef"]
    message = r"Lower the bounds: k_user=2 k_item=2 leaves 4 rows, or k_user=4 k_item=1 leaves 4 rows.$"
    with pytest.raises(EmptyResultError, match=message):
        keep_rows(raw(rows), PrepareConfig(k_user=4, k_item=2), name="x")
