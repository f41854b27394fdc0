import numpy as np
import polars as pl
import pytest

from datasets_spec.errors import SchemaError
from datasets_spec.schema import (
    INTERACTIONS,
    QUARANTINE,
    RAW_INTERACTIONS,
    TIME,
    BadRow,
    CodedInteractions,
    RawTables,
    bad_rows_frame,
    check_columns,
    starts_of,
)

EMPTY = pl.DataFrame(schema=RAW_INTERACTIONS)
ITEMS = pl.DataFrame({"item_id": ["a"], "title": [None]}, schema={"item_id": pl.String, "title": pl.String})


def test_a_table_without_a_column_is_refused():
    with pytest.raises(SchemaError, match="raw interactions: expected a column 'timestamp'"):
        RawTables(EMPTY.drop("timestamp"), ITEMS)


def test_a_column_of_another_type_is_refused():
    with pytest.raises(SchemaError, match="column 'item_id': expected String, got Float64"):
        RawTables(EMPTY.with_columns(pl.lit(None, pl.Float64).alias("item_id")), ITEMS)
    with pytest.raises(SchemaError, match=r"column 'timestamp': expected Datetime.*, got Int64"):
        RawTables(EMPTY.with_columns(pl.col("timestamp").cast(pl.Int64)), ITEMS)


def test_ids_may_be_integers_and_the_order_may_be_left_out():
    compact = EMPTY.drop("order").with_columns(pl.col("user_id").cast(pl.Int32), pl.col("item_id").cast(pl.Categorical))
    assert RawTables(compact, ITEMS).interactions.width == 3


def test_another_order_of_columns_is_refused():
    with pytest.raises(SchemaError, match="expected exactly the columns user_id, item_id, timestamp, order"):
        RawTables(EMPTY.select(sorted(EMPTY.columns)), ITEMS)


def test_items_without_id_or_twice_are_refused():
    with pytest.raises(SchemaError, match="column 'item_id': expected no nulls, got 1"):
        RawTables(EMPTY, ITEMS.with_columns(pl.lit(None, pl.String).alias("item_id")))
    with pytest.raises(SchemaError, match="expected unique item_id, got 1 repeated rows"):
        RawTables(EMPTY, pl.concat([ITEMS, ITEMS]))


def test_the_repr_shows_shapes():
    assert repr(RawTables(EMPTY, ITEMS)) == (
        "RawTables(interactions=0 rows, items=1 rows ['item_id', 'title'], bad_rows=0)"
    )


def test_coded_interactions_give_texts_back_piece_by_piece():
    rows = pl.DataFrame(
        {"user": [1, 2, 2], "item": [2, 1, 2], "timestamp": [0, 1, 2], "position": [0, 0, 1], "split": [0, 0, 2]},
        schema={"user": pl.Int32, "item": pl.Int32, "timestamp": TIME, "position": pl.Int32, "split": pl.UInt8},
    )
    coded = CodedInteractions(rows, pl.Series(["u", "v"]), pl.Series(["a", "b"]))
    piece = coded.frame(1, 9)
    check_columns(piece, INTERACTIONS, table="piece")
    assert piece.select("user_id", "item_id", "position", "split").rows() == [
        ("v", "a", 0, "train"),
        ("v", "b", 1, "test"),
    ]
    assert repr(coded) == "CodedInteractions(3 rows, 2 users, 2 items)"


def test_runs_of_equal_numbers():
    assert starts_of(np.array([7, 7, 3, 3, 3, 9])).tolist() == [0, 2, 5, 6]
    assert starts_of(np.array([], dtype=np.int32)).tolist() == [0]


def test_the_quarantine_table():
    frame = bad_rows_frame([BadRow("f", 3, None, "why", "x" * 1000)], stage="parse")
    assert frame.schema == QUARANTINE
    assert frame.row(0) == ("f", 3, None, "parse", "why", "x" * 300)
    assert bad_rows_frame([], stage="parse").schema == QUARANTINE
