"""The installation of ``docker-compose.yml`` without containers: real PostgreSQL, Redis, server, services and workers.

Every command and every variable is read from the file. The tests share one installation; each leaves it running.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest
from services import PACKAGES, Api, Installation, missing_programs, program, wait_until

from flows.names import DEPLOYMENTS

# `make test` works with nothing but python3 and make; continuous integration installs both databases first.
if (missing := missing_programs()) and "CI" not in os.environ:
    pytest.skip(f"{', '.join(missing)} not installed: {PACKAGES}", allow_module_level=True)

LOGIN = "admin:a-secret"
#: A password that would break an address in which it is not escaped.
SECRETS = {"PREFECT_AUTH": LOGIN, "POSTGRES_PASSWORD": "p@ss:w/rd%1 #2"}

# One task, a wait for a file, another task: tests decide what happens while it waits.
FLOW = """
import os, time
from pathlib import Path
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

@task(task_run_name="{name}", cache_policy=NO_CACHE)
def mark(folder: str, name: str) -> None:
    (Path(folder) / name).write_text(os.environ["REELSTORE_DEVICE"])

@flow(name="waits")
def waits(folder: str) -> None:
    mark(folder, "started")
    while not (Path(folder) / "go").exists():
        time.sleep(0.1)
    mark(folder, "ended")
"""

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def installation():
    """All services, with everything deployed; ``init`` has run."""
    folder = Path(tempfile.mkdtemp(prefix="reelstore-services-"))  # pytest's own folders are closed to other users
    folder.chmod(0o755)
    place = Installation(folder, SECRETS)
    try:
        place.up()
        yield place
    finally:
        place.down()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def api(installation):
    client = Api(installation.api, LOGIN)
    yield client
    client.close()


@pytest.fixture(scope="module")
def waits(installation, api):
    """The deployment ``waits/waits``, made from a file beside the installation."""
    (installation.folder / "waits.py").write_text(FLOW)
    flow = api.post("/flows/", {"name": "waits"})
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(installation.folder)}}
    body = {
        "name": "waits", "flow_id": flow["id"], "entrypoint": "waits.py:waits", "work_pool_name": "reelstore",
        "work_queue_name": "gpu", "pull_steps": [step], "enforce_parameter_schema": False,
    }  # fmt: skip
    return api.post("/deployments/", body)["id"]


@pytest.fixture
def waiting(api, waits, tmp_path):
    """A run that has done its first task and waits for ``go``."""
    run = api.run("waits", folder=str(tmp_path))
    wait_until((tmp_path / "started").exists, "the run starts")
    yield run
    (tmp_path / "go").touch()  # a test that failed before would keep the worker


def finish(installation, api, run):
    final = wait_until(lambda: (state := api.state(run)) not in ("PENDING", "RUNNING") and state, "the run ends")
    assert final == "COMPLETED", installation.tail("worker-cpu") + installation.tail("worker-gpu")


def finish_with_tasks(installation, api, run):
    """Wait for a run's end and for the server to have taken in what its tasks sent."""
    finish(installation, api, run)
    wait_until(lambda: api.task_states(run) == ["ended COMPLETED", "started COMPLETED"], "the tasks are known")


def run_to_the_end(installation, api, name, **parameters):
    run = api.run(name, **parameters)
    wait_until(lambda: api.state(run) in ("COMPLETED", "FAILED", "CRASHED"), f"{name} ends")
    assert api.state(run) == "COMPLETED", installation.tail("worker-cpu") + installation.tail("worker-gpu")


def test_init_registers_every_deployment_and_a_second_call_changes_nothing(installation, api):
    assert {row["name"] for row in api.post("/deployments/filter", {})} >= set(DEPLOYMENTS)
    again = installation.call("init")
    assert again.returncode == 0, again.stdout
    assert "nothing to change" in again.stdout


def test_the_server_keeps_its_data_in_postgresql_and_its_messages_in_redis(installation):
    assert not list(installation.folder.rglob("*.db"))
    assert (installation.folder / "redis" / "appendonlydir").is_dir()
    for service in ("server", "services"):
        assert installation.running[service].poll() is None
        assert "Connect call failed" not in installation.log(service).read_text()


@pytest.mark.parametrize("login", [None, ("admin", "wrong")])
def test_without_the_login_only_the_health_check_answers(installation, login):
    def status(path):
        return httpx.get(f"{installation.api}{path}", auth=login, timeout=60).status_code

    assert status("/health") == 200
    assert [status(path) for path in ("/work_pools/reelstore", "/csrf-token?client=tests")] == [401, 401]


def test_a_call_that_changes_something_needs_a_token_too(installation):
    address = f"{installation.api}/deployments/filter"
    refused = httpx.post(address, json={}, auth=("admin", "a-secret"), timeout=60)
    assert (refused.status_code, refused.json()["detail"]) == (403, "Missing CSRF token.")


def test_the_pages_are_served_and_know_an_address_that_a_browser_can_reach(installation):
    base = installation.api.removesuffix("/api")
    page = httpx.get(f"{base}/", follow_redirects=True, headers={"Accept": "text/html"}, timeout=60)
    assert "<html" in page.text.lower()
    settings = httpx.get(f"{base}/ui-settings", timeout=60).json()
    assert settings["api_url"] == installation.api
    assert settings["auth"] == "BASIC"
    assert settings["csrf_enabled"] is True


@pytest.mark.parametrize(
    ("service", "reason"), [("init", "PREFECT_API_AUTH_STRING"), ("worker-cpu", "401 Unauthorized")]
)
def test_a_wrong_login_ends_with_the_reason(installation, service, reason):
    done = installation.call(service, PREFECT_API_AUTH_STRING="admin:wrong", PREFECT_WORKER_WEBSERVER_PORT="0")
    assert done.returncode == 1
    assert reason in done.stdout


def test_a_dataset_is_prepared_on_the_shared_volume(installation, api, tmp_path):
    """36 rows of Shortvideo's column names: six users with the same six videos, so that the 5-core keeps all."""
    header = "user_id,pid,exposed_time,watch_time,title,category_level,category_id,duration,tag_name"
    rows = [f"{u},{8400 + i},{1663286400 + 60 * i},5,cats {i},1,3,10,tag" for u in range(6) for i in range(6)]
    (tmp_path / "interaction.csv").write_text("\n".join([header, *rows]) + "\n")
    run_to_the_end(installation, api, "prepare-dataset", dataset="shortvideo", source=str(tmp_path))
    manifest = json.loads((installation.root / "prepared" / "shortvideo" / "manifest.json").read_text())
    assert (manifest["stats"]["users"], manifest["stats"]["items"], manifest["stats"]["interactions"]) == (6, 6, 36)


def test_two_runs_at_once_are_taken_by_both_workers(installation, api, waits, tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    runs = [api.run("waits", folder=str(folder)) for folder in folders]
    for folder in folders:
        wait_until((folder / "started").exists, f"{folder.name} starts")
    for folder in folders:
        (folder / "go").touch()
    for run in runs:
        finish_with_tasks(installation, api, run)
    assert {(folder / "ended").read_text() for folder in folders} == {"cpu", "cuda"}


def test_a_run_survives_a_restart_of_the_server(installation, api, waiting, tmp_path):
    installation.stop("server")
    try:
        (tmp_path / "go").touch()
        wait_until((tmp_path / "ended").exists, "the run goes on without the server")
    finally:
        installation.start("server")
    finish(installation, api, waiting)  # states of tasks are events: Prefect gives those up after some seconds


def test_a_run_survives_a_restart_of_postgresql(installation, api, waiting, tmp_path):
    installation.postgres.stop()
    try:
        (tmp_path / "go").touch()
        wait_until((tmp_path / "ended").exists, "the run goes on without the database")
        asked = httpx.get(f"{installation.api}/flow_runs/{waiting}", auth=("admin", "a-secret"), timeout=60)
        assert asked.status_code in (500, 503)
    finally:
        installation.postgres.start()
    finish(installation, api, waiting)


def test_an_event_waits_in_redis_over_its_restart_and_still_starts_a_run(installation, api):
    deployment = api.deployment("check-freshness")
    automation = {
        "name": "ping", "enabled": True,
        "trigger": {"type": "event", "posture": "Reactive", "expect": ["test.ping"], "threshold": 1, "within": 0},
        "actions": [{"type": "run-deployment", "source": "selected", "deployment_id": deployment}],
    }  # fmt: skip
    api.post("/automations/", automation)
    assert api.runs("check-freshness") == []
    installation.stop("services")
    sent = installation.call("init", "prefect", "event", "emit", "test.ping", "--resource-id", "test")
    assert sent.returncode == 0, sent.stdout
    installation.stop("redis")
    installation.start("redis")
    installation.start("services")
    run = wait_until(lambda: api.runs("check-freshness"), "the event starts a run")[0]["id"]
    wait_until(lambda: api.state(run) == "COMPLETED", installation.tail("services"))


def test_a_backup_of_the_database_restores(installation):
    """What docs/operations.md says: ``pg_dump`` while everything runs, ``pg_restore`` into an empty database."""
    server = ["-h", "127.0.0.1", "-p", str(installation.ports["postgres"]), "-U", "prefect"]
    secret = {"PGPASSWORD": SECRETS["POSTGRES_PASSWORD"], "PATH": "/usr/bin:/bin"}

    def call(name, *words):
        return subprocess.run([program(name), *server, *words], env=secret, capture_output=True, text=True, check=True)

    dump = installation.folder / "prefect.dump"
    call("pg_dump", "-Fc", "-f", str(dump), "prefect")
    call("createdb", "restored")
    call("pg_restore", "--no-owner", "--exit-on-error", "-d", "restored", str(dump))
    counted = call("psql", "-tA", "-d", "restored", "-c", "select count(*) from deployment").stdout
    assert int(counted) >= len(DEPLOYMENTS)
