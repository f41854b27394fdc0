"""Which errors of a shard may go away by themselves, so that trying again makes sense."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import httpx

#: Of the network, of a device or of a remote file system. A full disk or a missing file waits for a person.
_ERRNOS = frozenset(
    (
        *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE),
    )
)


def is_transient(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is of the network or of input and output.

    A wrong call never is, and neither is memory that did not suffice after the batch was halved down to one row.
    """
    chain = list(_chain(error))
    if any(getattr(type(link), "usage", False) for link in chain):
        return False
    return any(_passes(link) for link in chain)


def _passes(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError | httpx.TransportError):
        return True
    return isinstance(error, OSError) and error.errno in _ERRNOS


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
