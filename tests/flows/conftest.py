"""A real Prefect server, a real process worker and a real HTTP site, started once for all tests of the flows."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings
from small_lab import make_lab

from datasets_spec.synthetic.serve import serve
from datasets_spec.synthetic.site import write_site
from flows import deploy
from flows.local_server import environment, prefect, running_server, running_worker
from flows.settings import REPOSITORY, Settings

SMALL = "[training]\nepochs = 1\nbatch_size = 256\nmax_length = 5\n"
PARAMETERS = {
    "mealrec": "max_length = 5\nd = 16\ninner = 16\ncontent_width = 16\nunet_channels = 8\nsteps = 3\n",
    "imecd": "max_length = 5\nd = 16\n",
    "dimerec": "max_length = 5\nd = 16\n",
    "sasrec": "max_length = 5\nd = 16\ninner = 16\n",
}


@dataclass(frozen=True)
class Service:
    """A running installation: every call goes through the same command lines that a person types."""

    settings: Settings
    home: Path
    url: str
    site: str

    def prefect(self, *words: str, timeout_seconds: float = 600.0) -> str:
        return prefect(list(words), home=self.home, url=self.url, timeout_seconds=timeout_seconds)

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home, self.url, self.variables)

    @property
    def variables(self) -> dict[str, str]:
        return {"REELSTORE_ROOT": str(self.settings.root), "REELSTORE_CONFIGS": str(self.settings.configs)}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A small MicroLens-shaped site behind a real HTTP server."""
    folder = tmp_path_factory.mktemp("site") / "site"
    write_site(folder, users=160, items=40, topics=4, seed=1)
    with serve(folder) as url:
        yield url


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A root with a small dataset, stores and experiments, whose commands run in this process."""
    root = tmp_path_factory.mktemp("lab") / "data"
    make_lab(root)
    return root


@pytest.fixture(scope="session")
def configs(tmp_path_factory):
    """The repository's configurations plus one-epoch experiments on the small site."""
    folder = tmp_path_factory.mktemp("configs") / "configs"
    shutil.copytree(REPOSITORY / "configs", folder)
    shutil.rmtree(folder / "experiments")
    (folder / "experiments").mkdir()
    for model, parameters in PARAMETERS.items():
        head = f'dataset = "microlens-50k"\nmodel = "{model}"\n[parameters]\n{parameters}'
        (folder / "experiments" / f"{model}-microlens-50k.toml").write_text(head + SMALL)
    return folder


@pytest.fixture(scope="session")
def service(tmp_path_factory, site, configs):
    """Server and worker, with nothing deployed yet."""
    base = tmp_path_factory.mktemp("service")
    settings = Settings(root=base / "data", configs=configs, workers=1)
    with running_server(base / "prefect") as url:
        installation = Service(settings=settings, home=base / "prefect", url=url, site=site)
        installation.prefect("work-pool", "create", "reelstore", "--type", "process")
        with running_worker(base / "prefect", url, extra=installation.variables, log=base / "worker.log"):
            yield installation


@dataclass(frozen=True)
class Registered:
    """A server on which everything is deployed and events start runs, without a worker; ``first`` is what was made."""

    url: str
    settings: Settings
    first: list[str]


@pytest.fixture(scope="session")
def automatic_server(tmp_path_factory):
    """A server with automations, for modules that do not mind what others left on it."""
    with running_server(tmp_path_factory.mktemp("automatic") / "prefect", automations=True) as url:
        yield url


@pytest.fixture(scope="module")
def registered(automatic_server, configs, tmp_path_factory):
    """Everything deployed, and this process a client of the server for as long as the module runs."""
    settings = Settings(root=tmp_path_factory.mktemp("registered"), configs=configs, workers=1)
    with temporary_settings({PREFECT_API_URL: automatic_server, PREFECT_SERVER_EPHEMERAL_ENABLED: False}):
        changes, _ = deploy.run(dry_run=False, settings=settings)
        yield Registered(url=automatic_server, settings=settings, first=[str(change) for change in changes])
