"""Overrides, merging and the TOML writer."""

import tomllib

import pytest

from flows import config
from flows.errors import CallError


def test_overrides_are_read_as_toml_where_they_are_toml_and_as_text_otherwise():
    given = [
        "seed=3",
        "training.learning_rate=1e-3",
        "source=../a=b",
        "flag=true",
        'names=["a", "b"]',
        "checkpoint=tiny",
    ]
    assert config.parse_overrides(given) == {
        "seed": 3,
        "training.learning_rate": 0.001,
        "source": "../a=b",
        "flag": True,
        "names": ["a", "b"],
        "checkpoint": "tiny",
    }


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["seed"], "expected key=value, got 'seed'"),
        (["a=1", "a=2"], "a is given twice"),
        (["=1"], "expected key=value"),
    ],
)
def test_malformed_overrides_are_refused(pairs, message):
    with pytest.raises(CallError, match=message):
        config.parse_overrides(pairs)


def test_merge_changes_neither_argument_and_reaches_into_tables():
    base = {"seed": 0, "training": {"epochs": 5, "batch_size": 8}}
    merged = config.merge(base, {"training.epochs": 7, "parameters.d": 16})
    assert merged == {"seed": 0, "training": {"epochs": 7, "batch_size": 8}, "parameters": {"d": 16}}
    assert base == {"seed": 0, "training": {"epochs": 5, "batch_size": 8}}


def test_merge_refuses_to_turn_a_value_into_a_table():
    with pytest.raises(CallError, match="seed holds the value 0, not a table"):
        config.merge({"seed": 0}, {"seed.inner": 1})


def test_written_toml_reads_back_equal():
    values = {
        "dataset": 'quo"te\\back\nline',
        "seed": 3,
        "rate": 1e-05,
        "flag": False,
        "parameters": {"layers": [1, 2], "name": "x", "inner": {"T": 5}},
        "stores": {},
    }
    assert tomllib.loads(config.dump_toml(values)) == values


def test_a_missing_file_names_the_near_one(tmp_path):
    (tmp_path / "mealrec-synthetic.toml").write_text("")
    with pytest.raises(CallError, match=r"did you mean 'mealrec-synthetic\.toml'\?"):
        config.read_toml(tmp_path / "mealrec-sinthetic.toml", what="experiment")


def test_invalid_toml_names_the_line(tmp_path):
    (tmp_path / "x.toml").write_text("a = 1\nb = = 2\n")
    with pytest.raises(CallError, match=r"x\.toml: not valid TOML: .*line 2"):
        config.read_toml(tmp_path / "x.toml", what="experiment")


EXPERIMENT = 'dataset = "synthetic"\nmodel = "mealrec"\n[training]\nepochs = 3\n'


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"sede": 1}, "sede: unknown key .*did you mean 'seed'"),
        ({"training.epoch": 1}, "training: epoch: unknown key .*did you mean 'epochs'"),
        ({"parameters.use_tdc": True}, "parameters: use_tdc: unknown key .*did you mean 'use_tcd'"),
        ({"model": "mealrek"}, "no model named 'mealrek'; did you mean 'mealrec'"),
        ({"seed": -1}, "seed: .*greater than or equal to 0.*got -1"),
    ],
)
def test_an_experiment_refuses_what_it_does_not_know_and_names_the_near_key(tmp_path, override, message):
    path = tmp_path / "mealrec-x.toml"
    path.write_text(EXPERIMENT)
    with pytest.raises((ValueError, LookupError), match=message) as caught:
        config.load_experiment(path, override)
    assert type(caught.value).usage is True


def test_the_resolved_experiment_holds_every_default(tmp_path):
    path = tmp_path / "mealrec-x.toml"
    path.write_text(EXPERIMENT)
    resolved = config.load_experiment(path, {"training.batch_size": 64})
    assert resolved.training["epochs"] == 3
    assert resolved.training["batch_size"] == 64
    assert {"learning_rate", "patience"} <= set(resolved.training)
    assert "use_tcd" in resolved.parameters
