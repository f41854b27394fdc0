"""Files in configs/datasets: strict, named after a dataset, and the same as what the code does without them."""

import tomllib
from pathlib import Path

import pytest

from datasets_spec import registry
from datasets_spec.spec import PrepareConfig

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "datasets"
FILES = sorted(FOLDER.rglob("*.toml"))


def test_there_are_files():
    assert {"amazon-toys", "amazon-games", "amazon-instruments", "amazon-food"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_the_code_does(path):
    _, spec = registry.load(path.stem)
    assert PrepareConfig.model_validate(tomllib.loads(path.read_text())) == spec.config
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
