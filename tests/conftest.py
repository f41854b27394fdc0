"""What holds for all tests."""

import os

from hypothesis import settings

# Models of test size gain nothing from more threads, and several processes with many threads each slow one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes is no property of the code on a machine that does other things beside. Where CI is set,
# Hypothesis itself takes a profile without a deadline, whose examples are the same in every run.
if "CI" not in os.environ:
    settings.register_profile("reelstore", deadline=None)
    settings.load_profile("reelstore")


def pytest_collection_modifyitems(items):
    """The files of the flows take longest: begun last, one of them would leave the other processes without work."""
    items.sort(key=lambda item: "flows" not in item.path.parts)
