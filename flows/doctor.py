"""``reelstore doctor``: what an installation needs, whether it is there, and what to do when it is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from flows.settings import Settings

MINIMUM_FREE_BYTES = 5 * 2**30


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
        _python, _torch_pair, _faiss, _decoders, _fastapi, _disk, _server, _device, _hub,
    )  # fmt: skip
    return [_guarded(check, settings) for check in checks]


def _guarded(check: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return check(settings)
    except Exception as error:
        name = check.__name__.removeprefix("_").replace("_", " ")
        return Finding("FAIL", name, f"{type(error).__name__}: {error}", "reinstall with `make setup`")


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
    detail = f"prefect {_version('prefect')}, fastapi {version}"
    if tuple(int(part) for part in version.split(".")[:2]) >= (0, 151):
        return Finding("FAIL", "prefect", f"{detail}: this server cannot start", "install fastapi<0.151")
    return Finding("OK", "prefect", detail)


def _disk(settings: Settings) -> Finding:
    place = settings.root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    good = free >= MINIMUM_FREE_BYTES
    advice = "" if good else "free some space or choose another folder with --root"
    return Finding("OK" if good else "NOTE", "disk", f"{free / 2**30:.1f} GiB free for {settings.root}", advice)


def _server(_: Settings) -> Finding:
    import httpx

    url = os.environ.get("PREFECT_API_URL")
    if not url:
        advice = "only needed for deployments: `prefect server start`, then set PREFECT_API_URL"
        return Finding("NOTE", "server", "PREFECT_API_URL is not set", advice)
    try:
        httpx.get(f"{url}/health", timeout=5.0).raise_for_status()
    except httpx.HTTPError as error:
        return Finding("FAIL", "server", f"{url} does not answer: {error}", "start it, or correct PREFECT_API_URL")
    return Finding("OK", "server", url)


def _device(_: Settings) -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("OK", "device", torch.cuda.get_device_name(0))
    return Finding("NOTE", "device", "no CUDA device: extraction and training run on the CPU")


def _hub(_: Settings) -> Finding:
    import httpx

    try:
        httpx.head("https://huggingface.co", timeout=5.0)
    except httpx.HTTPError as error:
        advice = "give local checkpoints (checkpoint=PATH) or the seeded toy ones (checkpoint=tiny)"
        return Finding("NOTE", "hub", f"not reachable ({type(error).__name__})", advice)
    return Finding("OK", "hub", "reachable")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
