"""A part of the work by ``reelstore extract``: some shards, what failed, what is new; and errors that are clear."""

import argparse
import os
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from flows.commands import features as command
from flows.errors import CallError
from flows.jobs.extraction import Extraction
from flows.settings import Settings
from models.errors import ConfigError


@pytest.fixture
def settings(tmp_path, tmp_path_factory):
    toys = tmp_path_factory.getbasetemp() / "backfill-toys"
    toys.mkdir(exist_ok=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "checkpoints").symlink_to(toys)
    return Settings(root=tmp_path / "data", workers=1, device="cpu")


@pytest.fixture
def folder(tmp_path):
    """Seven pictures, the fourth of which is none."""
    covers = tmp_path / "covers"
    covers.mkdir()
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(covers / f"{number}.png")
    (covers / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    return covers


def extract(settings, folder, *words):
    options = argparse.Namespace(
        dataset=str(folder), features="vit", overrides=["checkpoint=tiny", "task_size=3", *words]
    )
    return command.extract(settings, options)


def told(outcome):
    (report,) = outcome.payload["features"]
    return report["encoded"], report["reused"], report["failed"], report["known_bad"]


def shards(outcome):
    return [(row["items"], row["done"], row["quarantined"], row["missing"]) for row in outcome.payload["shards"]]


def test_shards_then_the_rest_then_what_failed(settings, folder):
    first = extract(settings, folder, "shards=0,2")
    assert (told(first), first.code) == ((4, 0, 0, 0), 0)
    assert shards(first) == [(3, 3, 0, 0), (3, 0, 0, 3), (1, 1, 0, 0)]
    assert {item["item_id"] for item in first.payload["items"] if item["outcome"] == "missing"} == {"3", "4", "5"}
    assert "1 of 3 shards miss items that were not asked for" in first.text
    rest = extract(settings, folder)
    assert told(rest) == (2, 4, 1, 0)
    assert shards(rest) == [(3, 3, 0, 0), (3, 2, 1, 0), (1, 1, 0, 0)]
    assert told(extract(settings, folder)) == (0, 6, 0, 1)
    assert told(extract(settings, folder, "only=failed")) == (0, 6, 1, 0)
    assert told(extract(settings, folder, "only=failed", "shards=0")) == (0, 6, 0, 1)
    quarantined = [item for item in extract(settings, folder).payload["items"] if item["outcome"] == "quarantined"]
    assert [item["item_id"] for item in quarantined] == ["3"]


def test_files_of_a_day_and_later(settings, folder):
    for number in range(7):
        moment = datetime(2026, 11, 1 + number, tzinfo=UTC).timestamp()
        os.utime(folder / f"{number}.png", (moment, moment))
    assert told(extract(settings, folder, "since=2026-11-06")) == (2, 0, 0, 0)
    assert told(extract(settings, folder, "since=2026-11-05")) == (1, 2, 0, 0)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("only=new", "only: Input should be 'failed'"),
        ("shards=3-7", "shards: String should match pattern"),
        ("shards=7..3", r"did you mean 3\.\.7"),
        ("shards=1..3", r"there is no shard 3; covers has 3 of up to 3 items, numbered from 0 to 2"),
        ("since=yesterday", "since: .*expected a day such as 2026-11-01"),
        ("since=2026-02-30", "since: "),
        ("since=1700000000", "since: .*expected a day"),
        ("task_timeout_seconds=0", "task_timeout_seconds: Input should be greater than 0"),
    ],
)
def test_what_cannot_be_meant(settings, folder, word, message):
    with pytest.raises((CallError, ConfigError), match=message):
        extract(settings, folder, word)


def test_another_process_that_does_a_shard_is_noticed(settings, folder):
    overrides = {"checkpoint": "tiny", "task_size": 3}
    with (
        Extraction(settings, str(folder), features=["vit"], overrides=overrides) as mine,
        Extraction(settings, str(folder), features=["vit"], overrides=overrides) as other,
    ):
        (group,), (theirs,) = mine.groups, other.groups
        assert group.open_shards() == theirs.open_shards() == [0, 1, 2]
        other.run(theirs, theirs.work(0))
        mine.refresh(group)
        assert group.open_shards() == [1, 2]
        for number in group.open_shards():
            mine.run(group, group.work(number))
        report = mine.commit(group, "vit")
        assert (report.encoded, report.failed, report.reused) == (6, 1, 0)
        other.refresh(theirs)
        assert theirs.open_shards() == []


def test_the_device_is_locked_while_a_group_is_encoded_and_no_longer(settings, folder, tmp_path):
    overrides = {"checkpoint": "tiny", "device_lock": True, "lock_folder": str(tmp_path / "locks")}
    (tmp_path / "locks").mkdir()
    from flows.jobs.file_lock import FileLock

    probe = FileLock(tmp_path / "locks" / "reelstore-cpu.lock")
    with Extraction(settings, str(folder), features=["vit"], overrides=overrides) as extraction:
        (group,) = extraction.groups
        assert probe.acquire()
        probe.release()
        extraction.run(group, group.work(0))
        assert not probe.acquire()
        assert probe.holder()["dataset"] == "covers"
        extraction.release(group)
        assert probe.acquire()
