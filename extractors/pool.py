"""Files decoded in child processes, so that a file that hangs, crashes or eats memory costs only itself.

Each worker is a thread here and a process of its own (started afresh, never forked from this one). The thread hands its
process one file at a time, watches the clock and the process's memory, ends the process when either runs out, and
starts another. Every file that goes in comes out exactly once, as a result or as a :class:`FrameFailure`, in any order.

The processes die with this one, however it ends, and at once when the pool is left.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from extractors.decoders.batch import FrameBatch
from extractors.errors import PoolError
from extractors.frames import require_decoder
from extractors.pool_process import DecodeProcess, Outcome, ProcessGoneError, ProcessLimits, ProcessStock
from extractors.sampling import require_rate

T = TypeVar("T")
Item = tuple[str, str | os.PathLike[str]]
Transform = Callable[[np.ndarray], np.ndarray]
"""uint8 ``[n, h, w, 3]`` to uint8 ``[n, h', w', 3]``; must be picklable."""

_START_ATTEMPTS = 3
_JOIN_SECONDS = 5.0
_STEP_SECONDS = 0.2


@dataclass(frozen=True)
class FrameFailure:
    """Why one item has no frames.

    Attributes:
        item_id: The item.
        stage: Always ``decode``.
        reason: One of ``FRAME_REASONS``.
        detail: One sentence.
    """

    item_id: str
    stage: str
    reason: str
    detail: str


class DecodePool:
    """Decodes files in child processes; a context manager, which keeps its processes from one run to the next.

    Args:
        workers: How many processes; as many as the cores this process may use, when None. Each decodes with one thread.
        deadline_seconds: How long one file may take; then its process is killed (``timeout``).
        memory_limit_bytes: How much a process may grow over what it holds before its first file (``too_large``).
        buffer_bytes: Finished results that nobody has taken yet; the processes wait when there are more. One result per
            worker may come on top.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        deadline_seconds: float = 60.0,
        memory_limit_bytes: int = 2 << 30,
        buffer_bytes: int = 256 << 20,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = cores if workers is None else workers
        if self.workers < 1 or deadline_seconds <= 0 or memory_limit_bytes < 1 or buffer_bytes < 0:
            raise ValueError("DecodePool: expected at least one worker, and limits above 0")
        self._stock = ProcessStock(ProcessLimits(deadline_seconds, memory_limit_bytes), room=self.workers)
        self.buffer_bytes = buffer_bytes
        self._runs: set[_Run] = set()

    def __enter__(self) -> Self:
        self._stock.keeps = True
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes now; iterations that still go on end too."""
        for run in list(self._runs):
            run.close()
        self._stock.close()

    def map(
        self,
        items: Iterable[Item],
        *,
        n: int = 5,
        fps: float = 1.0,
        decoder: str = "planned",
        transform: Transform | None = None,
    ) -> Iterator[tuple[str, FrameBatch | FrameFailure]]:
        """Sample the frames of videos, see :func:`extractors.frames.sample_frames`.

        Args:
            items: Item ids and paths; read little by little, from other threads.
            n: Frames of a video.
            fps: Frames per second around the centre.
            decoder: Which decoder.
            transform: Applied to the frames in the child process, such as ``FrameTransform``; picklable.

        Yields:
            Item id, and its frames or why there are none; once for each item, in any order.

        Raises:
            SamplingError: When ``n`` or ``fps`` cannot be sampled.
            UnknownDecoderError: When there is no such decoder.
            PoolError: When the processes do not start.
        """
        require_rate(n, fps)
        require_decoder(decoder)
        options = {"n": n, "fps": fps, "decoder": decoder, "transform": transform}
        return self._convert("extractors.pool_tasks:frames", items, options, lambda values: FrameBatch(**values))

    def map_images(
        self, items: Iterable[Item], *, transform: Transform | None = None
    ) -> Iterator[tuple[str, np.ndarray | FrameFailure]]:
        """Read pictures, see :func:`extractors.images.read_image`.

        Args:
            items: Item ids and paths.
            transform: Applied in the child process to uint8 ``[1, h, w, 3]``; picklable.

        Yields:
            Item id, and uint8 ``[h, w, 3]`` or why there is no picture; once for each item, in any order.

        Raises:
            PoolError: When the processes do not start.
        """
        options = {"transform": transform}
        return self._convert("extractors.pool_tasks:image", items, options, lambda values: values["data"])

    def run(
        self, task: str, items: Iterable[Item], options: Mapping[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any] | FrameFailure]]:
        """Do any task on files.

        Args:
            task: ``module:function`` of a function ``(path, **options)`` that returns names and their arrays or plain
                values, or raises ``FrameError``.
            items: Item ids and paths.
            options: Keyword arguments of the function; picklable.

        Yields:
            Item id, and what the function returned or why it did not; once for each item, in any order.

        Raises:
            PoolError: When the processes do not start, or the task does not exist.
        """
        order = pickle.dumps((task, dict(options)))
        run = _Run(order, items, stock=self._stock, workers=self.workers, buffer_bytes=self.buffer_bytes)
        self._runs.add(run)
        try:
            run.start()
            yield from iter(run.take, None)
        finally:
            self._runs.discard(run)
            run.close()

    def _convert(
        self, task: str, items: Iterable[Item], options: Mapping[str, Any], build: Callable[[dict[str, Any]], T]
    ) -> Iterator[tuple[str, T | FrameFailure]]:
        for item_id, outcome in self.run(task, items, options):
            yield item_id, outcome if isinstance(outcome, FrameFailure) else build(outcome)


class _Run:
    """One pass over items: the threads, their processes, and the results that wait to be taken."""

    def __init__(
        self, order: bytes, items: Iterable[Item], *, stock: ProcessStock, workers: int, buffer_bytes: int
    ) -> None:
        self._order = order
        self._stock = stock
        self._items = iter(items)
        self._reading = threading.Lock()
        self._state = threading.Condition()
        self._waiting: deque[tuple[str, dict[str, Any] | FrameFailure, int]] = deque()
        self._waiting_bytes = 0
        self._buffer_bytes = buffer_bytes
        self._working = workers
        self._stopped = False
        self._error: BaseException | None = None
        self._processes: set[DecodeProcess] = set()
        self._threads = [threading.Thread(target=_Worker(self).serve, daemon=True) for _ in range(workers)]

    def start(self) -> None:
        """Let the threads begin; each starts its process when it has a file for it."""
        for thread in self._threads:
            thread.start()

    def take(self) -> tuple[str, dict[str, Any] | FrameFailure] | None:
        """The next result, waiting for it; None when there will be no more.

        Raises:
            PoolError: When the processes do not start.
            Exception: What reading the items raised.
        """
        with self._state:
            while not self._waiting and self._working and not self._stopped and self._error is None:
                self._state.wait(_STEP_SECONDS)  # polars' handler of SIGINT lets no single wait be interrupted
            if self._error is not None:
                raise self._error
            if self._stopped or not self._waiting:
                return None
            item_id, outcome, size = self._waiting.popleft()
            self._waiting_bytes -= size
            self._state.notify_all()
            return item_id, outcome

    def close(self) -> None:
        """End all processes now, and wait for the threads to clean up after them."""
        with self._state:
            self._stopped = True
            self._waiting.clear()
            for process in self._processes:
                process.kill()
            self._state.notify_all()
        patience = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread.is_alive():  # one that waits for the next item is left behind; it holds no process
                thread.join(timeout=max(patience - time.monotonic(), 0.0))

    def next(self) -> Item | None:
        """The next item to do; None when there is none, or the pool is being left."""
        with self._reading:
            return None if self._stopped else next(self._items, None)

    def stopped(self) -> bool:
        """Whether the pool is being left."""
        return self._stopped

    def hire(self) -> DecodeProcess:
        """Take a process that :meth:`close` knows about."""
        with self._state:
            process = self._stock.take(self._order)
            self._processes.add(process)
            if self._stopped:
                process.kill()
            return process

    def dismiss(self, process: DecodeProcess) -> None:
        """Give a process back that does nothing at the moment."""
        with self._state:
            self._processes.discard(process)
        self._stock.give_back(process)

    def finish(self, error: BaseException | None) -> None:
        """One thread ends, with the error that ended it."""
        with self._state:
            if not self._stopped:
                self._error = self._error or error
            self._working -= 1
            self._state.notify_all()

    def put(self, item_id: str, outcome: dict[str, Any] | FrameFailure, size: int) -> None:
        """Hand over a result; waits while too many bytes have not been taken."""
        with self._state:
            while self._waiting and self._waiting_bytes + size > self._buffer_bytes and not self._stopped:
                self._state.wait()
            if not self._stopped:
                self._waiting.append((item_id, outcome, size))
                self._waiting_bytes += size
                self._state.notify_all()


class _Worker:
    """One thread and the process that works for it."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._process: DecodeProcess | None = None

    def serve(self) -> None:
        """Do items until there are none."""
        failure: BaseException | None = None
        try:
            while (item := self._run.next()) is not None:
                item_id, path = item
                outcome = self._work(path)
                if isinstance(outcome, tuple):
                    self._run.put(item_id, FrameFailure(item_id, "decode", *outcome), 0)
                else:
                    size = sum(value.nbytes for value in outcome.values() if isinstance(value, np.ndarray))
                    self._run.put(item_id, outcome, size)
        except BaseException as error:  # it is raised where the results are taken
            failure = error
        finally:
            self._let_go()
            self._run.finish(failure)

    def _work(self, path: str | os.PathLike[str]) -> Outcome:
        """Have a file done; one whose process ends gets another, for the file need not be what ended the first."""
        outcome = self._attempt(path)
        if isinstance(outcome, tuple) and outcome[0] == "crashed":
            return self._attempt(path)
        return outcome

    def _attempt(self, path: str | os.PathLike[str]) -> Outcome:
        """Have a file done; by a new process where the last one is worn out or gone."""
        last: ProcessGoneError | None = None
        for _ in range(_START_ATTEMPTS):
            if self._process is None or not self._process.usable:
                self._let_go()
                self._process = self._run.hire()
            try:
                self._process.wait_until_ready(self._run.stopped)
                return self._process.work(path, self._run.stopped)
            except ProcessGoneError as error:
                if self._run.stopped():
                    raise
                last = error
        raise PoolError(f"a decode process ended {_START_ATTEMPTS} times before it took a file: {last}") from last

    def _let_go(self) -> None:
        if self._process is not None:
            self._run.dismiss(self._process)
            self._process = None
