"""Random streams that depend on nothing but their names.

The order of an epoch is a function of (seed, epoch), the draws of a step a function of (seed, epoch, step): a run that
is killed and resumed at any step sees the same numbers as one that was not.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a stream is for; streams of different purpose never share draws."""

    ORDER = 0
    STEP = 1
    EVALUATION = 2
    SERVING = 3
    DROPOUT = 4


def stream_seed(seed: int, stream: Stream, *path: int) -> int:
    """A 63-bit seed mixed from ``seed``, the purpose and a path such as (epoch, step) by numpy's SeedSequence."""
    # The length keeps paths apart that differ by trailing zeros, which SeedSequence reads as nothing.
    state = np.random.SeedSequence([seed, int(stream), len(path), *path]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def stream_generator(seed: int, stream: Stream, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on ``device`` at the start of the stream."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, stream, *path))
