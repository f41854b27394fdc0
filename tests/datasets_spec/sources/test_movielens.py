"""MovieLens 10M: ratings and films as published, defects included, in a zip over HTTP and in a folder."""

import zipfile
from datetime import UTC, datetime

import pytest

from datasets_spec.errors import DamagedFileError, MissingSourceError, SchemaError
from datasets_spec.prepare import prepare
from datasets_spec.sources import movielens
from datasets_spec.spec import PrepareConfig

RATINGS = (
    b"1::122::5::838985046\n1::185::5::838983525\n1::231::0.5::838983392\n1::292::3.5::838983421\n"
    b"2::185::3::868245777\n2::122::3::868245777\n"  # a tie in time
)
MOVIES = (
    "122::Boomerang (1992)::Comedy|Romance\n185::Net, The (1995)::Action|Crime|Thriller\n"
    "231::Léon: The Professional (a.k.a. The Professional) (Léon) (1994)::Drama\n"
    "292::Face::Off (1997)::(no genres listed)\n"
)
LOOSE = PrepareConfig(k_user=1, k_item=1, split="leave_one_out")


def _archive(path, *, ratings=RATINGS, movies=MOVIES):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-10M100K/", b"")
        archive.writestr("ml-10M100K/ratings.dat", ratings)
        archive.writestr("ml-10M100K/movies.dat", movies)
        archive.writestr("ml-10M100K/tags.dat", b"15::4973::excellent!::1215184630\n")
    return path.read_bytes()


def _folder(path, *, ratings=RATINGS, movies=MOVIES):
    path.mkdir(parents=True, exist_ok=True)
    (path / "ratings.dat").write_bytes(ratings)
    (path / "movies.dat").write_text(movies, encoding="utf-8")
    return str(path)


def test_the_archive_over_http(tmp_path, server):
    server.put("ml-10m.zip", _archive(tmp_path / "site" / "a.zip"))
    config = LOOSE.model_copy(update={"base_url": server.url})
    prepared = prepare("movielens-10m", root=tmp_path / "root", config=config)
    rows = prepared.interactions.select("user_id", "item_id", "timestamp").rows()
    assert [row[:2] for row in rows] == [
        *(("1", "231"), ("1", "292"), ("1", "185"), ("1", "122")),
        *(("2", "122"), ("2", "185")),
    ]
    assert rows[-1][2] == datetime(1997, 7, 7, 3, 22, 57, tzinfo=UTC)  # date -u -d @868245777
    assert prepared.items.sort("item_id").select("item_id", "title", "category", "year").rows() == [
        ("122", "Boomerang (1992)", "Comedy, Romance", 1992),
        ("185", "Net, The (1995)", "Action, Crime, Thriller", 1995),
        ("231", "Léon: The Professional (a.k.a. The Professional) (Léon) (1994)", "Drama", 1994),
        ("292", "Face::Off (1997)", None, 1997),
    ]
    assert prepared.manifest["bad_rows"] == {}
    assert not list((tmp_path / "root").rglob("tags.dat"))


@pytest.mark.parametrize("below", ["", "ml-10M100K"])
def test_unpacked_tables_in_a_folder_give_the_same(tmp_path, below):
    _folder(tmp_path / "mine" / below)
    _archive(tmp_path / "packed" / "ml-10m.zip")
    versions = {
        prepare("movielens-10m", root=tmp_path / name, config=LOOSE, source=str(tmp_path / source)).version
        for name, source in (("a", "mine"), ("b", "packed"))
    }
    assert len(versions) == 1


def test_rows_that_cannot_be_used_are_rows_with_their_line_numbers(tmp_path):
    lines = (
        *(
            b"1::10::5::838985046",
            b"1::11::5",
            b"1::12::5::838985046::1",
            b"1::13::5.25::838985046",
            b"",
            b"x::14::5::1",
        ),
        *(b"1::15::0::838985046", b"1::16::5.5::838985046", b"1::17::good::838985046", b"1::18::5::-1", b"1::19::5::0"),
        *(
            b"1::20::5::1.5",
            b"1::21::5::9223372036854775807",
            b"1::22::5::99999999999999999999",
            b"1::23::nan::838985046",
        ),
        *(b"\xe9::24::5::838985046", b"1:25:5:838985046", b"1::26::0.5::838985047"),
    )
    source = _folder(tmp_path / "mine", ratings=b"\n".join(lines))
    tables = movielens.parse(movielens.spec("movielens-10m"), LOOSE, tmp_path / source)
    assert tables.interactions["item_id"].to_list() == [10, 26]
    assert [(row.line, row.item_id, row.reason) for row in tables.bad_rows] == [
        (2, "11", "malformed_row"),
        (3, "12", "malformed_row"),
        (4, "13", "bad_rating"),
        (6, "14", "bad_id"),
        (7, "15", "bad_rating"),
        (8, "16", "bad_rating"),
        (9, "17", "bad_rating"),
        (10, "18", "bad_timestamp"),
        (11, "19", "bad_timestamp"),
        (12, "20", "bad_timestamp"),
        (13, "21", "bad_timestamp"),
        (14, "22", "bad_timestamp"),
        (15, "23", "bad_rating"),
        (16, "24", "bad_id"),
        (17, None, "malformed_row"),
    ]


def test_films_that_cannot_be_read_are_rows_and_the_others_stay(tmp_path):
    path = tmp_path / "movies.dat"
    path.write_bytes(
        b"\xef\xbb\xbf1::Toy Story (1995)::Animation|Children\r\n\r\n2::no genres\n1::Again (1996)::Drama\n"
        b"3::L\xe9on (1994)::Drama\nx::Y (1999)::Drama\n4::Untold::\n5::2046 (2004)::Drama| Sci-Fi\n"
    )
    bad = []
    assert movielens.read_movies(path, bad).rows() == [
        ("1", "Toy Story (1995)", "Animation, Children", 1995),
        ("4", "Untold", None, None),
        ("5", "2046 (2004)", "Drama, Sci-Fi", 2004),
    ]
    assert [(row.line, row.item_id, row.reason) for row in bad] == [
        (3, None, "malformed_row"),
        (4, "1", "repeated_item"),
        (5, "3", "bad_encoding"),
        (6, None, "malformed_row"),
    ]


@pytest.mark.parametrize(
    ("ratings", "found"),
    [
        (b"userId,movieId,rating,timestamp\n1,122,5,838985046\n", "found 1 in 'userId,movieId"),
        (b"UserID::MovieID::Rating::Timestamp\n" + RATINGS, "no header, found 4 in 'UserID::"),
    ],
)
def test_another_table_is_one_clear_error(tmp_path, ratings, found):
    with pytest.raises(SchemaError, match=rf"ratings.dat, line 1: expected 4 fields user::movie::rating::.*{found}"):
        prepare("movielens-10m", root=tmp_path / "root", source=_folder(tmp_path / "mine", ratings=ratings))


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "cut" / "ml-10m.zip"
    path.write_bytes(_archive(path)[:-1])
    with pytest.raises(DamagedFileError, match=r"ml-10m.zip: the archive of \d+ bytes is truncated"):
        prepare("movielens-10m", root=tmp_path / "root", source=str(tmp_path / "cut"))
    with pytest.raises(DamagedFileError, match=r"ratings.dat: the file is empty"):
        prepare("movielens-10m", root=tmp_path / "a", source=_folder(tmp_path / "mine", ratings=b""))
    (tmp_path / "mine" / "movies.dat").unlink()
    with pytest.raises(
        MissingSourceError, match=r"expected ml-10m.zip, or unpacked ratings.dat, movies.dat, in .*mine"
    ):
        prepare("movielens-10m", root=tmp_path / "b", source=str(tmp_path / "mine"))


def test_the_recipe(tmp_path):
    config = movielens.spec("movielens-10m").config
    assert (config.k_user, config.k_item, config.split) == (5, 5, "user_811")
    rows = [(user, item) for user in range(1, 31) for item in range(1, 7)] + [(31, 1)]
    ratings = "".join(f"{user}::{item}::4.5::{838985046 + item}\n" for user, item in rows).encode()
    prepared = prepare("movielens-10m", root=tmp_path / "root", source=_folder(tmp_path / "mine", ratings=ratings))
    assert (prepared.n_users, prepared.n_items) == (30, 6)
    assert prepared.manifest["split"]["users"] == {"train": 24, "valid": 3, "test": 3}
