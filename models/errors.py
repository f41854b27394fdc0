"""Everything that ``models`` raises on purpose.

ModelsError
├── ConfigError            usage   a configuration with unknown keys or impossible values
├── UnknownModelError      usage   no recommender has that name
├── MissingFeatureError    usage   a feature table is absent or has the wrong shape
├── SequenceDataError      usage   interactions that cannot be used
├── ResumeError            usage   the run directory holds another run
├── RecommendationError    usage   a list that cannot be made
├── RecordError            usage   a run directory without a readable record
└── TrainingError                  training went wrong, such as a loss that is not a number

No torch here: the command line catches these before it pays for heavy imports.
"""

from __future__ import annotations

from typing import ClassVar


class ModelsError(Exception):
    """Base of the tree.

    Attributes:
        usage: True when the call was wrong, False when the work failed.
    """

    usage: ClassVar[bool] = False


class ConfigError(ModelsError, ValueError):
    """A configuration that cannot be used: where, what came, what was expected."""

    usage = True


class UnknownModelError(ModelsError, LookupError):
    """No recommender has that name."""

    usage = True


class MissingFeatureError(ModelsError, ValueError):
    """A model needs a feature table that was not given, or that has the wrong shape."""

    usage = True


class SequenceDataError(ModelsError, ValueError):
    """Interactions, or a request for batches of them, that cannot be used."""

    usage = True


class ResumeError(ModelsError, ValueError):
    """A run directory holds the checkpoint of another run."""

    usage = True


class RecommendationError(ModelsError, ValueError):
    """A list of recommendations that cannot be made."""

    usage = True


class RecordError(ModelsError, ValueError):
    """A run's record or ranks that are absent or unreadable."""

    usage = True


class TrainingError(ModelsError, RuntimeError):
    """Training went wrong."""
