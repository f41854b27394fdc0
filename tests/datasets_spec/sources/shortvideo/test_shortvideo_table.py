"""The interaction table of ShortVideo: exposures, tags and categories, effective views, and every defect."""

import random
from datetime import UTC, datetime

import pytest

from datasets_spec import shortvideo_format
from datasets_spec.errors import DamagedFileError, SchemaError
from datasets_spec.shortvideo_format import parse_interactions

NOON = 1663286400  # 2022-09-16 00:00:00 UTC


def pairs(tables):
    return sorted(tables.interactions.select("user_id", "item_id").iter_rows())


def item(tables, item_id):
    return next(row for row in tables.items.iter_rows(named=True) if row["item_id"] == item_id)


def test_rows_that_differ_in_tag_or_category_are_one_exposure(tmp_path, row, write_table):
    rows = [
        row(1, 84199269992, NOON, tag_name="美食"),
        row(1, 84199269992, NOON, tag_name="旅行"),
        row(1, 84199269992, NOON, tag_name="旅行"),  # repeated exactly
        row(1, 84199269992, NOON, tag_name="美食", category_id=36, category_level=1, parent_id=36, root_id=36),
        row(1, 5, NOON + 100, watch_time=2),
        row(2, 5, NOON + 200, tag_name=" "),
        row(2, 84199269992, NOON + 300),
    ]
    tables = parse_interactions(write_table(tmp_path / "interaction.csv", rows))
    assert pairs(tables) == [("1", "84199269992"), ("2", "5"), ("2", "84199269992")]
    assert min(tables.interactions["timestamp"]) == datetime(2022, 9, 16, 0, 0, tzinfo=UTC)
    assert tables.notes == (
        "4 exposures in 7 rows, of which those that differ in tag or category alone are one; 3 of them are effective "
        "views",
        "interactions are effective views only: a video is exposed by the platform's choice and watched by the user's",
        "effective_view is absent: watch_time >= 3 s takes its place",
    )
    assert item(tables, "84199269992") == {
        "item_id": "84199269992",
        "title": "现如今为啥 84199269992",
        "tags": "旅行, 正能量, 美食",
        "category": "旅行, 正能量, 美食",
        "duration": 2.0,
    }
    assert item(tables, "5")["tags"] == "正能量"  # from the exposure that was no effective view


def test_without_effective_view_three_seconds_take_its_place(tmp_path, row, write_table):
    rows = [row(1, pid, NOON, watch_time=seconds) for pid, seconds in ((1, 2.99), (2, 3.0), (3, 46), (4, 0))]
    assert pairs(parse_interactions(write_table(tmp_path / "interaction.csv", rows))) == [("1", "2"), ("1", "3")]


@pytest.mark.parametrize("words", [("True", "False"), ("true", "false"), ("1", "0"), (" TRUE ", "0.0")])
def test_the_documented_table_says_what_an_effective_view_is(tmp_path, row, write_table, words):
    yes, no = words
    rows = [
        row(1, 1, NOON, effective_view=yes, watch_time=1),
        row(1, 2, NOON, effective_view=no, watch_time=99),
        row(1, 3, NOON, effective_view=yes, watch_time=""),
    ]
    tables = parse_interactions(write_table(tmp_path / "interaciton_filtered.csv", rows, without=("click",)))
    assert pairs(tables) == [("1", "1"), ("1", "3")]
    assert len(tables.notes) == 2


def test_a_video_watched_over_and_over_stays(tmp_path, row, write_table):
    path = write_table(tmp_path / "interaction.csv", [row(1, 1, NOON, watch_time=922, duration=3.958)])
    assert pairs(parse_interactions(path)) == [("1", "1")]


def test_ids_are_text(tmp_path, row, write_table):
    rows = [row("007", "0012", NOON), row(7, 12, NOON), row("9" * 25, "84199269992", NOON)]
    tables = parse_interactions(write_table(tmp_path / "interaction.csv", rows))
    assert pairs(tables) == [("007", "0012"), ("7", "12"), ("9" * 25, "84199269992")]


def test_a_title_may_hold_commas_quotes_and_line_breaks(tmp_path, row, write_table):
    rows = [row(1, 1, NOON, title='一, "二"\n三\t 四 '), row(1, 2, NOON, title=" \n"), row(1, 3, NOON)]
    tables = parse_interactions(write_table(tmp_path / "interaction.csv", rows))
    assert dict(tables.items.select("item_id", "title").iter_rows()) == {
        "1": '一, "二" 三 四',
        "2": None,
        "3": "现如今为啥 3",
    }


def test_malformed_rows_are_quarantine_rows_with_their_line(tmp_path, row, write_table):
    rows = [
        row(1, 10, NOON),
        row("", 11, NOON),
        row(1, "../x", NOON),
        row(1, 12, "yesterday"),
        row(1, 13, NOON * 1000),  # milliseconds
        row(1, 14, 0),
        row(1, 15, -NOON),
        row(1, 16, NOON, watch_time=-1),
        row(1, 17, NOON, watch_time="nan"),
        row(1, 18, NOON, watch_time=1e9),
        row(1, 19, NOON, watch_time=""),
        row(1, 20, f" {NOON}.0 "),
    ]
    path = write_table(tmp_path / "interaction.csv", rows)
    path.write_text(path.read_text(encoding="utf-8") + "1,21\n", encoding="utf-8")
    tables = parse_interactions(path)
    assert pairs(tables) == [("1", "10"), ("1", "20")]
    assert [(bad.line, bad.item_id, bad.reason) for bad in tables.bad_rows] == [
        (3, "11", "bad_id"),
        (4, "../x", "bad_id"),
        (5, "12", "bad_timestamp"),
        (6, "13", "bad_timestamp"),
        (7, "14", "bad_timestamp"),
        (8, "15", "bad_timestamp"),
        (9, "16", "bad_watch_time"),
        (10, "17", "bad_watch_time"),
        (11, "18", "bad_watch_time"),
        (12, "19", "bad_watch_time"),
        (14, "21", "bad_timestamp"),
    ]
    assert "'exposed_time': 'yesterday'" in tables.bad_rows[2].detail
    assert set(tables.items["item_id"]) == {"10", "20"}


def test_an_effective_view_that_is_neither_true_nor_false_is_malformed(tmp_path, row, write_table):
    rows = [row(1, 1, NOON, effective_view="perhaps"), row(1, 2, NOON, effective_view="True", watch_time=-3)]
    tables = parse_interactions(write_table(tmp_path / "interaction.csv", rows))
    assert [bad.reason for bad in tables.bad_rows] == ["bad_effective_view", "bad_watch_time"]


def test_of_very_many_malformed_rows_the_first_are_kept_and_all_counted(tmp_path, row, write_table, monkeypatch):
    monkeypatch.setattr(shortvideo_format, "MOST_BAD_ROWS", 2)
    rows = [row(1, pid, "never") for pid in range(5)] + [row(1, 9, NOON)]
    tables = parse_interactions(write_table(tmp_path / "interaction.csv", rows))
    assert [bad.line for bad in tables.bad_rows] == [2, 3]
    assert "5 rows are malformed; the first 2 of them are in quarantine" in tables.notes


def test_bytes_that_are_not_utf8_are_counted_and_cost_no_exposure(tmp_path, row, write_table):
    path = write_table(tmp_path / "interaction.csv", [row(1, 1, NOON, title="TITLE"), row(1, 2, NOON), row(1, 3, NOON)])
    path.write_bytes(path.read_bytes().replace(b"TITLE", "标题".encode("gbk")).replace(b"1,3,", b"1,\xff,"))
    tables = parse_interactions(path)
    assert pairs(tables) == [("1", "1"), ("1", "2")]
    assert [bad.reason for bad in tables.bad_rows] == ["bad_id"]
    assert "1 rows hold a title or tag with bytes that are not UTF-8, read as \ufffd" in tables.notes


def test_a_byte_order_mark_and_blanks_in_the_header_do_no_harm(tmp_path, row, write_table):
    path = write_table(tmp_path / "interaction.csv", [row(1, 1, NOON)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"user_id,pid", b"user_id, pid ", 1))
    assert pairs(parse_interactions(path)) == [("1", "1")]


def test_no_order_of_the_rows_changes_anything(tmp_path, row, write_table):
    rows = [
        row(user, pid, NOON + pid, title=f"题 {pid} {tag}", tag_name=f"标{tag}", duration=5 + tag, category_id=tag + 1)
        for user in range(3)
        for pid in range(4)
        for tag in range(3)
    ]
    first = parse_interactions(write_table(tmp_path / "a.csv", rows))
    random.Random(0).shuffle(rows)
    other = parse_interactions(write_table(tmp_path / "b.csv", rows))
    assert pairs(first) == pairs(other)
    assert first.items.equals(other.items)
    assert item(first, "2")["title"] == "题 2 0"
    assert item(first, "2")["duration"] == 5.0
    assert "4 of 4 items have more than one title; the smallest is taken" in first.notes
    assert "4 of 4 items have more than one duration; the smallest is taken" in first.notes


def test_impossible_durations_are_none(tmp_path, row, write_table):
    seconds = {1: 0, 2: -4, 3: "?", 4: 1e6, 5: 1734.9}
    rows = [row(1, pid, NOON, duration=value) for pid, value in seconds.items()]
    tables = parse_interactions(write_table(tmp_path / "interaction.csv", rows))
    assert tables.items["duration"].to_list() == [None, None, None, None, 1734.9]
    assert "4 of 5 items have no usable duration" in tables.notes


def test_a_table_without_the_columns_is_one_clear_error(tmp_path, row, write_table):
    path = write_table(tmp_path / "t.csv", [row(1, 1, NOON)], without=("pid", "watch_time"))
    expected = (
        r"t.csv: expected the columns user_id, pid, exposed_time and effective_view or watch_time; pid, effective_view "
        r"or watch_time missing among user_id, author_id, category_id"
    )
    with pytest.raises(SchemaError, match=expected):
        parse_interactions(path)
    path.write_text("userID\titemID\trating\ttimestamp\tx_label\n0\t116244\t5\t1663597856\t0\n")  # not the table
    with pytest.raises(SchemaError, match="missing among userID\titemID"):
        parse_interactions(path)


def test_a_file_that_is_no_table_is_one_clear_error(tmp_path):
    path = tmp_path / "interaction.csv"
    path.write_bytes(b"")
    with pytest.raises(DamagedFileError, match="the file is empty"):
        parse_interactions(path)
    path.write_bytes(b"user_id,pid,exposed_time,watch_time\n")
    assert parse_interactions(path).interactions.is_empty()


@pytest.mark.parametrize("title", ['"open', 'mid"dle', 'close"'])
def test_a_quote_without_its_partner_is_one_short_error_and_no_loss_of_rows(tmp_path, title):
    rows = "".join(f"1,{pid},{NOON},5,{title if pid == 3 else 'fine'},x\n" for pid in range(1, 2001))
    path = tmp_path / "interaction.csv"
    path.write_text("user_id,pid,exposed_time,watch_time,title,tag_name\n" + rows)
    with pytest.raises(DamagedFileError, match=r"interaction.csv: expected a csv file in which every quote") as caught:
        parse_interactions(path)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_more_fields_than_columns_do_no_harm(tmp_path):
    path = tmp_path / "interaction.csv"
    path.write_text(f"user_id,pid,exposed_time,watch_time\n1,1,{NOON},5,more,and more\n1,2,{NOON},5\n")
    assert pairs(parse_interactions(path)) == [("1", "1"), ("1", "2")]


def test_line_breaks_in_titles_cost_no_row_at_the_borders_of_pieces(tmp_path, row, write_table):
    """A piece of the file that is read at once may begin inside a quoted title."""
    broken = '三\n"四",\n\n五' * 20
    rows = [row(user, pid, NOON + pid, title=broken) for user in range(160) for pid in range(40)]
    path = write_table(tmp_path / "interaction.csv", rows)
    assert path.stat().st_size > 2_000_000
    tables = parse_interactions(path)
    assert len(pairs(tables)) == len(set(pairs(tables))) == 6400
    assert set(tables.items["title"]) == {" ".join(broken.split())}
    assert tables.bad_rows == []


LIST = """category_level,category_id,category_name_cn,parent_id,root_id,category_name_en
1,39,三农,39,39, Agriculture
2,288,农村生活,39,39, Rural Life
3,1350,赶海,288,39, Beachcombing
3,1350,赶海,288,39, Sea Catch
1,36,美食,36,36,
"""


def test_categories_are_the_paths_of_names_of_the_deepest_level(tmp_path, row, write_table):
    (tmp_path / "category_cn_en.csv").write_text(LIST, encoding="utf-8")
    top = {"category_id": 36, "category_level": 1, "parent_id": 36, "root_id": 36}
    rows = [
        row(1, 1, NOON, **top),
        row(1, 1, NOON),
        row(1, 2, NOON, category_id=288, category_level=2, parent_id=39),
        row(1, 3, NOON, **top),
        row(1, 4, NOON, category_id=9999),
    ]
    path = write_table(tmp_path / "interaction.csv", rows)
    tables = parse_interactions(path, tmp_path / "category_cn_en.csv")
    assert tables.items.select("item_id", "category", "category_en").rows() == [
        ("1", "三农 > 农村生活 > 赶海", "Agriculture > Rural Life > Beachcombing"),
        ("2", "三农 > 农村生活", "Agriculture > Rural Life"),
        ("3", "美食", None),
        ("4", None, None),
    ]
    assert tables.notes[-2:] == (
        "category_cn_en.csv: 2 rows share their category id with another; the first of each counts",
        "1 items have a category that is not in category_cn_en.csv",
    )
    assert tables.files == (path, tmp_path / "category_cn_en.csv")


def test_without_tags_and_list_the_category_is_its_number(tmp_path, row, write_table):
    tables = parse_interactions(write_table(tmp_path / "t.csv", [row(1, 1, NOON)], without=("tag_name",)))
    assert item(tables, "1")["category"] == "1350"


def test_the_least_that_a_table_must_have(tmp_path, row, write_table):
    names = {"user_id", "pid", "exposed_time", "effective_view"}
    full = row(1, 1, NOON, effective_view="True")
    path = write_table(tmp_path / "t.csv", [full], without=tuple(set(full) - names))
    assert parse_interactions(path).items.to_dicts() == [{"item_id": "1", "title": None}]


def test_a_list_of_categories_without_its_columns_is_one_clear_error(tmp_path, row, write_table):
    path = write_table(tmp_path / "interaction.csv", [row(1, 1, NOON)])
    listed = tmp_path / "category_cn_en.csv"
    listed.write_text("id,name\n1,x\n")
    expected = r"category_cn_en.csv: expected the columns category_id, .*category_name_en; .* missing among id, name"
    with pytest.raises(SchemaError, match=expected):
        parse_interactions(path, listed)
    listed.write_text("")
    with pytest.raises(DamagedFileError, match=r"category_cn_en.csv: .*the file is empty"):
        parse_interactions(path, listed)
