"""``reelstore extract``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from extractors.audit import Comparison, count
from extractors.extract import ExtractReport
from flows.commands.outcome import Outcome, table
from flows.config import parse_overrides
from flows.jobs.extract import Extracted, extract_features
from flows.jobs.outcomes import ItemOutcome
from flows.jobs.progress import Progress
from flows.jobs.shards import Shard
from flows.settings import Settings

#: Lines of a dataset's quarantined items, and of an audit's differing ones, that are printed; JSON has them all.
SHOWN = 20


def extract(settings: Settings, options: argparse.Namespace) -> Outcome:
    """Bring the stores of a dataset, or of a folder of videos or pictures, up to date.

    Exit code 1 when a feature has no row at all, or an audit finds a difference.
    """
    features = [name.strip() for name in options.features.split(",") if name.strip()] if options.features else None
    with Progress() as progress:
        done = extract_features(
            settings,
            options.dataset,
            features=features,
            overrides=parse_overrides(options.overrides),
            progress=progress,
        )
    whole = any(item.outcome == "row" for item in done.items)
    parts = [
        _items(done.items, settings, done.dataset, limit=None if whole else SHOWN),
        _ignored(done.ignored),
        _reports(done.reports),
        _shards(done.shards, partial=done.partial),
        _audit(done.audit),
    ]
    empty = any(report.version is None for report in done.reports)
    differs = any(comparison.verdict == "different" for comparison in done.audit or ())
    return Outcome(_payload(done), "\n\n".join(part for part in parts if part), code=1 if empty or differs else 0)


def _payload(done: Extracted) -> dict[str, object]:
    payload: dict[str, object] = {
        "dataset": done.dataset,
        "features": [report.as_dict() for report in done.reports],
        "items": [asdict(item) for item in done.items],
        "ignored": done.ignored,
        "shards": [shard.as_dict() for shard in done.shards],
    }
    if done.audit is not None:
        payload["audit"] = {
            "decoders": [row.as_dict() for row in count(done.audit)],
            "items": [comparison.as_dict() for comparison in done.audit if comparison.verdict != "equal"],
        }
    return payload


def _reports(reports: Sequence[ExtractReport]) -> str:
    rows = [
        [
            report.feature, "none" if report.version is None else f"v{report.version}", report.encoded, report.reused,
            report.failed, report.known_bad, report.items_per_second,
            " ".join(f"{stage} {share:.0%}" for stage, share in report.shares.items()),
            "TOY CHECKPOINT" if report.toy else "",
        ]
        for report in reports
    ]  # fmt: skip
    header = ("feature", "version", "encoded", "reused", "failed now", "known bad", "items/s", "time", "")
    text = table(header, rows)
    if not any(report.encoded or report.failed for report in reports):
        text += "\nnothing changed: no item was encoded again"
    for report in reports:
        if report.source_gone:
            kept = f"{report.source_gone} items keep their rows, though their files cannot be read any more"
            text += f"\n{report.feature}: {kept}"
    if any(report.toy for report in reports):
        text += (
            "\nNOTE: seeded toy checkpoints carry no knowledge of the world; these features are for trying things out"
        )
    return text


def _shards(shards: Sequence[Shard], *, partial: bool) -> str:
    """The shards that miss something, of a run that was to do a part."""
    lacking = [shard for shard in shards if shard.missing]
    if not partial or not lacking:
        return ""
    header = ("features", "shard", "items", "done", "quarantined", "missing")
    rows = [list(shard.as_dict().values()) for shard in lacking[:SHOWN]]
    lines = [f"{len(lacking)} of {len(shards)} shards miss items that were not asked for:", table(header, rows)]
    if len(lacking) > SHOWN:
        lines.append(f"… and {len(lacking) - SHOWN} more, all of them with --json")
    return "\n".join(lines)


def _items(items: Sequence[ItemOutcome], settings: Settings, dataset: str, *, limit: int | None) -> str:
    if not items:
        return ""
    header = ("feature", "file", "outcome", "distinct frames", "reason")
    rows = [
        [item.feature, item.file or item.item_id, item.outcome, _blank(item.n_distinct), _why(item)]
        for item in items[:limit]
    ]
    text = table(header, rows)
    if limit is not None and len(items) > limit:
        names = " ".join(dict.fromkeys(f"{dataset}/{item.feature}" for item in items))
        text += f"\n… and {len(items) - limit} more: reelstore --root {settings.root} store quarantine {names}"
    return text


def _ignored(ignored: dict[str, str]) -> str:
    return "\n".join(f"ignored: {name} ({reason})" for name, reason in ignored.items())


def _audit(comparisons: Sequence[Comparison] | None) -> str:
    if comparisons is None:
        return ""
    header = ("decoder", "checked", "equal", "different", "failed")
    rows = [[row.decoder, row.checked, row.equal, row.different, row.failed] for row in count(comparisons)]
    told = [comparison for comparison in comparisons if comparison.verdict != "equal"]
    lines = [f"{entry.verdict}: {entry.item_id} ({entry.decoder}): {entry.detail}" for entry in told[:SHOWN]]
    if len(told) > SHOWN:
        lines.append(f"… and {len(told) - SHOWN} more, all of them with --json")
    return "\n".join(["videos decoded again in full:", table(header, rows), *lines])


def _blank(value: int | None) -> str:
    return "" if value is None else str(value)


def _why(item: ItemOutcome) -> str:
    return f"{item.reason}: {item.detail}" if item.reason else ""
