"""What a server has and what it should have, as a list of changes that can be printed and made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from prefect.client.orchestration import PrefectClient

Make = Callable[[PrefectClient], Awaitable[object]]


@dataclass(frozen=True)
class Change:
    """One thing to create, to change or to clear.

    Attributes:
        action: What happens to it.
        kind: ``work pool``, ``work queue``, ``limit``, ``deployment``, ``schedule`` or ``automation``.
        name: Its name; a schedule is ``<deployment>:<slug>``.
        make: Makes the change; None where another change does (a deployment brings its schedules).
        fields: For a change, one ``field: from → to`` each.
    """

    action: Literal["create", "change", "clear"]
    kind: str
    name: str
    make: Make | None = field(default=None, repr=False)
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        details = ": " + "; ".join(self.fields) if self.fields else ""
        return f"{self.action} {self.kind} {self.name}{details}"


def differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """``field: from → to`` for every field of ``now`` that is not as it was; nested tables key by key."""
    lines: list[str] = []
    for key, value in now.items():
        before = was.get(key)
        if before == value:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            names = dict.fromkeys([*before, *value])
            inner = {name: (before.get(name), value.get(name)) for name in names}
            lines += [f"{key}.{name}: {old!r} → {new!r}" for name, (old, new) in inner.items() if old != new]
        else:
            lines.append(f"{key}: {before!r} → {value!r}")
    return tuple(lines)
