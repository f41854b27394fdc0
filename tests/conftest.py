"""What holds for all tests."""

import os

# Models of test size gain nothing from more threads, and several processes with many threads each slow one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """The files of the flows take longest: begun last, one of them would leave the other processes without work."""
    items.sort(key=lambda item: "flows" not in item.path.parts)
