"""``docker-compose.yml`` and the ``Dockerfile`` as files: what a schema says, and what it cannot say."""

import re
import subprocess
import sys

import pytest
import yaml
from services import COMPOSE_FILE, interpolate, read_services

from flows.settings import REPOSITORY

SERVICES = read_services({"PREFECT_AUTH": "admin:secret", "POSTGRES_PASSWORD": "secret"})
OURS = ["server", "services", "init", "worker-cpu", "worker-gpu"]
WORKERS = ["worker-cpu", "worker-gpu"]


def test_the_file_fits_the_schema_of_the_compose_specification():
    """The checker carries the schema; uv fetches it from the registry that the set-up uses, once."""
    command = [
        "-m",
        "uv",
        "tool",
        "run",
        "--quiet",
        "check-jsonschema==0.39.0",
        "--builtin-schema",
        "vendor.compose-spec",
    ]
    done = subprocess.run([sys.executable, *command, str(COMPOSE_FILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a${X}b", "a1b"), ("${Y:-2}", "2"), ("${X:-2}", "1"), ("${Y}", ""), ("${X:?set X}", "1"), ("plain", "plain")],
)
def test_variables_are_filled_in_as_compose_does(text, expected):
    assert interpolate(text, {"X": "1"}) == expected


@pytest.mark.parametrize("name", ["PREFECT_AUTH", "POSTGRES_PASSWORD"])
def test_nothing_starts_without_the_secrets(name):
    others = {"PREFECT_AUTH": "a:b", "POSTGRES_PASSWORD": "c"}
    with pytest.raises(KeyError, match=f"{name}: set {name}"):
        read_services({**others, name: ""})


def test_every_variable_is_a_setting_that_the_installed_prefect_knows():
    from prefect.settings import Settings
    from prefect_redis.cleanup_queue import RedisWorkerCleanupQueueSettings
    from prefect_redis.client import RedisMessagingSettings

    models = {
        "PREFECT": Settings,
        "PREFECT_REDIS_MESSAGING": RedisMessagingSettings,
        "PREFECT_REDIS_WORKER_CLEANUP_QUEUE": RedisWorkerCleanupQueueSettings,
    }
    known = {name.upper() for prefix, model in models.items() for name in supported(model, prefix)}
    used = {name for service in OURS for name in SERVICES[service]["environment"] if name.startswith("PREFECT_")}
    assert used - known == set()
    assert len(used) > 20


def supported(model, prefix):
    """Names of the environment variables of a settings model and of those inside it."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and hasattr(inner, "model_fields"):
            yield from supported(inner, f"{prefix}_{name}")
        else:
            yield f"{prefix}_{name}"


def test_everything_that_two_server_processes_share_lies_outside_their_memory():
    assert SERVICES["server"]["environment"] == SERVICES["services"]["environment"]
    environment = SERVICES["server"]["environment"]
    for name in (
        "EVENTS_MESSAGING_BROKER",
        "EVENTS_MESSAGING_CACHE",
        "EVENTS_CAUSAL_ORDERING",
        "CONCURRENCY_LEASE_STORAGE",
        "WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE",
    ):
        assert environment[f"PREFECT_SERVER_{name}"].startswith("prefect_redis."), name
    for name in ("SERVER_DOCKET_URL", "REDIS_MESSAGING_URL", "REDIS_WORKER_CLEANUP_QUEUE_URL"):
        assert environment[f"PREFECT_{name}"].startswith("redis://redis:6379/"), name
    assert environment["PREFECT_SERVER_DATABASE_DRIVER"] == "postgresql+asyncpg"


def test_workers_share_the_data_and_reach_neither_database():
    for name in WORKERS:
        volumes = SERVICES[name]["volumes"]
        assert "data:/data" in volumes
        assert [mount["read_only"] for mount in volumes if isinstance(mount, dict)] == [True]
        assert SERVICES[name]["networks"] == ["api"]
        assert SERVICES[name]["environment"]["REELSTORE_ROOT"] == "/data"
        assert not {"POSTGRES_PASSWORD", "PREFECT_SERVER_DATABASE_PASSWORD"} & set(SERVICES[name]["environment"])
    assert SERVICES["postgres"]["networks"] == SERVICES["redis"]["networks"] == ["storage"]
    assert yaml.safe_load(COMPOSE_FILE.read_text())["networks"]["storage"] == {"internal": True}


def test_every_service_is_bounded_and_comes_back():
    for name, service in SERVICES.items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert service["restart"] == ("no" if name == "init" else "unless-stopped")
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
        assert "stop_grace_period" in service or name == "init"
    for name in OURS:
        service = SERVICES[name]
        assert (service["init"], service["read_only"], service["cap_drop"]) == (True, True, ["ALL"])


@pytest.mark.parametrize(("beside_a_gpu", "queues"), [("", ["default", "gpu"]), ("default", ["default", "default"])])
def test_the_workers_take_every_queue_between_them(beside_a_gpu, queues):
    variables = {"PREFECT_AUTH": "a:b", "POSTGRES_PASSWORD": "c", "REELSTORE_CPU_QUEUE": beside_a_gpu}
    services = read_services(variables)

    def taken(name):
        words = services[name]["command"]
        return [words[place + 1] for place, word in enumerate(words) if word == "--work-queue"]

    assert taken("worker-cpu") == queues
    assert taken("worker-gpu") == ["gpu"]
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["reelstore"]["queues"]
    assert {queue["name"] for queue in declared} == {"default", "gpu"}


def test_only_one_worker_asks_for_a_device_and_only_on_request():
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    devices = {name: service["deploy"]["resources"] for name, service in SERVICES.items() if "deploy" in service}
    request = {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert devices == {"worker-gpu": {"reservations": {"devices": [request]}}}


def test_the_connections_of_both_server_processes_fit_into_the_database():
    from prefect.settings.models.server.database import SQLAlchemySettings

    allowed = int(re.search(r"max_connections=(\d+)", " ".join(SERVICES["postgres"]["command"]))[1])
    pool = SQLAlchemySettings()
    assert 3 * (pool.pool_size + pool.max_overflow) < allowed


def test_the_image_copies_what_there_is_runs_as_nobody_special_and_pins_its_base():
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    assert re.fullmatch(
        r"FROM python:3\.11\.\d+-slim-bookworm", next(line for line in lines if line.startswith("FROM"))
    )
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert [word for word in copied if not (REPOSITORY / word).exists()] == []
    assert {"requirements.lock", "prefect.yaml", "flows"} <= set(copied)
    assert "USER reelstore" in lines
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert not set(copied) & set(ignored)
