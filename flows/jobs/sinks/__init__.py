"""Other places that hear of a training's epochs, such as TensorBoard.

The run's folder is the record; a sink is a copy for people who look elsewhere. One file of this folder is one sink, and
its name is the file's. A sink has no part in the run: it does not change the run's id, and when it fails it is dropped
and the training goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pkgutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flows.errors import CallError
from flows.settings import Settings
from models.config import suggest

if TYPE_CHECKING:
    from models.training.loop import EpochCallback

log = logging.getLogger(__name__)


class Sink(Protocol):
    """What ``open_sink(settings, run_id=…, config=…)`` of a file of this folder returns.

    The file also names the package that it needs: ``PACKAGE``, as it is imported.
    """

    def epoch(self, number: int, scalars: Mapping[str, float]) -> None:
        """Take the figures of an epoch, as of :func:`scalars_of`."""
        ...

    def close(self, *, failed: bool) -> None:
        """The training ended, or was ended by an error."""
        ...


def names() -> list[str]:
    """Every sink."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


@contextmanager
def open_sinks(
    sinks: Sequence[str], settings: Settings, *, run_id: str, config: Mapping[str, Any]
) -> Generator[EpochCallback]:
    """Open sinks for one run; each begins with the first epoch that it is told of, so a finished run leaves no trace.

    Args:
        sinks: Names of files of this folder.
        settings: Places.
        run_id: The run; one that goes on later continues what the sink has of it.
        config: The run's resolved configuration.

    Yields:
        A function for ``on_epoch`` of :func:`models.training.loop.fit`: it passes each row of ``metrics.jsonl`` on.

    Raises:
        CallError: For a name that is no sink, or a sink whose package is not installed.
    """
    guarded = [
        _Guarded(name, partial(_load(name).open_sink, settings, run_id=run_id, config=config))
        for name in dict.fromkeys(sinks)
    ]

    def tell(row: Mapping[str, Any]) -> None:
        for sink in guarded:
            sink.epoch(row)

    failed = True
    try:
        yield tell
        failed = False
    finally:
        for sink in guarded:
            sink.close(failed=failed)


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a row of ``metrics.jsonl``: ``loss``, ``seconds``, ``parts/<name>``, ``valid/hr@10`` and so on."""
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}/{inner}": float(figure) for inner, figure in value.items()}
        elif name != "epoch":
            flat[name] = float(value)
    return flat


def _load(name: str) -> Any:
    if name not in names():
        raise CallError(f"no sink {name!r}; {suggest(name, names())}")
    member = importlib.import_module(f"{__name__}.{name}")
    if importlib.util.find_spec(member.PACKAGE) is None:
        raise CallError(f"sink {name} needs the package {member.PACKAGE}: pip install 'reelstore[tracking]'")
    return member


class _Guarded:
    """A sink from its first epoch until it raises for the first time."""

    def __init__(self, name: str, opening: Callable[[], Sink]) -> None:
        self.name, self.opening = name, opening
        self.sink: Sink | None = None
        self.dropped = False

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Tell the sink of an epoch."""
        if not self.dropped:
            with self._dropping():
                self.sink = self.sink or self.opening()
                self.sink.epoch(int(row["epoch"]), scalars_of(row))

    def close(self, *, failed: bool) -> None:
        """Tell it that the training ended."""
        if self.sink is not None and not self.dropped:
            with self._dropping():
                self.sink.close(failed=failed)

    @contextmanager
    def _dropping(self) -> Generator[None]:
        try:
            yield
        except Exception as error:
            self.dropped = True
            reason = f"{type(error).__name__}: {error}"
            log.warning("sink %s: %s; the training goes on without it", self.name, reason)
