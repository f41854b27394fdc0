import torch

from models.registry import build
from models.sequences.batch import SequenceBatch

COUNTS = torch.tensor([0, 5, 0, 9, 5])


def batch(targets):
    target = torch.tensor(targets)
    ids = torch.ones(len(target), 1, dtype=torch.int64)
    return SequenceBatch(ids, ids > 0, target, torch.arange(len(target)))


def fitted():
    model = build("popularity", None, n_items=4)
    model.fit_counts(COUNTS)
    return model


def test_the_most_frequent_come_first_and_equals_by_id():
    top = fitted().recommend(batch([1, 2]), k=4, exclude=None, generator=torch.Generator())
    assert top.items.tolist() == [[3, 1, 4, 2]] * 2


def test_what_was_seen_is_left_out():
    top = fitted().recommend(batch([1]), k=2, exclude=torch.tensor([[3, 0, 4]]), generator=torch.Generator())
    assert top.items.tolist() == [[1, 2]]


def test_the_counts_are_the_optimum_of_the_loss():
    """On targets that occur as often as counted (plus one) the gradient vanishes, and any step makes the loss worse."""
    model = fitted()
    targets = batch([item for item, count in enumerate(COUNTS.tolist()) for _ in range(count + 1) if item])
    best = model.training_loss(targets, generator=torch.Generator()).total
    (gradient,) = torch.autograd.grad(best, [model.log_count])
    assert gradient.abs().max() < 1e-7
    probabilities = (COUNTS[1:] + 1) / (COUNTS[1:] + 1).sum()
    assert torch.allclose(best, -(probabilities * probabilities.log()).sum())
    with torch.no_grad():
        model.log_count[1] += 0.1
    assert model.training_loss(targets, generator=torch.Generator()).total > best
