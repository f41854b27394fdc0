"""Which process does which shard, when several work on one extraction.

A claim is an exclusive lock on a file per shard, beside the stores. The kernel frees it when its holder ends, even
after ``kill -9``, so a shard never waits for a process that is gone. All processes have to see the stores through a
file system whose ``flock`` works between them: a local disk, or NFS 4; not an object store.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from flows.jobs.file_lock import FileLock

_POLL_SECONDS = 0.5


class Claims:
    """The claims on the shards of one group of features."""

    def __init__(self, stores: Path, group: str) -> None:
        """Name the place of the claims.

        Args:
            stores: The folder of the dataset's stores.
            group: Label of the features.
        """
        self._folder = stores / ".claims" / group
        self._folder.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def claim(self, number: int) -> Generator[bool]:
        """Claim a shard for the time of a block, without waiting; says whether that succeeded."""
        lock = FileLock(self._folder / f"{number:06}.lock")
        try:
            yield lock.acquire({"host": socket.gethostname(), "pid": os.getpid()})
        finally:
            lock.release()

    def share(
        self,
        numbers: Iterable[int],
        encode: Callable[[int], None],
        *,
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """Do every shard that nobody else does, and wait for those that others do.

        When this returns, each shard was claimed by this process at some moment, so whatever could be done of it is
        done: ``encode`` has to ask the store what is left, which is nothing where another process finished it.

        Args:
            numbers: The shards.
            encode: Called with the number of a claimed shard.
            logger: Told when only shards of others are left.
        """
        left = list(numbers)
        told: list[int] = []
        while left:
            others: list[int] = []
            for number in left:
                with self.claim(number) as mine:
                    if mine:
                        encode(number)
                    else:
                        others.append(number)
            if others == left:
                if others != told:
                    logger.info("waiting for %d shards that others do, the first is %d", len(others), others[0])
                    told = others
                time.sleep(_POLL_SECONDS)
            left = others
