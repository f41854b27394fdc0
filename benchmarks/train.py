"""Training, evaluation and the head: what they cost for SASRec on data of the shape of Amazon Beauty.

d=64, two layers, two heads, the last 10 items, batches of 2,048 predictions, 12,101 items, 22,363 users with 198,502
interactions (generated, or a file with a line "user item item …" for each user). CPU seconds of one thread, of
training over all positions with this project's loop, and of the same network over one prefix per target with logits in
one piece, as most implementations do it. With ``--recbole PYTHON``, an interpreter that can import RecBole 1.2, the
same epoch of RecBole as it ships is measured in the same run; install it with
``pip install recbole==1.2.1 "numpy<2" "setuptools<81"``.

CPU seconds depend on what else a machine does, through its caches and its other hyper-threads: the load is printed, and
of figures taken at different loads only the ratios within one run can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.evaluation.ranking import evaluate
from models.modules.losses import full_softmax_loss
from models.modules.sequence_encoder import last_state
from models.registry import build
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import fit

USERS, ITEMS, INTERACTIONS = 22_363, 12_101, 198_502
NETWORK = {"d": 64, "layers": 2, "heads": 2, "inner": 256, "dropout": 0.5, "max_length": 10}
BATCH, LENGTH = 2048, 10
HEAD_ITEMS = 122_846

#: Runs one epoch of RecBole's own trainer and prints its CPU seconds; argv: folder, settings, share of the batches.
RECBOLE = """
import itertools, json, sys, time
import numpy as np
for name, kind in (("float_", "float64"), ("bool8", "bool_")):
    if not hasattr(np, name):
        setattr(np, name, getattr(np, kind))
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender.sasrec import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

torch.set_num_threads(1)
settings = json.loads(sys.argv[2]) | {"data_path": sys.argv[1]}
sys.argv = sys.argv[:1] + sys.argv[3:]
share = float(sys.argv.pop())
config = Config(model="SASRec", dataset="beauty", config_dict=settings)
init_seed(2020, True)
dataset = create_dataset(config)
train, valid, test = data_preparation(config, dataset)
model = SASRec(config, train.dataset)
trainer = Trainer(config, model)


class Part:
    def __init__(self, whole, count):
        self.whole, self.count = whole, count

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def __len__(self):
        return self.count

    def __iter__(self):
        return itertools.islice(iter(self.whole), self.count)


steps = max(1, round(share * len(train)))
begin = time.process_time()
trainer._train_epoch(Part(train, steps), 0)
taken = time.process_time() - begin
begin = time.process_time()
figures = trainer.evaluate(valid, load_best_model=False)
print(json.dumps({"epoch": taken * len(train) / steps, "evaluation": time.process_time() - begin,
                  "anomaly": torch.is_anomaly_enabled(), "torch": torch.__version__, "steps": len(train)}))
"""

RECBOLE_SETTINGS = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "hidden_size": 64,
    "inner_size": 256,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.5,
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "train_batch_size": BATCH,
    "eval_batch_size": 256,
    "learning_rate": 1e-3,
    "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
    "metrics": ["Hit", "NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "use_gpu": False,
    "device": "cpu",
    "show_progress": False,
}


def generated() -> list[list[int]]:
    """Histories of at least five items with the size and a long tail like that of Beauty."""
    rng = np.random.default_rng(0)
    lengths = 5 + rng.multinomial(INTERACTIONS - 5 * USERS, (w := rng.pareto(1.5, USERS)) / w.sum())
    popularity = 1 / np.arange(1, ITEMS + 1) ** 0.6
    items = rng.choice(ITEMS, size=INTERACTIONS, p=popularity / popularity.sum()) + 1
    items[:ITEMS] = np.arange(1, ITEMS + 1)  # every item occurs
    rng.shuffle(items)
    return [part.tolist() for part in np.split(items, np.cumsum(lengths)[:-1])]


def read(path: Path) -> list[list[int]]:
    return [[int(word) for word in line.split()[1:]] for line in path.read_text().splitlines() if line.strip()]


def sequence_data(histories: list[list[int]], *, valid: bool = True) -> SequenceData:
    """Leave-one-out; without ``valid`` the training is not interrupted by validations."""
    lengths = np.array([len(history) for history in histories])
    user = np.repeat(np.arange(len(histories)), lengths)
    item = np.concatenate([np.asarray(history) for history in histories])
    position = np.concatenate([np.arange(length) for length in lengths])
    before_end = lengths[user] - 1 - position
    split = np.where(before_end == 0, "test", np.where(before_end == 1, "valid", "train"))
    kept = np.ones(len(split), dtype=bool) if valid else split == "train"
    return SequenceData.from_arrays(user[kept], item[kept], position[kept], split[kept], n_items=int(item.max()))


def head_memory() -> float:
    """Peak extra MB of one forward and backward pass of the loss over 122,846 items; Linux."""
    h = torch.randn(BATCH, 64, requires_grad=True)
    table = torch.randn(HEAD_ITEMS + 1, 64, requires_grad=True)
    target = torch.randint(1, HEAD_ITEMS + 1, (BATCH,))
    full_softmax_loss(h[:2], table[:100], target[:2] % 99 + 1).backward()  # what is loaded once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is resident now
    before = _status("VmRSS")
    full_softmax_loss(h, table, target).backward()
    return (_status("VmHWM") - before) / 1e3


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def network(n_items: int):
    torch.manual_seed(0)
    return build("sasrec", NETWORK, n_items=n_items)


def our_epoch(data: SequenceData) -> float:
    """CPU seconds of one epoch with the project's loop, its start and its checkpoints included."""
    settings = TrainingConfig(epochs=1, batch_size=BATCH, max_length=LENGTH, device="cpu", threads=1, positions="all")
    with tempfile.TemporaryDirectory() as folder:
        model = network(data.n_items)
        begin = time.process_time()
        fit(model, data, settings, seed=0, run_dir=Path(folder))
        return time.process_time() - begin


def plain_epoch(data: SequenceData) -> float:
    """CPU seconds of one epoch of a plain loop: one prefix per target, its last state against the whole table."""
    model = network(data.n_items)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    examples = data.training_examples("last", max_length=LENGTH)
    begin = time.process_time()
    for batch in examples.shuffled(BATCH, max_length=LENGTH, seed=0, epoch=1):
        states = last_state(model.encoder(batch.item_ids, batch.mask), batch.last_position)
        optimiser.zero_grad()
        F.cross_entropy(states @ model.encoder.items.table.T, batch.target).backward()
        optimiser.step()
    return time.process_time() - begin


def evaluation(data: SequenceData) -> float:
    model = network(data.n_items)
    begin = time.process_time()
    evaluate(model, data, "test", max_length=LENGTH)
    return time.process_time() - begin


def recbole_epoch(python: str, histories: list[list[int]], share: float) -> dict[str, float]:
    """What the driver prints."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "beauty" / "beauty.inter"
        path.parent.mkdir()
        rows = [f"{u}\t{i}\t{place}" for u, history in enumerate(histories) for place, i in enumerate(history)]
        path.write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "\n".join(rows) + "\n")
        command = [python, "-W", "ignore", "-c", RECBOLE, folder, json.dumps(RECBOLE_SETTINGS), str(share)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=environment)
        if done.returncode:
            raise SystemExit(f"RecBole failed under {python}:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help='file with a line "user item item …" for each user')
    parser.add_argument("--recbole", metavar="PYTHON", help="interpreter that can import recbole")
    parser.add_argument("--share", type=float, default=1.0, help="of the epoch to measure; scaled to a whole one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    memory = head_memory()
    histories = read(options.data) if options.data else generated()
    whole = sequence_data(histories)
    training = sequence_data(histories[: max(1, round(options.share * len(histories)))], valid=False)
    part = SequenceData(training.items, training.labels, training.offsets, training.users, whole.n_items)
    scale = len(whole.training_examples("last", max_length=LENGTH)) / len(
        part.training_examples("last", max_length=LENGTH)
    )
    print(f"{whole}; torch {torch.__version__}, one thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"head, {HEAD_ITEMS:,} items x {BATCH:,} predictions: {memory:.0f} MB more at the peak")
    print(f"evaluation of {whole.n_users:,} users: {evaluation(whole):.1f} CPU s", flush=True)
    ours, plain = our_epoch(part) * scale, plain_epoch(part) * scale
    print(f"epoch, all positions: {ours:.1f} CPU s")
    print(f"epoch, one prefix per target, plain loop: {plain:.1f} CPU s, {plain / ours:.1f} times as much", flush=True)
    if options.recbole:
        found = recbole_epoch(options.recbole, histories, options.share)
        print(
            f"epoch, RecBole (torch {found['torch']}, anomaly mode {'on' if found['anomaly'] else 'off'}): "
            f"{found['epoch']:.1f} CPU s, {found['epoch'] / ours:.1f} times as much; "
            f"evaluation {found['evaluation']:.1f} CPU s"
        )
    print(f"load at the end {os.getloadavg()[0]:.1f}; epochs measured in part: {options.share:g}")


if __name__ == "__main__":
    main()
