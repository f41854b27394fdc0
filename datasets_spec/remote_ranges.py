"""Byte windows of remote files, fetched as if each were a file of its own: retried, resumed, never mixed.

The address of a window is that of the file with a fragment, ``https://host/a.z05#bytes=1000-4999`` (the last byte is
included, as in ``Range``). The fragment never leaves this machine: hooks of the HTTP client turn it into a ``Range``
header and translate the answer back, so that :mod:`datasets_spec.download` does all the rest.
"""

from __future__ import annotations

import re
import threading
from http import HTTPStatus
from pathlib import Path

import httpx

from datasets_spec.download import Transfer, default_client, fetch_many
from datasets_spec.errors import DownloadError
from datasets_spec.partfile import Origin
from datasets_spec.spec import RemoteFile

_FRAGMENT = re.compile(r"bytes=(\d+)-(\d+)")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_KEY = "reelstore.window"


class WindowError(DownloadError):
    """A window could not be had.

    Attributes:
        reason: See :class:`datasets_spec.download.DownloadFailure`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Windows:
    """Fetches byte windows.

    Args:
        client: Carries authentication; has two hooks more until :meth:`close`, which leave all other requests alone.
            None = a client of its own.
        transfer: Retries.

    Attributes:
        stop: Once set, the windows in flight end at their next chunk and stay resumable.
    """

    def __init__(self, client: httpx.Client | None = None, transfer: Transfer | None = None) -> None:
        self._own = client is None
        self._client = client or default_client()
        self._transfer = transfer or Transfer()
        self._origins: dict[str, Origin] = {}
        self.stop = threading.Event()
        self._hooks = hooks = self._client.event_hooks
        self._client.event_hooks = {
            "request": [*hooks["request"], _ask],
            "response": [*hooks["response"], self._translate],
        }

    def close(self) -> None:
        """Close the client if it is our own, else take the hooks off it."""
        self._client.event_hooks = self._hooks
        if self._own:
            self._client.close()

    def fetch(self, url: str, start: int, length: int, dest: Path) -> Path:
        """Fetch the bytes from `start` on: `length` of them, or fewer where the file ends before.

        Args:
            url: The file.
            start: First byte, counted from 0.
            length: At least 1.
            dest: Where they go; taken as they are when it is there already.

        Returns:
            ``dest``, complete.

        Raises:
            WindowError: The bytes could not be had.
        """
        file = RemoteFile(dest.name, f"{url}#bytes={start}-{start + length - 1}", required=False)
        failures = fetch_many(
            [file], dest.parent, client=self._client, transfer=self._transfer, progress=self._stop_if_asked
        )
        if failures:
            raise WindowError(failures[0].reason, failures[0].detail)
        return dest

    def origin(self, url: str, scratch: Path) -> Origin:
        """Size and validators of a remote file, from a request for its first byte.

        Args:
            url: The file.
            scratch: A file name for that byte; removed again.

        Raises:
            WindowError: It does not exist (reason ``not_found``), or does not answer.
        """
        scratch.unlink(missing_ok=True)
        self.fetch(url, 0, 1, scratch).unlink()
        return self._origins[str(httpx.URL(url))]

    def _stop_if_asked(self, stage: str, done: int, total: int | None) -> None:  # noqa: ARG002 (a progress callback)
        if self.stop.is_set():
            raise DownloadError("stopped")

    def _translate(self, answer: httpx.Response) -> None:
        """Make of an answer about the file one about the window."""
        window: tuple[str, int, int, int] | None = answer.request.extensions.get(_KEY)
        if window is None or answer.has_redirect_location:
            return
        url, start, last, kept = window
        if answer.status_code == HTTPStatus.OK:
            if not kept:
                raise DownloadError(
                    f"{url}: asked for bytes {start}-{last}, got the whole file: the server gives no byte ranges"
                )
            # If-Range found another version: as if nothing followed, after which the download starts again.
            answer.status_code = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
            return
        given = answer.headers.get("content-range", "")
        match = _CONTENT_RANGE.fullmatch(given)
        total = int(match[3]) if match else 0
        stop = min(last + 1, total)
        if match is None or (int(match[1]), int(match[2])) != (start + kept, stop - 1):
            raise httpx.RemoteProtocolError(f"asked for bytes {start + kept}-{last}, the server gives {given!r}")
        self._origins[url] = Origin.of(url, answer.headers)
        length = stop - start
        answer.status_code = HTTPStatus.PARTIAL_CONTENT if kept else HTTPStatus.OK
        answer.headers["content-range"] = f"bytes {kept}-{length - 1}/{length}"


def _ask(request: httpx.Request) -> None:
    """Ask the file for what a request asks of the window."""
    match = _FRAGMENT.fullmatch(request.url.fragment)
    if match is None or _KEY in request.extensions:  # a redirect brings its headers along
        return
    start, last = int(match[1]), int(match[2])
    asked = request.headers.get("range", "")
    kept = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
    request.headers["range"] = f"bytes={start + kept}-{last}"
    request.extensions[_KEY] = (str(request.url.copy_with(fragment=None)), start, last, kept)
