"""``reelstore lineage RUN``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from flows.commands.outcome import Outcome
from flows.jobs.lineage import Node, trace
from flows.jobs.progress import Progress
from flows.settings import Settings

#: Facts that the tree shows; ``--json`` has them all.
_SHOWN = ("model", "seed", "encoder", "rows", "revision", "toy", "bytes", "sha256", "weights_sha256", "created_at")

_DIGITS = 12


def lineage(settings: Settings, options: argparse.Namespace) -> Outcome:
    """What a run was made from, as a tree, and what of it is gone or changed since."""
    with Progress() as progress:
        run = trace(settings, options.run_id, progress=progress)
    lines = [_line(run), *_branches(run, "")]
    problems = run.problems
    verdict = (
        f"not as it was ({len(problems)}):" if problems else "everything that it was made from is there, as it was"
    )
    lines += ["", verdict, *(f"  {problem}" for problem in problems)]
    return Outcome({**run.as_dict(), "problems": problems}, "\n".join(lines))


def _branches(node: Node, indent: str) -> Iterator[str]:
    for place, child in enumerate(node.made_from, start=1):
        last = place == len(node.made_from)
        yield f"{indent}{'└─ ' if last else '├─ '}{_line(child)}"
        yield from _branches(child, indent + ("   " if last else "│  "))


def _line(node: Node) -> str:
    facts = [f"{name} {_value(node.facts[name])}" for name in _SHOWN if node.facts.get(name) not in (None, False)]
    mark = f"  ! {node.problem.partition(':')[0].upper()}" if node.problem else ""
    return f"{node.kind} {node.name}{'  ' if facts else ''}{', '.join(facts)}{mark}"


def _value(value: object) -> str:
    text = str(value)
    is_digest = len(text) in (40, 64) and all(digit in "0123456789abcdef" for digit in text)
    return text[:_DIGITS] if is_digest else text
