import math
from collections import Counter

import pytest
import torch

from models.errors import ConfigError
from models.recommenders.bert4rec import extended
from models.registry import build
from models.sequences.batch import SequenceBatch
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import fit

SMALL = {"d": 8, "layers": 2, "inner": 16, "dropout": 0.0, "max_length": 6}


def model(seed=0, **config):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("bert4rec", SMALL | config, n_items=12)


def shaken(seed=0, **config):
    """With weights large enough that attention is far from uniform."""
    bert = model(seed, **config)
    with torch.no_grad():
        for number, parameter in enumerate(bert.parameters()):
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(number))
        bert.encoder.items.table[0] = 0
    return bert.eval()


def batch(ids, target):
    item_ids, target = torch.tensor(ids), torch.tensor(target)
    return SequenceBatch(item_ids, item_ids > 0, target, torch.arange(len(item_ids)))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_target_stands_behind_the_history():
    ids, mask = extended(batch([[3, 1, 0], [5, 9, 2], [0, 0, 0]], [7, 8, 4]), torch.tensor([7, 8, 4]))
    assert ids.tolist() == [[3, 1, 7, 0], [5, 9, 2, 8], [4, 0, 0, 0]]
    assert torch.equal(mask, ids > 0)


@pytest.mark.parametrize(("ratio", "counts"), [(0.2, [1, 1, 1, 1, 1, 1]), (0.6, [1, 1, 2, 2, 3, 4]), (1, range(1, 7))])
def test_a_share_of_the_items_is_hidden_and_at_least_one(ratio, counts):
    """Python's round, as in the authors' code: 0.6 · 1 to 6 is 0.6 1.2 1.8 2.4 3.0 3.6."""
    mask = torch.arange(6) < torch.arange(1, 7).unsqueeze(1)
    for seed in range(20):
        hidden = model(mask_ratio=ratio, last_only=0.0).hide(mask, generator=seeded(seed))
        assert hidden.sum(dim=1).tolist() == list(counts)
        assert not (hidden & ~mask).any()


def test_every_item_is_hidden_equally_often_and_the_end_sometimes_alone():
    mask = torch.tensor([True, True, True, True, False]).repeat(20_000, 1)
    hidden = model(mask_ratio=0.5, last_only=0.25).hide(mask, generator=seeded())
    counts = Counter(tuple(row.nonzero().flatten().tolist()) for row in hidden)
    tolerance = 5 * math.sqrt(20_000 / 4)
    assert abs(counts.pop((3,)) - 5_000) < tolerance
    assert set(counts) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert max(abs(count - 2_500) for count in counts.values()) < tolerance


def test_hiding_the_end_alone_is_the_task_of_use():
    """Then the loss is the softmax of the score: the token behind the history predicts the target."""
    bert = shaken(last_only=1.0)
    one = batch([[3, 1, 4, 0], [5, 0, 0, 0]], [2, 9])
    scores = bert.score(one, generator=seeded())
    expected = -torch.log_softmax(scores, dim=1).gather(1, one.target[:, None]).mean()
    torch.testing.assert_close(bert.training_loss(one, generator=seeded()).total, expected)


def test_the_loss_is_the_mean_over_the_hidden_items_and_sees_none_of_them():
    """All of two items hidden: two predictions from positions alone, whatever the items are."""
    bert = shaken(mask_ratio=1.0, last_only=0.0)
    states = bert.encoder.encode(bert.mask_vector.expand(1, 2, -1), torch.ones(1, 2, dtype=torch.bool))[0]
    table = bert.encoder.items.table[1:]
    logits = bert.out(states) @ table.T + bert.bias[1:, 0]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([3, 6]) - 1)
    torch.testing.assert_close(bert.training_loss(batch([[3, 0]], [6]), generator=seeded()).total, expected)


def test_it_reads_both_ways():
    """With the first item hidden its prediction depends on what comes after it."""
    bert = shaken()
    hidden, mask = torch.tensor([[True, False, False]]), torch.ones(1, 3, dtype=torch.bool)
    first, second = (bert._states(torch.tensor([[3, 1, other]]), mask, hidden)[0, 0] for other in (4, 5))
    assert (first - second).abs().max() > 1e-3


def test_the_order_of_the_history_matters():
    bert = shaken()
    first, second = (bert.score(batch([ids], [1]), generator=seeded()) for ids in ([3, 1, 4], [1, 3, 4]))
    assert (first - second)[:, 1:].abs().max() > 1e-3


def test_the_bias_of_the_items_is_a_switch():
    assert {name for name, _ in model().named_parameters()} - {
        name for name, _ in model(output_bias=False).named_parameters()
    } == {"bias"}
    bert = shaken()
    with_bias = bert.score(batch([[3, 1, 4]], [1]), generator=seeded())
    with torch.no_grad():
        bert.bias[:, 0] += torch.arange(13.0)
    moved = bert.score(batch([[3, 1, 4]], [1]), generator=seeded())
    torch.testing.assert_close((moved - with_bias)[0, 1:], torch.arange(1.0, 13.0), rtol=1e-4, atol=1e-4)


def test_histories_up_to_the_configured_length_fit_and_no_longer_ones():
    assert model().score(batch([[1] * 6], [2]), generator=seeded()).shape == (1, 13)
    with pytest.raises(ValueError, match="at most 6 items, got 7; raise the model's max_length"):
        model().score(batch([[1] * 7], [2]), generator=seeded())


def test_the_loop_refuses_all_positions(tmp_path):
    data = SequenceData.from_arrays([1, 1, 1], [1, 2, 3], [0, 1, 2], ["train"] * 3, n_items=12)
    config = TrainingConfig(epochs=1, positions="all", device="cpu", max_length=6)
    with pytest.raises(ConfigError, match="'all' needs a causal model"):
        fit(model(), data, config, seed=0, run_dir=tmp_path)
