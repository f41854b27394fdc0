"""YooChoose: rows as the challenge documents them, in a 7z archive over HTTP and in a folder."""

import time
from datetime import UTC, datetime

import polars as pl
import py7zr
import pytest

from datasets_spec import delimited
from datasets_spec.errors import ChecksumError, DamagedFileError, DownloadError, MissingSourceError, SchemaError
from datasets_spec.prepare import prepare
from datasets_spec.sources import yoochoose
from datasets_spec.spec import PrepareConfig

# The form of the readme of the challenge: session, time, item, price, quantity; and session, time, item, category.
BUYS = (
    b"420374,2014-04-06T18:44:58.314Z,214537888,12462,1\n"
    b"420374,2014-04-06T18:44:58.325Z,214537850,10471,1\n"
    b"281626,2014-04-06T09:40:13.032Z,214535653,1883,1\n"
    b"420368,2014-04-04T06:13:28.848Z,214530572,6073,1\n"
    b"420374,2014-04-06T18:45:10.000Z,214537888,12462,2\n"  # bought again
    b"281626,2014-04-06T09:39:00.000Z,214537850,0,0\n"  # price and quantity are unknown in part of the rows
)
CLICKS = (
    b"1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n2,2014-04-07T13:56:37.614Z,1,5\n"
)
LOOSE = PrepareConfig(k_user=1, k_item=1, split="leave_one_out")


def _archive(path, *, buys=BUYS, clicks=CLICKS):
    path.parent.mkdir(parents=True, exist_ok=True)
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.writestr(clicks, "yoochoose-clicks.dat")
        archive.writestr(buys, "yoochoose-buys.dat")
        archive.writestr(b"readme", "dataset-README.txt")
    return path.read_bytes()


def _folder(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (path / f"yoochoose-{name}.dat").write_bytes(data)
    return str(path)


def _sequences(prepared):
    rows = prepared.interactions.group_by("user_id", maintain_order=True).agg("item_id")
    return dict(rows.iter_rows())


def test_the_archive_over_http(tmp_path, server):
    server.put("yoochoose-data.7z", _archive(tmp_path / "site" / "a.7z"))
    config = LOOSE.model_copy(update={"base_url": server.url})
    prepared = prepare("yoochoose", root=tmp_path / "root", config=config)
    assert _sequences(prepared) == {
        "281626": ["214537850", "214535653"],
        "420368": ["214530572"],
        "420374": ["214537888", "214537850"],
    }
    times = prepared.interactions.filter(pl.col("user_id") == "420374")["timestamp"].to_list()
    assert times[0] == datetime(2014, 4, 6, 18, 44, 58, 314000, tzinfo=UTC)
    assert [file["file"] for file in prepared.manifest["raw"]] == ["yoochoose-data.7z"]
    assert [path.name for path in (tmp_path / "root").rglob("*.dat")] == ["yoochoose-buys.dat"]
    assert prepared.manifest["bad_rows"] == {}

    assert prepare("yoochoose", root=tmp_path / "root", config=config).version == prepared.version
    assert [request.status for request in server.requests] == [200]


def test_the_clicks_of_the_same_archive(tmp_path, server):
    server.put("yoochoose-data.7z", _archive(tmp_path / "site" / "a.7z"))
    prepared = prepare("yoochoose-clicks", root=tmp_path / "root", config=LOOSE, source=server.url)
    assert _sequences(prepared) == {"1": ["214536502", "214536500"], "2": ["1"]}


def test_an_archive_that_changes_is_unpacked_again(tmp_path):
    for data in (BUYS, BUYS + b"7,2014-04-06T18:44:58.314Z,214537888,1,1\n"):
        _archive(tmp_path / "mine" / "yoochoose-data.7z", buys=data)
        prepared = prepare("yoochoose", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "mine"))
    assert prepared.n_users == 4
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["yoochoose-data.7z"]


def test_an_unpacked_table_in_a_folder_is_enough_and_stays_there(tmp_path):
    source = _folder(tmp_path / "mine" / "yoochoose-data", buys=BUYS)
    for folder in (source, str(tmp_path / "mine")):
        prepared = prepare("yoochoose", root=tmp_path / "root", config=LOOSE, source=folder)
        assert (prepared.n_users, prepared.n_items) == (3, 4)
        assert [file["file"] for file in prepared.manifest["raw"]] == ["yoochoose-buys.dat"]
    assert not list((tmp_path / "root").rglob("*.dat"))


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Shanghai"])
def test_times_are_utc_in_whatever_zone_the_machine_is(tmp_path, monkeypatch, zone):
    source = _folder(tmp_path / "mine", buys=b"1,2014-03-09T02:30:00.500Z,5,1,1\n")  # an hour that Los Angeles skips
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert time.timezone != 0
        prepared = prepare("yoochoose", root=tmp_path / "root", config=LOOSE, source=source)
    time.tzset()
    assert prepared.interactions["timestamp"].dt.epoch("ms").to_list() == [1_394_332_200_500]  # date -u +%s, and .5 s


def test_rows_that_cannot_be_used_are_rows_with_their_line_numbers(tmp_path):
    lines = (
        *(b"1,2014-04-06T18:44:58.314Z,10,1,1", b"1,2014-04-06T18:44:58.314Z,11,1", b""),
        *(
            b"1,2014-04-06T18:44:58.314Z,12,1,1,9",
            b"1,2014-02-30T18:44:58.314Z,13,1,1",
            b"-1,2014-04-06T18:44:58Z,14,1,1",
        ),
        *(b"1,1969-12-31T23:59:59.999Z,15,1,1", b"1,2414-04-06T18:44:58.314Z,16,1,1", b"1,1396809898,17,1,1"),
        *(b"1,2014-04-06T18:44:58.314Z,\xff,1,1", b"1,2014-04-06T18:44:58.314Z,,1,1", b"1,,18,1,1", b"007,2014,1,1,1"),
        *(b"1,2014-04-06T18:44:58.314+02:00,19,1,1", b" 1 ,2014-04-06T18:44:59Z, 20 ,1,1\r", b"1,2014-04-0"),
    )
    tables = yoochoose.parse(
        yoochoose.spec("yoochoose"), LOOSE, (tmp_path / _folder(tmp_path / "mine", buys=b"\n".join(lines)))
    )
    assert tables.interactions.select("user_id", "item_id").rows() == [(1, 10), (1, 20)]
    assert [(row.line, row.item_id, row.reason) for row in tables.bad_rows] == [
        (2, "11", "malformed_row"),
        (4, "12", "malformed_row"),
        (5, "13", "bad_timestamp"),
        (6, "14", "bad_id"),
        (7, "15", "bad_timestamp"),
        (8, "16", "bad_timestamp"),
        (9, "17", "bad_timestamp"),
        (10, "\ufffd", "bad_id"),
        (11, "", "bad_id"),
        (12, "18", "bad_timestamp"),
        (13, "1", "bad_id"),
        (14, "19", "bad_timestamp"),
        (16, None, "malformed_row"),
    ]
    assert tables.bad_rows[0].detail == "1,2014-04-06T18:44:58.314Z,11,1"


@pytest.mark.parametrize("block", [1, 47, 100])
def test_a_table_that_is_read_in_many_blocks_is_the_same_table(tmp_path, monkeypatch, block):
    path = tmp_path / _folder(tmp_path / "mine", buys=BUYS + b"1,x\n\n1,\xff,9,1,1\n" + BUYS + b"2,x")
    whole = yoochoose.parse(yoochoose.spec("yoochoose"), LOOSE, path)
    monkeypatch.setattr(delimited, "_BLOCK", block)
    blocks = yoochoose.parse(yoochoose.spec("yoochoose"), LOOSE, path)
    assert blocks.interactions.equals(whole.interactions)
    assert blocks.interactions.height == 12
    assert [row.line for row in blocks.bad_rows] == [row.line for row in whole.bad_rows] == [7, 9, 16]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (CLICKS, "expected 5 fields session,time,item,price,quantity and no header, found 4 in '1,2014"),
        (b"session,time,item,price,quantity\n" + BUYS, "no header, found 5 in 'session,time"),
        (b"<html>\n", "found 1 in '<html>'"),
        (b"\xff\xfe\x00\n", "found 1 in"),
    ],
)
def test_another_table_is_one_clear_error(tmp_path, data, found):
    source = _folder(tmp_path / "mine", buys=data)
    with pytest.raises(SchemaError, match=rf"yoochoose-buys.dat, line 1: .*{found}"):
        prepare("yoochoose", root=tmp_path / "root", config=LOOSE, source=source)


def test_an_empty_table_and_an_archive_that_is_cut_short_are_named(tmp_path):
    with pytest.raises(DamagedFileError, match=r"yoochoose-buys.dat: the file is empty"):
        prepare("yoochoose", root=tmp_path / "a", config=LOOSE, source=_folder(tmp_path / "mine", buys=b""))
    path = tmp_path / "cut" / "yoochoose-data.7z"
    path.write_bytes(_archive(path)[:-40])
    with pytest.raises(DamagedFileError, match=r"yoochoose-data.7z: the archive of \d+ bytes is truncated"):
        prepare("yoochoose", root=tmp_path / "b", config=LOOSE, source=str(tmp_path / "cut"))


def test_what_is_missing_is_said_with_what_to_do(tmp_path, server):
    (tmp_path / "mine").mkdir()
    with pytest.raises(
        MissingSourceError, match=r"expected yoochoose-data.7z, or unpacked yoochoose-buys.dat, in .*mine"
    ):
        prepare("yoochoose", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "mine"))
    with pytest.raises(DownloadError, match=r"expected yoochoose-data.7z.* source= takes a folder(.|\n)*404") as caught:
        prepare("yoochoose", root=tmp_path / "other", config=LOOSE, source=server.url)
    assert not isinstance(caught.value, ChecksumError)


def test_the_recipe(tmp_path):
    spec = yoochoose.spec("yoochoose")
    assert (spec.config.k_user, spec.config.k_item, spec.config.split) == (3, 5, "user_811")
    assert spec.published[0].interactions / spec.published[0].users == pytest.approx(4.2, abs=0.01)
    # 20 sessions buy the same 5 items, one has 2 rows only: it leaves, and 10 % of 20 users are 2.
    rows = [(session, item) for session in range(1, 21) for item in range(1, 6)] + [(21, 1), (21, 2)]
    lines = [f"{session},2014-04-06T18:44:{item:02}.000Z,{item},1,1\n" for session, item in rows]
    source = _folder(tmp_path / "mine", buys="".join(lines).encode())
    prepared = prepare("yoochoose", root=tmp_path / "root", source=source)
    assert (prepared.n_users, prepared.n_items, prepared.interactions.height) == (20, 5, 100)
    assert prepared.manifest["split"]["users"] == {"train": 16, "valid": 2, "test": 2}
