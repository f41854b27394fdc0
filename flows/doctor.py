"""``reelstore doctor``: what an installation needs, whether it is there, and what to do when it is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flows.server_checks import check_server
from flows.settings import Settings

MINIMUM_FREE_BYTES = 5 * 2**30
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``state`` is OK, NOTE or FAIL."""

    state: str
    what: str
    detail: str
    advice: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Run every check; none of them raises."""
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _python, _torch_pair, _faiss, _decoders, _fastapi, _disk, _root, _device, _hub,
    )  # fmt: skip
    return [*(_guarded(check, settings) for check in checks), *_service(settings)]


def _guarded(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except Exception as error:
        name = check.__name__.removeprefix("_").replace("_", " ")
        return Finding("FAIL", name, f"{type(error).__name__}: {error}", "reinstall with `make setup`")


def _service(settings: Settings) -> Iterator[Finding]:
    try:
        for state, what, detail, advice in check_server(settings):
            yield Finding(state, what, detail, advice)
    except Exception as error:
        yield Finding("FAIL", "server", f"{type(error).__name__}: {error}", "look at the server's log")


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Finding("OK" if good else "FAIL", "python", version, "" if good else "use Python 3.11 or newer")


def _torch_pair(_: Settings) -> Finding:
    versions = f"torch {importlib.metadata.version('torch')}, torchvision {importlib.metadata.version('torchvision')}"
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, OSError, ImportError) as error:
        advice = "install the matching pair from the pinned list: remove .venv and run `make setup`"
        return Finding("FAIL", "torch pair", f"{versions} do not fit together: {error}", advice)
    return Finding("OK", "torch pair", versions)


def _faiss(_: Settings) -> Finding:
    installed = [name for name in ("faiss-cpu", "faiss-gpu") if _version(name)]
    if len(installed) == 1:
        return Finding("OK", "faiss", f"{installed[0]} {_version(installed[0])}")
    detail = "both faiss-cpu and faiss-gpu are installed" if installed else "not installed"
    return Finding("FAIL", "faiss", detail, "run `make setup` (EXTRA=gpu on a machine with a GPU)")


def _decoders(_: Settings) -> Finding:
    for name in ("av", "decord"):
        importlib.import_module(name)
    return Finding("OK", "decoders", f"av {_version('av')}, decord {_version('decord')}")


def _fastapi(_: Settings) -> Finding:
    version = _version("fastapi") or "0"
    alchemy = _version("sqlalchemy") or "0"
    detail = f"prefect {_version('prefect')}, fastapi {version}, sqlalchemy {alchemy}"
    if _first_two(version) >= (0, 151):
        return Finding("FAIL", "prefect", f"{detail}: this server cannot start", "install fastapi<0.151")
    if _first_two(alchemy) >= (2, 1):
        advice = "install sqlalchemy<2.1 where the server runs, and start it again"
        return Finding("FAIL", "prefect", f"{detail}: on this server no schedule ever starts a run", advice)
    return Finding("OK", "prefect", detail)


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_nearest(settings.root)).free
    good = free >= MINIMUM_FREE_BYTES
    advice = "" if good else "free some space or choose another folder with --root"
    return Finding("OK" if good else "NOTE", "disk", f"{free / 2**30:.1f} GiB free for {settings.root}", advice)


def _root(settings: Settings) -> Finding:
    """Whether files can be made in the root; where it does not exist yet, in the folder that would hold it."""
    place = _nearest(settings.root)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        advice = f"give user {os.getuid()} the right to write there, or choose another folder with --root"
        return Finding("FAIL", "root", f"{place} cannot be written: {error.strerror}", advice)
    detail = f"{settings.root} can be written"
    return Finding("OK", "root", detail if place == settings.root else f"{detail}; it will be made in {place}")


def _nearest(place: Path) -> Path:
    while not place.exists():
        place = place.parent
    return place


def _device(settings: Settings) -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("OK", "device", "; ".join(_gpu(index) for index in range(torch.cuda.device_count())))
    if settings.device.startswith("cuda"):
        advice = "check `nvidia-smi`, install with `make setup EXTRA=gpu`, or unset REELSTORE_DEVICE"
        return Finding("FAIL", "device", f"REELSTORE_DEVICE is {settings.device}, but no CUDA device is usable", advice)
    return Finding("NOTE", "device", "no CUDA device: extraction and training run on the CPU")


def _gpu(index: int) -> str:
    import torch

    memory = torch.cuda.get_device_properties(index).total_memory / 2**30
    return f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory:.0f} GiB, driver {_driver()}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown (nvidia-smi does not answer)"
    return done.stdout.splitlines()[0].strip()


def _hub(_: Settings) -> Finding:
    import httpx

    try:
        httpx.head(os.environ.get("HF_ENDPOINT", HUB), timeout=5.0)
    except httpx.HTTPError as error:
        advice = "give local checkpoints (checkpoint=PATH) or the seeded toy ones (checkpoint=tiny)"
        return Finding("NOTE", "hub", f"not reachable ({type(error).__name__})", advice)
    return Finding("OK", "hub", "reachable")


def _first_two(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
