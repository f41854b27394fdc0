"""KuaiRec: rows and item tables as published, defects included, in a zip over HTTP and in a folder."""

import logging
import zipfile
from datetime import UTC, datetime

import polars as pl
import pytest

from datasets_spec.errors import DamagedFileError, EmptyResultError, MissingSourceError, SchemaError
from datasets_spec.prepare import prepare
from datasets_spec.sources import kuairec
from datasets_spec.spec import PrepareConfig

HEADER = "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
MATRIX = HEADER + (
    "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.273396521579093\n"
    "0,9598,13665,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,1.2440822\n"
    "0,3649,5262,7908,2020-07-05 00:16:06.687,20200705,1593879366.687,0.665402\n"  # seen again
    "0,3649,5262,7908,2020-07-05 00:16:06.687,20200705,1593879366.687,0.665402\n"  # the same row again
    "14,148,4381,6067,2020-07-05 05:27:48.378,20200705,1593898068.378,0.722103\n"
    "14,183,11635,6100,,,,1.907377\n"  # without time, as in part of the rows
)
CAPTIONS = (
    "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
    "second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name\n"
    "148,UNKNOWN,精神小伙路难走 程哥你狗粮慢点撒,[],8,颜值,673,颜值随拍,-124,UNKNOWN\n"
    "183,UNKNOWN,,[],27,高新数码,-124,UNKNOWN,-124,UNKNOWN\n"
    '3649,封面,"晚饭, ""好吃"" 吗?",[晚饭],25,美食,1,小吃,2,夜市\n'
    "9598,搞笑, UNKNOWN ,[],5,UNKNOWN,-124,UNKNOWN,-124,UNKNOWN\n"
)
TAGS = 'video_id,feat\n148,[8]\n183,"[27, 9]"\n3649,[]\n9598,"[26,5]"\n'
LOOSE = PrepareConfig(k_user=1, k_item=1, split="leave_one_out")


def _archive(path, *, folder="KuaiRec/data", captions=CAPTIONS, tags=TAGS, matrix=MATRIX):
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {kuairec.MATRIX: matrix, kuairec.CAPTIONS: captions, kuairec.TAGS: tags, "small_matrix.csv": HEADER}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in tables.items():
            if text is not None:
                archive.writestr(f"{folder}/{name}", text)
    return path.read_bytes()


def _folder(path, **tables):
    path.mkdir(parents=True, exist_ok=True)
    names = {"matrix": kuairec.MATRIX, "captions": kuairec.CAPTIONS, "tags": kuairec.TAGS}
    for key, text in tables.items():
        (path / names[key]).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def _bad(rows):
    return [(row.file, row.line, row.item_id, row.reason) for row in rows]


def test_the_archive_over_http(tmp_path, server, caplog):
    server.put("KuaiRec.zip", _archive(tmp_path / "site" / "a.zip"))
    config = LOOSE.model_copy(update={"base_url": server.url})
    prepared = prepare("kuairec", root=tmp_path / "root", config=config)
    rows = prepared.interactions.select("user_id", "item_id", "timestamp")
    assert rows.select("user_id", "item_id").rows() == [("0", "3649"), ("0", "9598"), ("14", "148")]
    assert rows["timestamp"][0] == datetime(2020, 7, 4, 16, 8, 23, 438000, tzinfo=UTC)  # 00:08:23.438 in China
    items = prepared.items.sort("item_id").select("item_id", "title", "category", "tags").rows()
    assert items == [
        ("148", "精神小伙路难走 程哥你狗粮慢点撒", "颜值 > 颜值随拍", "8"),
        ("3649", '晚饭, "好吃" 吗?', "美食 > 小吃 > 夜市", None),
        ("9598", "搞笑", None, "26, 5"),
    ]
    assert prepared.manifest["steps"][0]["rows"] == 5
    assert prepared.manifest["notes"] == []
    quarantined = prepared.quarantine.select("file", "line", "item_id", "reason").rows()
    assert quarantined == [("big_matrix.csv", 7, "183", "missing_time")]
    unpacked = {path.name for path in (tmp_path / "root" / "raw" / "kuairec" / "unpacked").rglob("*.csv")}
    assert unpacked == {kuairec.MATRIX, kuairec.CAPTIONS, kuairec.TAGS}


def test_captions_that_lie_beside_the_archive_are_those_that_count(tmp_path, server):
    server.put("KuaiRec.zip", _archive(tmp_path / "a.zip", folder="KuaiRec 2.0/data", captions=None))
    server.put("kuairec_caption_category.csv", CAPTIONS.replace("封面", "x").encode())
    prepared = prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=server.url)
    assert prepared.items.sort("item_id")["title"][1] == '晚饭, "好吃" 吗?'
    files = [file["file"] for file in prepared.manifest["raw"]]
    assert files == ["KuaiRec.zip", "kuairec_caption_category.csv"]


@pytest.mark.parametrize("below", ["", "data", "KuaiRec/data", "KuaiRec 2.0/data"])
def test_unpacked_tables_in_a_folder(tmp_path, below):
    _folder(tmp_path / "mine" / below, matrix=MATRIX, captions=CAPTIONS, tags=TAGS)
    prepared = prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "mine"))
    assert (prepared.interactions.height, prepared.manifest["items_with"]) == (3, {"text": 3})
    assert not (tmp_path / "root" / "raw" / "kuairec" / "unpacked").exists()


def test_the_matrix_alone_is_enough_and_it_is_said_what_is_missing(tmp_path):
    source = _folder(tmp_path / "mine", matrix=MATRIX)
    prepared = prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=source)
    assert prepared.items["title"].null_count() == 3
    assert prepared.manifest["notes"] == [
        "the optional table kuairec_caption_category.csv is missing: titles and categories are null",
        "the optional table item_categories.csv is missing: tags are null",
    ]


def test_rows_that_cannot_be_used_are_rows_with_their_line_numbers(tmp_path):
    rows = (
        *("1,2,3,4,t,20200705,1593878903.438,1", "1,2,3,4,t,20200705,1593878903.438", "1,3,3,4,,,nan,1"),
        *("1,4,3,4,t,20200705,-5.0,1", "1,5,3,4,t,20200705,99999999999.0,1", "1,6,3,4,t,20200705,inf,1", ""),
        *("1.0,7,3,4,t,20200705,1593878903.438,1", "1,8,3,4,t,20200705,soon,1", "1,9,3,4,t,20200705,1,1,1"),
        *("1,10,3,4,,NaN,,", "1,11,3,4,t,20200705,1593878904,1"),
    )
    matrix = (HEADER + "\r\n".join(rows)).encode() + b"\n1,\xe6\x97,3,4,t,20200705,1593878904,1\n"
    tables = kuairec.parse(kuairec.spec("kuairec"), LOOSE, tmp_path / _folder(tmp_path / "mine", matrix=matrix))
    assert tables.interactions["item_id"].to_list() == [2, 11]
    assert [bad[1:] for bad in _bad(tables.bad_rows)] == [
        (3, "2", "malformed_row"),
        (4, "3", "missing_time"),
        (5, "4", "bad_timestamp"),
        (6, "5", "bad_timestamp"),
        (7, "6", "bad_timestamp"),
        (9, "7", "bad_id"),
        (10, "8", "bad_timestamp"),
        (11, "9", "malformed_row"),
        (12, "10", "missing_time"),
        (14, "\ufffd", "bad_id"),
    ]


def test_a_header_without_rows_is_no_dataset(tmp_path):
    with pytest.raises(EmptyResultError, match="kuairec: no usable row"):
        prepare("kuairec", root=tmp_path / "root", source=_folder(tmp_path / "mine", matrix=HEADER))


def test_columns_are_found_by_name(tmp_path):
    columns = HEADER.strip().split(",")
    table = pl.read_csv(MATRIX.encode(), infer_schema=False, schema_overrides=dict.fromkeys(columns, pl.String))
    turned = table.select(reversed(columns)).with_columns(more=pl.lit("x")).write_csv()
    expected = kuairec.parse(kuairec.spec("kuairec"), LOOSE, tmp_path / _folder(tmp_path / "a", matrix=MATRIX))
    found = kuairec.parse(kuairec.spec("kuairec"), LOOSE, tmp_path / _folder(tmp_path / "b", matrix=turned))
    assert found.interactions.equals(expected.interactions)
    assert _bad(found.bad_rows) == _bad(expected.bad_rows)


def test_captions_that_break_their_line_and_records_that_are_broken(tmp_path):
    head, *lines = CAPTIONS.splitlines(keepends=True)
    broken = (
        *(
            "1,UNKNOWN,第一行\n第二行,[],5,明星,-124,UNKNOWN,-124,UNKNOWN\n",
            '2,UNKNOWN,"a\n\nb",[],5,明星,-1,UNKNOWN,-1,\n',
        ),
        *('3,UNKNOWN,"never closed,[],5,x,1,y,2,z\n', "4,too,few\n", "no id\n", "148,UNKNOWN,again,[],5,x,1,y,2,z\n"),
        *("5,UNKNOWN,a\rb,[],5,x,1,y,2,z\n",),
    )
    path = tmp_path / "captions.csv"
    path.write_bytes(("\ufeff" + head + lines[0] + "".join(broken)).encode() + b"6,U,\xe5\xbf,[],5,x,1,y,2,z\n")
    bad = []
    captions = kuairec.read_captions(path, bad)
    assert captions == {
        "148": ("精神小伙路难走 程哥你狗粮慢点撒", "颜值 > 颜值随拍"),
        "1": ("第一行 第二行", "明星"),
        "2": ("a b", "明星"),
        "5": ("a b", "x > y > z"),
    }
    assert [row[1:] for row in _bad(bad)] == [
        (8, "3", "malformed_row"),
        (9, "4", "malformed_row"),
        (11, "148", "repeated_item"),
        (13, "6", "bad_encoding"),
    ]


def test_tags_are_lists_of_numbers_and_nothing_is_ever_evaluated(tmp_path):
    path = tmp_path / "tags.csv"
    deep = "[" * 60_000
    texts = ("[7, 8]", "[]", "[1.5]", "['x']", "__import__('os')", "{1: 2}", "[true]", "9", "", "[1", deep)
    rows = "".join(f'{video},"{text}"\n' for video, text in enumerate(texts))
    path.write_text("video_id,feat\n" + rows)
    bad = []
    assert kuairec.read_tags(path, bad) == {"0": "7, 8", "1": None}
    assert _bad(bad) == [("tags.csv", video + 2, str(video), "malformed_row") for video in range(2, len(texts))]


def test_other_columns_are_one_clear_error(tmp_path):
    source = _folder(tmp_path / "a", matrix=MATRIX.replace("timestamp", "ts"))
    with pytest.raises(
        SchemaError, match=r"big_matrix.csv, line 1: expected .* user_id,video_id,timestamp, found 'user_i"
    ):
        prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=source)
    source = _folder(tmp_path / "b", matrix=MATRIX, captions=CAPTIONS.replace("caption,", "text,"))
    with pytest.raises(SchemaError, match=r"category.csv, line 1: expected a header .* caption, .* found 'video_id,"):
        prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=source)
    source = _folder(tmp_path / "c", matrix=MATRIX, tags="<html>")
    with pytest.raises(SchemaError, match=r"item_categories.csv, line 1: .* video_id, feat, found '<html>'"):
        prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=source)


def test_a_truncated_archive_and_a_folder_without_anything_are_named(tmp_path, caplog):
    path = tmp_path / "cut" / "KuaiRec.zip"
    path.write_bytes(_archive(path)[:-30])
    with pytest.raises(DamagedFileError, match=r"KuaiRec.zip: the archive of \d+ bytes is truncated"):
        prepare("kuairec", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "cut"))
    (tmp_path / "mine").mkdir()
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(MissingSourceError, match=r"expected KuaiRec.zip, or unpacked big_matrix.csv, in .*mine"),
    ):
        prepare("kuairec", root=tmp_path / "other", config=LOOSE, source=str(tmp_path / "mine"))


def test_the_order_of_the_rows_changes_nothing(tmp_path):
    head, *lines = MATRIX.splitlines(keepends=True)
    versions = [
        prepare(
            "kuairec",
            root=tmp_path / name,
            config=LOOSE,
            source=_folder(tmp_path / f"{name}-raw", matrix=head + "".join(rows), captions=CAPTIONS),
        ).version
        for name, rows in (("a", lines), ("b", lines[::-1]))
    ]
    assert versions[0] == versions[1]
