"""A folder of one's own: columns, ids, times and media in the forms that people have them."""

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest

from datasets_spec import registry
from datasets_spec.errors import DamagedFileError, MissingSourceError, SchemaError
from datasets_spec.prepare import prepare
from datasets_spec.schema import TIME
from datasets_spec.sources import custom
from datasets_spec.spec import PrepareConfig

SECOND = 1_600_000_000  # 2020-09-13T12:26:40Z
MOMENT = datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)


def parse(folder):
    return custom.parse(custom.spec("custom-mine"), PrepareConfig(), folder)


def times(folder, values, name="timestamp"):
    """What becomes of a column of times; the other columns are the same in every row."""
    values = pl.Series(name, values) if not isinstance(values, pl.Series) else values.alias(name)
    pl.DataFrame(
        [pl.Series("user", ["u"] * len(values)), pl.Series("item", ["i"] * len(values)), values]
    ).write_parquet(folder / "interactions.parquet")
    return parse(folder)


def write(folder, text, name="interactions.csv"):
    (folder / name).write_text(text)
    return parse(folder)


def test_names():
    assert custom.match("custom-mine")
    assert custom.match("custom-my-2-shops")
    for name in ("custom", "custom-", "custom-../x", "custom-A", "custom--a", "mine"):
        assert not custom.match(name)
    assert registry.load("custom-mine")[1].media == ("video", "image")


@pytest.mark.parametrize(
    "header", ["user,item,timestamp", "user_id,item_id,time", "UserID,Movie-Id,unixReviewTime", "reviewerID,asin,ts"]
)
def test_columns_go_by_several_names_and_stand_in_any_order(tmp_path, header):
    tables = write(tmp_path, f"stars,{header}\n5,007,x 1,{SECOND}\n4,8,y,{SECOND + 1}\n")
    rows = tables.interactions
    assert rows.select("user_id", "item_id").rows() == [("007", "x 1"), ("8", "y")]
    assert rows["timestamp"].to_list() == [MOMENT, MOMENT + timedelta(seconds=1)]
    assert tables.notes == ("there is no table of items: no titles",)


def test_a_file_with_tabs(tmp_path):
    tables = write(tmp_path, f"user\titem\ttimestamp\nu\ta,b\t{SECOND}\n", "interactions.tsv")
    assert tables.interactions["item_id"].to_list() == ["a,b"]


def test_missing_columns_are_named_with_what_was_found(tmp_path):
    found = r"found no item_id, timestamp \(or order\) among the columns who, user, when. Rename"
    with pytest.raises(SchemaError, match=rf"interactions.csv: expected columns user, item, timestamp; {found}"):
        write(tmp_path, "who,user,when\n1,2,3\n")
    with pytest.raises(SchemaError, match="expected one column for user_id, found user_id, UserId; rename one"):
        write(tmp_path, "user_id,UserId,item,ts\n1,1,2,3\n")


def test_integer_ids_stay_integers_until_the_end(tmp_path):
    frame = {"user": [10, 9, 10], "item": [3, 3, 20], "timestamp": [SECOND, SECOND, SECOND]}
    pl.DataFrame(frame).write_parquet(tmp_path / "interactions.parquet")
    assert parse(tmp_path).interactions["user_id"].dtype == pl.Int64
    made = prepare("custom-mine", root=tmp_path, source=str(tmp_path), config=PrepareConfig(k_user=1, k_item=1))
    assert made.users["user_id"].to_list() == ["9", "10"]
    # Equal in time: "20" before "3", as texts.
    assert made.interactions.select("user_id", "item_id").rows() == [("9", "3"), ("10", "20"), ("10", "3")]


def test_numbers_or_texts_as_ids_give_the_same_dataset(tmp_path):
    rows = [(user, item, SECOND + user * item % 7) for user in range(90, 110) for item in range(8, 14)]
    frame = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")
    made = {}
    for kind in ("parquet", "csv"):
        folder = tmp_path / kind
        folder.mkdir()
        getattr(frame, f"write_{kind}")(folder / f"interactions.{kind}")
        made[kind] = prepare("custom-mine", root=tmp_path / f"root-{kind}", source=str(folder))
    assert made["csv"].version == made["parquet"].version
    assert made["csv"].interactions.equals(made["parquet"].interactions)


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Boolean, pl.Date])
def test_other_ids_are_refused(tmp_path, dtype):
    frame = pl.DataFrame({"user": pl.Series([1]).cast(dtype, strict=False), "item": [1], "timestamp": [SECOND]})
    frame.write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(SchemaError, match="column 'user': expected texts or integers, got"):
        parse(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        [SECOND],
        [SECOND * 1000],
        [SECOND * 10**6],
        [SECOND * 10**9],
        [float(SECOND)],
        [MOMENT],
        [MOMENT.replace(tzinfo=None)],  # no zone is UTC
        [MOMENT.astimezone(timezone(timedelta(hours=8)))],
        ["2020-09-13T12:26:40Z"],
        ["2020-09-13 12:26:40"],
        ["2020-09-13T20:26:40+0800"],
        [str(SECOND)],
        [f"{SECOND}.0"],
    ],
    ids=str,
)
def test_a_time_in_every_form(tmp_path, values):
    found = times(tmp_path, values).interactions["timestamp"]
    assert found.dtype == TIME
    assert found.to_list() == [MOMENT]


def test_days_and_fractions(tmp_path):
    day = datetime(2020, 9, 13, tzinfo=UTC)
    quarter = MOMENT + timedelta(milliseconds=250)
    for value, expected in ((date(2020, 9, 13), day), (SECOND + 0.25, quarter), (SECOND * 10**6 + 250_999, quarter)):
        assert times(tmp_path, [value]).interactions["timestamp"].to_list() == [expected]


@pytest.mark.parametrize(("name", "factor"), [("timestamp_s", 1000), ("ts_ms", 1), ("time_us", 1e-3)])
def test_the_ending_of_the_name_is_the_unit_whatever_the_size(tmp_path, name, factor):
    found = times(tmp_path, [5000, 0, -1000], name).interactions["timestamp"].to_physical().to_list()
    assert found == [5000 * factor, 0, -1000 * factor]


def test_two_units_in_one_column_are_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"found by size 2 in s, 1 in ms of 4 values between 0 and 1600000000000"):
        times(tmp_path, [SECOND, SECOND + 1, SECOND * 1000, 0])


def test_numbers_that_are_no_times_are_refused(tmp_path):
    with pytest.raises(SchemaError, match=r"found by size none of 2 values between 1 and 2. Say the unit in the name"):
        times(tmp_path, [1, 2])
    with pytest.raises(SchemaError, match="expected times or numbers, got Boolean"):
        times(tmp_path, [True])


def test_an_order_takes_the_place_of_time(tmp_path):
    rows = write(tmp_path, "user,item,position\nu,b,2\nu,a,10\n").interactions
    assert rows["timestamp"].null_count() == 2
    assert rows["order"].to_list() == [2, 10]


def test_bad_rows_are_quarantined_with_their_line(tmp_path):
    text = f"user,item,timestamp\nu,a,{SECOND}\n,a,{SECOND}\nu,,{SECOND}\nu,b,0\nu,c,\nu,d,soon\nu,e,{SECOND}\n"
    tables = write(tmp_path, text)
    assert tables.interactions["item_id"].to_list() == ["a", "e"]
    assert [(row.line, row.item_id, row.reason) for row in tables.bad_rows] == [
        (3, "a", "missing_id"),
        (4, None, "missing_id"),
        (5, "b", "bad_time"),
        (6, "c", "bad_time"),
        (7, "d", "bad_time"),
    ]
    assert tables.bad_rows[0].detail.startswith("user=None, item='a', timestamp=")
    folder = tmp_path / "parquet"
    folder.mkdir()
    rows = times(folder, [SECOND, None, SECOND])
    assert [(row.line, row.reason) for row in rows.bad_rows] == [(2, "bad_time")]


def test_of_many_bad_rows_the_first_are_listed_and_all_are_counted(tmp_path):
    tables = times(tmp_path, [SECOND] + [0] * 1500)
    assert len(tables.bad_rows) == 1000
    assert tables.notes[0] == "1500 rows of interactions.parquet are bad (bad_time); the first 1000 are listed"


def test_items_with_titles_and_media(tmp_path):
    write(tmp_path, f"user,item,timestamp\nu,7,{SECOND}\n", "interactions.csv")
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "7.mp4").write_bytes(b"x")
    rows = ("item,name,genres,video,price", "7, Seven ,A|B,v/7.mp4,1", "8,,,v/8.mp4,2", "9,Nine,,../7.mp4,3")
    tables = write(tmp_path, "\n".join((*rows, "7,Zeven,,,4", ",x,,,5\n")), "items.csv")
    assert tables.items.columns == ["item_id", "title", "category", "video"]
    assert tables.items.rows() == [
        ("7", "Seven", "A|B", str(tmp_path / "v" / "7.mp4")),
        ("8", None, None, None),
        ("9", "Nine", None, None),
    ]
    assert [(row.line, row.item_id, row.reason) for row in tables.bad_rows] == [
        (6, None, "missing_id"),
        (None, "8", "not_found"),
        (None, "9", "outside_folder"),
    ]
    assert tables.notes == ("1 differing rows of the same item left out of items.csv",)
    made = prepare(
        "custom-mine", root=tmp_path / "root", source=str(tmp_path), config=PrepareConfig(k_user=1, k_item=1)
    )
    assert made.media("video") == [("7", tmp_path / "v" / "7.mp4")]
    assert made.texts(("title", "category")) == [("7", "Seven. A|B")]
    assert made.manifest["items_with"] == {"text": 1, "video": 1}


def test_items_as_parquet_with_integers_and_lists(tmp_path):
    write(tmp_path, f"user,item,timestamp\nu,7,{SECOND}\n")
    pl.DataFrame({"item_id": [7], "categories": [["A", "B"]]}).write_parquet(tmp_path / "items.parquet")
    assert parse(tmp_path).items.rows() == [("7", None, "A, B")]
    pl.DataFrame({"title": ["x"]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(SchemaError, match=r"items.parquet: expected a column item; found the columns title"):
        parse(tmp_path)


def test_a_folder_without_the_table(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MissingSourceError, match=r"custom-mine: expected one of interactions.parquet.*notes.txt"):
        prepare("custom-mine", root=tmp_path / "root", source=str(tmp_path))
    with pytest.raises(MissingSourceError, match=r"found there: nothing. source=FOLDER with interactions.parquet"):
        prepare("custom-other", root=tmp_path / "root")


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "interactions.parquet").write_bytes(b"PAR1")
    with pytest.raises(DamagedFileError, match=r"interactions.parquet: cannot be read as a parquet file"):
        parse(tmp_path)


def test_the_tables_may_come_from_an_address(tmp_path, server):
    rows = "".join(f"u{user},i{item},{SECOND}\n" for user in range(5) for item in range(5))
    server.put("interactions.csv", f"user,item,timestamp\n{rows}".encode())
    made = prepare("custom-mine", root=tmp_path, source=server.url)
    assert made.manifest["stats"]["interactions"] == 25
    assert prepare("custom-mine", root=tmp_path).version == made.version  # remembered
