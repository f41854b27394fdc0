import json

import polars as pl
import pytest
import torch
from torch import nn

from models.config import parse_strict
from models.errors import ConfigError, TrainingError
from models.interface import LossTerms
from models.registry import build
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import choose_positions, fit
from models.training.runtime import choose_device, open_runtime


class Scripted(nn.Module):
    """Ranks the target of user u first in the epochs of ``good``; its one weight counts the epochs."""

    causal = True

    def __init__(self, n_items, *, good=(), losses=None):
        super().__init__()
        self.n_items, self.good, self.losses = n_items, set(good), losses or {}
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.steps, self.batches, self.epoch, self.modes = 0, [], 0, []

    def training_loss(self, batch, *, generator):
        self.steps += 1
        self.batches.append(batch)
        self.modes.append(self.training)
        value = self.losses.get(self.steps, 1.0)
        total = self.weight.sum() * 0.0 + value
        return LossTerms(total=total + self.weight.sum(), parts={"scripted": torch.tensor(value)})

    def score(self, batch, *, generator):
        self.modes.append(self.training)
        scores = torch.zeros(len(batch), self.n_items + 1)
        if self.steps in self.good:
            scores.scatter_(1, batch.target[:, None], 1.0)
        return scores


def cyclic_data(users=12, n_items=12, length=6, *, valid=True):
    """User u reads u, u + 1, u + 2, … around a circle of items."""
    last = {length - 1: "test"} | ({length - 2: "valid"} if valid else {})
    rows = [
        (user, 1 + (user + place) % n_items, place, last.get(place, "train"))
        for user in range(users)
        for place in range(length)
    ]
    return SequenceData.from_arrays(*zip(*rows, strict=True), n_items=n_items)


ONE_STEP = {"batch_size": 1000, "device": "cpu", "max_length": 5, "threads": 1}


def test_the_best_epoch_is_kept_and_patience_ends_the_run(tmp_path):
    model = Scripted(12, good={2})
    result = fit(model, cyclic_data(), TrainingConfig(**ONE_STEP, epochs=50, patience=3), seed=0, run_dir=tmp_path)
    assert (result.best_epoch, result.best_value, result.epochs, result.stopped_early) == (2, 1.0, 5, True)
    # Adam moves a weight with a constant gradient by the learning rate in every step.
    assert model.weight.item() == pytest.approx(-2 * 1e-3, rel=1e-3)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["valid"]["hr@10"] for row in rows] == [0.0, 1.0, 0.0, 0.0, 0.0]
    assert rows[0]["parts"] == {"scripted": 1.0}
    assert rows == result.rows


def test_validation_as_often_as_asked_and_after_the_last_epoch(tmp_path):
    config = TrainingConfig(**ONE_STEP, epochs=5, eval_every=2, patience=0)
    result = fit(Scripted(12), cyclic_data(), config, seed=0, run_dir=tmp_path)
    assert [row["epoch"] for row in result.rows if "valid" in row] == [2, 4, 5]


def test_training_reads_no_test_row(tmp_path):
    data = cyclic_data()
    model = Scripted(12)
    fit(model, data, TrainingConfig(**ONE_STEP, epochs=1), seed=0, run_dir=tmp_path)
    (batch,) = model.batches
    for user, ids, targets in zip(batch.user, batch.item_ids, batch.targets, strict=True):
        rows = slice(data.offsets[user], data.offsets[user] + 4)  # the four training rows of six
        assert [ids[0].item(), *targets[targets > 0].tolist()] == data.items[rows].tolist()


def test_the_loop_trains_in_training_mode_and_leaves_the_model_as_it_was(tmp_path):
    model = Scripted(12).eval()
    model.dropout.train()
    fit(model, cyclic_data(), TrainingConfig(**ONE_STEP, epochs=2), seed=0, run_dir=tmp_path)
    assert model.modes == [True, False, True, False]
    assert (model.training, model.dropout.training) == (False, True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_place_and_parts(tmp_path, bad):
    config = TrainingConfig(**ONE_STEP | {"batch_size": 3}, epochs=3)  # one sequence of three targets a step
    with pytest.raises(TrainingError, match=f"epoch 2, step 4: loss={bad:g}, scripted={bad:g}; try a lower"):
        fit(Scripted(12, losses={16: bad}), cyclic_data(), config, seed=0, run_dir=tmp_path)
    last = torch.load(tmp_path / "checkpoints" / "last" / "state.pt", weights_only=True)
    assert last["counters"]["epoch"] == 2  # what was saved is from before


@pytest.mark.parametrize("positions", ["all", "last"])
def test_the_batch_of_a_loss_that_is_not_finite_is_saved(tmp_path, positions):
    """The losses are looked at after the epoch; the batch is that of the step that went wrong."""
    model = Scripted(12, losses={16: float("nan")} if positions == "all" else {31: float("nan")})
    config = TrainingConfig(**ONE_STEP | {"batch_size": 3}, epochs=3, positions=positions)
    with pytest.raises(TrainingError, match=f"the batch is in {tmp_path}/failed_batch.parquet"):
        fit(model, cyclic_data(), config, seed=0, run_dir=tmp_path)
    culprit = model.batches[15 if positions == "all" else 30]
    saved = pl.read_parquet(tmp_path / "failed_batch.parquet")
    assert saved.columns == ["epoch", "step", "user", "item_ids", "targets", "loss", "scripted"]
    place = (2, 4) if positions == "all" else (3, 7)
    assert (saved["epoch"][0], saved["step"][0]) == place
    assert saved["user"].to_list() == culprit.user.tolist()
    unpadded = [row[row > 0].tolist() for row in culprit.item_ids]
    assert saved["item_ids"].to_list() == unpadded
    wanted = culprit.targets if positions == "all" else culprit.target[:, None]
    assert saved["targets"].to_list() == [row[row > 0].tolist() for row in wanted]
    assert saved["loss"].is_nan().all()


def test_the_schedule_and_the_optimiser_reach_the_weights(tmp_path):
    """One step an epoch, gradient 1: Adam moves by the rate of the step, 1/4, 2/4, 3/4 and 4/4 of 0.1 and then half."""
    model = Scripted(12, good={5})
    settings = {"schedule": "step", "warmup_steps": 4, "schedule_steps": 1, "decay": 0.5, "learning_rate": 0.1}
    fit(model, cyclic_data(), TrainingConfig(**ONE_STEP, epochs=6, patience=0, **settings), seed=0, run_dir=tmp_path)
    assert model.weight.item() == pytest.approx(-0.1 * (0.25 + 0.5 + 0.75 + 1 + 1), rel=1e-4)  # epoch 5 is the best


def test_recall_may_choose_the_epoch(tmp_path):
    config = TrainingConfig(**ONE_STEP, epochs=3, select="recall@10")
    result = fit(Scripted(12, good={2}), cyclic_data(), config, seed=0, run_dir=tmp_path)
    assert (result.best_epoch, result.best_value) == (2, 1.0)


# Torch hides this warning of its own where warnings are printed, not where they are errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_a_compiled_loss_gives_the_same_weights_and_leaves_the_model_uncompiled(tmp_path, monkeypatch):
    """With a backend that runs the captured graphs as they are; it counts them."""
    graphs, compile_function = [], torch.compile

    def capture(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function: compile_function(function, backend=capture))
    weights = []
    for compiled in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = build("sasrec", {"d": 8, "layers": 1, "inner": 16, "max_length": 5, "dropout": 0.0}, n_items=12)
        config = TrainingConfig(**ONE_STEP, epochs=2, compile=compiled)
        fit(model, cyclic_data(), config, seed=0, run_dir=tmp_path / str(compiled))
        weights.append(model.state_dict())
    assert graphs
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-5, atol=1e-6)
    assert model.training_loss.__self__ is model


def test_a_batch_holds_as_many_predictions_in_both_modes(tmp_path):
    for positions, sequences in (("all", 4), ("last", 12)):
        model = Scripted(12)
        config = TrainingConfig(**ONE_STEP | {"batch_size": 12}, epochs=1, positions=positions)
        result = fit(model, cyclic_data(), config, seed=0, run_dir=tmp_path / positions)
        assert (result.steps, {len(batch) for batch in model.batches}) == (3, {sequences})
        assert all((batch.targets is not None) == (positions == "all") for batch in model.batches)


def test_all_positions_are_refused_for_models_that_are_not_causal():
    assert choose_positions(TrainingConfig(), causal=True) == "all"
    assert choose_positions(TrainingConfig(), causal=False) == "last"
    assert choose_positions(TrainingConfig(positions="last"), causal=True) == "last"
    with pytest.raises(ConfigError, match="needs a causal model"):
        choose_positions(TrainingConfig(positions="all"), causal=False)


def test_without_validation_rows_the_last_epoch_is_kept(tmp_path):
    model = Scripted(12)
    config = TrainingConfig(**ONE_STEP, epochs=3, patience=1)
    result = fit(model, cyclic_data(valid=False), config, seed=0, run_dir=tmp_path)
    assert (result.best_epoch, result.best_value, result.stopped_early) == (3, None, False)
    assert model.weight.item() == pytest.approx(-3e-3, rel=1e-3)


def test_gradients_are_clipped_by_their_whole_norm(tmp_path):
    model = Scripted(12, losses={1: 1.0})
    seen = []
    model.weight.register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad.item()))
    fit(model, cyclic_data(), TrainingConfig(**ONE_STEP, epochs=1, grad_clip=0.25), seed=0, run_dir=tmp_path)
    assert seen == [1.0]
    state = torch.load(tmp_path / "checkpoints" / "last" / "state.pt", weights_only=True)["optimiser"]["state"][0]
    assert state["exp_avg"].item() == pytest.approx(0.1 * 0.25, rel=1e-4)  # Adam's first moment: (1 - 0.9) * gradient


def test_popularity_is_ready_without_an_epoch(tmp_path):
    data = cyclic_data()
    model = build("popularity", None, n_items=12)
    result = fit(model, data, TrainingConfig(**ONE_STEP, epochs=0), seed=0, run_dir=tmp_path)
    assert (result.best_epoch, result.epochs, [row["epoch"] for row in result.rows]) == (0, 0, [0])
    assert torch.equal(model.log_count.exp().round()[1:, 0].long(), data.item_counts()[1:] + 1)


def test_progress_goes_from_the_start_to_the_end_of_every_epoch(tmp_path):
    calls = []
    config = TrainingConfig(**ONE_STEP | {"batch_size": 9}, epochs=2)
    fit(Scripted(12), cyclic_data(), config, seed=0, run_dir=tmp_path, progress=lambda *call: calls.append(call))
    evaluation = ("evaluate valid", 12, 12)
    assert calls == [("epoch 1", 0, 4), ("epoch 1", 4, 4), evaluation, ("epoch 2", 0, 4), ("epoch 2", 4, 4), evaluation]


@pytest.mark.parametrize("positions", ["all", "last"])
def test_sasrec_learns_a_deterministic_pattern(tmp_path, positions):
    """The next item is the successor on a circle; chance is HR@1 = 1/20."""
    data = cyclic_data(users=60, n_items=20, length=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parameters = {"d": 16, "layers": 1, "inner": 32, "dropout": 0.1, "max_length": 8}
        model = build("sasrec", parameters, n_items=20)
    config = TrainingConfig(epochs=25, batch_size=64, max_length=8, learning_rate=0.01, cutoffs=(1, 10), threads=1,
                            device="cpu", positions=positions)  # fmt: skip
    result = fit(model, data, config, seed=0, run_dir=tmp_path)
    assert result.rows[-1]["valid"]["hr@1"] > 0.95
    assert result.rows[-1]["loss"] < 0.5 < result.rows[0]["loss"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "epoch: unknown key .*did you mean 'epochs'"),
        ({"select": "ndcg@50"}, "'ndcg@50' needs 50 among the cutoffs"),
        ({"select": "auc"}, "expected hr@K"),
        ({"cutoffs": [0, 10]}, "expected 1 or more, got 0"),
        ({"learning_rate": float("inf")}, "learning_rate: .*finite"),
        ({"learning_rate": 1e38}, "learning_rate: .*less than or equal to 1"),
        ({"batch_size": 0}, "batch_size: .*greater than or equal to 1"),
        ({"device": "tpu"}, "device: .*pattern"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ConfigError, match=f"x.toml: .*{message}"):
        parse_strict(TrainingConfig, values, where="x.toml")


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ConfigError, match="finds no CUDA device here"):
        choose_device("cuda:1")


def test_the_runtime_is_put_back():
    before = (torch.get_num_threads(), torch.get_float32_matmul_precision())
    with open_runtime(TrainingConfig(threads=before[0] + 1, precision="tf32", device="cpu")):
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0] + 1, "high")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before


def test_bfloat16_trains_and_keeps_float32_weights(tmp_path):
    model = build("sasrec", {"d": 8, "layers": 1, "inner": 16, "max_length": 5}, n_items=12)
    config = TrainingConfig(**ONE_STEP, epochs=1, precision="bfloat16")
    result = fit(model, cyclic_data(), config, seed=0, run_dir=tmp_path)
    assert 0 < result.rows[0]["loss"] < 10
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
