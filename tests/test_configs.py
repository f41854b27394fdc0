"""Every configuration file in the repository is read by the class that it is for."""

import re
from pathlib import Path

import pytest

from datasets_spec import registry as datasets
from datasets_spec.spec import PrepareConfig
from extractors import registry as encoders
from feature_store import Gates
from flows.config import load_experiment, read_toml
from models import registry as models
from models.config import parse_strict

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.toml"))


def ids(path):
    return str(path.relative_to(CONFIGS))


def test_there_are_configurations_of_every_kind():
    assert {path.parent.name for path in FILES} == {"datasets", "features", "experiments", "studies", "sweeps"}


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "datasets"], ids=ids)
def test_dataset_files_belong_to_a_dataset_and_are_strict(path):
    _, spec = datasets.load(path.stem)
    parse_strict(PrepareConfig, read_toml(path, what="dataset"), where=spec.name)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "features"], ids=ids)
def test_feature_files_belong_to_an_encoder_and_are_strict(path):
    module = encoders.load(path.stem)
    values = read_toml(path, what="feature")
    parse_strict(Gates, values.pop("gates"), where=path.stem)
    parse_strict(module.Config, values, where=path.stem)


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "experiments"], ids=ids)
def test_experiment_files_are_named_after_model_and_dataset(path):
    config = load_experiment(path, {})
    datasets.load(config.dataset)
    backbone = config.parameters.get("backbone", "sasrec")
    name = config.model if backbone == "sasrec" else f"{config.model}-{backbone}"
    assert path.stem == f"{name}-{config.dataset}"
    assert path.read_text(encoding="utf-8").startswith(f"# reelstore train configs/experiments/{path.name}\n")


def test_every_encoder_has_a_file_and_every_paper_model_an_experiment():
    assert {path.stem for path in FILES if path.parent.name == "features"} == set(encoders.names())
    assert set(models.names()) <= {path.stem.split("-")[0] for path in FILES if path.parent.name == "experiments"}


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "experiments"], ids=ids)
def test_every_value_of_an_experiment_says_where_it_is_from(path):
    values = [line for line in path.read_text(encoding="utf-8").splitlines() if re.match(r"\w+ = ", line)]
    unsaid = [line for line in values if not re.search(r" # .", line) and not re.match(r"(dataset|model) = ", line)]
    assert unsaid == []
