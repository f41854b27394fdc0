"""Fetch files over HTTP: resumed, verified, atomic, several at a time.

A download grows as ``<name>.part`` beside its destination and is renamed when it is complete and verified. It is
resumed by a ``Range`` request only when the remote file is provably the one that the first bytes came from: the
strong ``ETag`` or the ``Last-Modified`` that came with the first bytes comes again, or the SHA-256 of the whole is
known. Otherwise it starts again from byte 0, so that a remote file that changed never yields a mixture.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from datasets_spec.errors import ChecksumError, DownloadError
from datasets_spec.partfile import Origin, Part, sha256_of
from datasets_spec.spec import Progress, RemoteFile
from datasets_spec.storage import is_full

_log = logging.getLogger(__name__)

#: Answers that may be another a moment later (RFC 9110, RFC 6585).
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retry:
    """How transient errors are met.

    Attributes:
        attempts: Attempts in a row without a single new byte before giving up.
        first_delay: Seconds before the second attempt; doubled each time.
        max_delay: Upper bound of a delay, also of one that the server asks for.
    """

    attempts: int = 4
    first_delay: float = 0.5
    max_delay: float = 30.0


@dataclass(frozen=True)
class Transfer:
    """How many files are fetched at once, and how errors are met.

    Attributes:
        max_connections: Files in flight.
        per_host: Files in flight from one host.
        retry: See :class:`Retry`.
    """

    max_connections: int = 4
    per_host: int = 4
    retry: Retry = field(default_factory=Retry)


@dataclass(frozen=True)
class DownloadFailure:
    """A file that could not be had.

    Attributes:
        file: The file.
        reason: ``not_found``, ``http``, ``network``, ``checksum`` or ``damaged``.
        detail: For people: the addresses tried and what each answered.
    """

    file: RemoteFile
    reason: str
    detail: str


def default_client() -> httpx.Client:
    """A client that follows redirects and waits 30 s for an answer."""
    return httpx.Client(follow_redirects=True, timeout=30.0, headers={"User-Agent": "reelstore"})


def fetch(
    file: RemoteFile,
    dest: Path,
    *,
    client: httpx.Client,
    retry: Retry | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fetch one file, unless it is there already.

    Args:
        file: With an absolute ``url``. ``bytes`` and ``sha256`` are checked where given, also of a file that is
            there already; one that differs is fetched anew.
        dest: Where the file goes; parent folders are made.
        client: Carries authentication and timeouts; may be shared between threads.
        retry: How transient errors are met.
        progress: Called as ``progress("download <path>", bytes so far, total or None)``.

    Returns:
        ``dest``, complete and verified.

    Raises:
        ChecksumError: The remote file is not the one that was expected.
        DownloadError: Anything else; the message names the address and where to place the file by hand.
    """
    if dest.exists() and _fault(file, dest) is None:
        return dest
    dest.parent.mkdir(parents=True, exist_ok=True)
    part = Part(dest)
    policy = retry or Retry()
    resumed = _transfer(file, part, client, policy, progress)
    fault = _fault(file, part.path)
    if fault is not None and resumed:
        _log.warning("%s: %s after resuming; fetching it again from the start", file.path, fault)
        part.restart()
        _transfer(file, part, client, policy, progress)
        fault = _fault(file, part.path)
    if fault is not None:
        part.restart()
        raise ChecksumError(f"{file.path}: {fault} at {file.url}. {_by_hand(dest)}")
    part.finish(dest)
    return dest


def _fault(file: RemoteFile, path: Path) -> str | None:
    """What is wrong with a file on disk, if size or digest are known; None when nothing is."""
    size = path.stat().st_size
    if file.bytes is not None and size != file.bytes:
        return f"expected {file.bytes} bytes, got {size}"
    if file.sha256 is not None:
        digest = sha256_of(path)
        if digest != file.sha256.lower():
            return f"expected SHA-256 {file.sha256}, got {digest}"
    return None


def _by_hand(dest: Path) -> str:
    return f"Place the right file at {dest} by hand, or pass source=FOLDER_OR_URL."


class _TransientError(Exception):
    """An answer that may be another a moment later; carries the delay that the server asks for."""

    def __init__(self, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


class _HttpError(DownloadError):
    """A final answer other than success."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _transfer(file: RemoteFile, part: Part, client: httpx.Client, policy: Retry, progress: Progress | None) -> bool:
    """Fill ``part`` until it is complete; True when bytes of an earlier request were kept."""
    kept_any = False
    failures = 0
    while True:
        before = part.size()
        try:
            return _request(file, part, client, progress) or kept_any
        except (httpx.TransportError, _TransientError) as error:
            failures = 1 if part.size() > before else failures + 1
            kept_any = kept_any or part.size() > 0
            if failures >= policy.attempts or _is_certificate_error(error):
                raise DownloadError(
                    f"{file.path}: {file.url} failed {failures} times in a row; last: {_describe(error)}"
                ) from error
            asked = error.after if isinstance(error, _TransientError) else 0.0
            delay = min(policy.max_delay, max(asked, policy.first_delay * 2 ** (failures - 1)))
            _log.info("%s: %s; again in %.1f s from byte %d", file.path, _describe(error), delay, part.size())
            time.sleep(delay)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__.lstrip('_')}: {error}"


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _request(file: RemoteFile, part: Part, client: httpx.Client, progress: Progress | None) -> bool:
    """One request; returns whether bytes that were there before were kept."""
    headers = {"Accept-Encoding": "identity"}  # .json.gz must arrive as it lies there
    start = _resume_from(file, part)
    if start:
        headers["Range"] = f"bytes={start}-"
        validator = part.origin.validator() if part.origin else None
        if validator is not None:
            headers["If-Range"] = validator
    with client.stream("GET", file.url, headers=headers) as answer:
        if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            if file.sha256 is not None:
                return True  # nothing follows; the digest tells whether all is there
            part.restart()
            raise _TransientError("nothing follows the bytes at hand; starting again")
        _check_status(file, answer)
        kept = start > 0 and answer.status_code == HTTPStatus.PARTIAL_CONTENT
        if kept and not _continues(file, part.origin, answer, start):
            part.restart()
            raise _TransientError("the remote file changed between two requests; starting again")
        if not kept:
            part.begin(Origin.of(file.url, answer.headers))
            start = 0
        _receive(file, part, answer, start, progress)
    return kept


def _resume_from(file: RemoteFile, part: Part) -> int:
    """First byte still to fetch; 0 when the bytes at hand cannot be proved to belong to the remote file."""
    provable = part.origin is not None and (
        file.sha256 is not None or (part.origin.url == file.url and part.origin.validator() is not None)
    )
    return part.size() if provable else 0


def _continues(file: RemoteFile, origin: Origin | None, answer: httpx.Response, start: int) -> bool:
    """Whether a 206 answer continues exactly the bytes that came from ``origin``."""
    if not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
        return False
    if file.sha256 is not None:
        return True  # a mixture would be found by the digest
    return origin is not None and origin.same_file(Origin.of(file.url, answer.headers))


def _check_status(file: RemoteFile, answer: httpx.Response) -> None:
    status = answer.status_code
    if status in _TRANSIENT:
        raise _TransientError(f"HTTP {status} {answer.reason_phrase}", after=_retry_after(answer))
    if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        raise _HttpError(f"{file.path}: {file.url} answered HTTP {status} {answer.reason_phrase}", status)


def _retry_after(answer: httpx.Response) -> float:
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdigit() else 0.0


def _receive(file: RemoteFile, part: Part, answer: httpx.Response, start: int, progress: Progress | None) -> None:
    length = answer.headers.get("content-length", "")
    total = start + int(length) if length.isdigit() else file.bytes
    done = start
    with part.path.open("ab") as stream:
        try:
            for chunk in answer.iter_raw():  # a chunk size would hold bytes back, lost when the connection breaks
                stream.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(f"download {file.path}", done, total)
        finally:
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and done < total:
        raise _TransientError(f"the connection ended after {done} of {total} bytes")


def fetch_many(
    files: Sequence[RemoteFile],
    raw_dir: Path,
    *,
    bases: Sequence[str] = (),
    client: httpx.Client | None = None,
    transfer: Transfer | None = None,
    check: Callable[[Path], str | None] | None = None,
    progress: Progress | None = None,
) -> list[DownloadFailure]:
    """Fetch several files at once; each is tried at every base address until one gives it.

    Args:
        files: What to fetch; a relative ``url`` is taken below each of ``bases``, in order.
        raw_dir: ``file.path`` lies below it.
        bases: Base addresses for relative addresses.
        client: Carries authentication; None = :func:`default_client`.
        transfer: Concurrency and retries.
        check: Looks at a fetched file; what it returns other than None is why the file is refused (and removed).
        progress: Called as ``progress("download", files done, files)``, and for at most ``max_connections`` files
            also per file in bytes.

    Returns:
        The files that could not be had, in the order of ``files``. Nothing is raised for them: the caller decides
        which of them it cannot do without.

    Raises:
        OSError: The disk is full.
    """
    limits = transfer or Transfer()
    own = client or default_client()
    job = _Job(raw_dir, tuple(bases), own, limits, check)
    if progress is not None and len(files) <= limits.max_connections:
        job.progress = progress
    pool = ThreadPoolExecutor(limits.max_connections, thread_name_prefix="download")
    try:
        pending = {pool.submit(job.run, file): file for file in files}
        found: dict[RemoteFile, DownloadFailure | None] = {}
        for done, future in enumerate(as_completed(pending), start=1):
            found[pending[future]] = future.result()
            if progress is not None:
                progress("download", done, len(files))
    finally:
        job.stop.set()  # on Ctrl-C: the files in flight end at their next chunk and stay resumable
        pool.shutdown(wait=True, cancel_futures=True)
        if client is None:
            own.close()
    return [failure for file in files if (failure := found[file]) is not None]


class _Job:
    """What the workers of one :func:`fetch_many` share."""

    def __init__(
        self,
        raw_dir: Path,
        bases: tuple[str, ...],
        client: httpx.Client,
        limits: Transfer,
        check: Callable[[Path], str | None] | None,
    ) -> None:
        self.raw_dir = raw_dir
        self.bases = bases
        self.client = client
        self.limits = limits
        self.check = check
        self.progress: Progress | None = None
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._hosts: defaultdict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(limits.per_host))

    def run(self, file: RemoteFile) -> DownloadFailure | None:
        """Try every address of one file."""
        dest = self.raw_dir / file.path
        reason, details = "not_found", list[str]()
        for url in addresses(file, self.bases):
            try:
                with self._host(url):
                    fetch(
                        replace(file, url=url),
                        dest,
                        client=self.client,
                        retry=self.limits.retry,
                        progress=self._tick,
                    )
            except (DownloadError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                if is_full(error):
                    raise  # no other address will help
                reason = _reason(error)
                details.append(str(error))
                continue
            refused = self.check(dest) if self.check is not None else None
            if refused is None:
                return None
            dest.unlink(missing_ok=True)
            reason = "damaged"
            details.append(f"{url}: {refused}")
        return DownloadFailure(file, reason, "; ".join(details) or "no address is known for it")

    def _host(self, url: str) -> threading.Semaphore:
        with self._lock:
            return self._hosts[urlsplit(url).netloc]

    def _tick(self, stage: str, done: int, total: int | None) -> None:
        if self.stop.is_set():
            raise DownloadError("stopped")
        if self.progress is not None:
            with self._lock:
                self.progress(stage, done, total)


def addresses(file: RemoteFile, bases: Sequence[str]) -> list[str]:
    """All absolute addresses of a file: its own, or its relative one below each base."""
    if urlsplit(file.url).scheme:
        return [file.url]
    return [f"{base.rstrip('/')}/{file.url.lstrip('/')}" for base in bases]


def _reason(error: Exception) -> str:
    if isinstance(error, ChecksumError):
        return "checksum"
    if isinstance(error, _HttpError):
        return "not_found" if error.status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE} else "http"
    return "network"
