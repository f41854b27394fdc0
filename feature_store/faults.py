"""Points at which a process can be told to die, so that tests can show what a crash leaves behind.

``REELSTORE_FAULT=commit.manifest:2`` kills the process with SIGKILL when it reaches that point for the second time.
Without the variable a point does nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

#: Name of the variable: ``<point>:<count>``.
VARIABLE = "REELSTORE_FAULT"

#: Every point there is, in the order in which a writer comes by.
POINTS = (
    # Each file on disk: see feature_store.files.
    "put.begin",
    "put.opened",
    "put.written",
    "put.flushed",
    "put.named",
    "put.done",
    "create.begin",
    "create.linked",
    "create.unlinked",
    "create.done",
    "delete.begin",
    "delete.unlinked",
    "delete.done",
    # Each request to an object store: before it is sent, and when it was answered.
    "object.put",
    "object.put.done",
    "object.create",
    "object.create.done",
    "object.delete",
    "object.delete.done",
    # The steps of each operation, on any storage.
    "plan.touch",
    "write.shard",
    "write.done",
    "quarantine.append",
    "quarantine.retry",
    "commit.resolved",
    "commit.manifest",
    "commit.published",
    "commit.settled",
    "quarantine.fold",
    "quarantine.folded",
    "compact.shard",
    "compact.manifest",
    "compact.published",
    "gc.intent",
    "gc.manifest",
    "gc.file",
    "gc.done",
    "tag.create",
    "tag.created",
    "tag.move",
    "tag.remove",
)

_seen: Counter[str] = Counter()


def reached(point: str) -> None:
    """Die here if the environment says so.

    Raises:
        ValueError: When the variable names no point, or this point is not in ``POINTS``.
    """
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    name, _, count = wanted.partition(":")
    if name not in POINTS or point not in POINTS or not count.isdecimal():
        points = ", ".join(POINTS)
        raise ValueError(f"{VARIABLE}={wanted!r} at {point!r}: expected <point>:<count>, points are {points}")
    _seen[point] += 1
    if point == name and _seen[point] == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
