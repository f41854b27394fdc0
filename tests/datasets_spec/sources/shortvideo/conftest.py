"""Rows in the shape of the real table, and a site behind basic authentication that counts its connections."""

import base64
import csv
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from datasets_spec.synthetic.latent import draw_catalogue
from datasets_spec.synthetic.videos import Clip, encode_video, scene_of

# The header of the real table: `click`, and no `effective_view`.
COLUMNS = (
    *("user_id", "pid", "author_id", "category_id", "category_level", "parent_id", "root_id", "exposed_time"),
    *("author_fans_count", "watch_time", "duration", "cvm_like", "click", "comment", "follow", "collect", "forward"),
    *("hate", "tag_name", "title", "p_hour", "p_date", "gender", "age", "mod_price", "fre_city"),
    *("fre_community_type", "fre_city_level"),
)
USER, PASSWORD = "videodata", "p@ss:wörd/#1"


def make_row(user, pid, second, **values) -> dict[str, str]:
    row = dict.fromkeys(COLUMNS, "False")
    row |= {"user_id": user, "pid": pid, "author_id": 193159093, "exposed_time": second, "author_fans_count": 46761}
    row |= {"category_id": 1350, "category_level": 3, "parent_id": 288, "root_id": 39, "watch_time": 46}
    row |= {"duration": 2.0, "click": True, "tag_name": "正能量", "title": f"现如今为啥 {pid}", "p_hour": 21}
    row |= {"p_date": 20220916, "gender": "M", "age": 42, "mod_price": 2699, "fre_city": "邯郸"}
    row |= {"fre_community_type": "unknown", "fre_city_level": "三线城市"}
    return {name: str(value) for name, value in (row | values).items()}


@pytest.fixture
def row() -> Callable[..., dict[str, str]]:
    return make_row


@pytest.fixture
def write_table() -> Callable[..., Path]:
    def write(path: Path, rows: list[dict[str, str]], *, without: tuple[str, ...] = ()) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        names = [name for name in rows[0] if name not in without]
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Callable[[float], bytes]:
    """A real video of so many seconds, as bytes."""
    folder = tmp_path_factory.mktemp("clips")

    def encode(seconds: float) -> bytes:
        path = folder / f"{seconds}.mp4"
        if not path.exists():
            made = Clip("libx264", seconds, 12, 64, 64, 0, sound=False, keyframe_every=None)
            encode_video(path, scene_of(draw_catalogue(1, 1, np.random.default_rng(0)), 0, made), made)
        return path.read_bytes()

    return encode


@dataclass
class Asked:
    path: str
    authorization: str | None
    range: str | None


@dataclass
class Site:
    """Files behind a login, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)  # error answers to give first
    cuts: dict[str, int] = field(default_factory=dict)  # bytes after which the first answer breaks off
    redirects: dict[str, str] = field(default_factory=dict)
    login: bool = True
    gather: int = 0  # answers wait (2 s at most) until so many connections are open
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    open: int = 0
    most: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def with_login(self) -> str:
        return self.url.replace("http://", "http://videodata:p%40ss%3Aw%C3%B6rd%2F%231@")

    def forget(self) -> None:
        """Wait until all connections are closed, then count anew."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.open == 0, timeout=60)
            self.most = 0
            self.asked.clear()

    def connected(self, step: int) -> None:
        with self.changed:
            self.open += step
            self.most = max(self.most, self.open)
            self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def setup(self) -> None:
        super().setup()
        self.site.connected(1)

    def finish(self) -> None:
        super().finish()
        self.site.connected(-1)

    def do_GET(self) -> None:
        site, path = self.site, self.path.lstrip("/")
        site.asked.append(Asked(path, self.headers.get("Authorization"), self.headers.get("Range")))
        right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        with site.changed:
            site.changed.wait_for(lambda: site.open >= site.gather, timeout=2)
        if site.login and self.headers.get("Authorization") != right:
            self.answer(401)
        elif site.statuses.get(path):
            self.answer(site.statuses[path].pop(0))
        elif path in site.redirects:
            self.answer(302, {"Location": site.redirects[path]})
        elif path not in site.files:
            self.answer(404)
        else:
            self.give(path, site.files[path])

    def give(self, path: str, body: bytes) -> None:
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": '"1"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        cut = self.site.cuts.pop(path, None)
        self.answer(206 if start else 200, headers, body[start:], cut)

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", cut: int | None = None):
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def log_message(self, *args) -> None:
        """Say nothing."""


@pytest.fixture
def make_site(tmp_path, monkeypatch):
    """Sites to be made; no login is in the environment, and the home folder is empty."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("REELSTORE_SHORTVIDEO_USER", "REELSTORE_SHORTVIDEO_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    running = []

    def make(**settings) -> Site:
        site = Site(**settings)
        http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": site}))
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{http.server_address[1]}"
        running.append((http, thread))
        return site

    yield make
    for http, thread in running:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.fixture
def login(monkeypatch) -> None:
    """The right login, in the environment."""
    monkeypatch.setenv("REELSTORE_SHORTVIDEO_USER", USER)
    monkeypatch.setenv("REELSTORE_SHORTVIDEO_PASSWORD", PASSWORD)
