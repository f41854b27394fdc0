"""Encoding rows whatever happens: batches that shrink while memory is short, and rows that fail alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from extractors.errors import ExtractionError
from extractors.spec import EncodedBatch, Encoder, RowFault

logger = logging.getLogger(__name__)

_NOT_FINITE = RowFault("not_finite", "the encoder returned NaN or a number that the stored type cannot hold")


class EncodeError(ExtractionError):
    """An encoder fails on everything: the fault is not in the items, so none of them is blamed."""


@dataclass(frozen=True)
class EncodedRow:
    """One finished row: ``embedding`` ``[d]`` and, of a video, ``frames`` ``[f, d]``, both of the stored type.

    ``pixels`` is uint8 ``[f, h, w, 3]`` where the pictures themselves are kept.
    """

    embedding: np.ndarray
    frames: np.ndarray | None
    pixels: np.ndarray | None = None

    @property
    def finite(self) -> bool:
        """Whether every number is finite."""
        return all(bool(np.isfinite(part).all()) for part in (self.embedding, self.frames) if part is not None)


@dataclass
class EncodedRows:
    """Outcome of every row, in order.

    Attributes:
        outcomes: A row, or why there is none.
        counts: Sums of the encoder's figures.
        batch_size: The largest batch that fits into memory.
    """

    batch_size: int
    outcomes: list[EncodedRow | RowFault] = field(default_factory=list[EncodedRow | RowFault])
    counts: Counter[str] = field(default_factory=Counter[str])


def encode_rows(encoder: Encoder, rows: Sequence[Any], *, batch_size: int) -> EncodedRows:
    """Encode rows in batches.

    When memory does not suffice, the batch is halved and tried again, down to a single row. When a batch fails in
    another way, its rows are encoded one by one, so that only the guilty ones fail.

    Args:
        encoder: What encodes.
        rows: Frames ``[f, h, w, 3]``, pictures ``[h, w, 3]`` or texts; arrays of one shape.
        batch_size: Rows in a batch at first.

    Raises:
        EncodeError: When a batch fails and so does each of its rows: then the encoder is at fault.
    """
    result = EncodedRows(batch_size)
    while len(result.outcomes) < len(rows):
        done = len(result.outcomes)
        part = rows[done : done + result.batch_size]
        try:
            batch = encoder.encode(_assemble(part))
        except Exception as error:
            if not is_out_of_memory(error):
                result.outcomes.extend(_one_by_one(encoder, part, result.counts, error))
            elif len(part) == 1:
                result.outcomes.append(RowFault("out_of_memory", f"not even this row alone fits: {_line(error)}"))
            else:
                result.batch_size = len(part) // 2
                logger.warning(
                    "%s: out of memory with %d rows; trying %d", encoder.spec.name, len(part), len(part) // 2
                )
            _release()
        else:
            _collect(batch, encoder.spec.dtype, result)
    return result


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the host or of the device, does not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _collect(batch: EncodedBatch, dtype: str, result: EncodedRows) -> None:
    with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is a fault below
        embedding = batch.embedding.astype(dtype)
        frames = None if batch.frames is None else batch.frames.astype(dtype)
    result.counts.update(batch.counts)
    for row in range(len(embedding)):
        if row in batch.faults:
            result.outcomes.append(batch.faults[row])
        else:
            pixels = None if batch.pixels is None else batch.pixels[row]
            done = EncodedRow(embedding[row], None if frames is None else frames[row], pixels)
            result.outcomes.append(done if done.finite else _NOT_FINITE)


def _one_by_one(
    encoder: Encoder, rows: Sequence[Any], counts: Counter[str], error: Exception
) -> list[EncodedRow | RowFault]:
    alone = EncodedRows(batch_size=1, counts=counts)
    faults: list[Exception] = []
    for row in rows:
        try:
            _collect(encoder.encode(_assemble([row])), encoder.spec.dtype, alone)
        except Exception as fault:
            faults.append(fault)
            alone.outcomes.append(RowFault("encode_error", f"{type(fault).__name__}: {_line(fault)}"))
    if len(faults) == len(rows) > 1:
        raise EncodeError(
            f"encoder {encoder.spec.name} failed on each of {len(rows)} rows, so the rows are not at fault: "
            f"{type(error).__name__}: {_line(error)}"
        ) from error
    return alone.outcomes


def _assemble(rows: Sequence[Any]) -> Any:
    return np.stack(rows) if isinstance(rows[0], np.ndarray) else list(rows)


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
