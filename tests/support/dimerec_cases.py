"""A small DimeRec over twelve items, and a denoiser with a fixed answer."""

import torch
from denoisers import Conditioned
from histories import batch, seeded

from models.evaluation.mode import eval_mode
from models.registry import build

N_ITEMS = 12
SMALL = {"d": 8, "hidden": 16, "steps": 5, "dropout": 0.0, "max_length": 6, "inner": 16, "embedding_std": 0.5}


def model(n_items=N_ITEMS, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("dimerec", SMALL | changes, n_items=n_items)


def score(dimerec, one=None, seed=0):
    with eval_mode(dimerec):
        return dimerec.score(one or batch(), generator=seeded(seed))


def vectors(dimerec, seed=0):
    with eval_mode(dimerec):
        return dimerec.user_vectors(batch(), generator=seeded(seed))


def loss(dimerec, one=None, seed=0):
    return dimerec.training_loss(one or batch(), generator=seeded(seed))


class Spy(Conditioned):
    """A denoiser with a fixed answer that remembers what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.seen = []

    def forward(self, x_t, t, interests):
        self.seen.append((x_t, t))
        return self.answer


def gradient_size(module):
    gradients = [value.grad for value in module.parameters() if value.grad is not None]
    return max((float(gradient.abs().max()) for gradient in gradients), default=0.0)
