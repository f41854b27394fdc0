"""A small local HTTP server for a folder of files, with byte ranges: what a dataset's site looks like to a client."""

import email.utils
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".json": "application/json",
}


@contextmanager
def serve(folder: Path) -> Generator[str]:
    """Serve a folder on a free port of the loopback interface while the context lasts.

    GET and HEAD of files; single byte ranges (RFC 9110, 14) with If-Range; If-None-Match; ETag and Last-Modified.
    No listings; nothing outside the folder is reachable.

    Args:
        folder: What to serve.

    Yields:
        The base address, such as ``http://127.0.0.1:40123``, without a slash at the end.

    Raises:
        NotADirectoryError: `folder` is not a folder.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise NotADirectoryError(f"cannot serve {folder}: there is no such folder")
    server = _Server(("127.0.0.1", 0), partial(_Handler, root))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="serve", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle keep-alive connection of a client must not hold up the end

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A client that goes away in the middle of a file is no error of ours."""
        _log.debug("request of %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def __init__(self, root: Path, *args: object) -> None:
        self._root = root
        super().__init__(*args)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name of the base class)
        _log.debug(format, *args)

    def _answer(self, *, with_body: bool) -> None:
        path = self._file()
        try:
            file = path.open("rb") if path is not None and path.is_file() else None
        except OSError:
            file = None
        if file is None or path is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            status = os.fstat(file.fileno())
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            modified = email.utils.formatdate(status.st_mtime, usegmt=True)
            if self.headers.get("If-None-Match") in (etag, "*"):
                self._head(HTTPStatus.NOT_MODIFIED, etag, modified)
                self.end_headers()
                return
            self._send_file(file, path, (status.st_size, etag, modified), with_body=with_body)

    def _send_file(self, file: IO[bytes], path: Path, about: tuple[int, str, str], *, with_body: bool) -> None:
        size, etag, modified = about
        wanted = self._wanted(size, etag, modified)
        if wanted is None:
            self._head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, etag, modified)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, end, partial_content = wanted
        self._head(HTTPStatus.PARTIAL_CONTENT if partial_content else HTTPStatus.OK, etag, modified)
        self.send_header("Content-Type", _TYPES.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(end - start))
        if partial_content:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if with_body:
            file.seek(start)
            left = end - start
            while left > 0 and (chunk := file.read(min(_CHUNK, left))):
                self.wfile.write(chunk)
                left -= len(chunk)

    def _head(self, status: HTTPStatus, etag: str, modified: str) -> None:
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Last-Modified", modified)
        self.send_header("Accept-Ranges", "bytes")

    def _wanted(self, size: int, etag: str, modified: str) -> tuple[int, int, bool] | None:
        """Byte range to send as (start, end exclusive, is a part); None when it cannot be satisfied."""
        match = _RANGE.match(self.headers.get("Range", ""))
        if match is None or match.groups() == ("", "") or self.command != "GET":
            return 0, size, False
        if self.headers.get("If-Range", etag) not in (etag, modified):
            return 0, size, False
        first, last = match.groups()
        if first == "":
            start, end = max(0, size - int(last)), size
        else:
            start, end = int(first), min(size, int(last) + 1 if last else size)
            if last and int(last) < int(first):
                return 0, size, False  # not a valid range: ignored (RFC 9110, 14.1.1)
        return (start, end, True) if start < end else None

    def _file(self) -> Path | None:
        """The file that the request names, None when it lies outside the folder."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).lstrip("/")
        try:
            path = (self._root / name).resolve()
        except (OSError, ValueError):
            return None
        return path if path.is_relative_to(self._root) else None
