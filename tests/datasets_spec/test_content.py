import hashlib

import polars as pl
import pytest

from datasets_spec import content
from datasets_spec.content import digest, version
from datasets_spec.schema import INTERACTIONS, TIME, CodedInteractions

NUMBERS = {"user": pl.Int32, "item": pl.Int32, "position": pl.Int32}

BASE = pl.DataFrame(
    {"n": [1, 2, None], "text": ["a", "bc", None], "list": [[1], [], None], "flag": [True, False, None]}
)


@pytest.mark.parametrize(
    "other",
    [
        BASE.with_columns(n=pl.Series([1, 2, 3])),
        BASE.with_columns(n=pl.Series([1, 2, 0])),  # a null is not a zero
        BASE.with_columns(text=pl.Series(["ab", "c", None])),  # same letters, other borders
        BASE.with_columns(text=pl.Series(["a", "bc", ""])),
        BASE.with_columns(list=pl.Series([[1], [0], None])),
        BASE.with_columns(pl.col("n").cast(pl.Int32)),
        BASE.rename({"n": "m"}),
        BASE.reverse(),
        BASE.head(2),
    ],
)
def test_every_difference_shows(other):
    assert digest(other) != digest(BASE)


def test_how_a_table_is_held_in_memory_does_not_show():
    pieces = pl.concat([BASE.head(1), BASE.tail(2)], rechunk=False)
    assert digest(pieces) == digest(BASE) == digest(pl.concat([BASE, BASE]).slice(3))


@pytest.mark.parametrize("piece", [8, 16, 1000])
def test_the_size_of_the_pieces_does_not_show(monkeypatch, piece):
    frame = pl.concat([BASE] * 9)
    whole = digest(frame)
    monkeypatch.setattr(content, "_PIECE", piece)
    assert digest(frame) == whole


def test_coded_rows_have_the_digest_of_the_table_that_they_stand_for():
    times = pl.Series("timestamp", [5, None, 7]).cast(TIME)
    rows = pl.DataFrame({"user": [1, 2, 2], "item": [2, 1, 2], "position": [0, 0, 1]}, schema_overrides=NUMBERS)
    coded = rows.select("user", "item", times, "position", pl.Series("split", [0, 1, 2], dtype=pl.UInt8))
    texts = {"user_id": ["u", "é", "é"], "item_id": ["b", "a", "b"], "split": ["train", "valid", "test"]}
    table = rows.with_columns(times, **{name: pl.Series(values) for name, values in texts.items()})
    interactions = CodedInteractions(coded, pl.Series(["u", "é"]), pl.Series(["a", "b"]))
    assert digest(interactions) == digest(table.select(*INTERACTIONS))


def test_the_digest_is_the_same_tomorrow():
    # Per column: name, type and length, each ended by a zero byte; the null mask; then the values.
    numbers = b"n\0Int64\x001\0" + b"\0" + (1).to_bytes(8, "little")
    texts = b"t\0String\x001\0" + b"\0" + (2).to_bytes(4, "little") + "é".encode()
    assert digest(pl.DataFrame({"n": [1], "t": ["é"]})) == hashlib.sha256(numbers + texts).hexdigest()


def test_the_version_does_not_depend_on_the_order_of_tables():
    assert version({"a": "1", "b": "2"}) == version({"b": "2", "a": "1"}) != version({"a": "2", "b": "1"})
