"""Batches that shrink, rows that fail alone, encoders that fail on everything."""

import numpy as np
import pytest
import torch

from extractors.batching import EncodedRow, EncodeError, encode_rows, is_out_of_memory
from extractors.spec import EncodedBatch, RowFault


class Spec:
    name = "fake"
    dtype = "float32"


class Fake:
    """Encodes text ``"7"`` as ``[7, 7]`` and does as its words say."""

    spec = Spec()
    batch_size = 8

    def __init__(self, fits=100):
        self.fits = fits
        self.calls = []

    def encode(self, batch):
        self.calls.append(len(batch))
        if len(batch) > self.fits or "huge" in batch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if "bad" in batch:
            raise ValueError("cannot read this")
        embedding = np.array([[float(text)] * 2 for text in batch], dtype=np.float32)
        return EncodedBatch(embedding, faults={}, counts={"rows": len(batch)})


def values(result):
    return [row.embedding[0] if isinstance(row, EncodedRow) else row.reason for row in result.outcomes]


def test_rows_come_back_in_order():
    encoder = Fake()
    result = encode_rows(encoder, [str(n) for n in range(10)], batch_size=4)
    assert values(result) == list(range(10))
    assert encoder.calls == [4, 4, 2]
    assert result.counts == {"rows": 10}


def test_memory_halves_the_batch_and_the_size_is_remembered():
    encoder = Fake(fits=3)
    result = encode_rows(encoder, [str(n) for n in range(10)], batch_size=8)
    assert values(result) == list(range(10))
    assert encoder.calls == [8, 4, 2, 2, 2, 2, 2]
    assert result.batch_size == 2


def test_a_row_that_never_fits_is_a_fault():
    result = encode_rows(Fake(), ["1", "huge", "3"], batch_size=4)
    assert values(result) == [1, "out_of_memory", 3]


def test_only_the_guilty_row_fails():
    result = encode_rows(Fake(), ["1", "bad", "3", "4"], batch_size=3)
    assert values(result) == [1, "encode_error", 3, 4]
    fault = result.outcomes[1]
    assert isinstance(fault, RowFault)
    assert fault.detail == "ValueError: cannot read this"


def test_an_encoder_that_fails_on_everything_is_at_fault_itself():
    with pytest.raises(EncodeError, match="fake failed on each of 3 rows, so the rows are not at fault: ValueError"):
        encode_rows(Fake(), ["bad", "bad", "bad"], batch_size=4)


def test_declared_faults_and_numbers_that_are_not_finite():
    class Odd(Fake):
        def encode(self, batch):
            embedding = np.array([[1, 2], [np.nan, 2], [np.inf, 2], [3, 4]], dtype=np.float32)
            return EncodedBatch(embedding, faults={3: RowFault("all_oov", "nothing known")})

    assert values(encode_rows(Odd(), list("abcd"), batch_size=4)) == [1, "not_finite", "not_finite", "all_oov"]


def test_what_float16_cannot_hold_is_a_fault():
    class Half(Fake):
        class spec(Spec):
            dtype = "float16"

    result = encode_rows(Half(), ["7", "70000"], batch_size=4)
    assert values(result) == [7, "not_finite"]
    assert result.outcomes[0].embedding.dtype == np.float16


def test_frames_that_are_not_finite_are_found():
    class Video(Fake):
        def encode(self, batch):
            frames = np.zeros((2, 5, 2), dtype=np.float32)
            frames[1, 4, 0] = np.nan
            return EncodedBatch(np.zeros((2, 2), dtype=np.float32), frames)

    assert values(encode_rows(Video(), ["a", "b"], batch_size=2)) == [0, "not_finite"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected
