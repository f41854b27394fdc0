"""The raw folder of a dataset: its files are downloaded into it, or read in place where ``source`` says.

``raw/<dataset>/source.json`` remembers where the files come from: ``{"path": …}`` for a local folder, which is read
in place and never copied, or ``{"url": …}`` for an address. It stays in force until another ``source`` is given;
files fetched from another address are then fetched anew. Files of a ``source`` are taken as they are: published
checksums bind only what comes from the dataset's own addresses. What was read is hashed into the manifest either way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from datasets_spec.download import DownloadFailure, fetch_many
from datasets_spec.errors import ChecksumError, DownloadError, MissingSourceError
from datasets_spec.spec import DatasetSpec, PrepareConfig, Progress, RemoteFile

_POINTER = "source.json"


@dataclass(frozen=True)
class FileOnDisk:
    """One file of a dataset and what of it is on disk.

    Attributes:
        file: The file.
        path: Where it lies or would lie.
        bytes: Its size; None when it is not there.
        part: Bytes of an interrupted download.
    """

    file: RemoteFile
    path: Path
    bytes: int | None
    part: int


def on_disk(spec: DatasetSpec, raw_dir: Path) -> list[FileOnDisk]:
    """What of a dataset's raw files is on disk, in the order of ``spec.files``."""
    found: list[FileOnDisk] = []
    for file in spec.files:
        path = raw_file(raw_dir, file.path)
        part = path.with_name(path.name + ".part")
        size = path.stat().st_size if path.is_file() else None
        found.append(FileOnDisk(file, path, size, part.stat().st_size if part.is_file() else 0))
    return found


def raw_root(raw_dir: Path) -> Path:
    """The folder the raw files lie in: the remembered local ``source``, else ``raw_dir`` itself."""
    return Path(_read_pointer(raw_dir).get("path", raw_dir))


def raw_file(raw_dir: Path, path: str) -> Path:
    """Where the raw file ``path`` lies, whether or not it is there."""
    return raw_root(raw_dir) / path


def acquire_files(
    spec: DatasetSpec,
    config: PrepareConfig,
    raw_dir: Path,
    *,
    source: str | None,
    client: httpx.Client | None = None,
    progress: Progress | None = None,
) -> list[DownloadFailure]:
    """Make ``spec.files`` available: point to a local folder, or download what is missing.

    Args:
        spec: The dataset.
        config: Its base addresses.
        raw_dir: ``raw/<dataset>``; made when absent.
        source: A local folder, an address below which the files lie, or None for the dataset's own addresses (or
            the source that was given last).
        client: Carries authentication; None = a plain client.
        progress: See :func:`datasets_spec.download.fetch_many`.

    Returns:
        The optional files that do not exist there.

    Raises:
        MissingSourceError: The local folder or a required file in it is absent.
        DownloadError: A file could not be fetched; of the optional ones only if it does exist.
    """
    raw_dir.mkdir(parents=True, exist_ok=True)
    remembered = _read_pointer(raw_dir)
    folder, url = _locate(remembered if source is None else _parse(source))
    if folder is not None:
        failures = _check_folder(spec, folder)
        _write_pointer(raw_dir, {"path": str(folder)})
        return failures
    if url is not None and remembered.get("url") != url:
        _forget_files(spec, raw_dir)
        _write_pointer(raw_dir, {"url": url})
    bases = spec.bases(config) if url is None else (url,)
    failures = list[DownloadFailure]()
    wanted = list(spec.files)
    if url is not None:  # the files lie there side by side, or as below the dataset's own addresses
        wanted = [replace(file, sha256=None, bytes=None) for file in wanted]  # they need not be the published ones
        flat = [replace(file, url=file.path) for file in wanted]
        failures = fetch_many(flat, raw_dir, bases=bases, client=client, progress=progress)
        missing = {failure.file.path for failure in failures}
        wanted = [file for file in wanted if file.path in missing and not urlsplit(file.url).scheme]
        failures = [failure for failure in failures if failure.file.path not in {file.path for file in wanted}]
    failures += fetch_many(wanted, raw_dir, bases=bases, client=client, progress=progress)
    return _optional_only(spec, failures, raw_dir)


def _parse(source: str) -> dict[str, str]:
    """``source`` in the form of the pointer."""
    parts = urlsplit(source)
    if parts.scheme in {"http", "https"}:
        return {"url": source}
    return {"path": unquote(parts.path) if parts.scheme == "file" else source}


def _locate(pointer: dict[str, str]) -> tuple[Path | None, str | None]:
    """The existing local folder, or the address, or neither."""
    if "path" not in pointer:
        return None, pointer.get("url")
    folder = Path(pointer["path"]).expanduser().resolve()
    if folder.is_dir():
        return folder, None
    what = "a file" if folder.exists() else "nothing"
    raise MissingSourceError(f"source: expected a folder or an http(s) address, found {what} at {folder}")


def _check_folder(spec: DatasetSpec, folder: Path) -> list[DownloadFailure]:
    """Which optional files a local folder lacks."""
    absent = [file for file in spec.files if not (folder / file.path).is_file()]
    required = [file.path for file in absent if file.required]
    if required:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
        raise MissingSourceError(
            f"{spec.name}: expected {', '.join(required)} in {folder}; found there: {there}. {spec.access}"
        )
    return [DownloadFailure(file, "not_found", f"not in {folder}") for file in absent]


def _optional_only(spec: DatasetSpec, failures: list[DownloadFailure], raw_dir: Path) -> list[DownloadFailure]:
    """The failures, unless a required file is among them, or one that is there and could not be fetched."""
    required = [failure for failure in failures if failure.file.required or failure.reason != "not_found"]
    if required:
        lines = [f"{raw_dir / failure.file.path}: {failure.detail}" for failure in required]
        kind = ChecksumError if all(failure.reason == "checksum" for failure in required) else DownloadError
        raise kind(
            f"{spec.name}: {len(required)} files could not be fetched. Place them there by hand, or pass "
            f"source=FOLDER_OR_URL. {spec.access}\n" + "\n".join(lines)
        )
    return failures


def _forget_files(spec: DatasetSpec, raw_dir: Path) -> None:
    """Remove raw files that came from another address."""
    for file in spec.files:
        (raw_dir / file.path).unlink(missing_ok=True)


def _read_pointer(raw_dir: Path) -> dict[str, str]:
    try:
        return json.loads((raw_dir / _POINTER).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise MissingSourceError(
            f"{raw_dir / _POINTER}: expected JSON with 'path' or 'url' ({error}); delete it or pass source="
        ) from error


def _write_pointer(raw_dir: Path, pointer: dict[str, str]) -> None:
    temporary = raw_dir / f"{_POINTER}.tmp"
    temporary.write_text(json.dumps(pointer))
    temporary.replace(raw_dir / _POINTER)
