import pytest

from datasets_spec.synthetic.site import write_site


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A site of 24 items, in which every kind of damage occurs."""
    return write_site(tmp_path_factory.mktemp("site") / "site", users=40, items=24, seed=3)
