"""Exceptions of this package.

.. code-block:: text

    DatasetsError
    ├── UnknownDatasetError      no dataset has that name                                   (usage)
    ├── ConfigConflictError      a setting that this dataset cannot honour                  (usage)
    ├── MissingSourceError       ``source=`` leads nowhere, or lacks a required file        (usage)
    ├── NotPreparedError         there is no prepared dataset at that path                  (usage)
    ├── DownloadError            a required file could not be fetched
    │   └── ChecksumError        it was fetched, and is not the file that was expected
    ├── DiskFullError            there is no room for a download or a result
    ├── DamagedFileError         a raw or prepared file is truncated or cannot be read
    ├── SchemaError              a table does not have the columns and types it must have
    └── EmptyResultError         nothing is left after filtering

``usage`` tells the command line which exit code to give: True = the call was wrong (2), False = the work failed (1).
"""

from __future__ import annotations

from typing import ClassVar


class DatasetsError(Exception):
    """Base of all errors of this package."""

    usage: ClassVar[bool] = False


class UnknownDatasetError(DatasetsError, LookupError):
    """No dataset has that name; the message gives the near name."""

    usage: ClassVar[bool] = True


class ConfigConflictError(DatasetsError, ValueError):
    """A setting asks for something that this dataset does not have."""

    usage: ClassVar[bool] = True


class MissingSourceError(DatasetsError, FileNotFoundError):
    """The folder given as ``source`` is absent, or a required file is absent from it."""

    usage: ClassVar[bool] = True


class NotPreparedError(DatasetsError, FileNotFoundError):
    """There is no prepared dataset at the path."""

    usage: ClassVar[bool] = True


class DownloadError(DatasetsError):
    """A file could not be fetched: the addresses that were tried, and where to place it by hand."""


class ChecksumError(DownloadError):
    """A fetched file has another size or SHA-256 than was expected."""


class DiskFullError(DatasetsError, OSError):
    """There is no room: where, how much is free, and that the same command goes on from there."""


class DamagedFileError(DatasetsError):
    """A file is truncated or cannot be read: which one, how far reading went, what to do."""


class SchemaError(DatasetsError, ValueError):
    """A table lacks a column, or a column has another type than it must have."""


class EmptyResultError(DatasetsError):
    """Nothing is left after filtering: what went in, what removed it, what to lower."""
