"""Lets ``prefect deployment run extract-microlens`` stand for ``… run extract-microlens/extract-microlens``.

Prefect's canonical name of a deployment is ``<flow>/<deployment>``; ours have the same word on both sides. From the
repository root, where ``pyproject.toml`` enables and allows this plugin, the short form of our own names is expanded
before Prefect's command line reads its arguments; elsewhere ``PREFECT_PLUGINS_ENABLED=true`` does. It is a convenience
of this command line alone: the API, the UI and every other place take the two-part name, and so does this one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from prefect.plugins import register_hook

from flows.names import DEPLOYMENTS

if TYPE_CHECKING:
    from prefect.plugins import HookContext

#: Options of ``prefect deployment run`` whose value is the next word; every other option stands alone.
WITH_VALUE = frozenset(
    (
        "-p", "--param", "--params", "--job-variable", "--start-in", "--start-at", "--tag", "--watch-interval",
        "--watch-timeout", "--flow-run-name", "--id", "--profile",
    )
)  # fmt: skip


def expand(arguments: list[str]) -> list[str]:
    """``arguments`` with a bare deployment name of ours after ``deployment run`` written in two parts."""
    for index in range(len(arguments) - 1):
        if arguments[index : index + 2] == ["deployment", "run"]:
            place = _name_place(arguments, index + 2)
            if place is None:
                return arguments
            return [*arguments[:place], _two_parts(arguments[place]), *arguments[place + 1 :]]
    return arguments


def _name_place(arguments: list[str], start: int) -> int | None:
    """Where the deployment's name stands: after ``--name``, or the first word that belongs to no option."""
    index = start
    while index < len(arguments):
        word = arguments[index]
        if word == "--name":
            return index + 1 if index + 1 < len(arguments) else None
        if word.startswith("--name=") or not word.startswith("-"):
            return index
        index += 2 if word in WITH_VALUE else 1
    return None


def _two_parts(word: str) -> str:
    option, separator, name = word.rpartition("=") if word.startswith("--name=") else ("", "", word)
    return f"{option}{separator}{name}/{name}" if name in DEPLOYMENTS else word


@register_hook
def setup_environment(*, ctx: HookContext) -> None:  # noqa: ARG001 - the hook's signature is Prefect's
    """Expand the short name in ``sys.argv``; no environment is changed."""
    sys.argv[:] = expand(sys.argv)
