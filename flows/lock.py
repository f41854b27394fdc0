"""Write or check the pinned lists: ``python -m flows.lock write|check``.

``requirements.lock`` (extras cpu and dev) and ``requirements-gpu.lock`` (gpu and dev) are what ``uv pip compile`` makes
of ``pyproject.toml``, without URLs, so that they name no registry. They are two because faiss-cpu and faiss-gpu give
the same module and must never be installed together.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from flows.settings import REPOSITORY

LOCKS = {"requirements.lock": ("cpu", "dev"), "requirements-gpu.lock": ("gpu", "dev")}


def main() -> int:
    """Write or check both lists; returns 1 when a list is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("write", "check"))
    action = parser.parse_args().action
    stale: list[str] = []
    for name, extras in LOCKS.items():
        path = REPOSITORY / name
        if action == "write":
            compile_lock(path, extras, upgrade=True)
        elif not is_current(path, extras):
            stale.append(name)
    for name in stale:
        sys.stderr.write(f"{name} does not match pyproject.toml: run `make lock` and commit the result\n")
    return 1 if stale else 0


def compile_lock(path: Path, extras: tuple[str, ...], *, upgrade: bool = False) -> None:
    """Resolve ``pyproject.toml`` with ``extras`` into ``path``; pins already there are kept unless ``upgrade``."""
    options = [argument for extra in extras for argument in ("--extra", extra)]
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--no-header",
        "--no-annotate", *options, "--output-file", str(path), *(["--upgrade"] if upgrade else []), "pyproject.toml",
    ]  # fmt: skip
    subprocess.run(command, cwd=REPOSITORY, check=True)


def is_current(path: Path, extras: tuple[str, ...]) -> bool:
    """Whether resolving again, from the pins in ``path``, would change nothing."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copy(path, copy)
        compile_lock(copy, extras)
        return copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
