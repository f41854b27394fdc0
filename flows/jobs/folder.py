"""A folder of videos or pictures in place of a prepared dataset: every media file in it is an item."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_spec import registry
from datasets_spec.errors import UnknownDatasetError
from datasets_spec.prepare import PreparedDataset
from feature_store import FeatureStore, NoSnapshotError
from flows.errors import CallError
from flows.jobs.prepare import open_prepared
from flows.settings import Settings

SUFFIXES = {
    "video": (
        *(".3g2", ".3gp", ".avi", ".f4v", ".flv", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpe"),
        *(".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    ),
    "image": (
        *(".avif", ".bmp", ".gif", ".ico", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
        *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    ),
}
"""What makes a file an item, by what encoders read; upper case counts too."""


@dataclass(frozen=True)
class MediaFolder:
    """The files of one folder, without those in folders below it and hidden ones.

    Attributes:
        path: The folder, absolute.
        name: Its name, which its stores bear.
        ignored: Names of what is no item, with the reason.
    """

    path: Path
    name: str
    ignored: dict[str, str]
    _media: dict[str, list[tuple[str, Path]]] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> MediaFolder:
        """List a folder.

        Raises:
            CallError: When there is no such folder, it holds no media file, or bears the name of a dataset.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100  unlike resolve(), it keeps the name of a link
        if is_dataset(path.name):
            raise CallError(f"{path} is named like a dataset, and stores bear that name; rename it or link to it")
        try:
            entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            what = "expected a dataset name or a folder of videos or pictures"
            raise CallError(f"{path}: {what}: {error.strerror}") from None
        media = {kind: [entry for entry in entries if _is(kind, entry)] for kind in SUFFIXES}
        if not any(media.values()):
            known = " ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
            raise CallError(f"{path}: none of its {len(entries)} files has the suffix of a video or a picture: {known}")
        items = {entry for files in media.values() for entry in files}
        ignored = {_text(entry.name): "no media suffix" for entry in entries if entry not in items}
        return cls(path, path.name, ignored, {kind: _identified(files) for kind, files in media.items()})

    @property
    def recorded(self) -> dict[str, Any]:
        """Facts to store beside a feature's identity."""
        return {"dataset": self.name, "folder": str(self.path)}

    def media(self, kind: str) -> list[tuple[str, Path]]:
        """Item id and file of each item of a kind, by name of the file."""
        return self._media.get(kind, [])

    def require_own(self, store: FeatureStore) -> None:
        """Refuse a store that holds the features of another folder of the same name.

        A folder that is not there any more may have been moved here.

        Raises:
            CallError: With what to do.
        """
        try:
            recorded = store.latest().spec.get("recorded", {})
        except NoSnapshotError:
            return
        other = recorded.get("folder")
        if other is None or (Path(other).is_dir() and not self.path.samefile(other)):
            of = f"the folder {other}" if other else f"the dataset {recorded.get('dataset')}"
            raise CallError(f"{store.name} holds features of {of}; rename {self.path}, or choose another --root")


def open_source(settings: Settings, name: str) -> PreparedDataset | MediaFolder:
    """A prepared dataset by its name, or a folder by its path.

    What holds a path separator is a path; what is no name of a dataset but a folder here is one too.

    Raises:
        CallError: For a folder that cannot be used.
        UnknownDatasetError: For a name that is neither.
        NotPreparedError: When the dataset has not been prepared.
    """
    if os.sep in name or (Path(name).is_dir() and not is_dataset(name)):
        return MediaFolder.open(Path(name))
    return open_prepared(settings, name)


def is_dataset(name: str) -> bool:
    """Whether there is a dataset of that name."""
    try:
        registry.load(name)
    except UnknownDatasetError:
        return False
    return True


def _is(kind: str, entry: Path) -> bool:
    return entry.suffix.lower() in SUFFIXES[kind]


def _identified(files: list[Path]) -> list[tuple[str, Path]]:
    """Item ids: names without suffix; whole names where those would not be unique."""
    stems = Counter(file.stem for file in files)
    names = {file.name for file in files}
    unique = {file for file in files if stems[file.stem] == 1 and file.stem not in names}
    return [(_text(file.stem if file in unique else file.name), file) for file in files]


def _text(name: str) -> str:
    """A file's name as valid text: bytes that are no UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
