"""Train with several processes; the first writes what the test compares with one process.

usage: torchrun --nproc-per-node N shared_run.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from models.distributed import gather_rows, own_rows, workers
from models.errors import TrainingError
from models.evaluation.ranking import evaluate
from models.modules.codebook import SequenceCodebook
from models.modules.contrastive import nt_xent_loss, repulsion_loss
from models.registry import build
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import fit

SETTINGS = {"epochs": 3, "batch_size": 13, "max_length": 6, "threads": 1, "device": "cpu", "learning_rate": 0.003}
MODEL = {"d": 8, "layers": 1, "inner": 16, "dropout": 0.0, "max_length": 6}


def small_data():
    """25 users with 4 to 9 items each, the last two of them for validation and test."""
    rows = []
    for user in range(25):
        length = 4 + user % 6
        for place in range(length):
            item = 1 + (3 * user + place * (1 + user % 2)) % 15
            rows.append((user, item, place, ("test", "valid", "train")[min(length - 1 - place, 2)]))
    return SequenceData.from_arrays(*zip(*rows, strict=True), n_items=15)


def small_model(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("sasrec", MODEL | changes, n_items=15)


def train(folder, *, positions="all"):
    """The same training in any number of processes; a lone caller gives the reference."""
    model = small_model(seed=dist.get_rank() if dist.is_initialized() else 0)  # the first process's weights count
    result = fit(model, small_data(), TrainingConfig(**SETTINGS, positions=positions), seed=5, run_dir=folder)
    return model, result


class Breaking(nn.Module):
    """Its loss is not a number as soon as a batch holds user 7."""

    causal = True
    n_items = 15

    def __init__(self):
        super().__init__()
        self.inner = small_model()

    def training_loss(self, batch, *, generator):
        terms = self.inner.training_loss(batch, generator=generator)
        return type(terms)(terms.total * (float("nan") if 7 in batch.user.tolist() else 1.0))

    def score(self, batch, *, generator):
        return self.inner.score(batch, generator=generator)


def contrastive(x, weight):
    """InfoNCE of the own rows against all rows."""
    rows = F.normalize(x @ weight, dim=1)
    everyone = gather_rows(rows)
    own = own_rows(rows)
    labels = torch.arange(own.start, own.stop)
    return F.cross_entropy(rows @ everyone.T / 0.1, labels)


def contrastive_gradient(rank, world):
    """Of seven rows, shared out so that the processes hold different numbers of them."""
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(7, 5, generator=generator), torch.randn(5, 4, generator=generator).requires_grad_()
    mine = x[rank::world]
    (contrastive(mine, weight) * len(mine) / len(x)).backward()
    return workers().total(weight.grad)


def between_rows(rank, world):
    """Gradients of the losses between the rows of a batch, and the codes that a batch moves, of seven rows."""
    generator = torch.Generator().manual_seed(2)
    x, weight = torch.randn(7, 5, generator=generator), torch.randn(5, 4, generator=generator).requires_grad_()
    labels = torch.tensor([1, 2, 1, 3, 4, 2, 5])
    mine, same = (x @ weight)[rank::world], labels[rank::world]
    share = len(mine) / len(x)
    losses = [
        repulsion_loss(mine, temperature=0.3, same=same),
        repulsion_loss(mine, temperature=0.3, exclude_self=True),
        nt_xent_loss(mine, mine.flip(1) + 0.1, temperature=0.5, same=same),
        nt_xent_loss(mine, mine.flip(1) + 0.1, cosine=True),
    ]
    found = [workers().total(torch.autograd.grad(loss * share, weight, retain_graph=True)[0]) for loss in losses]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        book = SequenceCodebook(3, 2, 4, patience=2)
    book.codes.normal_(generator=generator)
    sequence = torch.randn(7, 3, 2, generator=generator)
    mask = torch.arange(3) >= (torch.arange(7) % 3).unsqueeze(1)
    chosen = torch.tensor([0, 2, 2, 0, 1, 2, 0])
    for _ in range(2):  # the second revives code 3 from a row of the first process
        book.update(sequence[rank::world], mask[rank::world], chosen[rank::world], generator=generator)
    seeds = (sequence * mask.unsqueeze(-1))[::2].tolist()  # what the first of two processes may revive a code from
    return [gradient.tolist() for gradient in found], book.codes.tolist(), book.filled.tolist(), seeds


def main(folder):
    dist.init_process_group("gloo")
    group = workers()
    for positions in ("all", "last"):
        model, result = train(folder / positions, positions=positions)
        if group.first:
            torch.save(model.state_dict(), folder / f"{positions}.pt")
            (folder / f"{positions}.json").write_text(json.dumps(result.rows))
    table = evaluate(model, small_data(), "test", max_length=6, batch_size=4, workers=group)
    try:
        fit(Breaking(), small_data(), TrainingConfig(**SETTINGS), seed=5, run_dir=folder / "breaking")
    except TrainingError as error:
        message = str(error)
    gradient = contrastive_gradient(group.rank, group.world)
    between, codes, filled, _ = between_rows(group.rank, group.world)
    ragged = group.gather(torch.arange(2 * group.rank + 1))
    (folder / f"seen_by_{group.rank}.json").write_text(
        json.dumps(
            {
                "rank": table.rank.tolist(),
                "user": table.user.tolist(),
                "message": message,
                "gradient": gradient.tolist(),
                "ragged": ragged.tolist(),
                "between": between,
                "codes": codes,
                "filled": filled,
                "best": result.best_value,
                "weights": sum(float(value.double().sum()) for value in model.state_dict().values()),
            }
        )
    )
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
