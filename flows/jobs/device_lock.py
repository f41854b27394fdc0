"""One encoder at a time per device: a lock on a file of this machine, which the kernel frees even after ``kill -9``.

The file of a GPU is named by the GPU's own identifier, so that ``cuda:0`` of one process and ``cuda:1`` of another,
each under its ``CUDA_VISIBLE_DEVICES``, are one device where they are one. Containers exclude one another only where
they share the folder.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.jobs.file_lock import FileLock

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class DeviceLock:
    """The locks of the devices that one extraction encodes on."""

    def __init__(self, devices: str, *, purpose: str, folder: Path | None = None) -> None:
        """Name the locks; none is taken yet.

        Args:
            devices: ``cpu``, ``cuda``, ``cuda:N``; several separated by commas.
            purpose: What those who wait are told, such as the name of the data set.
            folder: Where the files lie; None for the machine's folder of temporary files.
        """
        place = folder or Path(tempfile.gettempdir())
        names = {lock_name(part.strip()): part.strip() for part in devices.split(",")}
        # Everybody takes several locks in the same order, so that no two wait for each other.
        self._locks = [(names[name], FileLock(place / f"reelstore-{name}.lock")) for name in sorted(names)]
        self._purpose = purpose

    @property
    def held(self) -> bool:
        """Whether all devices are locked."""
        return all(lock.held for _, lock in self._locks)

    def acquire(self) -> None:
        """Lock the devices, waiting for whoever holds one, and saying so once per holder."""
        for device, lock in self._locks:
            told: dict[str, Any] | None = None
            while not lock.acquire(self._holder()):
                holder = lock.holder()
                if holder != told:
                    logger.warning("waiting for %s: %s (%s)", device, describe(holder), lock.path)
                    told = holder
                time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Let go of all devices."""
        for _, lock in self._locks:
            lock.release()

    def _holder(self) -> dict[str, Any]:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return {"pid": os.getpid(), "host": socket.gethostname(), "dataset": self._purpose, "since": since}


def describe(holder: dict[str, Any]) -> str:
    """Who holds a lock, in words."""
    if not holder:
        return "another process holds it"
    return "process {pid} on {host} holds it for {dataset} since {since}".format(
        **{key: holder.get(key, "?") for key in ("pid", "host", "dataset", "since")}
    )


def lock_name(device: str) -> str:
    """What a device's lock is called: ``cpu``, or ``gpu-`` and the GPU's identifier."""
    if not device.startswith("cuda"):
        return re.sub(r"[^\w-]+", "-", device)
    import torch

    index = int(device.partition(":")[2] or torch.cuda.current_device())
    return f"gpu-{torch.cuda.get_device_properties(index).uuid}"


def tags(devices: str) -> Sequence[str]:
    """Tags of a task that encodes: a limit that an operator sets on one shows in Prefect who waits for which device.

    Such a limit is for visibility alone, the lock above is what holds; a tag without a limit blocks nothing.
    """
    host = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower())
    return [f"device-{host}-{re.sub(r'[^a-z0-9]+', '-', part.strip())}" for part in devices.split(",")]
