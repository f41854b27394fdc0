import polars as pl
import pytest

from datasets_spec.errors import ConfigConflictError, EmptyResultError
from datasets_spec.filtering import in_time, keep_rows
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


def pairs(frame):
    return list(frame.select("user_id", "item_id").iter_rows())


def test_time_decides_and_ties_break_by_item_id():
    tables = raw([("u", "c", 5, None), ("u", "b", 9, None), ("u", "a", 9, None), ("a", "z", 9, None)])
    assert pairs(in_time(tables.interactions)) == [("a", "z"), ("u", "c"), ("u", "a"), ("u", "b")]


def test_order_is_the_time_only_where_there_is_none():
    ordered = raw([("u", "a", None, 2), ("u", "b", None, 1), ("u", "c", None, 1)])
    assert pairs(in_time(ordered.interactions)) == [("u", "b"), ("u", "c"), ("u", "a")]
    timed = raw([("u", "b", 7, 1), ("u", "a", 7, 2)])  # the order of rows in a file is no time
    assert pairs(in_time(timed.interactions)) == [("u", "a"), ("u", "b")]


def test_the_first_of_equal_pairs_in_time_stays():
    tables = raw([("u", "a", 9, None), ("u", "a", 5, None), ("u", "b", 7, None), ("v", "a", 1, None)])
    kept = keep_rows(tables, ANY, name="x")
    assert kept.interactions["timestamp"].to_physical().to_list() == [5, 7, 1]
    assert keep_rows(tables, PrepareConfig(k_user=1, k_item=1, dedupe=False), name="x").interactions.height == 4


def test_items_without_a_modality_leave_before_the_k_core():
    # Without item b, user u has one row and leaves with k_user=2. Run after the k-core, u would have stayed.
    items = pl.DataFrame(
        {"item_id": ["a", "b", "c"], "title": ["A", " ", "C"], "image_url": ["http://a", "http://b", None]}
    )
    rows = [("u", "a", 1, None), ("u", "b", 2, None), ("v", "a", 1, None), ("v", "c", 2, None)]
    config = PrepareConfig(k_user=2, k_item=1, require=("text",))
    kept = keep_rows(raw(rows, items), config, name="x")
    assert pairs(kept.interactions) == [("v", "a"), ("v", "c")]
    assert [step.name for step in kept.steps] == ["parsed", "dedupe", "require", "k_core"]
    both = PrepareConfig(k_user=1, k_item=1, require=("text", "image"))
    assert set(pairs(keep_rows(raw(rows, items), both, name="x").interactions)) == {("u", "a"), ("v", "a")}


def test_a_modality_that_the_dataset_does_not_have():
    items = pl.DataFrame({"item_id": ["a"], "title": ["A"]})
    with pytest.raises(ConfigConflictError, match=r"x: require=video, but its items have no video"):
        keep_rows(raw([("u", "a", 1, None)], items), PrepareConfig(require=("video",)), name="x")


def test_limit_takes_the_first_items_in_natural_order_before_the_k_core():
    rows = [("u", item, 1, None) for item in ("10", "9", "100", "x")] + [("v", "9", 1, None)]
    kept = keep_rows(raw(rows), PrepareConfig(k_user=1, k_item=1, limit=2), name="x")
    assert set(kept.interactions["item_id"]) == {"9", "10"}


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
