"""One child process of a decode pool, seen from the parent."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from extractors.errors import FRAME_REASONS, PoolError

Outcome = dict[str, Any] | tuple[str, str]
"""What the task returned, or reason and detail of why it did not."""

_START_SECONDS = 120.0
_TICK_SECONDS = 0.02
_LOG_BYTES = 1 << 20
_MESSAGE_BYTES = 1 << 20
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class ProcessGoneError(Exception):
    """The process ended by no fault of a file: it had none, or the pool is being left."""


@dataclass(frozen=True)
class ProcessLimits:
    """What one file may cost.

    Attributes:
        deadline_seconds: Time for one file.
        memory_bytes: Growth of the process over what it holds before its first file.
    """

    deadline_seconds: float
    memory_bytes: int


class DecodeProcess:
    """Starts at once; the constructor does not wait for it.

    Args:
        order: Pickled task and options for :mod:`extractors.pool_worker`.
        limits: What one file may cost.

    Attributes:
        order: The same.
    """

    def __init__(self, order: bytes, limits: ProcessLimits) -> None:
        self.order = order
        self._limits = limits
        self._ready = False
        self._spent = False
        self._busy = False
        self._base = 0
        self._memory = _shared_memory()
        self._log = _shared_memory()
        ours, theirs = socket.socketpair()
        with theirs:
            handles = (theirs.fileno(), self._memory)
            numbers = (*handles, limits.memory_bytes, os.getpid())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "extractors.pool_worker", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=handles,
                env={**os.environ, **_ONE_THREAD, "PYTHONPATH": _search_path(), "CUDA_VISIBLE_DEVICES": ""},
            )
        self._connection = Connection(ours.detach())

    @property
    def usable(self) -> bool:
        """Whether it runs and waits for a file, and holds neither much memory nor a long log from files it has done."""
        return (
            not self._spent
            and not self._busy
            and self._process.poll() is None
            and self._grown() <= self._limits.memory_bytes // 2
            and os.fstat(self._log).st_size < _LOG_BYTES
        )

    def wait_until_ready(self, stopped: Callable[[], bool]) -> None:
        """Wait until everything is imported.

        Args:
            stopped: Whether the pool is being left.

        Raises:
            ProcessGoneError: When it ends before that.
            PoolError: When the task or its options cannot be imported, or it takes too long.
        """
        if self._ready:
            return
        try:
            self._connection.send_bytes(self.order)
            deadline = time.monotonic() + _START_SECONDS
            while not self._connection.poll(_TICK_SECONDS):
                if stopped():
                    raise ProcessGoneError("the pool is being left")
                if time.monotonic() > deadline:
                    self.kill()
                    raise PoolError(f"a decode process was not ready after {_START_SECONDS:g} s: {self._last_words()}")
            answer = json.loads(self._connection.recv_bytes(_MESSAGE_BYTES))
        except (EOFError, OSError) as error:
            raise ProcessGoneError(self._end()) from error
        if "fatal" in answer:
            raise PoolError(f"a decode process cannot begin its task: {answer['fatal']}")
        self._ready = True
        self._base = self._resident()

    def work(self, path: str | os.PathLike[str], stopped: Callable[[], bool]) -> Outcome:
        """Have one file done. Whatever happens to the process is the outcome of the file.

        Args:
            path: The file.
            stopped: Whether the pool is being left.

        Raises:
            ProcessGoneError: When it had ended before it got the file, or the pool is being left.
        """
        self._busy = True
        try:
            self._connection.send_bytes(os.fsencode(path))
        except OSError as error:
            raise ProcessGoneError(self._end()) from error
        deadline = time.monotonic() + self._limits.deadline_seconds
        while not self._connection.poll(_TICK_SECONDS):
            if stopped():
                raise ProcessGoneError("the pool is being left")
            if time.monotonic() > deadline:
                self.kill()
                return "timeout", f"decoding took longer than {self._limits.deadline_seconds:g} s"
            if self._grown() > self._limits.memory_bytes:
                self.kill()
                return "too_large", f"decoding took more than {self._limits.memory_bytes / (1 << 20):.0f} MiB of memory"
        try:
            outcome = self._unpack(json.loads(self._connection.recv_bytes(_MESSAGE_BYTES)))
        except (EOFError, OSError) as error:
            if stopped():
                raise ProcessGoneError("the pool is being left") from error
            return "crashed", self._end()
        except (ValueError, KeyError, TypeError) as error:
            self.kill()
            return "crashed", f"the decode process sent no valid answer: {error}"
        self._busy = False
        return outcome

    def kill(self) -> None:
        """End the process now; may be called from any thread."""
        self._spent = True
        self._process.kill()

    def dispose(self) -> None:
        """End the process, and free what belongs to it here."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        os.close(self._log)
        os.close(self._memory)

    def _unpack(self, answer: dict[str, Any]) -> Outcome:
        if "reason" in answer:
            reason = answer["reason"] if answer["reason"] in FRAME_REASONS else "error"
            return reason, str(answer["detail"])
        values = dict(answer["values"])
        held, offset = os.fstat(self._memory).st_size, 0
        for name, kind, shape in answer["arrays"]:
            dtype = np.dtype(str(kind))
            size = math.prod(shape) * dtype.itemsize
            if dtype.kind not in "uifb" or min(shape, default=0) < 0 or offset + size > held:
                raise ValueError(f"array {name} of {kind} {shape} at {offset} in {held} bytes")
            array = np.empty(shape, dtype)
            _read_into(self._memory, array.reshape(-1).view(np.uint8).data, offset)
            values[name] = array
            offset += size
        return values

    def _end(self) -> str:
        """How the process ended, in words, now that its connection is closed."""
        self._spent = True
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the decode process closed its connection"
        if code >= 0:
            return f"the decode process ended with exit status {code}{self._last_words()}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        hint = " (the system may be out of memory)" if -code == signal.SIGKILL else ""
        return f"the decode process was ended by signal {-code} ({name}){hint}{self._last_words()}"

    def _last_words(self) -> str:
        size = os.fstat(self._log).st_size
        words = os.pread(self._log, 400, max(size - 400, 0)).decode(errors="replace").strip()
        return f": {words.splitlines()[-1]}" if words else ""

    def _grown(self) -> int:
        return self._resident() - self._base if self._ready else 0

    def _resident(self) -> int:
        """Resident memory in bytes; 0 where the system does not tell (outside Linux)."""
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0


class ProcessStock:
    """Starts processes, and keeps those that have nothing to do for the next run of the same task.

    All are started by one thread that lives as long as the stock: the system ends a child with the thread that started
    it, not only with the process.
    """

    def __init__(self, limits: ProcessLimits, *, room: int) -> None:
        self._limits = limits
        self._room = room
        self._idle: list[DecodeProcess] = []
        self._lock = threading.Lock()
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decode-pool")
        self.keeps = False

    def take(self, order: bytes) -> DecodeProcess:
        """A process for this task; an idle one where there is one."""
        with self._lock:
            fitting = [process for process in self._idle if process.order == order]
            kept = fitting[0] if fitting else None
            dropped = [] if kept is not None else self._idle
            self._idle = [process for process in self._idle if process is not kept and process not in dropped]
        for process in dropped:
            process.dispose()
        return kept or self._starter.submit(DecodeProcess, order, self._limits).result()

    def give_back(self, process: DecodeProcess) -> None:
        """Keep an idle process, or end it where it is worn out or there is no room."""
        with self._lock:
            keep = self.keeps and process.usable and len(self._idle) < self._room
            if keep:
                self._idle.append(process)
        if not keep:
            process.dispose()

    def close(self) -> None:
        """End all idle processes, and keep none from now on."""
        with self._lock:
            self.keeps = False
            idle, self._idle = self._idle, []
        for process in idle:
            process.dispose()


def _shared_memory() -> int:
    """Descriptor of a file without a name that both processes see; in memory, where the system can."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("reelstore-frames", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _read_into(file: int, view: memoryview, offset: int) -> None:
    """Fill a buffer from a file.

    Raises:
        ValueError: When the file is shorter.
    """
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], offset + done)
        if count == 0:
            raise ValueError(f"the shared memory ends after {offset + done} bytes")
        done += count


def _search_path() -> str:
    """Where this process finds modules, for the child."""
    return os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
