"""Sequence codes: which is chosen, what moves, and where gradients go."""

import pytest
import torch

from models.modules.codebook import SequenceCodebook, code_means

LENGTH, WIDTH, CODES = 3, 2, 4


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def book(mode="ema", **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SequenceCodebook(LENGTH, WIDTH, CODES, mode=mode, **options)


def sequences(rows=9, seed=5):
    """Padded on the left: lengths 3, 2, 1, 3, .."""
    mask = torch.arange(LENGTH) >= (torch.arange(rows) % LENGTH).unsqueeze(1)
    return torch.randn(rows, LENGTH, WIDTH, generator=seeded(seed)) * mask.unsqueeze(-1), mask


def brute_force(codes, sequence, mask, chosen):
    expected = codes.clone()
    for z in range(len(codes)):
        for place in range(LENGTH):
            members = [b for b in range(len(chosen)) if chosen[b] == z and mask[b, place]]
            if members:
                expected[z, place] = torch.stack([sequence[b, place] for b in members]).mean(dim=0)
    return expected


def test_means_per_code_and_position_by_brute_force():
    sequence, mask = sequences()
    chosen = torch.tensor([0, 2, 2, 0, 2, 0, 3, 3, 2])
    codes = torch.randn(CODES, LENGTH, WIDTH, generator=seeded(1))
    means, found = code_means(sequence, mask, chosen, CODES)
    expected = brute_force(codes, sequence, mask, chosen)
    torch.testing.assert_close(torch.where(found.unsqueeze(-1), means, codes), expected)
    assert not found[1].any()  # nobody chose it
    assert found[0].tolist() == [True] * 3


def test_padding_does_not_shrink_the_means():
    sequence, mask = torch.ones(2, LENGTH, WIDTH), torch.tensor([[True] * 3, [False, False, True]])
    means, found = code_means(sequence, mask, torch.zeros(2, dtype=torch.int64), 1)
    assert torch.equal(means, torch.ones(1, LENGTH, WIDTH))
    assert found.all()


def test_means_are_counted_in_float32_under_autocast():
    """A thousand rows, of which the first 700 hold 3 and the others 4."""
    sequence = torch.full((1000, LENGTH, WIDTH), 3.0)
    sequence[700:] = 4.0
    with torch.autocast("cpu", torch.bfloat16):
        means, _ = code_means(sequence, torch.ones(1000, LENGTH, dtype=torch.bool), torch.zeros(1000).long(), 1)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means, torch.full_like(means, 3.3))


@pytest.mark.parametrize(("mode", "kept"), [("ema", 0.9), ("batch_mean", 0.0)])
def test_an_update_keeps_a_share_of_the_old_code(mode, kept):
    codebook = book(mode, decay=0.9)
    old = torch.randn(CODES, LENGTH, WIDTH, generator=seeded(1))
    codebook.codes.copy_(old)
    codebook.filled.fill_(value=True)
    sequence, mask = sequences()
    chosen = torch.tensor([0, 2, 2, 0, 2, 0, 0, 2, 2])
    codebook.update(sequence, mask, chosen, generator=seeded())
    expected = kept * old + (1 - kept) * brute_force(old, sequence, mask, chosen)
    torch.testing.assert_close(codebook.codes, expected)
    torch.testing.assert_close(codebook.codes[[1, 3]], old[[1, 3]])
    assert codebook.idle.tolist() == [0, 1, 0, 1]


def test_where_a_code_has_seen_nothing_yet_the_first_mean_is_taken_whole():
    """Of a code that began as a history of one item, the older places are no zeros that a mean must outgrow."""
    codebook = book("ema", decay=0.9)
    codebook.codes[0, 2] = 5.0
    codebook.filled[0, 2] = True
    sequence = torch.ones(1, LENGTH, WIDTH)
    everywhere, chosen = torch.ones(1, LENGTH, dtype=torch.bool), torch.zeros(1, dtype=torch.int64)
    codebook.update(sequence, everywhere, chosen, generator=seeded())
    assert codebook.codes[0, :, 0].tolist() == pytest.approx([1.0, 1.0, 0.9 * 5 + 0.1])
    codebook.update(3 * sequence, everywhere, chosen, generator=seeded())
    assert codebook.codes[0, 0].tolist() == pytest.approx([0.9 + 0.1 * 3] * 2)
    assert not codebook.filled[1:].any()


def test_a_code_that_nobody_chooses_starts_again_from_a_sequence():
    codebook = book(patience=2)
    codebook.codes.fill_(9.0)
    sequence, mask = sequences()
    chosen = torch.zeros(9, dtype=torch.int64)
    codebook.update(sequence, mask, chosen, generator=seeded())
    assert (codebook.codes[1:] == 9.0).all()
    codebook.update(sequence, mask, chosen, generator=seeded())
    assert codebook.idle.tolist() == [0] * CODES
    for code in codebook.codes[1:]:
        assert any(torch.equal(code, row) for row in sequence)


def test_the_first_training_batch_seeds_the_codes_with_its_rows():
    codebook = book("batch_mean").train()
    sequence, mask = sequences()
    assert not codebook.codes.any()
    code = codebook(sequence, mask, generator=seeded())
    rows = sequence.tolist()
    for row, real in zip(code, mask, strict=True):  # a whole seed row, cut to the real positions
        assert any(torch.allclose(row[real], torch.tensor(seed)[real], atol=1e-6) for seed in rows)
    assert bool(codebook.started)


def test_codes_are_zero_on_padding():
    codebook = book()
    codebook.codes.fill_(1.0)
    sequence, mask = sequences()
    for training in (False, True):  # training moves the codes afterwards
        codebook.train(training)
        codebook.started.fill_(value=True)
        code = codebook(sequence, mask, generator=seeded())
        torch.testing.assert_close(code, mask.unsqueeze(-1).expand_as(code).float())


def test_evaluation_takes_the_best_code_and_changes_nothing():
    codebook = book()
    codebook.codes.normal_(generator=seeded(1))
    before = {key: value.clone() for key, value in codebook.state_dict().items()}
    sequence, mask = sequences()
    first, second = (codebook.eval()(sequence, mask, generator=seeded(s)) for s in (1, 2))
    assert torch.equal(first, second)  # no Gumbel noise
    flat = (sequence * mask.unsqueeze(-1)).reshape(9, -1)
    best = (flat @ codebook.selector.weight.T + codebook.selector.bias).argmax(dim=1)
    assert torch.equal(first, codebook.codes[best] * mask.unsqueeze(-1))
    assert all(torch.equal(value, before[key]) for key, value in codebook.state_dict().items())


def test_training_samples_codes_with_the_gumbel_distribution():
    """Frequency of a code is the softmax of its score (the Gumbel-max trick)."""
    codebook = book("ema", patience=10**9)
    with torch.no_grad():
        codebook.selector.weight.zero_()
        codebook.selector.bias.copy_(torch.tensor([0.5, 0.25, 0.15, 0.1]).log())
    codebook.codes.copy_(torch.eye(CODES)[:, :, None].expand(-1, -1, 2)[:, :LENGTH])  # code z < 3 has its 1 at place z
    codebook.started.fill_(value=True)
    rows = torch.zeros(40_000, LENGTH, WIDTH)
    code = codebook.train()(rows, torch.ones(40_000, LENGTH, dtype=torch.bool), generator=seeded())
    found = code[:, :, 0].mean(dim=0)
    assert found.tolist() == pytest.approx([0.5, 0.25, 0.15], abs=0.01)


@pytest.mark.parametrize(("mode", "reached"), [("ema", True), ("batch_mean", True), ("legacy_batch", False)])
def test_the_selector_learns_except_in_the_ancestor_s_mode(mode, reached):
    codebook = book(mode).train()
    sequence, mask = sequences()
    sequence.requires_grad_()
    code = codebook(sequence, mask, generator=seeded())
    weight = torch.randn(code.shape, generator=seeded(2))
    assert code.requires_grad == reached
    if reached:
        (code * weight).sum().backward()
        assert codebook.selector.weight.grad.abs().max() > 1e-4
        assert not codebook.codes.requires_grad


def test_the_gradient_is_that_of_the_soft_choice():
    codebook = book(temperature=1.0).train()
    codebook.codes.normal_(generator=seeded(1))
    codebook.started.fill_(value=True)
    codes, (sequence, mask) = codebook.codes.clone(), sequences()
    weight = torch.randn(sequence.shape, generator=seeded(2))
    (codebook(sequence, mask, generator=seeded(3)) * weight).sum().backward()
    found = codebook.selector.bias.grad
    gumbel = -torch.log(-torch.log(torch.rand(9, CODES, generator=seeded(3))))
    bias = codebook.selector.bias.detach().clone().requires_grad_()
    flat = (sequence * mask.unsqueeze(-1)).reshape(9, -1)
    soft = torch.softmax(flat @ codebook.selector.weight.detach().T + bias + gumbel, dim=1)
    mixed = torch.einsum("bz,zld->bld", soft, codes) * mask.unsqueeze(-1)
    (expected,) = torch.autograd.grad((mixed * weight).sum(), bias)
    torch.testing.assert_close(found, expected)


def test_the_ancestor_s_codes_depend_on_the_batch():
    sequence, mask = sequences()
    together = book("legacy_batch").eval()(sequence, mask, generator=seeded())
    alone = book("legacy_batch").eval()(sequence[:1], mask[:1], generator=seeded())
    torch.testing.assert_close(alone, sequence[:1])  # the mean of one row is the row
    assert not torch.allclose(together[:1], alone)
