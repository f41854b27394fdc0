"""Errors of the feature store.

StoreError
├── StoreNotFoundError      no store at that path or URL                       the call was wrong
├── NoSnapshotError         a store in which nothing was committed yet         the call was wrong
├── UnknownVersionError     a version that the store does not have             the call was wrong
├── UnknownColumnError      a column that the snapshot does not have           the call was wrong
├── SpecError               a spec or a catalogue that cannot be hashed        the call was wrong
├── ShardError              rows that a shard must not hold                    the work failed
├── CommitConflictError     another writer committed something incompatible    the work failed
├── QualityGateError        figures that a gate does not let pass              the work failed
├── EmptySnapshotError      a commit without a single row                      the work failed
├── DamagedStoreError       a file that is missing or does not match its hash  the work failed
├── StorageError            bytes that could not be written, as on a full disk the work failed
├── TagError                a tag that exists, does not exist, or is malformed the call was wrong
└── ExportError             an export that cannot be made there or like that   the call was wrong

``usage`` tells the command line which exit code to choose: 2 where the call was wrong, 1 where the work failed.
"""

from __future__ import annotations

from typing import ClassVar


class StoreError(Exception):
    """Any error of this package."""

    usage: ClassVar[bool] = False


class StoreNotFoundError(StoreError, LookupError):
    """There is no feature store at the given path or URL."""

    usage: ClassVar[bool] = True


class NoSnapshotError(StoreError, LookupError):
    """The store exists, but nothing was committed to it yet."""

    usage: ClassVar[bool] = True


class UnknownVersionError(StoreError, LookupError):
    """The store has no snapshot with that number."""

    usage: ClassVar[bool] = True


class UnknownColumnError(StoreError, LookupError):
    """The snapshot has no column with that name."""

    usage: ClassVar[bool] = True


class SpecError(StoreError, ValueError):
    """A spec that is not plain JSON, or a catalogue whose ids or content hashes are malformed."""

    usage: ClassVar[bool] = True


class ShardError(StoreError, ValueError):
    """Rows that no shard may hold: wrong shapes, repeated ids, numbers that are not finite."""


class CommitConflictError(StoreError):
    """Another writer committed in the meantime, and the two commits cannot both hold."""


class QualityGateError(StoreError):
    """Figures of a commit that a quality gate does not let pass; nothing was published."""


class EmptySnapshotError(StoreError):
    """A commit that would publish a snapshot without rows."""


class DamagedStoreError(StoreError):
    """A file of the store is missing, unreadable, or differs from the hash that is recorded for it."""


class StorageError(StoreError, OSError):
    """Bytes that could not be written, such as on a full disk."""


class TagError(StoreError, LookupError):
    """A tag that is there already, is not there, or has a name that no tag may have."""

    usage: ClassVar[bool] = True


class ExportError(StoreError, ValueError):
    """An export into a folder that is not empty, or to a format whose library is not installed."""

    usage: ClassVar[bool] = True
