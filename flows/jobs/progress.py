"""Progress bars on stderr for everything that takes more than a moment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Progress:
    """Draws one bar per stage; call it as ``progress(stage, done, total)``.

    On a terminal a bar appears after half a second and goes when its stage is over; elsewhere (a log file, a worker)
    a line is written every 15 s, from the fifth second on.
    """

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}
        self._shares = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Move the bar of ``stage`` to ``done`` of ``total`` (None when the total is unknown)."""
        bar = self._bars.get(stage)
        if bar is None:
            self.close()  # stages follow one another
            terminal = sys.stderr.isatty()
            bar = tqdm(
                total=total,
                initial=done,
                desc=stage,
                file=sys.stderr,
                delay=0.5 if terminal else 5.0,
                mininterval=0.2 if terminal else 15.0,
                dynamic_ncols=True,
                leave=False,
            )
            self._bars[stage] = bar
        if total is not None and bar.total != total:
            bar.total = total
        if self._shares:
            bar.set_postfix_str(self._shares, refresh=False)
            self._shares = ""
        bar.update(done - bar.n)
        if total is not None and done >= total:
            bar.close()
            del self._bars[stage]

    def shares(self, stages: Mapping[str, float], /) -> None:
        """Show beside the bar where the time goes, from its next step on: ``read 62%, encode 37%, write 1%``."""
        self._shares = ", ".join(f"{stage} {share:.0%}" for stage, share in stages.items())

    def close(self) -> None:
        """Close every open bar."""
        for bar in self._bars.values():
            bar.close()
        self._bars.clear()
