"""Locks of devices and of shards, between real processes."""

import logging
import os
import subprocess
import sys

import pytest

from flows.jobs import claims, device_lock
from flows.jobs.claims import Claims
from flows.jobs.device_lock import DeviceLock
from flows.jobs.file_lock import FileLock

HOLD = """
import sys, pathlib
from flows.jobs.device_lock import DeviceLock
DeviceLock("cpu", purpose="microlens-50k", folder=pathlib.Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""
CLAIM = """
import sys, pathlib
from flows.jobs.claims import Claims
with Claims(pathlib.Path(sys.argv[1]), "vit").claim(1) as mine:
    print("held" if mine else "refused", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that holds a lock, until it is killed; it says ``held`` first."""
    started = []

    def run(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def end(holder):
    """What happens while another waits for a lock: its holder is killed."""
    holder.kill()
    holder.wait()


def test_a_device_is_free_when_its_holder_is_killed(tmp_path, start, caplog, monkeypatch):
    holder = start(HOLD)
    lock = DeviceLock("cpu", purpose="mine", folder=tmp_path)
    monkeypatch.setattr(device_lock.time, "sleep", lambda _: end(holder))
    with caplog.at_level(logging.WARNING):
        lock.acquire()
    assert lock.held
    (message,) = caplog.messages
    assert message.startswith(f"waiting for cpu: process {holder.pid} on ")
    assert "holds it for microlens-50k since 20" in message
    assert FileLock(tmp_path / "reelstore-cpu.lock").holder()["pid"] == os.getpid()
    assert not FileLock(tmp_path / "reelstore-cpu.lock").acquire()
    lock.release()
    assert FileLock(tmp_path / "reelstore-cpu.lock").acquire()


def test_other_devices_are_other_locks(tmp_path):
    first, second = (DeviceLock(name, purpose="x", folder=tmp_path) for name in ("cpu", "xla:0"))
    first.acquire()
    second.acquire()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reelstore-cpu.lock", "reelstore-xla-0.lock"]


def test_tags_name_the_machine_and_the_device(monkeypatch):
    monkeypatch.setattr(device_lock.socket, "gethostname", lambda: "Node_7.local")
    assert device_lock.tags("cuda:0,cuda:1") == ["device-node-7-local-cuda-0", "device-node-7-local-cuda-1"]


def test_a_shard_of_a_killed_process_is_done_by_another(tmp_path, start, caplog, monkeypatch):
    holder = start(CLAIM)
    monkeypatch.setattr(claims.time, "sleep", lambda _: end(holder))
    done = []
    with caplog.at_level(logging.INFO):
        Claims(tmp_path, "vit").share([0, 1, 2], done.append, logger=logging.getLogger(__name__))
    assert done == [0, 2, 1]
    assert caplog.messages == ["waiting for 1 shards that others do, the first is 1"]


def test_a_claim_ends_with_its_block(tmp_path):
    held = Claims(tmp_path, "vit")
    with held.claim(0) as first, held.claim(0) as second, held.claim(1) as other:
        assert (first, second, other) == (True, False, True)
    with held.claim(0) as again:
        assert again


def test_an_error_lets_go_of_the_claim(tmp_path):
    def fail(number):
        raise OSError(number)

    held = Claims(tmp_path, "vit")
    with pytest.raises(OSError, match="0"):
        held.share([0], fail, logger=logging.getLogger(__name__))
    with held.claim(0) as mine:
        assert mine
