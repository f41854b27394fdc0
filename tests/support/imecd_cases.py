"""A small IMECD over twelve items, with and without trained weights, and denoisers that know the answer."""

import torch
from histories import batch, seeded
from torch import nn

from models.evaluation.mode import eval_mode
from models.registry import build

N_ITEMS = 12
SMALL = {
    "d": 8,
    "layers_id": 1,
    "heads": 2,
    "experts": 3,
    "codes": 3,
    "steps": 4,
    "dropout": 0.0,
    "max_length": 6,
    "inject": "add",
}


def tables():
    roberta = torch.randn(N_ITEMS + 1, 5, generator=seeded(1))
    vit = torch.randn(N_ITEMS + 1, 7, generator=seeded(2))
    roberta[0] = vit[0] = 0.0
    return {"roberta": roberta, "vit": vit}


def model(**changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("imecd", SMALL | changes, n_items=N_ITEMS, features=tables())


def score(imecd, one=None, seed=0):
    with eval_mode(imecd):
        return imecd.score(one or batch(), generator=seeded(seed))


def loss(imecd, one=None, seed=0):
    return imecd.training_loss(one or batch(), generator=seeded(seed))


def trained(**changes):
    imecd = model(**changes).train()
    optimiser = torch.optim.Adam(imecd.parameters(), lr=0.01)
    for step in range(4):
        optimiser.zero_grad()
        loss(imecd, seed=step).total.backward()
        optimiser.step()
    return imecd


class Constant(nn.Module):
    """A denoiser that knows the answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t, sequence, mask, *, generator):
        return self.answer.expand(x_t.shape[0], -1)


def with_oracles(**changes):
    imecd = model(**changes)
    for number, name in enumerate(imecd.config.modalities):
        imecd.denoisers[name] = Constant(torch.randn(8, generator=seeded(10 + number)))
    return imecd
