"""Durations as people write them: ``7d``, ``12h``, ``30m``, ``45s``."""

from __future__ import annotations

import re
from datetime import timedelta

from flows.errors import CallError

#: What a duration looks like; also the pattern in the schema of a flow's parameter.
DURATION_PATTERN = r"^\d+(\.\d+)?[dhms]$"

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def parse_duration(text: str, *, name: str) -> timedelta:
    """Read a duration.

    Args:
        text: A number and d, h, m or s.
        name: The parameter, for the message.

    Raises:
        CallError: For anything else.
    """
    if not re.match(DURATION_PATTERN, text):
        raise CallError(f"{name}: expected a number and d, h, m or s, such as 7d or 12h, got {text!r}")
    return timedelta(**{_UNITS[text[-1]]: float(text[:-1])})
