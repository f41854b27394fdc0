"""Toy checkpoints, built once per test run, and small pictures and videos."""

import numpy as np
import pytest

from extractors import registry


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def tiny(toy_root):
    """Build a toy encoder: ``tiny("vit", input="video")``."""
    built = {}

    def build(name, **settings):
        key = (name, tuple(sorted(settings.items())))
        if key not in built:
            built[key] = registry.build(name, {"checkpoint": "tiny", **settings}, toy_root=toy_root)
        return built[key]

    return build


@pytest.fixture
def rng():
    return np.random.default_rng(20)
