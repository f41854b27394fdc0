import hashlib

import polars as pl
import pytest

from datasets_spec.content import digest, version

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


def test_the_digest_is_the_same_tomorrow():
    # Per column: name, type and length, each ended by a zero byte; the null mask; then the values.
    numbers = b"n\0Int64\x001\0" + b"\0" + (1).to_bytes(8, "little")
    texts = b"t\0String\x001\0" + b"\0" + (2).to_bytes(4, "little") + "é".encode()
    assert digest(pl.DataFrame({"n": [1], "t": ["é"]})) == hashlib.sha256(numbers + texts).hexdigest()


def test_the_version_does_not_depend_on_the_order_of_tables():
    assert version({"a": "1", "b": "2"}) == version({"b": "2", "a": "1"}) != version({"a": "2", "b": "1"})
