"""TensorBoard and MLflow hold what is in ``metrics.jsonl``; their failures are not the training's."""

import json
import sys

import pytest
import small_lab
import torch
from mlflow import MlflowClient
from small_lab import command, experiment, make_lab
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flows.errors import CallError
from flows.jobs import sinks
from flows.jobs.sinks import open_sinks
from flows.settings import Settings
from models.registry import build
from models.sequences.dataset import SequenceData
from models.training.config import TrainingConfig
from models.training.loop import fit

RUN = "sasrec-small-s5-0123abcd"
CONFIG = {"model": "sasrec", "seed": 5, "parameters": {"d": 8, "loss": "full"}, "training": {"cutoffs": [5, 10]}}


class Stop(Exception):
    pass


def small_data():
    """12 users who read 6 items each."""
    rows = [
        (user, 1 + (user + place) % 12, place, {4: "valid", 5: "test"}.get(place, "train"))
        for user in range(12)
        for place in range(6)
    ]
    return SequenceData.from_arrays(*zip(*rows, strict=True), n_items=12)


def train(settings, names, *, stop_after=None, epochs=4):
    """Train with sinks; returns the rows of the log."""
    training = TrainingConfig(epochs=epochs, batch_size=16, eval_every=2, max_length=4, threads=1, device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("sasrec", {"d": 8, "layers": 1, "inner": 16, "max_length": 4}, n_items=12)
    folder = settings.runs / RUN
    with open_sinks(names, settings, run_id=RUN, config=CONFIG) as tell:

        def on_epoch(row):
            tell(row)
            if row["epoch"] == stop_after:
                raise Stop

        fit(model, small_data(), training, seed=5, run_dir=folder, on_epoch=on_epoch)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A training that was broken off after its third epoch and went on, with both sinks; settings and log."""
    settings = Settings(root=tmp_path_factory.mktemp("sinks"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(Stop):
            train(settings, ["tensorboard", "mlflow"], stop_after=3)
        status = mlflow_run(settings).info.status
        rows = train(settings, ["tensorboard", "mlflow"])
    return settings, rows, status


def client_of(settings):
    return MlflowClient(tracking_uri=f"sqlite:///{settings.root / 'mlflow' / 'mlflow.db'}")


def mlflow_run(settings):
    """The only MLflow run there is."""
    client = client_of(settings)
    experiment = client.get_experiment_by_name("reelstore")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def series(rows):
    """``{"valid/hr@10": [(2, …), (4, …)]}``: step and value of each figure, read from the log."""
    found = {}
    for row in rows:
        for name in ("steps", "seconds", "eval_seconds", "loss"):
            found.setdefault(name, []).append((row["epoch"], row[name]))
        for table in ("parts", "valid", "valid_masked"):
            for name, value in row.get(table, {}).items():
                found.setdefault(f"{table}/{name}", []).append((row["epoch"], value))
    return found


def test_the_log_is_worth_comparing(interrupted):
    _, rows, _ = interrupted
    expected = series(rows)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [epoch for epoch, _ in expected["valid/ndcg@10"]] == [2, 4]
    assert len({value for _, value in expected["loss"]}) == 4


def test_tensorboard_holds_every_figure_of_every_epoch_once(interrupted):
    settings, rows, _ = interrupted
    events = EventAccumulator(str(settings.root / "tensorboard" / RUN), size_guidance={"tensors": 0})
    events.Reload()
    found = {
        tag: [(event.step, event.tensor_proto.double_val[0]) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }
    assert found == series(rows)
    assert {events.SummaryMetadata(tag).plugin_data.plugin_name for tag in found} == {"scalars"}


def test_mlflow_holds_every_figure_of_every_epoch_once(interrupted):
    settings, rows, status = interrupted
    run, client = mlflow_run(settings), client_of(settings)
    expected = {name.replace("@", "_at_"): values for name, values in series(rows).items()}
    assert run.data.metrics.keys() == expected.keys()
    for name, values in expected.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted((metric.step, metric.value) for metric in history) == values
    assert (status, run.info.status) == ("FAILED", "FINISHED")


def test_mlflow_holds_the_configuration_and_the_run_id(interrupted):
    run = mlflow_run(interrupted[0])
    assert run.data.params == {
        "model": "sasrec", "seed": "5", "parameters.d": "8", "parameters.loss": "full", "training.cutoffs": "[5, 10]"
    }  # fmt: skip
    assert run.data.tags["reelstore.run_id"] == run.info.run_name == RUN


def test_the_tracking_server_of_the_environment_is_used(interrupted, tmp_path, monkeypatch):
    database = tmp_path / "elsewhere.db"
    database.write_bytes((interrupted[0].root / "mlflow" / "mlflow.db").read_bytes())  # its tables take seconds to make
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    settings = Settings(root=tmp_path)
    rows = train(settings, ["mlflow"], epochs=1)
    assert not (tmp_path / "mlflow").exists()
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs([client.get_experiment_by_name("another").experiment_id])
    assert run.data.metrics["loss"] == rows[0]["loss"]


def test_a_sink_that_cannot_be_opened_is_dropped_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "tensorboard").write_text("a file where a folder has to be")
    plain = train(Settings(root=tmp_path / "plain"), [])
    rows = train(Settings(root=tmp_path), ["tensorboard", "mlflow"])
    assert [row["loss"] for row in rows] == [row["loss"] for row in plain]
    warnings = [record.getMessage() for record in caplog.records if record.name == sinks.__name__]
    assert [warning.split(":")[0] for warning in warnings] == ["sink tensorboard", "sink mlflow"]
    assert all(warning.endswith("; the training goes on without it") for warning in warnings)


FRAGILE = """
PACKAGE = "json"
TOLD = []


class Fragile:
    def epoch(self, number, scalars):
        TOLD.append(number)
        if number == 2:
            raise OSError("no space left")

    def close(self, *, failed):
        TOLD.append("closed")


def open_sink(settings, *, run_id, config):
    return Fragile()
"""


def test_a_sink_that_fails_on_the_way_is_dropped_and_the_others_stay(tmp_path, monkeypatch, caplog):
    for name, text in {"fragile": FRAGILE, "sturdy": FRAGILE.replace("number == 2", "False")}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sinks, "__path__", [*sinks.__path__, str(tmp_path)])
    assert sinks.names() == ["fragile", "mlflow", "sturdy", "tensorboard"]
    assert len(train(Settings(root=tmp_path), ["fragile", "sturdy"])) == 4
    told = {name: sys.modules.pop(f"flows.jobs.sinks.{name}").TOLD for name in ("fragile", "sturdy")}
    assert told == {"fragile": [1, 2], "sturdy": [1, 2, 3, 4, "closed"]}
    (warning,) = [record.getMessage() for record in caplog.records if record.name == sinks.__name__]
    assert warning == "sink fragile: OSError: no space left; the training goes on without it"


def test_a_run_that_had_been_finished_leaves_no_trace(tmp_path):
    with open_sinks(["tensorboard", "mlflow"], Settings(root=tmp_path), run_id=RUN, config=CONFIG):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sink", ["tensorboard", "mlflow"])
def test_a_package_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch, sink):
    monkeypatch.setitem(sys.modules, sink, None)
    with (
        pytest.raises(CallError, match=rf"sink {sink} needs the package {sink}: pip install 'reelstore\[tracking\]'"),
        open_sinks([sink], Settings(root=tmp_path), run_id=RUN, config=CONFIG),
    ):
        pass


def test_an_unknown_sink_is_named_with_the_near_one(tmp_path):
    with (
        pytest.raises(CallError, match=r"no sink 'tensorbord'; did you mean 'tensorboard'\?"),
        open_sinks(["tensorbord"], Settings(root=tmp_path), run_id=RUN, config=CONFIG),
    ):
        pass


def test_the_command_tells_a_sink_of_what_it_trains_and_of_nothing_else(tmp_path, capsys):
    root = tmp_path / "data"
    make_lab(root)
    run_id = small_lab.train(root, capsys, "sasrec", "--sink", "tensorboard")["run_id"]
    (written,) = (root / "tensorboard" / run_id).iterdir()
    assert small_lab.train(root, capsys, "sasrec", "--sink", "tensorboard")["fresh"] is False
    assert list((root / "tensorboard" / run_id).iterdir()) == [written]
    code, _, told = command(root, capsys, "train", experiment(root, "sasrec"), "--sink", "tensorbord")
    assert code == 2
    assert "did you mean 'tensorboard'" in told
