"""ShortVideo: exposures, tags, effective views, and videos under the wrong id."""

import base64
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import polars as pl
import pytest

from datasets_spec.errors import ConfigConflictError, DamagedFileError, DownloadError, MissingSourceError, SchemaError
from datasets_spec.prepare import prepare
from datasets_spec.shortvideo_format import parse_interactions
from datasets_spec.sources import shortvideo
from datasets_spec.spec import PrepareConfig
from datasets_spec.synthetic.latent import draw_catalogue
from datasets_spec.synthetic.videos import Clip, encode_video, scene_of

# The documented columns of the real file, those of persons left out.
COLUMNS = (
    *("user_id", "pid", "exposed_time", "p_date", "p_hour", "watch_time", "cvm_like", "comment", "follow", "collect"),
    *("forward", "effective_view", "hate", "category_level", "category_id", "parent_id", "root_id", "duration"),
    *("author_id", "author_fans_count", "tag_name", "title"),
)
LOOSE = PrepareConfig(k_user=1, k_item=1)


def _row(user, pid, time, **values):
    row = dict.fromkeys(COLUMNS, "0")
    row |= {"user_id": str(user), "pid": str(pid), "exposed_time": str(time), "watch_time": "9.5", "duration": "2.0"}
    row |= {"effective_view": "True", "tag_name": "美食", "title": f"标题, {pid}", "category_id": "77"}
    return row | {name: str(value) for name, value in values.items()}


def _write(path, rows, *, without=()):
    columns = [name for name in rows[0] if name not in without]
    pl.DataFrame(rows).select(columns).write_csv(path)
    return path


ROWS = [
    _row(1, 84199269992, 1663286400, tag_name="美食"),
    _row(1, 84199269992, 1663286400, tag_name="旅行"),  # the same exposure, another tag
    _row(1, 5, 1663286500, effective_view="False", watch_time="1.2"),
    _row(2, 5, 1663286600, tag_name=""),
    _row(2, 84199269992, 1663286700),
]


def test_rows_that_differ_in_their_tag_are_one_exposure(tmp_path):
    tables = parse_interactions(_write(tmp_path / "interaction.csv", ROWS))
    assert tables.interactions.select("user_id", "item_id").rows() == [
        ("1", "84199269992"),
        ("2", "5"),
        ("2", "84199269992"),
    ]
    assert tables.interactions["timestamp"][0] == datetime(2022, 9, 16, 0, 0, tzinfo=UTC)
    assert tables.notes == ("4 exposures in 5 rows; 3 of them are effective views",)
    items = {row["item_id"]: row for row in tables.items.iter_rows(named=True)}
    assert items["84199269992"] == {
        "item_id": "84199269992",
        "title": "标题, 84199269992",
        "category": "旅行, 美食",
        "duration": 2.0,
    }
    assert items["5"]["category"] == "美食"  # from the exposure that was no effective view


def test_without_effective_view_three_seconds_take_its_place(tmp_path):
    rows = [_row(1, pid, 1663286400, watch_time=seconds) for pid, seconds in ((1, 2.99), (2, 3.0), (3, 40))]
    path = _write(tmp_path / "interaction.csv", rows, without=("effective_view",))
    tables = parse_interactions(path)
    assert tables.interactions["item_id"].to_list() == ["2", "3"]
    assert tables.notes[1] == "effective_view is absent: watch_time >= 3 s takes its place"


def test_malformed_rows_are_rows_with_their_line_numbers(tmp_path):
    rows = [
        _row(1, 10, 1663286400),
        _row("", 11, 1663286400),
        _row(1, "../x", 1663286400),
        _row(1, 12, "yesterday"),
        _row(1, 13, 1663286400, effective_view="perhaps"),
        _row(1, 14, 1663286401.0),
    ]
    path = _write(tmp_path / "interaction.csv", rows)
    path.write_text(path.read_text() + "1,15\n")
    tables = parse_interactions(path)
    assert tables.interactions["item_id"].to_list() == ["10", "14"]
    assert [(row.line, row.item_id, row.reason) for row in tables.bad_rows] == [
        (3, "11", "bad_id"),
        (4, "../x", "bad_id"),
        (5, "12", "bad_timestamp"),
        (6, "13", "bad_watch_time"),
        (8, "15", "bad_timestamp"),
    ]


def test_a_file_without_the_columns_is_one_clear_error(tmp_path):
    path = _write(tmp_path / "interaction.csv", ROWS, without=("pid", "effective_view", "watch_time"))
    with pytest.raises(SchemaError, match=r"expected the columns user_id, pid, .*; pid, effective_view or watch_ti"):
        parse_interactions(path)
    path.write_bytes(b"")
    with pytest.raises(DamagedFileError, match="the file is empty"):
        parse_interactions(path)


def _video(path, seconds):
    path.parent.mkdir(exist_ok=True)
    clip = Clip("libx264", seconds, 12, 64, 64, 0, sound=False, keyframe_every=None)
    encode_video(path, scene_of(draw_catalogue(1, 1, np.random.default_rng(0)), 0, clip), clip)


@pytest.mark.parametrize("table", shortvideo.TABLES)
def test_a_local_folder_with_videos_of_which_one_is_another_items(tmp_path, table):
    rows = [_row(1, pid, 1663286400 + pid) for pid in (1, 2, 3, 4)]
    folder = tmp_path / "mine"
    folder.mkdir()
    _write(folder / table, rows)
    _video(folder / "raw_file" / "1.mp4", 2.0)
    _video(folder / "raw_file" / "2.mp4", 6.0)
    (folder / "raw_file" / "3.mp4").write_bytes(b"no video")
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=str(folder))
    videos = dict(prepared.items.select("item_id", "video").iter_rows())
    assert videos == {
        "1": str(folder / "raw_file" / "1.mp4"),
        "2": None,
        "3": str(folder / "raw_file" / "3.mp4"),  # unreadable: the extraction says what is wrong with it
        "4": None,
    }
    quarantine = prepared.quarantine.sort("item_id")
    assert quarantine.select("item_id", "reason").rows() == [("2", "duration_mismatch"), ("4", "missing")]
    assert quarantine["detail"][0] == "the table says 2.0 s, the video lasts 6.0 s: it is another item's"


def test_a_folder_without_a_table_is_one_clear_error(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(MissingSourceError, match=r"expected one of interaciton_filtered.csv, .*, interaction.csv in"):
        prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "mine"))


@pytest.fixture
def closed_site(tmp_path, monkeypatch):
    """A site behind basic authentication, and a home folder without a password: (address, seen headers)."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    body = _write(tmp_path / "interaction.csv", ROWS[:2]).read_bytes()
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers.get("Authorization"))
            right = seen[-1] == "Basic " + base64.b64encode(b"user:p@ss").decode()
            found = self.path == "/interaction.csv"
            self.send_response(200 if right and found else 404 if right else 401)
            answer = body if right and found else b""
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args):
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", seen
    http.shutdown()
    http.server_close()
    thread.join()


def test_the_password_of_a_source_is_used_and_never_written(tmp_path, closed_site, caplog):
    address, seen = closed_site
    source = address.replace("http://", "http://user:p%40ss@")
    with caplog.at_level("DEBUG"):
        prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=source)
    assert prepared.n_items == 1
    assert len(seen) > 1
    assert None not in seen
    assert "p@ss" not in caplog.text
    assert "p%40ss" not in caplog.text
    written = b"".join(path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file())
    assert b"p@ss" not in written
    assert b"p%40ss" not in written


def test_the_password_may_stand_in_netrc(tmp_path, closed_site):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login user password p@ss\n")
    netrc.chmod(0o600)
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=closed_site[0])
    assert prepared.n_items == 1


def test_without_the_password_the_error_says_where_it_goes(tmp_path, closed_site):
    with pytest.raises(DownloadError, match=r"(?s)put the login of the publisher's README into ~/.netrc.*HTTP 401"):
        prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=closed_site[0])


def test_a_password_in_a_recorded_address_is_refused(tmp_path):
    config = LOOSE.model_copy(update={"base_url": "http://user:secret@example.org/data"})
    with pytest.raises(ConfigConflictError, match=r"must not carry a password \(at example.org\)"):
        prepare("shortvideo", root=tmp_path, config=config)
