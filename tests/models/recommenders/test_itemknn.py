import math

import pytest
import torch

from models.registry import build
from models.sequences.batch import SequenceBatch
from models.sequences.dataset import SequenceData
from models.training.checkpoint import load_weights, save_checkpoint
from models.training.config import TrainingConfig
from models.training.loop import fit

# Item 1 is read by users 0 1 2, item 2 by 0 1, item 3 by 1 3, item 4 by 3, item 5 by nobody.
ITEMS = torch.tensor([1, 2, 2, 1, 3, 1, 3, 4])
OFFSETS = torch.tensor([0, 2, 5, 6, 8])
S12, S13, S23, S34 = 2 / math.sqrt(6), 1 / math.sqrt(6), 1 / 2, 1 / math.sqrt(2)


def batch(ids, target=1):
    item_ids = torch.tensor(ids)
    rows = len(item_ids)
    return SequenceBatch(item_ids, item_ids > 0, torch.full((rows,), target), torch.arange(rows))


def fitted(**config):
    model = build("itemknn", config, n_items=5)
    model.fit_histories(ITEMS, OFFSETS)
    return model


def scores(model, ids):
    return model.score(batch(ids), generator=torch.Generator()).detach()[:, 1:]


def test_a_score_is_the_sum_of_similarities_to_the_history():
    found = scores(fitted(k=4), [[1, 0], [2, 3], [5, 0], [3, 3]])
    expected = [
        [0, S12, S13, 0, 0],
        [S12 + S13, S23, S23, S34, 0],
        [0, 0, 0, 0, 0],
        [2 * S13, 2 * S23, 0, 2 * S34, 0],
    ]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_only_the_nearest_neighbours_of_the_history_s_items_count():
    """Of item 3 the two nearest are 4 and 2: item 1 gets nothing from it, though 3 is among the two nearest of 1."""
    torch.testing.assert_close(scores(fitted(k=2), [[3]]), torch.tensor([[0, S23, 0, S34, 0]]))
    torch.testing.assert_close(scores(fitted(k=2), [[1]]), torch.tensor([[0, S12, S13, 0, 0]]))


@pytest.mark.parametrize(("recent", "same_as"), [(1, [4]), (2, [2, 4]), (9, [1, 2, 4])])
def test_the_window_reads_the_newest_items(recent, same_as):
    assert torch.equal(scores(fitted(recent=recent), [[1, 2, 4, 0, 0]]), scores(fitted(), [same_as]))


def test_the_loss_is_the_cross_entropy_of_the_scores():
    model = fitted(k=4)
    terms = model.training_loss(batch([[1, 0]], target=2), generator=torch.Generator())
    total = math.exp(S12) + math.exp(S13) + 3
    assert terms.total.item() == pytest.approx(math.log(total) - S12, rel=1e-6)


def test_training_learns_the_scale_and_changes_no_ranking():
    model = fitted(k=4)
    ids = [[1, 0], [2, 3], [3, 3]]
    before = scores(model, ids)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        model.training_loss(batch(ids, target=2), generator=torch.Generator()).total.backward()
        optimiser.step()
    after = scores(model, ids)
    torch.testing.assert_close(after, before * model.log_scale.detach().exp())
    assert model.log_scale > 0.1


def test_the_loop_fits_it_from_training_rows_alone_and_the_checkpoint_holds_it(tmp_path):
    sequences = [[1, 2, 5, 5], [2, 1, 3, 5, 5], [1, 5, 5], [3, 4, 5, 5]]
    rows = [
        (user, item, place, "train" if place < len(sequence) - 2 else "valid" if place == len(sequence) - 2 else "test")
        for user, sequence in enumerate(sequences)
        for place, item in enumerate(sequence)
    ]
    user, item, place, split = zip(*rows, strict=True)
    data = SequenceData.from_arrays(user, item, place, split)
    model = build("itemknn", {"k": 4}, n_items=5)
    result = fit(model, data, TrainingConfig(epochs=0, device="cpu"), seed=0, run_dir=tmp_path / "run")
    assert (result.best_epoch, result.steps) == (0, 0)
    expected = fitted(k=4)
    assert torch.equal(model.neighbours, expected.neighbours)
    assert torch.equal(model.similarity, expected.similarity)
    save_checkpoint(tmp_path / "saved", model, {})
    fresh = build("itemknn", {"k": 4}, n_items=5)
    load_weights(tmp_path / "saved", fresh)
    assert fresh.neighbours.dtype == torch.int32
    assert torch.equal(scores(fresh, [[2, 3]]), scores(expected, [[2, 3]]))
