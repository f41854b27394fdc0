"""One encoder on several devices: the rows of one, in order."""

import numpy as np
import pytest

from extractors import registry
from extractors.replicas import Replicas
from extractors.spec import EncodedBatch, RowFault

TITLES = ["a sleepy kitten", "soup", "", "the night market", "guitar"]


def test_two_copies_give_the_rows_of_one(toy_root, tiny, rng):
    one, two = tiny("videomae"), registry.build("videomae", {"checkpoint": "tiny"}, device="cpu,cpu", toy_root=toy_root)
    assert isinstance(two, Replicas)
    assert (two.spec, two.settings, two.batch_size) == (one.spec, one.settings, 2 * one.batch_size)
    videos = rng.integers(0, 256, (3, 5, 224, 224, 3), dtype=np.uint8)
    expected, found = one.encode(videos), two.encode(videos)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=2e-5)
    np.testing.assert_allclose(found.frames, expected.frames, atol=2e-5)


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_faults_and_counts_of_texts(copies, toy_root, tiny):
    device = ",".join(["cpu"] * copies)
    expected = tiny("bert").encode(TITLES)
    found = registry.build("bert", {"checkpoint": "tiny"}, device=device, toy_root=toy_root).encode(TITLES)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=2e-5)
    assert list(found.faults) == [2]
    assert found.counts == expected.counts


def test_word_vectors_need_no_copies(toy_root):
    encoder = registry.build("glove", {"checkpoint": "tiny"}, device="cpu,cpu", toy_root=toy_root)
    assert not isinstance(encoder, Replicas)


class Fake:
    def __init__(self, spec, error=None):
        self.spec, self.batch_size, self.error, self.announced = spec, 4, error, []

    def announce(self, texts):
        self.announced += texts

    def encode(self, batch):
        if self.error:
            raise self.error
        return EncodedBatch(np.zeros((len(batch), 2), np.float32), faults={0: RowFault("x", batch[0])})


def test_every_copy_hears_of_the_texts_and_errors_come_through(tiny):
    copies = [Fake(tiny("bert").spec), Fake(tiny("bert").spec)]
    replicas = Replicas(copies)
    replicas.announce(["a"])
    assert [copy.announced for copy in copies] == [["a"], ["a"]]
    assert {row: fault.detail for row, fault in replicas.encode(list("abc")).faults.items()} == {0: "a", 2: "c"}
    copies[1].error = MemoryError("out")
    with pytest.raises(MemoryError, match="out"):
        replicas.encode(list("abc"))
    with pytest.raises(ValueError, match="at least one row"):
        replicas.encode([])
