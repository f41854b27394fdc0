"""Which tests share a process when several run at once (``-n auto --dist loadgroup``)."""

import os

import pytest

# Models of test size gain nothing from more threads, and several processes with many threads each slow one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, and all that talk to the one Prefect server."""
    for item in items:
        server = "service" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("service" if server else item.nodeid.partition("::")[0]))
