"""Weights and the settings that belong to them: from a pinned hub revision, a local folder, or a toy.

Only safetensors are loaded, never a pickle. Whatever a checkpoint says about its input (size, mean, tokenizer) is
read from its own files: class defaults change between library versions.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from extractors.content import file_sha256
from extractors.errors import ExtractionError
from extractors.spec import CheckpointSpec
from extractors.toy import TOY_MARKER, toy_checkpoint

logger = logging.getLogger(__name__)

TINY = "tiny"
_COMMIT = re.compile("[0-9a-f]{40}")
_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")


class CheckpointError(ExtractionError):
    """Weights that cannot be had or cannot be used: which, why, and what to pass instead."""


class CheckpointChoiceError(ExtractionError, ValueError):
    """A checkpoint that was asked for wrongly: not pinned, or a path that holds no checkpoint."""

    usage: ClassVar[bool] = True


@dataclass(frozen=True)
class Checkpoint:
    """Files of a checkpoint on this machine.

    Attributes:
        path: The folder, or the one file of a checkpoint that is a file.
        weights: Files that hold the numbers.
        settings: Files that change the numbers in another way: model and tokenizer.
        source: What was asked for.
        revision: Commit of the hub repository, None for a local path.
        licence: Licence of the weights.
    """

    path: Path
    weights: tuple[Path, ...]
    settings: tuple[Path, ...]
    source: str
    revision: str | None
    licence: str

    @property
    def toy(self) -> dict[str, Any] | None:
        """The marker of a toy checkpoint, or None."""
        folder = self.path if self.path.is_dir() else self.path.parent
        marker = folder / TOY_MARKER
        return read_json(marker) if marker.is_file() else None

    def spec(self) -> CheckpointSpec:
        """Identity of the checkpoint; reads every byte of the weights once."""
        toy = self.toy
        return CheckpointSpec(
            source=self.source,
            revision=self.revision,
            weights_sha256=_joined([_digest_of(path) for path in self.weights]),
            settings_sha256=_joined([_settings_digest(path) for path in self.settings]),
            toy=toy is not None,
            seed=None if toy is None else toy["seed"],
            licence=self.licence if toy is None else "none: seeded random weights",
        )


def resolve(
    name: str,
    checkpoint: str,
    *,
    revision: str | None,
    toy_root: Path,
    licence: str,
    tokenizer: bool = False,
) -> Checkpoint:
    """Find the files of a checkpoint, downloading them when they are not on this machine.

    Args:
        name: Encoder, for messages and for the toy.
        checkpoint: ``tiny``, a local folder, or a hub id.
        revision: Commit of the hub repository, 40 hexadecimal digits; a branch would not pin anything.
        toy_root: Folder in which toy checkpoints are built.
        licence: Licence of the encoder's standard weights.
        tokenizer: Whether tokenizer files belong to the settings.

    Raises:
        CheckpointChoiceError: When the choice is not pinned or the path holds no checkpoint.
        CheckpointError: When the hub cannot be reached or the checkpoint holds no safetensors.
    """
    patterns = ("*.json", "*.txt", "*.safetensors")
    folder, commit, terms = _locate(
        name, checkpoint, revision=revision, toy_root=toy_root, licence=licence, patterns=patterns
    )
    if not (folder / "config.json").is_file():
        raise CheckpointChoiceError(f"encoder {name}: {folder} holds no config.json, so it is not a checkpoint folder")
    extra = [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()] if tokenizer else []
    return Checkpoint(
        path=folder,
        weights=_weights(name, folder),
        settings=(folder / "config.json", *extra),
        source=checkpoint,
        revision=commit,
        licence=terms,
    )


def resolve_file(
    name: str, checkpoint: str, *, revision: str | None, toy_root: Path, licence: str, file: str
) -> Checkpoint:
    """Find a checkpoint that is one file, such as a table of word vectors.

    Args:
        name: Encoder.
        checkpoint: ``tiny``, a local file, a local folder that holds ``file``, or a hub id.
        revision: Commit of the hub repository.
        toy_root: Folder in which toy checkpoints are built.
        licence: Licence of the encoder's standard weights.
        file: Name of the file in the folder or the repository.

    Raises:
        CheckpointChoiceError: When the choice is not pinned or there is no such file.
        CheckpointError: When the hub cannot be reached.
    """
    path, commit, terms = _locate(
        name, checkpoint, revision=revision, toy_root=toy_root, licence=licence, patterns=(file,)
    )
    path = path / file if path.is_dir() else path
    if not path.is_file():
        raise CheckpointChoiceError(
            f"encoder {name}: there is no file {path}; pass checkpoint=FILE, or file=NAME in it"
        )
    return Checkpoint(path=path, weights=(path,), settings=(), source=checkpoint, revision=commit, licence=terms)


def _locate(
    name: str,
    checkpoint: str,
    *,
    revision: str | None,
    toy_root: Path,
    licence: str,
    patterns: Sequence[str],
) -> tuple[Path, str | None, str]:
    """Path on this machine, commit and licence of what was asked for."""
    if checkpoint == TINY:
        folder = toy_checkpoint(name, toy_root)
        _warn_toy(name, str(folder))
        return folder, None, "none"
    local = Path(checkpoint).expanduser()
    if local.exists():
        return local, None, "that of the local copy"
    return download(name, checkpoint, revision=revision, patterns=patterns), revision, licence


def download(name: str, repository: str, *, revision: str | None, patterns: Sequence[str]) -> Path:
    """Files of a hub repository at one commit; from the local cache when they are in it.

    The hub library's own environment variables (``HF_HOME``, ``HF_HUB_OFFLINE``, ``HF_ENDPOINT``) hold.

    Raises:
        CheckpointChoiceError: When no commit is given.
        CheckpointError: When the files are neither in the cache nor to be had.
    """
    from huggingface_hub import snapshot_download

    if revision is None or _COMMIT.fullmatch(revision) is None:
        raise CheckpointChoiceError(
            f"encoder {name}: checkpoint={repository!r} is no local path, and as a hub id it must be pinned: pass "
            f"revision=COMMIT with 40 hexadecimal digits (got {revision!r}), a local path, or checkpoint={TINY}"
        )
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=list(patterns))
    except Exception as error:  # the hub library raises errors of several trees: its own, httpx, OSError
        raise CheckpointError(
            f"encoder {name}: {repository} at revision {revision} is not in the local hub cache and could not be "
            f"downloaded ({type(error).__name__}: {_first_line(error)}). Download these files elsewhere "
            f"({', '.join(patterns)}) and pass their folder as checkpoint=PATH, or pass checkpoint={TINY} for seeded "
            "random weights"
        ) from error
    return Path(folder)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: When the file is missing or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a JSON file of a checkpoint, but {_first_line(error)}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def config_value(checkpoint: Checkpoint, key: str) -> int:
    """One whole number of ``config.json``.

    Raises:
        CheckpointError: When it is not there.
    """
    value = read_json(checkpoint.path / "config.json").get(key)
    if type(value) is not int:
        raise CheckpointError(f"{checkpoint.path / 'config.json'}: expected a whole number {key!r}, got {value!r}")
    return value


def _weights(name: str, folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({str(file) for file in read_json(index).get("weight_map", {}).values()})
        weights = tuple(folder / file for file in files)
    else:
        weights = (folder / "model.safetensors",)
    missing = [path.name for path in weights if not path.is_file()]
    if missing or not weights:
        there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise CheckpointError(
            f"encoder {name}: expected {', '.join(missing) or 'safetensors files'} in {folder}, found {there}. Only "
            "safetensors are loaded (other formats can run code); convert the weights with save_pretrained"
        )
    return weights


def _digest_of(path: Path) -> str:
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001  size and time are part of the cache's key
    return file_sha256(path).hex()


def _settings_digest(path: Path) -> str:
    """Digest of a settings file; of ``config.json`` without the keys that do not change the numbers."""
    if path.name != "config.json":
        return f"{path.name}:{_digest_of(path)}"
    values = {key: value for key, value in read_json(path).items() if key not in _VOLATILE}
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return f"{path.name}:{hashlib.sha256(canonical.encode()).hexdigest()}"


def _joined(digests: Sequence[str]) -> str:
    if len(digests) == 1 and ":" not in digests[0]:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


@functools.cache
def _warn_toy(name: str, folder: str) -> None:
    logger.warning("encoder %s runs on a TOY checkpoint (%s): seeded random weights, no knowledge", name, folder)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
