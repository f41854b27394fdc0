"""Reviews, ratings and products of both releases, with every defect that the files are known to have."""

import gzip
import json
import random
from datetime import UTC, datetime
from functools import partial

import polars as pl
import pytest

from datasets_spec import amazon_format
from datasets_spec.amazon_format import Release, read_products, read_ratings, read_reviews
from datasets_spec.errors import SchemaError
from datasets_spec.lines import read_chunks
from datasets_spec.schema import RAW_INTERACTIONS

V2 = Release("Amazon v2", "reviewerID", "asin", "unixReviewTime", 1000, 1, 2**32 - 1)
V2023 = Release("Amazon 2023", "user_id", "parent_asin", "timestamp", 1, 10**11, 2**42)


def write(path, *lines):
    path.write_bytes(gzip.compress(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)))
    return path


def review(user="A1", item="B1", time=1_500_000_000, **more):
    return json.dumps({"overall": 5.0, "reviewerID": user, "asin": item, "unixReviewTime": time, **more})


def test_reviews_of_2018(tmp_path):
    path = write(
        tmp_path / "x.json.gz",
        review("A2", "0001234567", 1_388_534_400, vote="1,024", style={"Size:": " L"}, image=["u"], reviewText="x\ny"),
        review("A1", "B00000IGBF", 1),
    )
    bad = []
    rows = read_reviews(path, V2, bad)
    assert rows.schema == RAW_INTERACTIONS
    assert rows.rows() == [
        ("A2", "0001234567", datetime(2014, 1, 1, tzinfo=UTC), None),
        ("A1", "B00000IGBF", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), None),
    ]
    assert bad == []


def test_reviews_of_2023_are_of_the_parent_item_and_in_milliseconds(tmp_path):
    row = {"user_id": "AX", "parent_asin": "B0P", "asin": "B0V", "timestamp": 1_588_687_728_923, "rating": 5.0}
    rows = read_reviews(write(tmp_path / "x.jsonl.gz", json.dumps(row)), V2023, [])
    assert rows.rows() == [("AX", "B0P", datetime(2020, 5, 5, 14, 8, 48, 923_000, tzinfo=UTC), None)]


def test_seconds_are_not_taken_for_milliseconds_nor_the_other_way_round(tmp_path):
    good = '{"user_id": "u", "parent_asin": "i", "timestamp": 1588687728923}'
    bad = []
    path = write(tmp_path / "x", good, good.replace("728923", "7"), good.replace("923", "923000"))
    assert read_reviews(path, V2023, bad).height == 1
    assert read_reviews(write(tmp_path / "y", review(), review(time=1_588_687_728_923)), V2, bad).height == 1
    assert [(row.file, row.line, row.reason) for row in bad] == [
        ("x", 2, "bad_time"),
        ("x", 3, "bad_time"),
        ("y", 2, "bad_time"),
    ]
    assert bad[2].detail == "expected unixReviewTime in seconds, got 1588687728923"


DEFECTS = [
    ("malformed_json", '{"reviewerID": "A1", "asin": "B'),
    ("malformed_json", "[]"),
    ("malformed_json", review() + review()),
    ("malformed_json", b'{"reviewerID": "\xff"}'),
    ("missing_id", '{"asin": "B1", "unixReviewTime": 5}'),
    ("missing_id", review(user="")),
    ("missing_id", review(item="")),
    ("missing_id", review(item=1234567890)),
    ("missing_id", review(item=None)),
    ("missing_id", review(user="\ud800")),
    ("bad_time", review(time=None)),
    ("bad_time", review(time="1500000000")),
    ("bad_time", review(time=1.5e9)),
    ("bad_time", review(time=True)),
    ("bad_time", review(time=0)),
    ("bad_time", review(time=-1)),
    ("bad_time", review(time=2**70)),
    (None, ""),
    (None, "  \r"),
]


@pytest.mark.parametrize("size", [100, 700, 1 << 20])
def test_defects_are_named_by_line_wherever_they_stand(tmp_path, monkeypatch, size):
    monkeypatch.setattr(amazon_format, "read_chunks", partial(read_chunks, size=size))
    rng = random.Random(7)
    lines = [(None, review(f"A{i}", f"B{i % 9}", 1000 + i)) for i in range(300)]
    for defect in DEFECTS:
        lines.insert(rng.randrange(1, len(lines)), defect)
    bad = []
    rows = read_reviews(write(tmp_path / "x", *(line for _, line in lines)), V2, bad)
    assert rows["user_id"].to_list() == [f"A{i}" for i in range(300)]
    assert rows["timestamp"].dt.epoch("s").to_list() == [1000 + i for i in range(300)]
    expected = [(number, reason) for number, (reason, _) in enumerate(lines, start=1) if reason]
    assert [(row.line, row.reason) for row in bad] == expected


@pytest.mark.parametrize(
    "line",
    [
        "{'reviewerID': 'A1', 'asin': 'B1', 'helpful': [0, 0], 'unixReviewTime': 5}",
        "{u'reviewerID': u'A1', u'asin': u'B1'}",
        review(helpful=[2, 3]),
    ],
)
def test_files_of_the_2014_release_are_refused(tmp_path, line):
    with pytest.raises(SchemaError, match=r"x.json.gz: expected .*Amazon v2.* the 2014 release \(v1\)"):
        read_reviews(write(tmp_path / "x.json.gz", line, line), V2, [])


def test_metadata_of_the_2014_release_are_refused(tmp_path):
    for line in ("{'asin': 'B1', 'imUrl': 'http://h/x.jpg'}", '{"asin": "B1", "salesRank": {"Toys": 5}}'):
        with pytest.raises(SchemaError, match=r"the 2014 release \(v1\)"):
            read_products(write(tmp_path / "meta", line), V2, {"B1"}, dict, {}, [])


def test_the_releases_of_2018_and_2023_are_told_apart(tmp_path):
    new = write(tmp_path / "new", '{"user_id": "u", "parent_asin": "i", "asin": "v", "timestamp": 1588687728923}')
    expected = (
        "expected objects with reviewerID, asin, unixReviewTime, as in Amazon v2; found user_id, parent_asin, asin,"
    )
    with pytest.raises(SchemaError, match=rf"{expected} timestamp.* of the 2023 release: datasets amazon-2023-"):
        read_reviews(new, V2, [])
    with pytest.raises(SchemaError, match=r"found overall, reviewerID.* the 2018 release \(v2\): datasets amazon-"):
        read_reviews(write(tmp_path / "old", review()), V2023, [])
    with pytest.raises(SchemaError, match=r"expected objects with parent_asin.* found asin, title\. .* 2018"):
        read_products(write(tmp_path / "meta", '{"asin": "i", "title": "t"}'), V2023, set(), dict, {}, [])
    with pytest.raises(SchemaError, match=r"expected objects with .*, as in Amazon v2; found a, b\.$"):
        read_reviews(write(tmp_path / "other", '{"a": 1, "b": 2}'), V2, [])


def test_a_bad_first_line_does_not_make_it_another_release(tmp_path):
    bad = []
    assert read_reviews(write(tmp_path / "x", '{"asin": "B1"}', review()), V2, bad).height == 1
    assert [(row.line, row.reason) for row in bad] == [(1, "missing_id")]


def test_ratings_of_2018_have_the_item_first_and_no_header(tmp_path):
    path = tmp_path / "Books.csv"
    path.write_text("0001234567,A1ABCDEFGHIJK,5.0,1388534400\r\n\nB000000001,A2ABCDEFGHIJK,1.0,1388534401")
    bad = []
    rows = read_ratings(path, V2, bad, header=None)
    assert rows.schema == RAW_INTERACTIONS
    assert rows.rows() == [
        ("A1ABCDEFGHIJK", "0001234567", datetime(2014, 1, 1, tzinfo=UTC), None),
        ("A2ABCDEFGHIJK", "B000000001", datetime(2014, 1, 1, 0, 0, 1, tzinfo=UTC), None),
    ]
    assert bad == []


HEADER = "user_id,parent_asin,rating,timestamp"


@pytest.mark.parametrize("size", [10, 60, 1 << 20])
def test_ratings_of_2023_have_a_header(tmp_path, monkeypatch, size):
    monkeypatch.setattr(amazon_format, "read_chunks", partial(read_chunks, size=size))
    lines = [
        HEADER,
        "U1,I1,5.0,1588687728923",
        "U2,I1,5.0",
        "U2,,5.0,1588687728923",
        "U2,I1,5.0,1588687728923,more",
        "U2,I1,5.0,1588687728",
        "U2,I1,5.0,x",
        "",
        "U3,I2,4.0,1588687728924",
    ]
    bad = []
    rows = read_ratings(write(tmp_path / "x.csv.gz", *lines), V2023, bad, header=HEADER)
    assert rows.select("user_id", "item_id").rows() == [("U1", "I1"), ("U3", "I2")]
    assert rows["timestamp"].dt.epoch("ms").to_list() == [1588687728923, 1588687728924]
    assert [(row.line, row.reason) for row in bad] == [(line, "malformed_row") for line in (3, 4, 5, 6, 7)]
    assert bad[0].detail == "expected 4 fields, the last in milliseconds: U2,I1,5.0"


def test_other_columns_than_expected_are_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("user_id,asin,rating,timestamp\n")
    with pytest.raises(SchemaError, match=rf"line 1: expected the header {HEADER}, found 'user_id,asin,rating,time"):
        read_ratings(path, V2023, [], header=HEADER)
    with pytest.raises(SchemaError, match=r"expected item,user,rating,seconds and no header, found 'user_id,asin"):
        read_ratings(path, V2, [], header=None)
    path.write_text("A1ABCDEFGHIJK,0001234567,5.0,1388534400\n")
    with pytest.raises(SchemaError, match=r"found the user first.*the 2014 release \(v1\)"):
        read_ratings(path, V2, [], header=None)


SCHEMA = {"item_id": pl.String(), "title": pl.String(), "brand": pl.String()}


def products(path, wanted, bad=None):
    return read_products(path, V2, wanted, lambda raw: {"brand": raw.get("brand")}, SCHEMA, [] if bad is None else bad)


def test_products_are_the_wanted_ones_each_once(tmp_path):
    row = {"asin": "0002", "title": "Cats &amp; dogs", "brand": "b", "rank": ["x"]}
    path = write(
        tmp_path / "meta",
        json.dumps({"asin": "not wanted", "title": "x", "rank": "y"}),
        json.dumps({"asin": "0002", "title": "Cats &amp; dogs"}),  # less is known here
        *[json.dumps(row)] * 3,
        json.dumps({"asin": "0003", "title": "\ud83d lone", "rank": 3}),
    )
    table, notes = products(path, {"0002", "0003", "0004"})
    assert table.rows() == [("0002", "Cats & dogs", "b"), ("0003", "\ufffd lone", None)]
    assert notes == (
        "1 differing metadata rows of the same item left out",
        "1 of 3 reviewed items have no metadata row",
    )


def test_products_do_not_depend_on_the_order_of_lines(tmp_path):
    lines = [json.dumps({"asin": f"B{i % 5}", "title": f"t{i}", "brand": None if i % 2 else "b"}) for i in range(20)]
    wanted = {f"B{i}" for i in range(4)}
    tables = [
        products(write(tmp_path / "meta", *random.Random(seed).sample(lines, 20)), wanted)[0] for seed in range(3)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert tables[0].rows() == [("B0", "t0", "b"), ("B1", "t16", "b"), ("B2", "t12", "b"), ("B3", "t18", "b")]


def test_products_with_defects_are_rows_of_the_quarantine(tmp_path):
    path = write(
        tmp_path / "meta",
        '{"asin": "B1", "title": "<span class=\\"a-size-medium a-color-secondary\\""}',
        '{"asin": 17, "title": "x"}',
        '{"asin": "B2", "title": "var aPageStart = (new Date()).getTime();"}',
        '{"asin": "B2", "title": ',
        '{"asin": "B3"}',
    )
    bad = []
    table, _ = products(path, {"B1", "B2", "B3"}, bad)
    assert table.rows() == [("B1", None, None), ("B2", None, None), ("B3", None, None)]
    assert [(row.line, row.item_id, row.reason) for row in bad] == [
        (1, "B1", "broken_title"),
        (2, None, "missing_id"),
        (3, "B2", "broken_title"),
        (4, None, "malformed_json"),
    ]
