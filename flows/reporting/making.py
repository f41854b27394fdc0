"""How each run was made: the command that repeats it, its configuration and its inputs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.config import dump_toml
from flows.reporting.runs import Run, names_of
from flows.reporting.view import Fact, code, seconds_text, text, time_text
from flows.settings import Settings


@dataclass(frozen=True)
class RunSection:
    """One run, for the page.

    Attributes:
        run_id: Its name.
        headline: Model, dataset, seed.
        facts: Inputs, code, time, machine.
        command: Repeats the run.
        config_toml: The resolved configuration.
    """

    run_id: str
    headline: str
    facts: tuple[Fact, ...]
    command: str
    config_toml: str


def describe(run: Run, settings: Settings) -> RunSection:
    """Everything that is needed to repeat a run."""
    record = run.record
    protocol = record.protocol
    timings = ", ".join(f"{stage} {seconds_text(seconds)}" for stage, seconds in record.timings.items())
    extra = {key: value for key, value in record.extra.items() if key != "machine"}
    facts = (
        Fact("dataset", text(record.dataset)),
        Fact("dataset version", code(record.dataset_version, short=16)),
        Fact("stores", code(names_of(record.stores) or "none read")),
        Fact("selected", text(f"epoch {record.selected_epoch} by {protocol.selected_by}")),
        Fact("git commit", code(record.git_sha or "not in a repository")),
        Fact("requirements.lock", code(record.lock_hash, short=16)),
        Fact("time", text(timings)),
        Fact("machine", text(record.extra.get("machine") or "not recorded")),
        Fact("finished", text(time_text(record.created_at))),
        Fact("protocol", text(_protocol(run))),
        *(Fact(key.replace("_", " "), text(_plain(value))) for key, value in extra.items()),
    )
    return RunSection(
        run_id=record.run_id,
        headline=f"{record.model} on {record.dataset}, seed {record.seed}",
        facts=facts,
        command=_command(run.folder, settings),
        config_toml=_config(run),
    )


def _plain(value: object) -> object:
    """A table as ``key value, key value``; a table within it in brackets."""
    if not isinstance(value, Mapping):
        return value
    parts = (
        f"{key} ({_plain(inner)})" if isinstance(inner, Mapping) else f"{key} {inner}" for key, inner in value.items()
    )
    return ", ".join(parts)


def _protocol(run: Run) -> str:
    protocol = run.record.protocol
    parts = [
        f"{protocol.candidates} ({protocol.n_candidates:,})",
        f"{protocol.n_users.get('test', 0):,} test users",
        f"ties {protocol.ties} ({protocol.n_tied.get('test', 0):,} users with ties)",
    ]
    if protocol.without_history.get("test"):
        parts.append(f"{protocol.without_history['test']:,} users without history")
    if protocol.n_errors.get("test"):
        parts.append(f"{protocol.n_errors['test']:,} users whose score was not a number")
    return "; ".join(parts)


def _command(folder: Path, settings: Settings) -> str:
    return shlex.join(["reelstore", "--root", str(settings.root), "train", str(folder / "config.toml")])


def _config(run: Run) -> str:
    """The file of the run, or what the record says where that is gone."""
    try:
        return (run.folder / "config.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return dump_toml(run.record.config)
