"""Small batches of histories, for the tests of recommenders of up to twelve items."""

import torch

from models.sequences.batch import SequenceBatch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(*histories, target=None):
    """Histories with one target each; without arguments five of 1 to 4 items."""
    histories = histories or ([3, 1, 4], [5, 9], [2], [6, 5, 3, 5], [8, 11, 10])
    length = max(len(history) for history in histories)
    item_ids = torch.tensor([[*history, *[0] * (length - len(history))] for history in histories])
    target = target or [7, 2, 7, 12, 1][: len(histories)]
    return SequenceBatch(item_ids, item_ids > 0, torch.tensor(target), torch.arange(len(histories)))


def with_targets(ids, targets):
    """Padded rows of items, with a target behind each of them."""
    item_ids, targets = torch.tensor(ids), torch.tensor(targets)
    mask = item_ids > 0
    last = targets.gather(1, (mask.sum(dim=1, keepdim=True) - 1)).squeeze(1)
    return SequenceBatch(item_ids, mask, last, torch.arange(len(item_ids)), targets)


def loss_of(model, ids, targets, *, last_only=False):
    """Training loss over all positions, or of each row's last one."""
    whole = with_targets(ids, targets)
    if last_only:
        whole = SequenceBatch(whole.item_ids, whole.mask, whole.target, whole.user)
    return model.training_loss(whole, generator=torch.Generator()).total.item()
