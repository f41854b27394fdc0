import polars as pl
import pytest

from datasets_spec.errors import SchemaError
from datasets_spec.schema import QUARANTINE, RAW_INTERACTIONS, BadRow, RawTables, bad_rows_frame

EMPTY = pl.DataFrame(schema=RAW_INTERACTIONS)
ITEMS = pl.DataFrame({"item_id": ["a"], "title": [None]}, schema={"item_id": pl.String, "title": pl.String})


def test_a_table_without_a_column_is_refused():
    with pytest.raises(SchemaError, match="raw interactions: expected a column 'timestamp'"):
        RawTables(EMPTY.drop("timestamp"), ITEMS)


def test_a_column_of_another_type_is_refused():
    with pytest.raises(SchemaError, match="column 'item_id': expected String, got Int64"):
        RawTables(EMPTY.with_columns(pl.col("item_id").cast(pl.Int64)), ITEMS)


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


def test_the_quarantine_table():
    frame = bad_rows_frame([BadRow("f", 3, None, "why", "x" * 1000)], stage="parse")
    assert frame.schema == QUARANTINE
    assert frame.row(0) == ("f", 3, None, "parse", "why", "x" * 300)
    assert bad_rows_frame([], stage="parse").schema == QUARANTINE
