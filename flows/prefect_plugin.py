"""Lets ``prefect deployment run extract-microlens`` stand for ``… run extract-microlens/extract-microlens``.

Prefect's canonical name of a deployment is ``<flow>/<deployment>``; ours have the same word on both sides. From the
repository root, where ``pyproject.toml`` enables and allows this plugin, the short form of our own names is expanded
before Prefect's command line reads its arguments. It changes nothing else: not the API, not the UI, not other names.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from prefect.plugins import register_hook

from flows.names import DEPLOYMENTS

if TYPE_CHECKING:
    from prefect.plugins import HookContext


def expand(arguments: list[str]) -> list[str]:
    """``arguments`` with a bare deployment name of ours after ``deployment run`` written in two parts."""
    for index in range(len(arguments) - 2):
        if arguments[index : index + 2] == ["deployment", "run"] and arguments[index + 2] in DEPLOYMENTS:
            name = arguments[index + 2]
            return [*arguments[: index + 2], f"{name}/{name}", *arguments[index + 3 :]]
    return arguments


@register_hook
def setup_environment(*, ctx: HookContext) -> None:  # noqa: ARG001 - the hook's signature is Prefect's
    """Expand the short name in ``sys.argv``; no environment is changed."""
    sys.argv[:] = expand(sys.argv)
