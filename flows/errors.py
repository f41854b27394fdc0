"""Errors of the command line and the flows.

Every package marks its errors with ``usage``: True means that the call was wrong (exit code 2), False that the work
failed (exit code 1). The command line needs to know nothing else about them.
"""

from __future__ import annotations

from typing import ClassVar


class CallError(ValueError):
    """The call was wrong: an unknown name, a malformed ``key=value``, a file that is not there."""

    usage: ClassVar[bool] = True


class WorkError(RuntimeError):
    """The work failed after a correct call."""

    usage: ClassVar[bool] = False


def exit_code(error: BaseException) -> int | None:
    """2 for a wrong call, 1 for failed work, None for an error that nobody foresaw."""
    usage = getattr(type(error), "usage", None)
    if usage is None:
        return None
    return 2 if usage else 1
