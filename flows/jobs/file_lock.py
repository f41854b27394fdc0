"""Exclusive locks on files that the kernel frees when their holder ends, however it ends.

Several processes of one machine, or of several machines on a shared file system that has ``flock``, exclude one
another. The file stays when the lock is let go: removing it would let two processes hold locks on different files of
one name.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

_MODE = 0o666  # another user of the machine waits for the same lock


class FileLock:
    """The lock on one file; one object is held at most once.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, holder: Mapping[str, Any] | None = None) -> bool:
        """Take the lock if nobody holds it; never waits.

        Args:
            holder: What those who want the lock are told about who holds it; plain values.

        Returns:
            Whether the lock is held now.
        """
        if self._descriptor is not None:
            return True
        descriptor = _open(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        if holder is not None:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(dict(holder)).encode(), 0)
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go of the lock if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def holder(self) -> dict[str, Any]:
        """What the last holder said about itself; empty where that is unknown or being written."""
        try:
            told: Any = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def _open(path: Path) -> int:
    """Open a lock file; close-on-exec, so that no child of the holder keeps the lock."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(path, flags)  # without O_CREAT, which sticky folders refuse for the files of other users
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, _MODE)
    if os.fstat(descriptor).st_uid == os.getuid():
        os.fchmod(descriptor, _MODE)
    return descriptor
