"""The child process of a decode pool: ``python -m extractors.pool_worker SOCKET MEMORY LIMIT PARENT``.

The parent sends one pickled ``(task, options)`` and then one path after the other; both are its own. What goes back
comes from a process that reads foreign files, so it is never unpickled: a JSON message on the socket, and the bytes of
the arrays in a file in memory that both share.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import pickle
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from extractors.errors import FrameError

_PR_SET_PDEATHSIG = 1
_DETAIL_CHARACTERS = 2000
_TRIM_FILES, _IDLE_SECONDS = 50, 0.5


def main(arguments: list[str]) -> int:
    """Serve until the parent closes the socket."""
    socket, memory, limit, parent = (int(argument) for argument in arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent ends its children
    _die_with(parent)
    with Connection(socket) as connection:
        try:
            task, options = _prepare(connection.recv_bytes())
        except Exception as error:  # whatever it is, the parent has to say it
            _send(connection, {"fatal": f"{type(error).__name__}: {error}"})
            return 1
        _limit_memory(limit)
        _send(connection, {"ready": True})
        for number in itertools.count(1):
            if number % _TRIM_FILES == 0 or not connection.poll(_IDLE_SECONDS):
                _return_memory()
            try:
                path = os.fsdecode(connection.recv_bytes())
            except EOFError:
                break
            _send(connection, _answer(task, path, options, memory))
    return 0


def _prepare(message: bytes) -> tuple[Callable[..., Mapping[str, Any]], dict[str, Any]]:
    """Import the task and its options, so that no file pays for it."""
    name, options = pickle.loads(message)
    module, _, function = name.partition(":")
    return getattr(import_module(module), function), options


def _answer(task: Callable[..., Mapping[str, Any]], path: str, options: dict[str, Any], memory: int) -> dict[str, Any]:
    try:
        return _pack(task(path, **options), memory)
    except FrameError as error:
        return {"reason": error.reason, "detail": error.detail}
    except MemoryError:
        return {"reason": "too_large", "detail": "decoding needs more memory than a process may use"}
    except Exception as error:  # one file's trouble is a row, not the end of the run
        if "can't allocate memory" in str(error):  # torch has no exception of its own for it
            return {"reason": "too_large", "detail": "decoding needs more memory than a process may use"}
        return {"reason": "error", "detail": f"{type(error).__name__}: {error}"}


def _pack(values: Mapping[str, Any], memory: int) -> dict[str, Any]:
    """Write the arrays into the shared memory and describe them; other values go into the message."""
    plain: dict[str, Any] = {}
    arrays: list[tuple[str, str, list[int]]] = []
    os.ftruncate(memory, 0)
    offset = 0
    for name, value in values.items():
        if not isinstance(value, np.ndarray):
            plain[name] = value
            continue
        view = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        written = 0
        while written < len(view):
            written += os.pwrite(memory, view[written:], offset + written)
        offset += len(view)
        arrays.append((name, value.dtype.str, list(value.shape)))
    return {"values": plain, "arrays": arrays}


def _send(connection: Connection, message: dict[str, Any]) -> None:
    if "detail" in message:
        message["detail"] = message["detail"][:_DETAIL_CHARACTERS]
    connection.send_bytes(json.dumps(message).encode())


def _die_with(parent: int) -> None:
    """End this process when the parent ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)


def _return_memory() -> None:
    """Give freed memory back to the system: pictures of all sizes leave gaps, and the process would slowly grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _limit_memory(limit: int) -> None:
    """Let allocations fail beyond ``limit`` bytes over what the process holds now (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    held = next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (held + limit, held + limit))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
