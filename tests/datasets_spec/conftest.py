"""A scriptable HTTP server, and the real data that lie beside the repository."""

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = Path(os.environ.get("REELSTORE_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.fail(f"these tests need the real data: expected a folder {folder}; set REELSTORE_SHARED to its parent")
    return folder


@dataclass
class Remote:
    """One file on the server, and how the server behaves for it."""

    body: bytes
    etag: str | None = None
    ranges: bool = True  # answer Range requests with 206
    check_if_range: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    statuses: list[int] = field(default_factory=list)  # error answers to give first
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    path: str
    range: str | None
    sent: int = 0
    status: int = 0


class Server:
    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, Remote] = {}
        self.requests: list[Request] = []

    def put(self, path: str, body: bytes, **behaviour) -> Remote:
        behaviour.setdefault("etag", f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        self.files[path] = Remote(body, **behaviour)
        return self.files[path]

    @property
    def bytes_sent(self) -> int:
        return sum(request.sent for request in self.requests)


def _answer(handler: BaseHTTPRequestHandler, remote: Remote, request: Request) -> None:
    if remote.statuses:
        request.status = remote.statuses.pop(0)
        handler.send_response(request.status)
        for name, value in remote.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    start = 0
    unchanged = not remote.check_if_range or handler.headers.get("If-Range") in (None, remote.etag)
    if request.range and remote.ranges and unchanged:
        start = int(request.range.removeprefix("bytes=").removesuffix("-"))
    if start >= len(remote.body) and start > 0:
        request.status = 416
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(remote.body)}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    body = remote.body[start:]
    request.status = 206 if start else 200
    handler.send_response(request.status)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(remote.body) - 1}/{len(remote.body)}")
    if remote.etag:
        handler.send_header("ETag", remote.etag)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    cut = remote.cuts.pop(0) if remote.cuts else len(body)
    request.sent = len(body[:cut])
    handler.wfile.write(body[:cut])
    handler.wfile.flush()
    if cut < len(body):
        handler.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.path, self.headers.get("Range"))
            made.requests.append(request)
            remote = made.files.get(self.path.lstrip("/"))
            if remote is None:
                request.status = 404
                self.send_error(404)
            else:
                _answer(self, remote, request)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    made = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    http.shutdown()
    http.server_close()
    thread.join()
