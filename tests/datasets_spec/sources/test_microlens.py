"""MicroLens: its files as the real ones are written, whole and broken, from a folder and over HTTP."""

import hashlib
import logging
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from datasets_spec.errors import ChecksumError, DamagedFileError, DownloadError, MissingSourceError, SchemaError
from datasets_spec.microlens_format import LAYOUTS, parse_microlens, read_titles
from datasets_spec.microlens_pairs import read_pairs, read_sequences
from datasets_spec.prepare import prepare
from datasets_spec.sources import microlens
from datasets_spec.spec import PrepareConfig
from datasets_spec.synthetic.serve import serve

# The first rows of the real file, and a tie.
PAIRS = b"user,item,timestamp\n1,10,1583378629552\n1,20,1583378629552\n2,10,1662984729152\n2,20,1662984729153\n"
TITLES = b'item,title\r\n10,"A cat, and ""a dog"""\r\n20,"Second, title"\r\n30,\r\n'
LOOSE = PrepareConfig(k_user=1, k_item=1)


def _folder(path, *, pairs=PAIRS, titles=TITLES, media=()):
    path.mkdir(parents=True, exist_ok=True)
    (path / "MicroLens-50k_pairs.csv").write_bytes(pairs)
    (path / "MicroLens-50k_titles.csv").write_bytes(titles)
    for name in media:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(name.encode())
    return path


def _bad(rows):
    return [(row.line, row.item_id, row.reason) for row in rows]


def test_pairs_are_user_item_and_milliseconds(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(PAIRS)
    bad = []
    frame = read_pairs(path, bad)
    assert frame.select("user_id", "item_id").rows() == [("1", "10"), ("1", "20"), ("2", "10"), ("2", "20")]
    assert frame["timestamp"][0] == datetime(2020, 3, 5, 3, 23, 49, 552000, tzinfo=UTC)
    assert bad == []


@pytest.mark.parametrize(
    "data",
    [
        PAIRS.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PAIRS,
        PAIRS.split(b"\n", 1)[1],  # no header
        PAIRS.replace(b"user,item,timestamp", b"userID,videoID,timestamp"),  # as the readme calls them
        PAIRS.rstrip(b"\n"),
        PAIRS.replace(b"2,10", b"\n2,10"),  # a blank line
    ],
    ids=["crlf", "bom", "no header", "readme names", "no last line end", "blank line"],
)
def test_other_ways_to_write_the_same_pairs_are_read_the_same(tmp_path, data):
    (tmp_path / "a.csv").write_bytes(PAIRS)
    (tmp_path / "b.csv").write_bytes(data)
    bad = []
    expected = read_pairs(tmp_path / "a.csv", bad).drop("order")
    assert read_pairs(tmp_path / "b.csv", bad).drop("order").equals(expected)
    assert bad == []


def test_malformed_pairs_are_rows_with_their_line_numbers(tmp_path):
    path = tmp_path / "pairs.csv"
    lines = (
        *(b"user,item,timestamp", b"1,10,1583378629552", b"1,11", b"1,12,noon", b"1,13,1583378629552,5", b"", b",14,1"),
        *(b"1,../../etc/passwd,1583378629552", b"1,15,-5", b"1,\xff\xfe,1583378629552", b"1,16,99999999999999999999"),
        *(b"2,17,1583378629553",),
    )
    path.write_bytes(b"\n".join(lines))
    bad = []
    assert read_pairs(path, bad)["item_id"].to_list() == ["10", "17"]
    assert _bad(bad) == [
        (3, "11", "malformed_row"),
        (4, "12", "bad_timestamp"),
        (5, "13", "malformed_row"),
        (7, "14", "bad_id"),
        (8, "../../etc/passwd", "bad_id"),
        (9, "15", "bad_timestamp"),
        (10, "\ufffd\ufffd", "bad_id"),
        (11, "16", "bad_timestamp"),
    ]
    assert bad[0].file == "pairs.csv"
    assert bad[0].detail == "1,11"


def test_pairs_without_the_expected_header_are_one_clear_error(tmp_path):
    (tmp_path / "pairs.csv").write_bytes(b"<html>502 Bad Gateway</html>\n")
    with pytest.raises(SchemaError, match=r"pairs.csv, line 1: expected the header user,item,timestamp, got '<html>"):
        read_pairs(tmp_path / "pairs.csv", [])
    (tmp_path / "pairs.csv").write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"pairs.csv: expected the header .* the file is empty"):
        read_pairs(tmp_path / "pairs.csv", [])


def test_quoted_titles(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_bytes(TITLES + '40,"你好, ""世界"""\r\n50,"two\r\nlines"\r\n'.encode())
    bad = []
    titles = read_titles(path, "quoted_csv", bad)
    assert titles == {
        "10": 'A cat, and "a dog"',
        "20": "Second, title",
        "30": "",
        "40": '你好, "世界"',
        "50": "two\nlines",
    }
    assert _bad(bad) == [(4, "30", "empty_title")]


def test_one_broken_quoted_title_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_bytes(b'item,title\r\n1,"open\r\n2,"fine"\r\n3,a,b\r\nno id\r\n2,"again"\r\n4,"\xff"\r\n5,"last"\r\n')
    bad = []
    assert read_titles(path, "quoted_csv", bad) == {"2": "fine", "5": "last"}
    assert _bad(bad) == [
        (2, None, "malformed_row"),
        (4, None, "malformed_row"),
        (5, None, "malformed_row"),
        (6, "2", "repeated_item"),
        (7, "4", "bad_encoding"),
    ]


def test_titles_without_header_are_split_at_the_first_comma(tmp_path):
    path = tmp_path / "titles.csv"
    path.write_bytes('1,one, two\n2,"balanced ""quotes"", here"\n3,他说"你好\n4,\n"5,half\nsix\n7,last'.encode())
    bad = []
    titles = read_titles(path, "first_comma", bad)
    assert titles == {"1": "one, two", "2": 'balanced "quotes", here', "3": '他说"你好', "4": "", "7": "last"}
    assert _bad(bad) == [(4, "4", "empty_title"), (5, None, "malformed_row"), (6, None, "malformed_row")]


def test_the_100k_files(tmp_path):
    (tmp_path / "MicroLens-100k_pairs.csv").write_bytes(PAIRS)
    (tmp_path / "MicroLens-100k_title_en.csv").write_bytes(b"10,first, title\n20,\n")
    (tmp_path / "tags_to_summary.csv").write_bytes(b"10,Food\n")
    (tmp_path / "MicroLens-100k_likes_and_views.txt").write_bytes(b"20\t5\t100\nbroken\n20\t1\t1\n10\tx\t1\n")
    tables = parse_microlens(LAYOUTS["microlens-100k"], tmp_path)
    assert tables.items.sort("item_id").rows() == [
        ("10", "first, title", "Food", None, None),
        ("20", None, None, 5, 100),
    ]
    assert tables.items.columns == ["item_id", "title", "category", "likes", "views"]
    assert _bad(tables.bad_rows) == [
        (2, "20", "empty_title"),
        (2, "broken", "malformed_row"),
        (3, "20", "repeated_item"),
        (4, "10", "malformed_row"),
    ]
    assert tables.notes == ()


def test_an_item_without_a_line_in_the_titles_is_an_item(tmp_path):
    folder = _folder(tmp_path, titles=b"item,title\r\n10,x\r\n")
    tables = parse_microlens(LAYOUTS["microlens-50k"], folder)
    assert tables.items.rows() == [("10", "x"), ("20", None)]
    assert tables.notes == ("the optional file MicroLens-50k_likes_and_views.txt is missing",)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("microlens-50k", "MicroLens-50k"),
        ("microlens-100k", "MicroLens-100k"),
        ("microlens-1m", "MicroLens-1M"),
        ("microlens-small", "MicroLens-50k"),
        ("microlens-big", "MicroLens-100k"),
    ],
)
def test_the_files_of_a_member(name, prefix):
    spec = microlens.spec(name)
    assert name in microlens.NAMES
    assert spec.config.base_url == f"https://recsys.westlake.edu.cn/{prefix}-Dataset"
    assert spec.files[0].path == f"{prefix}_pairs.csv"
    assert [file.required for file in spec.files][:2] == [True, True]
    assert all(file.sha256 is not None and len(file.sha256) == 64 for file in spec.files) == ("50k" in prefix)


def test_the_recipes_of_a_paper_share_the_raw_files_and_carry_its_printed_sizes():
    small, big = microlens.spec("microlens-small"), microlens.spec("microlens-big")
    assert (small.raw, big.raw) == ("microlens-50k", "microlens-100k")
    for spec, printed in ((small, "8,694\t8,265\t50,838"), (big, "86,073\t18,700\t597,104")):
        (counts,) = spec.published
        assert f"{counts.users:,}\t{counts.items:,}\t{counts.interactions:,}" == printed
        assert counts.source == "MealRec (arXiv 2603.01926), Table 1"
        assert spec.config.sample_users >= counts.users  # the sample comes before the bounds
    assert microlens.spec("microlens-50k").published == ()


def test_a_recipe_reads_the_files_of_its_dataset(tmp_path):
    folder = _folder(tmp_path / "mine", media=("MicroLens-50k_videos/10.mp4",))
    config = microlens.spec("microlens-small").config.model_copy(update={"k_user": 1, "k_item": 1})
    prepared = prepare("microlens-small", root=tmp_path / "root", config=config, source=str(folder))
    assert prepared.n_users == 2
    assert [path.name for _, path in prepared.media("video")] == ["10.mp4"]
    assert (tmp_path / "root" / "raw" / "microlens-50k" / "source.json").is_file()


SEQUENCES = b"1\t20 10\n2\t10 20 30\n"


def test_sequences_without_times_give_an_order(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + SEQUENCES.replace(b"\n", b" \r\n"))
    bad = []
    frame = read_sequences(path, bad)
    assert frame.select("user_id", "item_id", "order").rows() == [
        *(("1", "20", 1), ("1", "10", 2)),
        *(("2", "10", 1), ("2", "20", 2), ("2", "30", 3)),
    ]
    assert frame["timestamp"].null_count() == 5
    assert bad == []


def test_malformed_sequences_are_rows_with_their_line_numbers(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes(b"1\t10 ../x 20\n\n2 10 20\n3\t\n1\t30\n a b\t10\n4\t40\n\t50\n")
    bad = []
    rows = read_sequences(path, bad).select("user_id", "item_id", "order").rows()
    assert rows == [("1", "10", 1), ("1", "20", 3), ("4", "40", 1)]
    assert sorted(_bad(bad)) == [
        (1, "../x", "bad_id"),
        (3, None, "malformed_row"),
        (4, None, "malformed_row"),
        (5, None, "repeated_user"),
        (6, None, "bad_id"),
        (8, None, "bad_id"),
    ]
    path.write_bytes(b"")
    with pytest.raises(DamagedFileError, match=r"pairs.tsv: expected lines of a user, a tab and items"):
        read_sequences(path, [])


@pytest.mark.parametrize("over_http", [False, True], ids=["folder", "site"])
def test_sequences_stand_in_for_pairs_that_are_absent(tmp_path, over_http):
    folder = _folder(tmp_path / "mine")
    (folder / "MicroLens-50k_pairs.tsv").write_bytes(SEQUENCES)
    (folder / "MicroLens-50k_pairs.csv").unlink()
    config = LOOSE.model_copy(update={"media": ()})
    with serve(folder) as url:
        source = url if over_http else str(folder)
        prepared = prepare("microlens-50k", root=tmp_path / "root", config=config, source=source)
        orders = {user: rows["item_id"].to_list() for (user,), rows in prepared.interactions.group_by("user_id")}
        assert orders == {"1": ["20", "10"], "2": ["10", "20", "30"]}
        assert prepared.interactions["timestamp"].null_count() == 5
        assert any("MicroLens-50k_pairs.tsv gives the order" in note for note in prepared.manifest["notes"])
        # the table with times is preferred as soon as it is there
        (folder / "MicroLens-50k_pairs.csv").write_bytes(PAIRS)
        prepared = prepare("microlens-50k", root=tmp_path / "root", config=config, source=source)
    assert prepared.interactions["timestamp"].null_count() == 0


def test_sequences_of_another_site_are_not_kept(tmp_path):
    rows = {}
    for name, data in (("one", SEQUENCES), ("two", b"7\t10 20\n")):
        folder = _folder(tmp_path / name)
        (folder / "MicroLens-50k_pairs.csv").unlink()
        (folder / "MicroLens-50k_pairs.tsv").write_bytes(data)
        with serve(folder) as url:
            config = LOOSE.model_copy(update={"media": ()})
            rows[name] = prepare("microlens-50k", root=tmp_path / "root", config=config, source=url).n_users
    assert rows == {"one": 2, "two": 1}


def test_without_both_pairs_files_the_error_names_the_usual_one(tmp_path):
    folder = _folder(tmp_path / "mine")
    (folder / "MicroLens-50k_pairs.csv").unlink()
    with pytest.raises(MissingSourceError, match=r"microlens-50k: expected MicroLens-50k_pairs.csv in"):
        prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=str(folder))
    with serve(folder) as url, pytest.raises(DownloadError, match=r"by hand(?s:.*)MicroLens-50k_pairs.csv: .*HTTP 404"):
        prepare("microlens-50k", root=tmp_path / "other", config=LOOSE, source=url)


@pytest.mark.parametrize("over_http", [False, True], ids=["folder", "site"])
def test_covers_come_out_of_a_zip_and_nothing_else_does(tmp_path, over_http):
    folder = _folder(tmp_path / "mine")
    with zipfile.ZipFile(folder / "MicroLens-50k_covers.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("MicroLens-50k_covers/10.jpg", "../../20.jpg", "MicroLens-50k_covers/30.jpg"):
            archive.writestr(name, name)
    with serve(folder) as url:
        source = url if over_http else str(folder)
        prepared = prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=source)
    ((item_id, path),) = prepared.media("image")
    assert (item_id, path.read_text()) == ("10", "MicroLens-50k_covers/10.jpg")
    rows = prepared.quarantine.filter(pl.col("file").str.contains("cover")).sort("file")
    assert rows.select("item_id", "reason").rows() == [(None, "unsafe_member"), ("20", "missing")]
    assert "'../../20.jpg': its name leads out of the folder" in rows["detail"][0]
    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["10.jpg"]
    if not over_http:
        assert not list(folder.rglob("*.jpg"))


def test_a_local_folder_is_read_in_place(tmp_path):
    media = ("MicroLens-50k_videos/10.mp4", "MicroLens-50k_covers/10.jpg", "MicroLens-50k_covers/20.jpg")
    folder = _folder(tmp_path / "mine", media=media)
    prepared = prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=str(folder))
    items = prepared.items.sort("item_id")
    assert items["video"].to_list() == [str(folder / "MicroLens-50k_videos/10.mp4"), None]
    assert items["image"].to_list() == [str(folder / f"MicroLens-50k_covers/{i}.jpg") for i in (10, 20)]
    assert prepared.manifest["bad_rows"] == {"empty_title": 1, "missing": 1}
    assert not list((tmp_path / "root" / "raw").rglob("*.mp4"))
    # a tie in time goes by item id, so user 1 has 10 before 20
    assert prepared.interactions.filter(pl.col("user_id") == "1")["item_id"].to_list() == ["10", "20"]


def test_items_may_be_required_to_have_a_video(tmp_path):
    folder = _folder(tmp_path / "mine", media=("MicroLens-50k_videos/10.mp4",))
    config = PrepareConfig(k_user=1, k_item=1, require=("text", "video"))
    prepared = prepare("microlens-50k", root=tmp_path / "root", config=config, source=str(folder))
    assert prepared.items["item_id"].to_list() == ["10"]


def test_a_folder_without_the_tables_is_one_clear_error(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(MissingSourceError, match=r"microlens-50k: expected MicroLens-50k_pairs.csv, MicroLens-50k_tit"):
        prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "mine"))


def test_another_copy_need_not_have_the_published_digests_but_must_have_its_own(tmp_path):
    folder = _folder(tmp_path / "mine")
    digest = hashlib.sha256(PAIRS).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  MicroLens-50k_pairs.csv\n")
    prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=str(folder))
    (folder / "MicroLens-50k_pairs.csv").write_bytes(PAIRS + b"3,10,1583378629552\n")
    with pytest.raises(ChecksumError, match=rf"MicroLens-50k_pairs.csv: its SHA-256 is .* SHA256SUMS .* says {digest}"):
        prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=str(folder))


def test_over_http_media_come_per_item_and_what_is_missing_is_a_row(tmp_path, caplog):
    media = ("MicroLens-50k_videos/10.mp4", "MicroLens-50k_covers/10.jpg", "MicroLens-50k_covers/30.jpg")
    folder = _folder(tmp_path / "site", media=media)
    with serve(folder) as url:
        prepared = prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=url)
    items = prepared.items.sort("item_id")
    first, second = items["video"]
    assert Path(first).read_text() == "MicroLens-50k_videos/10.mp4"
    assert second is None
    quarantined = prepared.quarantine.filter(pl.col("reason") == "missing").sort("file")
    assert quarantined.select("file", "item_id", "stage").rows() == [
        ("MicroLens-50k_covers/20.jpg", "20", "media"),
        ("MicroLens-50k_videos/20.mp4", "20", "media"),
    ]
    assert not list((tmp_path / "root").rglob("30.jpg"))  # item 30 has no interaction


def test_media_of_two_sources_are_never_mixed(tmp_path):
    for name in ("one", "two"):
        folder = _folder(tmp_path / name, media=("MicroLens-50k_videos/10.mp4",))
        (folder / "MicroLens-50k_videos" / "10.mp4").write_text(name)
        with serve(folder) as url:
            prepared = prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=url)
        (_, path) = prepared.media("video")[0]
        assert path.read_text() == name


def test_a_site_whose_checksum_list_changes_is_fetched_anew(tmp_path):
    root, folder = tmp_path / "root", tmp_path / "site"
    users = {}
    with serve(_folder(folder, media=("MicroLens-50k_videos/10.mp4",))) as url:
        for version, extra in (("v1", b""), ("v2", b"3,10,1583378629552\n")):
            video = folder / "MicroLens-50k_videos" / "10.mp4"
            video.write_text(version)
            (folder / "MicroLens-50k_pairs.csv").write_bytes(PAIRS + extra)
            names = ("MicroLens-50k_pairs.csv", "MicroLens-50k_videos/10.mp4")
            sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
            (folder / "SHA256SUMS").write_text("".join(sums))
            prepared = prepare("microlens-50k", root=root, config=LOOSE, source=url)
            users[version] = prepared.n_users
            assert prepared.media("video")[0][1].read_text() == version
    assert users == {"v1": 2, "v2": 3}


def test_no_media_at_all_is_said_and_survived(tmp_path, caplog):
    with serve(_folder(tmp_path / "site")) as url, caplog.at_level(logging.WARNING):
        prepared = prepare("microlens-50k", root=tmp_path / "root", config=LOOSE, source=url)
    assert prepared.items["video"].null_count() == 2
    assert "none of 4 media files exists" in caplog.text


def test_a_site_that_answers_no_request_for_media_is_an_error_that_says_what_to_do(tmp_path, server):
    folder = _folder(tmp_path / "site")
    for path in folder.iterdir():
        server.put(path.name, path.read_bytes())
    for i in (10, 20):
        server.put(f"MicroLens-50k_covers/{i}.jpg", b"x", statuses=[403] * 9)
    config = LOOSE.model_copy(update={"media": ("image",)})
    with pytest.raises(DownloadError, match=r"none of 2 media files could be fetched; .*Place the files .* by hand"):
        prepare("microlens-50k", root=tmp_path / "root", config=config, source=server.url)


def test_media_can_be_left_out(tmp_path):
    with serve(_folder(tmp_path / "site", media=("MicroLens-50k_covers/10.jpg",))) as url:
        config = LOOSE.model_copy(update={"media": ("image",)})
        prepared = prepare("microlens-50k", root=tmp_path / "root", config=config, source=url)
    assert prepared.items["video"].null_count() == 2
    assert prepared.manifest["items_with"]["image"] == 1


def test_the_published_digests_hold_for_the_publisher_and_its_mirrors(tmp_path):
    config = LOOSE.model_copy(update={"media": ()})
    with serve(_folder(tmp_path / "site")) as url, pytest.raises(ChecksumError, match=r"Place them there by hand"):
        prepare("microlens-50k", root=tmp_path / "root", config=config.model_copy(update={"base_url": url}))
