"""What a dataset consists of, and what may be set about its preparation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

#: Called as ``progress(stage, done, total)``; ``total`` is None where it is not known.
Progress = Callable[[str, int, int | None], None]

Modality = Literal["text", "image", "video"]
MediaKind = Literal["video", "image"]
SplitName = Literal["leave_one_out", "user_811", "temporal"]


def _from_commas(value: Any) -> Any:
    """``"text,image"`` -> ``("text", "image")``, ``""`` -> ``()``; everything else passes."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


@dataclass(frozen=True)
class RemoteFile:
    """One raw file.

    Attributes:
        path: Where it lies below the raw folder of the dataset, ``/`` between parts.
        url: Absolute address, or an address below the base addresses of the dataset.
        sha256: Expected digest in hexadecimal; None where none is published.
        bytes: Expected size; None where none is published.
        required: False = preparation goes on without it, and says so.
    """

    path: str
    url: str
    sha256: str | None = None
    bytes: int | None = None
    required: bool = True


@dataclass(frozen=True)
class Licence:
    """Terms under which the data may be used.

    Attributes:
        name: Short name; ``"none stated"`` where the publisher states none.
        url: Where the terms are written.
        note: What a user has to know, in a sentence.
    """

    name: str
    url: str
    note: str


class PrepareConfig(BaseModel):
    """What may be set about the preparation of a dataset.

    Attributes:
        k_user: Every user keeps at least this many rows (k-core to the fixpoint); 1 = no bound.
        k_item: Every item keeps at least this many rows; 1 = no bound.
        split: ``leave_one_out``, ``user_811`` (users 8:1:1) or ``temporal`` (rows 8:1:1 by global time).
        require: Modalities that an item must have to stay; the others leave before the k-core.
        dedupe: Keep the first in time of rows with equal user and item.
        limit: Keep the first ``limit`` items by item id only, before the k-core: for smoke runs.
        sample_users: Keep this many users only, drawn by a hash of ``seed`` and user id, before everything else.
        last_n: Keep the youngest ``last_n`` rows of every user, after ``dedupe`` and before the k-core.
        media: Media files to fetch; None = what the dataset fetches by default.
        seed: Decides the ``user_811`` split and ``sample_users``.
        base_url: Address below which relative file addresses lie; None = the dataset's own.
        mirrors: Further base addresses, tried in order when the first fails.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    k_user: int = Field(default=5, ge=1)
    k_item: int = Field(default=5, ge=1)
    split: SplitName = "leave_one_out"
    require: Annotated[tuple[Modality, ...], BeforeValidator(_from_commas)] = ()
    dedupe: bool = True
    limit: int | None = Field(default=None, gt=0)
    sample_users: int | None = Field(default=None, gt=0)
    last_n: int | None = Field(default=None, gt=0)
    media: Annotated[tuple[MediaKind, ...] | None, BeforeValidator(_from_commas)] = None
    seed: int = Field(default=0, ge=0)
    base_url: str | None = None
    mirrors: Annotated[tuple[str, ...], BeforeValidator(_from_commas)] = ()


@dataclass(frozen=True)
class PublishedCounts:
    """Sizes that a paper prints for its version of a dataset: printed beside ours, never asserted.

    Attributes:
        source: Paper and table.
        users: Users after filtering.
        items: Items after filtering.
        interactions: Interactions after filtering.
    """

    source: str
    users: int
    items: int
    interactions: int


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset: where it comes from, under which terms, and how it is prepared by default.

    Attributes:
        name: The name on the command line and of its folders.
        title: One line for people.
        licence: Terms.
        access: How to get the files when no download is possible, and what to know before.
        files: The raw files, without media.
        media: Media kinds that the dataset can give.
        config: Defaults of its preparation. ``config.media`` None means all of ``media``.
        published: Sizes printed by papers for this recipe.
        raw: Dataset whose raw folder is shared, for a recipe over the files of another dataset; None = its own.
    """

    name: str
    title: str
    licence: Licence
    access: str
    files: tuple[RemoteFile, ...]
    media: tuple[MediaKind, ...]
    config: PrepareConfig
    published: tuple[PublishedCounts, ...] = ()
    raw: str | None = None

    def bases(self, config: PrepareConfig) -> tuple[str, ...]:
        """Base addresses to try, in order: those of ``config``, else the dataset's own."""
        chosen = config if config.base_url or config.mirrors else self.config
        return tuple(base for base in (chosen.base_url, *chosen.mirrors) if base)

    def media_for(self, config: PrepareConfig) -> tuple[MediaKind, ...]:
        """Media kinds to fetch: those of ``config``, else the dataset's default, else all."""
        for chosen in (config.media, self.config.media):
            if chosen is not None:
                return chosen
        return self.media
