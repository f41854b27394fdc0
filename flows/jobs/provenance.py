"""What made a run: the commit, the locked versions, the machine."""

from __future__ import annotations

import hashlib
import platform
import re
import resource
import subprocess
from contextlib import suppress
from pathlib import Path

from flows.settings import REPOSITORY, resolve_device


def git_sha() -> str | None:
    """Commit of this checkout, with ``+dirty`` for uncommitted changes; None outside a repository."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        return commit + ("+dirty" if _git("status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def lock_hash() -> str | None:
    """SHA-256 of ``requirements.lock``."""
    path = REPOSITORY / "requirements.lock"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def machine(device: str) -> str:
    """What computed: the accelerator, or the processor and its threads."""
    import torch

    name = resolve_device(device)
    if name.startswith("cuda"):
        return torch.cuda.get_device_name(name)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def restart_peak_memory(device: str) -> None:
    """Let :func:`peak_memory` begin at what is held now; of main memory only Linux allows it."""
    import torch

    name = resolve_device(device)
    if name.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(name)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: str) -> int:
    """Bytes: the most that this process held on the accelerator, or in main memory where it computed there.

    Counted since :func:`restart_peak_memory`, or since the process began where that cannot be told.
    """
    import torch

    name = resolve_device(device)
    if name.startswith("cuda"):
        return torch.cuda.max_memory_allocated(name)
    # Not getrusage where it can be helped: its peak begins with that of the process that started this one.
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
