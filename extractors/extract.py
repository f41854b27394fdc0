"""From items to a committed snapshot: hash, plan, read, encode, write, commit.

:func:`extract_visual` and :func:`extract_text` do all of it. A workflow engine takes the steps apart: it opens the
features, gives :func:`run_visual` or :func:`run_text` a few items at a time (:func:`chunks`), and commits once. What is
done is decided by the store alone, so any of the steps can be killed and done again.

Of several encoders that read the same media with the same sampling, one decode feeds all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from extractors import kept, registry
from extractors.content import Progress, hash_files, text_sha256
from extractors.kept import KeptFrames
from extractors.lanes import Feature, Tally
from extractors.pool import DecodePool
from extractors.resize import ResizeMode
from extractors.run import STAGES, announce, media_of, run_text, run_visual, stage_shares
from extractors.spec import EncoderSpec, StrictModel
from feature_store.errors import EmptySnapshotError
from feature_store.gates import Gates
from feature_store.plan import Plan
from feature_store.quarantine import QuarantineRow
from feature_store.store import FeatureStore

__all__ = [
    "Contents",
    "ExtractReport",
    "Feature",
    "Tally",
    "announce",
    "chunks",
    "commit_feature",
    "extract_text",
    "extract_visual",
    "hash_media",
    "hash_texts",
    "keep_frames",
    "open_feature",
    "plan_extraction",
    "run_text",
    "run_visual",
]


@dataclass(frozen=True)
class Contents:
    """What the items of a run hold.

    Attributes:
        hashes: SHA-256 of the content, 32 bytes, by item id in the order of the items.
        unreadable: Items whose content cannot be read at all; they cannot be planned.
    """

    hashes: dict[str, bytes]
    unreadable: tuple[QuarantineRow, ...] = ()


@dataclass(frozen=True)
class ExtractReport:
    """What one run did to one feature.

    Attributes:
        feature: Encoder.
        version: Snapshot that holds the result; None when there is no row at all.
        encoded: Rows written now.
        reused: Items whose rows were there already.
        failed: Items put in quarantine now.
        source_gone: Items whose content cannot be read any more; their rows of an earlier run stay, and are part of
            ``reused``.
        known_bad: Items left in quarantine from an earlier run.
        toy: Whether the weights are a toy's.
        seconds: Time by stage.
        items_per_second: Items encoded per second of reading, encoding and writing; 0 when there were none.
        shares: Part of that time by stage, 0 to 1; ``read`` is the time in which the encoder waited for files.
        counts: Figures of the encoder, such as ``tokens``.
    """

    feature: str
    version: int | None
    encoded: int
    reused: int
    failed: int
    source_gone: int
    known_bad: int
    toy: bool
    seconds: dict[str, float]
    items_per_second: float
    shares: dict[str, float]
    counts: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def hash_media(files: Mapping[str, Path], *, cache: Path | None = None, progress: Progress | None = None) -> Contents:
    """Hash files, several at a time.

    Args:
        files: Item id and file.
        cache: JSON file that remembers hashes between runs, by path, size and times.
        progress: Called with ``("hash", done, total)``.
    """
    hashes, errors = hash_files(files.items(), cache=cache, progress=progress)
    unreadable = [QuarantineRow(item_id, "read", *_reason(error), None) for item_id, error in errors.items()]
    return Contents(hashes, tuple(unreadable))


def hash_texts(texts: Mapping[str, str]) -> Contents:
    """Hash texts."""
    return Contents({item_id: text_sha256(text) for item_id, text in texts.items()})


def plan_extraction(
    spec: EncoderSpec, contents: Contents, store: FeatureStore, *, recorded: Mapping[str, Any] | None = None
) -> Plan:
    """Find out which items have to be encoded; items that cannot be read go into quarantine here.

    But for those that have a row from when they could be read: it stays, see ``Plan.source_gone``.

    Args:
        spec: Identity of the feature.
        contents: Hashes of all items of the data set.
        store: Where the rows go.
        recorded: Facts to store beside the identity, such as the data set's name and version.
    """
    plan = store.plan(spec.identity(recorded), contents.hashes, [row.item_id for row in contents.unreadable])
    kept = set(plan.source_gone)
    store.quarantine([row for row in contents.unreadable if row.item_id not in kept], plan)
    return plan


def open_feature(
    name: str,
    config: Mapping[str, Any] | StrictModel | None,
    *,
    contents: Contents,
    store: FeatureStore,
    toy_root: Path,
    device: str = "cpu",
    recorded: Mapping[str, Any] | None = None,
) -> Feature:
    """Describe an encoder and plan its work; the model is loaded when there turns out to be work.

    Args:
        name: Encoder.
        config: Its settings.
        contents: Hashes of all items of the data set.
        store: Where the rows go.
        toy_root: Folder of toy checkpoints.
        device: Where to run.
        recorded: Facts to store beside the identity.

    Raises:
        UnknownEncoderError: For an unknown encoder.
        EncoderConfigError: For unknown keys and impossible values.
        CheckpointChoiceError: When the checkpoint is not pinned.
        CheckpointError: When its files cannot be had.
    """
    parsed = registry.parse_config(name, config)
    spec = registry.describe(name, parsed, toy_root=toy_root)
    plan = plan_extraction(spec, contents, store, recorded={"device": device, **dict(recorded or {})})
    shard_size: int = parsed.model_dump()["shard_size"]
    factory = functools.partial(registry.build, name, parsed, device=device, toy_root=toy_root)
    return Feature(spec, store=store, plan=plan, shard_size=shard_size, factory=factory)


def keep_frames(
    modes: Sequence[ResizeMode],
    sampling: Mapping[str, Any],
    *,
    contents: Contents,
    store: FeatureStore,
    recorded: Mapping[str, Any] | None = None,
) -> Feature:
    """Plan the keeping of sampled frames; the result goes through a run like any feature over videos.

    Args:
        modes: Geometries: ``centre_crop``, ``squash`` or both.
        sampling: ``frames``, ``fps`` and ``decoder``, as the encoders that will read them sample.
        contents: Hashes of all items of the data set.
        store: Where the frames go.
        recorded: Facts to store beside the identity.
    """
    spec, keeper = kept.describe(modes, sampling)
    plan = plan_extraction(spec, contents, store, recorded=recorded)
    return Feature(spec, store=store, plan=plan, shard_size=kept.SHARD_SIZE, factory=lambda: keeper)


def chunks(features: Sequence[Feature], item_ids: Sequence[str], size: int) -> list[list[str]]:
    """Cut what is to do into tasks: items that any feature still needs; equal contents share a task.

    Args:
        features: Features over the same media.
        item_ids: All items.
        size: Items in a task; more only where equal contents keep together.
    """
    ids_of: dict[bytes, dict[str, None]] = {}
    for feature in features:
        for content, ids in feature.groups(item_ids).items():
            ids_of.setdefault(content, {}).update(dict.fromkeys(ids))
    tasks: list[list[str]] = []
    for ids in ids_of.values():
        if not tasks or len(tasks[-1]) >= size:
            tasks.append([])
        tasks[-1].extend(ids)
    return tasks


def commit_feature(
    feature: Feature,
    tally: Tally,
    *,
    unreadable: int = 0,
    catalogue_size: int | None = None,
    progress: Progress | None = None,
    gates: Gates | None = None,
) -> ExtractReport:
    """Publish what was written, once all tasks of a feature are done.

    Args:
        feature: The feature.
        tally: Sum over its tasks.
        unreadable: Items whose content could not be read, those among them that keep their rows included.
        catalogue_size: Items of the data set, for the coverage; None for those that were planned.
        progress: Called with ``("measure", done, total)``.
        gates: Limits that the figures must keep; None judges nothing.

    Raises:
        CommitConflictError: When another writer committed something that contradicts the plan.
        QualityGateError: When the figures do not keep the limits; what was written stays for the next commit.
    """
    source_gone = len(feature.plan.source_gone)
    failed = tally.failed + unreadable - source_gone
    recorded = {
        "counts": dict(tally.counts), "encoded": tally.encoded, "failed": failed, "source_gone": source_gone,
    }  # fmt: skip
    try:
        with tally.timed("commit"):
            snapshot = feature.store.commit(
                feature.plan, catalogue_size=catalogue_size, recorded=recorded, progress=progress, gates=gates
            )
        version = snapshot.version
    except EmptySnapshotError:  # every item failed, and each has its reason in quarantine
        version = None
    shares = stage_shares(tally.seconds)
    worked = sum(tally.seconds.get(stage, 0.0) for stage in STAGES)
    return ExtractReport(
        feature=feature.name,
        version=version,
        encoded=tally.encoded,
        reused=feature.plan.reused,
        failed=failed,
        source_gone=source_gone,
        known_bad=len(feature.plan.known_bad),
        toy=feature.spec.checkpoint.toy,
        seconds={stage: round(seconds, 3) for stage, seconds in tally.seconds.items()},
        items_per_second=round(tally.encoded / worked, 2) if tally.encoded and worked else 0.0,
        shares={stage: round(share, 3) for stage, share in shares.items()},
        counts=dict(tally.counts),
    )


def extract_visual(
    files: Mapping[str, Path],
    features: Sequence[Feature],
    *,
    contents: Contents,
    pool: DecodePool | None = None,
    frames: KeptFrames | None = None,
    catalogue_size: int | None = None,
    progress: Progress | None = None,
) -> list[ExtractReport]:
    """Bring visual features up to date, in one process; see :func:`run_visual` and :func:`commit_feature`."""
    tallies: dict[str, Tally] = {}
    for media in dict.fromkeys(media_of(feature.spec) for feature in features):
        group = [feature for feature in features if media_of(feature.spec) == media]
        tallies |= run_visual(files, group, pool=pool, frames=frames, progress=progress)
    lost = len(contents.unreadable)
    return [
        commit_feature(
            feature, tallies[feature.name], unreadable=lost, catalogue_size=catalogue_size, progress=progress
        )
        for feature in features
    ]


def extract_text(
    texts: Mapping[str, str],
    feature: Feature,
    *,
    catalogue_size: int | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Bring a text feature up to date, in one process; see :func:`run_text` and :func:`commit_feature`."""
    tally = run_text(texts, feature, progress=progress)
    return commit_feature(feature, tally, catalogue_size=catalogue_size, progress=progress)


def _reason(error: OSError) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "missing_file", f"{error.filename} does not exist"
    return "unreadable", f"{error.filename}: {error.strerror}"
