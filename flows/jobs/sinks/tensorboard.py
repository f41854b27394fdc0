"""TensorBoard: ``tensorboard --logdir ROOT/tensorboard`` shows every run by its id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.settings import Settings

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

PACKAGE = "tensorboard"


class TensorBoardSink:
    """Writes scalars whose steps are epochs, as float64; a run that goes on adds a file to the same folder."""

    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def epoch(self, number: int, scalars: Mapping[str, float]) -> None:
        """Write the figures to the disk."""
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, number, new_style=True, double_precision=True)
        self.writer.flush()

    def close(self, *, failed: bool) -> None:
        """Close the file."""
        del failed
        self.writer.close()


def open_sink(settings: Settings, *, run_id: str, config: Mapping[str, Any]) -> TensorBoardSink:
    """Write to ``tensorboard/<run id>`` below the root."""
    from torch.utils.tensorboard import SummaryWriter

    del config  # the run's folder has it
    return TensorBoardSink(SummaryWriter(str(settings.root / "tensorboard" / run_id)))
