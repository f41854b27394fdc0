"""The one extraction that a process has open, so that consecutive shards plan once and load their models once.

A flow opens it and closes it at its end. In a process that only gets tasks (a worker of a cluster) the first task
opens it, and it closes when no task has come for a while, so that an idle process holds no device.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows import settings as settings_module

if TYPE_CHECKING:  # torch takes seconds to import, and a process that only describes a job needs none
    from flows.jobs.extraction import Extraction

#: How long a process without a flow of its own keeps models and device after a task.
IDLE_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """What an extraction is asked to do, in values that pass through Prefect.

    Attributes:
        root: Where data lies.
        dataset: Name of a prepared dataset.
        features: Encoders; empty for all that the dataset has media for.
        options: Settings of the extraction or of the encoders, as JSON.
        started: When the job started, ISO 8601 with a time zone.
    """

    root: str
    dataset: str
    features: tuple[str, ...]
    options: str
    started: str

    @classmethod
    def of(
        cls,
        dataset: str,
        *,
        features: Sequence[str] | None,
        options: Mapping[str, Any] | None,
        started: str | None = None,
        root: str | None = None,
    ) -> Job:
        """Describe a job; ``root`` and ``started`` are those of this process and moment where they are not given."""
        return cls(
            root=str(settings_module.load(root).root),
            dataset=dataset,
            features=tuple(features or ()),
            options=json.dumps(dict(options or {}), sort_keys=True),
            started=started or datetime.now(UTC).isoformat(),
        )

    def open(self) -> Extraction:
        """Open the extraction; errors as there."""
        from flows.jobs.extraction import Extraction

        return Extraction(
            settings_module.load(self.root),
            self.dataset,
            features=self.features or None,
            overrides=json.loads(self.options),
            started=datetime.fromisoformat(self.started),
        )


class Sessions:
    """Holds the open extraction; a process has one object of this class."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: tuple[Job, Extraction] | None = None
        self._owned = False
        self._idle: threading.Timer | None = None

    @contextlib.contextmanager
    def opened(self, job: Job) -> Generator[Extraction]:
        """Open a job's extraction for the time of a flow."""
        try:
            with self._lock:
                self._owned = True
                extraction = self._get(job)
            yield extraction
        finally:
            self._owned = False
            self.close()

    @contextlib.contextmanager
    def borrowed(self, job: Job) -> Generator[Extraction]:
        """The extraction for the time of a task; an error ends its processes and lets go of its models."""
        with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            extraction = self._get(job)
            try:
                yield extraction
            except BaseException:
                extraction.reset()  # the device stays locked: a retry follows, and others may wait for its shard
                raise
            finally:
                if not self._owned:
                    self._idle = threading.Timer(IDLE_SECONDS, self.close)
                    self._idle.daemon = True
                    self._idle.start()

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            current, self._open = self._open, None
            if current is not None:
                current[1].close()

    def _get(self, job: Job) -> Extraction:
        if self._open is None or self._open[0] != job:
            self.close()
            self._open = job, job.open()
        return self._open[1]


SESSIONS = Sessions()
