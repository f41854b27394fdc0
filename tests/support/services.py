"""The services of ``docker-compose.yml`` as processes of this machine: the same commands, the same environment.

Containers are what is left out. PostgreSQL and Redis come from the system's packages and run as private instances, on
free ports and in a folder of their own; host names and ports of the file become those of 127.0.0.1.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from prefect_api import Patient

from flows.local_server import free_port, stop
from flows.settings import REPOSITORY

BIN = Path(sys.executable).parent
COMPOSE_FILE = REPOSITORY / "docker-compose.yml"
PACKAGES = "apt-get install postgresql redis-server"
#: How long to wait for something that will happen; long, because the machine may be busy with other tests.
PATIENCE_SECONDS = 300.0


def interpolate(text: str, variables: dict[str, str]) -> str:
    """Fill ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as Compose does.

    Raises:
        KeyError: A variable with ``:?`` that is not set or empty.
    """

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match["name"], match["operator"], match["rest"]
        if found := variables.get(name):
            return found
        if operator == ":?":
            raise KeyError(f"{name}: {rest}")
        return rest if operator == ":-" else ""

    return re.sub(r"\$\{(?P<name>\w+)(?:(?P<operator>:[?-])(?P<rest>[^}]*))?\}", value, text)


def read_services(variables: dict[str, str], path: Path = COMPOSE_FILE) -> dict[str, dict[str, Any]]:
    """The services of the file with anchors resolved and variables filled in."""

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return interpolate(node, variables) if isinstance(node, str) else node

    return filled(yaml.safe_load(path.read_text(encoding="utf-8")))["services"]


def program(name: str) -> str:
    """Path of a program; Debian keeps PostgreSQL's own ones out of ``PATH``.

    Raises:
        FileNotFoundError: When it is not installed, with what to install.
    """
    places = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: {PACKAGES}")
    return found


def missing_programs() -> list[str]:
    """What of the two databases is not installed."""

    def absent(name: str) -> bool:
        try:
            program(name)
        except FileNotFoundError:
            return True
        return False

    return [name for name in ("initdb", "redis-server") if absent(name)]


def wait_until(condition: Callable[[], Any], what: str, *, pause_seconds: float = 0.3) -> Any:
    """The first true value of ``condition()``; TimeoutError with ``what`` when none comes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause_seconds)
    raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s: {what}")


@dataclass
class Postgres:
    """A private PostgreSQL, owned by the user ``postgres`` where the tests run as root (it refuses root)."""

    folder: Path
    port: int
    options: list[str]

    def create(self, user: str, password: str, database: str) -> None:
        self.folder.mkdir()
        secret = self.folder / "password"
        secret.write_text(password)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(secret, "postgres")
        self._call("initdb", "-D", self.data, "-U", user, "--auth=scram-sha-256", f"--pwfile={secret}")
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", user, database, PGPASSWORD=password)

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        log = str(self.folder / "log")
        self._call("pg_ctl", "-D", self.data, "-l", log, "-w", "-o", " ".join(self.options), "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def _call(self, name: str, *words: str, **environment: str) -> None:
        become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        # pg_ctl leaves a server behind that keeps every stream open: its output goes to a file, not to a pipe.
        with (self.folder / "calls").open("ab") as sink:
            done = subprocess.run(
                [*become, program(name), *words], cwd=self.folder, env={**os.environ, **environment},
                stdout=sink, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        assert done.returncode == 0, f"{name}: {(self.folder / 'calls').read_text()}"


@dataclass
class Installation:
    """Everything of the file, running or stopped; ``folder`` must be one that every user can enter."""

    folder: Path
    variables: dict[str, str]
    services: dict[str, dict[str, Any]] = field(init=False)
    running: dict[str, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)
    ports: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.services = read_services(self.variables)
        names = ("postgres", "redis", "server", "worker-cpu", "worker-gpu")
        self.ports = {name: free_port() for name in names}
        options = self.services["postgres"]["command"][1:]
        self.postgres = Postgres(self.folder / "postgres", self.ports["postgres"], options)

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.ports['server']}/api"

    @property
    def root(self) -> Path:
        return self.folder / "data"

    def local(self, service: str, value: str) -> str:
        """A value of the file as it must be on this machine."""
        api, own = self.ports["server"], self.ports.get(service, 0)
        rules = {
            r"\bserver:4200\b|\b127\.0\.0\.1:4200\b": f"127.0.0.1:{api}",
            r"\bredis:6379\b": f"127.0.0.1:{self.ports['redis']}",
            r"\b127\.0\.0\.1:8080\b": f"127.0.0.1:{own}",
            r"^postgres$|^0\.0\.0\.0$": "127.0.0.1",
            r"^5432$": str(self.ports["postgres"]),
            r"^4200$": str(api),
            r"^8080$": str(own),
            r"^/(?=data$|cache/|tmp/)": f"{self.folder}/",
        }
        for pattern, replacement in rules.items():
            value = re.sub(pattern, replacement, value)
        return value

    def environment(self, service: str, **changes: str) -> dict[str, str]:
        """What the container would get, and nothing of Prefect's from outside."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "REELSTORE_"))}
        own = {key: self.local(service, value) for key, value in self.services[service]["environment"].items()}
        path = f"{BIN}{os.pathsep}{kept['PATH']}"
        home = {"PREFECT_HOME": str(self.folder / "homes" / service), "PYTHONUNBUFFERED": "1"}
        return {**kept, "PATH": path, **home, **own, **changes}

    def log(self, service: str) -> Path:
        return self.folder / f"{service}.log"

    def start(self, *services: str) -> None:
        """Start services by their own commands and wait until their health checks pass, where they have one."""
        for service in services:
            words = list(self.services[service]["command"])
            if service == "redis":
                folder = self.folder / "redis"
                folder.mkdir(exist_ok=True)
                words += ["--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--dir", str(folder)]
                command, environment = [program(words[0]), *words[1:]], dict(os.environ)
            else:
                command, environment = [BIN / words[0], *words[1:]], self.environment(service)
            with self.log(service).open("ab") as sink:
                self.running[service] = subprocess.Popen(
                    command, cwd=REPOSITORY, env=environment, stdout=sink, stderr=subprocess.STDOUT
                )
        for service in services:
            if "healthcheck" in self.services[service]:
                wait_until(lambda service=service: self.listens(service), f"{service} listens")
                wait_until(lambda service=service: self.healthy(service), f"{service} is healthy", pause_seconds=1)

    def listens(self, service: str) -> bool:
        """Whether the service's port is open: cheaper to ask than its health check."""
        process = self.running[service]
        if process.poll() is not None:
            raise RuntimeError(f"{service} ended with code {process.returncode}:\n{self.tail(service)}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[service])) == 0

    def healthy(self, service: str) -> bool:
        """Run the health check of the file."""
        words = [self.local(service, word) for word in self.services[service]["healthcheck"]["test"]]
        command = words[1:] if words[0] == "CMD" else ["sh", "-c", *words[1:]]
        if command[0] == "redis-cli":
            command[1:1] = ["-p", str(self.ports["redis"])]
        if command[0] == "python":
            command[0] = sys.executable
        environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.ports["postgres"])}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    def stop(self, service: str) -> None:
        """End a service as Docker does: SIGTERM, and SIGKILL after a while."""
        process = self.running.pop(service)
        process.send_signal(signal.SIGTERM)
        stop(process)

    def call(self, service: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a service's command to its end, or other words in its environment."""
        command = list(words) or self.services[service]["command"]
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            cwd=REPOSITORY, env=self.environment(service, **changes),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip

    def up(self) -> None:
        """Bring everything up in the order of the file."""
        (self.folder / "homes").mkdir()
        settings = self.services["postgres"]["environment"]
        self.postgres.create(settings["POSTGRES_USER"], settings["POSTGRES_PASSWORD"], settings["POSTGRES_DB"])
        self.start("redis")
        self.start("server")
        self.start("services")
        done = self.call("init")
        assert done.returncode == 0, done.stdout
        self.start("worker-cpu", "worker-gpu")

    def down(self) -> None:
        """Stop what still runs, clients first; PostgreSQL may have been left stopped by a test that failed."""
        for service in ("worker-cpu", "worker-gpu", "services", "server", "redis"):
            if service in self.running:
                self.stop(service)
        if (self.folder / "postgres" / "data" / "postmaster.pid").exists():
            self.postgres.stop()

    def tail(self, service: str, lines: int = 40) -> str:
        return "\n".join(self.log(service).read_text(errors="replace").splitlines()[-lines:])


class Api:
    """The HTTP interface as any client sees it: login, and a token for calls that change something."""

    def __init__(self, url: str, login: str) -> None:
        user, password = login.split(":", 1)
        self._client = httpx.Client(base_url=url, auth=(user, password), timeout=120, transport=Patient(500))
        name = uuid.uuid4().hex  # a token holds for one client: a second one of the same name would end it
        token = self.get(f"/csrf-token?client={name}")["token"]
        self._client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": name})

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._client.post(path, json=body).raise_for_status().json()

    def deployment(self, name: str) -> str:
        return self.get(f"/deployments/name/{name}/{name}")["id"]

    def run(self, name: str, **parameters: Any) -> str:
        """Start a deployment; returns the id of the flow run."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.post(f"/deployments/{self.deployment(name)}/create_flow_run", body)["id"]

    def state(self, run: str) -> str:
        return self.get(f"/flow_runs/{run}")["state_type"]

    def runs(self, name: str) -> list[dict[str, Any]]:
        return self.post("/flow_runs/filter", {"deployments": {"id": {"any_": [self.deployment(name)]}}})

    def task_states(self, run: str) -> list[str]:
        """States of a run's tasks, as far as the server has taken in the events about them."""
        tasks = self.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return sorted(f"{task['name'].rsplit('-', 1)[0]} {task['state_type']}" for task in tasks)

    def close(self) -> None:
        self._client.close()
