"""BERT and RoBERTa beyond parity: padding, order, long and empty texts."""

import numpy as np
import pytest
import torch

from extractors import registry

NAMES = ["bert", "roberta"]
TITLES = ["cat", "the sleepy cat on the balcony at night with the band and the guitar", "soup", "a day of yoga"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_and_neighbours_have_no_influence(name, pooling, tiny):
    encoder = tiny(name, pooling=pooling)
    alone = np.concatenate([encoder.encode([title]).embedding for title in TITLES])
    np.testing.assert_allclose(encoder.encode(TITLES).embedding, alone, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_results_are_in_the_order_of_the_input_whatever_the_batches(name, tiny):
    many = [TITLES[index % 4] + " red" * (index // 4) for index in range(40)]
    wide, narrow = tiny(name, token_budget=100_000), tiny(name, token_budget=48)
    np.testing.assert_allclose(wide.encode(many).embedding, narrow.encode(many).embedding, atol=2e-5)
    np.testing.assert_allclose(wide.encode(many[::-1]).embedding[::-1], narrow.encode(many).embedding, atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_long_texts_are_cut_and_counted(name, tiny):
    encoder = tiny(name, max_tokens=8)
    encoded = encoder.encode(["cat " * 50, "cat"])
    assert encoded.counts["truncated"] == 1
    assert encoded.counts["tokens"] == 8 + len(encoder._tokenizer("cat")["input_ids"])
    full = tiny(name)
    assert full.spec.preprocessing["max_tokens"] == 512
    assert full.encode(["cat " * 2000]).counts == {"tokens": 512, "truncated": 1}


@pytest.mark.parametrize("name", NAMES)
def test_empty_texts_are_faults(name, tiny):
    encoded = tiny(name).encode(["", "cat", " \n\x00 "])
    assert {row: fault.reason for row, fault in encoded.faults.items()} == {0: "empty_text", 2: "empty_text"}
    assert np.isnan(encoded.embedding[[0, 2]]).all()
    assert tiny(name).encode([""]).faults[0].reason == "empty_text"


@pytest.mark.parametrize("name", NAMES)
def test_texts_that_look_alike_are_alike(name, tiny):
    encoded = tiny(name).encode(["caf\u00e9  at\tnight", "cafe\u0301 at night "]).embedding
    np.testing.assert_allclose(encoded[0], encoded[1], atol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_lone_surrogates_and_unknown_scripts_do_not_stop_a_batch(name, tiny):
    encoded = tiny(name).encode(["\ud83d cat", "成都的夜市", "cat"])
    assert not encoded.faults
    assert np.isfinite(encoded.embedding).all()


def test_without_memory_the_token_budget_is_halved_and_nothing_is_encoded_twice(toy_root, monkeypatch, tiny):
    encoder = registry.build("bert", {"checkpoint": "tiny", "token_budget": 400}, toy_root=toy_root)
    many = [TITLES[index % 4] + " red" * (index // 4) for index in range(40)]
    forward, rows = encoder._forward, []

    def small(tokens):
        if len(tokens) * max(map(len, tokens)) > 90:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows.append(len(tokens))
        return forward(tokens)

    monkeypatch.setattr(encoder, "_forward", small)
    np.testing.assert_allclose(encoder.encode(many).embedding, tiny("bert").encode(many).embedding, atol=2e-5)
    assert sum(rows) == len(many)
    del rows[:]
    failures = []
    monkeypatch.setattr(encoder, "_shrink", failures.append)
    encoder.encode(many)
    assert not failures  # what was learnt is kept


def test_a_text_that_never_fits_is_an_error_of_memory(toy_root, monkeypatch):
    encoder = registry.build("bert", {"checkpoint": "tiny"}, toy_root=toy_root)

    def never(tokens):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "_forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        encoder.encode(["cat", "dog"])
