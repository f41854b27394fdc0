"""The console log of a run that outlives its worker.

A worker reads the output of its runs through a pipe. When the worker is killed, the next line that a run writes finds
nobody at the other end, and rich, which Prefect writes with, then ends the program: the run would die with its worker.
``prefect.yaml`` has every run use the handler below.
"""

from __future__ import annotations

import contextlib
import logging

from prefect.logging.handlers import PrefectConsoleHandler


class ConsoleHandler(PrefectConsoleHandler):
    """Prefect's handler, which falls silent when nobody reads any more; the log still goes to the server."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        with contextlib.suppress(SystemExit):
            super().emit(record)
