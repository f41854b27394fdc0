"""A small MealRec, with features and histories, for its tests."""

import pytest
import torch
from torch import nn

from models.registry import build
from models.sequences.batch import SequenceBatch

N_ITEMS, WIDTH = 12, 8
SMALL = {"d": 8, "layers": 1, "inner": 16, "dropout": 0.0, "unet_channels": 16, "max_length": 6}

#: Two users whose last item is the same, and a third.
HISTORIES = [[3, 1, 4, 0], [5, 9, 2, 4], [7, 4, 8, 0]]

every_backbone = pytest.mark.parametrize("backbone", ["sasrec", "cl4srec", "tedrec"])


def features(*, frames=5):
    def table(*shape, seed):
        values = torch.randn(N_ITEMS + 1, *shape, generator=torch.Generator().manual_seed(seed))
        values[[0, N_ITEMS]] = 0.0  # padding, and an item without content
        return values

    return {
        "videomae.frames": table(frames, WIDTH, seed=1),
        "videomae": table(WIDTH, seed=2),
        "bert": table(6, seed=3),
    }


def model(*, tables=None, **switches):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("mealrec", {**SMALL, **switches}, n_items=N_ITEMS, features=tables or features())


def loud(**switches):
    """Weights that are far from their small start, so that no path is hidden by it."""
    made = model(**switches).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.4, generator=generator)
        made.backbone.items.weight[0] = 0.0
    return made


def batch(histories=HISTORIES, *, target=6):
    item_ids = torch.tensor(histories)
    rows = len(histories)
    return SequenceBatch(item_ids, item_ids > 0, torch.full((rows,), target), torch.arange(rows))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def scores(mealrec, histories=HISTORIES, *, seed=0):
    with torch.no_grad():
        return mealrec.score(batch(histories), generator=seeded(seed))[:, 1:]


def loss(mealrec, *, seed=0):
    return mealrec.training_loss(batch(), generator=seeded(seed))


def gradient(mealrec, *, seed=0):
    mealrec.zero_grad()
    loss(mealrec, seed=seed).total.backward()
    return {name: value.grad for name, value in mealrec.named_parameters() if value.grad is not None}


def steps_seen(mealrec, monkeypatch):
    """A set that fills with the steps that the U-Net is told from now on."""
    seen, given = set(), mealrec.content.unet.given

    def told(*args, **kwargs):
        denoise = given(*args, **kwargs)
        return lambda frames, t: (seen.update(t.tolist()), denoise(frames, t))[1]

    monkeypatch.setattr(mealrec.content.unet, "given", told)
    return seen


class Replaced(nn.Module):
    """A denoiser that returns what it was given at construction and remembers the states that it saw."""

    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer
        self.states = []

    def given(self, frames, text):
        return lambda x_t: self(x_t, frames, text)

    def forward(self, x_t, frames, text):
        self.states.append(x_t)
        return torch.full_like(x_t, 0.1) if self.answer is None else self.answer
