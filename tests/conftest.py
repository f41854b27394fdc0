"""What holds for all tests."""

import os

import pytest

# Models of test size gain nothing from more threads, and several processes with many threads each slow one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """The files of the flows take longest: begun last, one of them would leave the other processes without work."""
    items.sort(key=lambda item: "flows" not in item.path.parts)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One process more than there are cores: the tests of the flows wait for servers for half of their time."""
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", len(os.sched_getaffinity(0)) + 1))
