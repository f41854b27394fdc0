"""A Prefect server and a process worker of our own, on this machine, for the demo and the tests.

The server keeps its SQLite database under ``home``; nothing outside that folder is touched and no telemetry is sent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path

import httpx

from flows.errors import WorkError
from flows.names import WORK_POOL
from flows.settings import REPOSITORY

SERVER_START_SECONDS = 240.0


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, url: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of the server, of its clients and of the runs that its workers start."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {
        **kept,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # a worker's child must never start a server of its own
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
        **(extra or {}),
    }


@contextlib.contextmanager
def running_server(
    home: Path,
    *,
    port: int = 0,
    log: Path | None = None,
    automations: bool = False,
    extra: Mapping[str, str] | None = None,
) -> Generator[str]:
    """Start ``prefect server start`` and wait until it answers.

    Args:
        home: Folder of the database and of Prefect's own files.
        port: Port to listen on; 0 takes a free one.
        log: File for the server's output; default ``home/server.log``.
        automations: Whether events start runs. The demo wants none: its pipeline trains what it extracted itself.
        extra: Further environment of the server.

    Yields:
        The API URL.

    Raises:
        WorkError: When the server ends or does not answer in time, with the tail of its log.
    """
    home.mkdir(parents=True, exist_ok=True)
    chosen = port or free_port()
    url = f"http://127.0.0.1:{chosen}/api"
    log_path = log or home / "server.log"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(chosen)]
    values = environment(
        home, url, {"PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": str(automations).lower(), **(extra or {})}
    )
    with log_path.open("ab") as sink:
        process = subprocess.Popen(command, cwd=home, env=values, stdout=sink, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(process, url, log_path)
            yield url
        finally:
            stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise WorkError(f"the Prefect server ended with code {process.returncode}; {log} ends with:\n{_tail(log)}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=2.0).is_success:
                return
        time.sleep(0.25)
    raise WorkError(
        f"the Prefect server did not answer within {SERVER_START_SECONDS:.0f} s; {log} ends with:\n{_tail(log)}"
    )


@contextlib.contextmanager
def running_worker(
    home: Path, url: str, *, extra: Mapping[str, str] | None = None, log: Path | None = None
) -> Generator[None]:
    """Start a process worker on our pool; with ``log`` its output goes to that file, else to this process's stderr."""
    command = [
        sys.executable, "-m", "prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process",
        "--limit", "1", "--install-policy", "never",
    ]  # fmt: skip
    values = environment(home, url, {"PREFECT_WORKER_QUERY_SECONDS": "2", **(extra or {})})
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("ab")) if log else sys.stderr
        process = subprocess.Popen(command, cwd=REPOSITORY, env=values, stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes], *, patience_seconds: float = 15.0) -> None:
    """End a child: SIGINT, then SIGTERM, then SIGKILL."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if process.poll() is not None:
            return
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_seconds)
            return
    process.kill()
    process.wait()


def prefect(arguments: list[str], *, home: Path, url: str, timeout_seconds: float = 300.0) -> str:
    """Run a command of Prefect's own command line against the server and return its output.

    Raises:
        WorkError: When it fails, with its output.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], cwd=REPOSITORY, env=environment(home, url),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout_seconds, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise WorkError(f"prefect {' '.join(arguments)} failed with code {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
