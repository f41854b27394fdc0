"""One encoder on several devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from extractors.spec import EncodedBatch, Encoder, RowFault, require_rows


class Replicas:
    """Copies of one encoder, each on a device of its own; every batch is cut into as many parts as there are copies.

    Attributes:
        spec: Identity of the feature.
        batch_size: Rows in one call of ``encode``: the sum over the copies.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.spec = encoders[0].spec
        self.batch_size = sum(encoder.batch_size for encoder in encoders)
        self._encoders = list(encoders)
        self._threads = ThreadPoolExecutor(len(encoders), thread_name_prefix=f"{self.spec.name}-replica")

    @property
    def settings(self) -> Any:
        """Size and normalisation of the frames, of a visual encoder."""
        first: Any = self._encoders[0]
        return first.settings

    def announce(self, texts: Sequence[str], /) -> None:
        """Tell every copy of the texts to come."""
        for encoder in self._encoders:
            copy: Any = encoder
            copy.announce(texts)

    def encode(self, batch: Any, /) -> EncodedBatch:
        """Encode one batch; results and errors are those of one copy."""
        require_rows(batch, encoder=self.spec.name)
        step = -(-len(batch) // len(self._encoders))
        starts = range(0, len(batch), step)
        parts = [
            self._threads.submit(encoder.encode, batch[start : start + step])
            for encoder, start in zip(self._encoders, starts, strict=False)
        ]
        return _joined([part.result() for part in parts], starts)


def _joined(parts: Sequence[EncodedBatch], starts: Sequence[int]) -> EncodedBatch:
    faults: dict[int, RowFault] = {}
    counts: Counter[str] = Counter()
    for part, start in zip(parts, starts, strict=True):
        faults.update({start + row: fault for row, fault in part.faults.items()})
        counts.update(part.counts)
    frames = [part.frames for part in parts if part.frames is not None]
    return EncodedBatch(
        np.concatenate([part.embedding for part in parts]),
        np.concatenate(frames) if frames else None,
        faults=faults,
        counts=counts,
    )
