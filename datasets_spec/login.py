"""HTTP basic authentication for one site, without a trace of the password.

A login is taken from an address (``http://USER:PASSWORD@HOST/…``), else from two environment variables, else from
``~/.netrc``. The first two are sent to the site alone: neither to mirrors nor to the target of a redirect. No message,
log line or file of this package holds any of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from http import HTTPStatus
from netrc import NetrcParseError
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from datasets_spec.download import default_client
from datasets_spec.errors import ConfigConflictError, DownloadError

_LOGIN_WITHOUT_SCHEME = re.compile(r"(?:[A-Za-z][\w+.-]*://)?[^/@\s]+:[^/@\s]+@")


@dataclass(frozen=True)
class Login:
    """User and password.

    Attributes:
        user: Not shown.
        password: Not shown.
        origin: Where they were taken from, for messages.
    """

    user: str = field(repr=False)
    password: str = field(repr=False)
    origin: str


def split_login(source: str | None) -> tuple[str | None, Login | None]:
    """Take user and password out of a ``source``.

    Args:
        source: A folder, an address, or None.

    Returns:
        The source without them, and the login; None where it has none.

    Raises:
        ConfigConflictError: It holds a password and is no http(s) address: taken for a folder it would be shown.
    """
    if source is None:
        return None, None
    try:
        parts = urlsplit(source)
    except ValueError:
        raise ConfigConflictError(
            "source: expected a folder or an address whose password is percent-encoded; got an address that cannot be "
            "taken apart (not shown, it may hold a password)"
        ) from None
    if parts.scheme not in {"http", "https"}:
        if _LOGIN_WITHOUT_SCHEME.match(source):
            raise ConfigConflictError(
                "source: expected a folder or http://USER:PASSWORD@HOST/…; got a login without http:// or https:// "
                "before it (not shown)"
            )
        return source, None
    if parts.username is None:
        return source, None
    login = Login(unquote(parts.username), unquote(parts.password or ""), "source=")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment)), login


def login_from_environment(prefix: str) -> Login | None:
    """The login in ``<prefix>_USER`` and ``<prefix>_PASSWORD``; None where neither is set.

    Raises:
        ConfigConflictError: Only one of the two is set.
    """
    names = (f"{prefix}_USER", f"{prefix}_PASSWORD")
    user, password = (os.environ.get(name) for name in names)
    if user and password:
        return Login(user, password, " and ".join(names))
    for name, value, other in ((names[0], user, names[1]), (names[1], password, names[0])):
        if value:
            raise ConfigConflictError(f"{name} is set and {other} is not: set both, or neither")
    return None


class SiteClient:
    """A client for one site; a context manager that ends a refused login as one clear error.

    After the first HTTP 401 of a site nothing more is asked of it, so that a wrong password does not knock once for
    every file.

    Attributes:
        client: To be used inside the ``with`` block.
    """

    def __init__(self, site: str | None, login: Login | None, *, remedy: str) -> None:
        """Make the client; nothing is asked yet.

        Args:
            site: Address that ``login`` is for; None = there is none, and the login is sent to nobody.
            login: None = ``~/.netrc``, where it has the host.
            remedy: What the error of a refused login says about how to give one.
        """
        self._login = login
        self._remedy = remedy
        self._refused: dict[str, str] = {}  # by scheme, host and port: what was refused
        self._served = False
        self.client = default_client()
        self.client.auth = _SiteAuth(httpx.URL(site) if site else None, login)
        self.client.event_hooks = {"request": [self._before], "response": [self._after]}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        failed = isinstance(error, DownloadError) or (error is None and not self._served)
        if self._refused and failed:
            raise DownloadError(f"{'; '.join(self._refused.values())}. {self._remedy}") from None

    def _before(self, request: httpx.Request) -> None:
        refused = self._refused.get(_place(request.url))
        if refused is not None:
            raise DownloadError(refused)

    def _after(self, answer: httpx.Response) -> None:
        self._served = self._served or answer.is_success
        if answer.status_code != HTTPStatus.UNAUTHORIZED:
            return
        url = answer.request.url
        sent = "Authorization" in answer.request.headers
        origin = self._login.origin if self._login is not None else "~/.netrc"
        state = f"the login of {origin} was refused" if sent else "no login was sent"
        self._refused[_place(url)] = f"{_place(url)} answered HTTP 401 Unauthorized: {state}"


class _SiteAuth(httpx.Auth):
    """The login for the site itself, that of ``~/.netrc`` for other hosts."""

    def __init__(self, site: httpx.URL | None, login: Login | None) -> None:
        self._site = site
        self._own = httpx.BasicAuth(login.user, login.password) if login is not None else None
        self._netrc = _netrc()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        site, url = self._site, request.url
        own = self._own if site is not None and _place(site) == _place(url) else None
        auth = own or self._netrc
        if auth is None:
            yield request
        else:
            yield from auth.auth_flow(request)


def _place(url: httpx.URL) -> str:
    """Scheme, host and, where it is not the usual one, port."""
    return f"{url.scheme}://{url.netloc.decode()}"


def _netrc() -> httpx.NetRCAuth | None:
    path = Path.home() / ".netrc"
    if not path.is_file():
        return None
    try:
        return httpx.NetRCAuth(str(path))
    except NetrcParseError as error:  # its message may quote a password
        raise ConfigConflictError(
            f"{path}, line {error.lineno}: expected `machine HOST login USER password PASSWORD`"
        ) from None
