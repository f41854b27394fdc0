"""A folder in place of a dataset: which files are items, what is said of each, whose stores they go to."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from feature_store import FeatureStore
from flows.commands import features as command
from flows.errors import CallError
from flows.jobs.extract import extract_features
from flows.jobs.folder import MediaFolder
from flows.settings import Settings

SHARED = Path(os.environ.get("REELSTORE_SHARED", Path(__file__).parents[2].parent / "shared"))
REASONS = {
    "decord_corrupted.mp4": "corrupt",
    "exo_full_blocks.mkv": "no_video",
    "exo_invalid-bitstream.webm": "corrupt",
    "exo_sample_fragmented_clearkey.mp4": "encrypted",
    "exo_sample_opus.mp4": "no_video",
}


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def ids(folder, kind):
    return {path.name: item_id for item_id, path in MediaFolder.open(folder).media(kind)}


def test_media_files_are_items_and_the_rest_is_listed(tmp_path):
    folder = touch(tmp_path / "mine", "b.mp4", "a.MOV", "a.jpg", "notes.txt", ".hidden.mp4", "noname")
    (folder / "sub").mkdir()
    opened = MediaFolder.open(folder)
    assert opened.name == "mine"
    assert [path.name for _, path in opened.media("video")] == ["a.MOV", "b.mp4"]
    assert ids(folder, "image") == {"a.jpg": "a"}
    assert opened.media("text") == []
    assert opened.ignored == dict.fromkeys(["noname", "notes.txt", "sub"], "no media suffix")


def test_item_ids_are_unique(tmp_path):
    folder = touch(tmp_path / "mine", "a.mp4", "a.mkv", "b.mp4", "a.mp4.mov", "c.d.mp4", "a.jpg")
    found = ids(folder, "video")
    assert found == {
        "a.mkv": "a.mkv",
        "a.mp4": "a.mp4",
        "a.mp4.mov": "a.mp4.mov",  # its stem is another file's name
        "b.mp4": "b",
        "c.d.mp4": "c.d",
    }
    assert ids(folder, "image") == {"a.jpg": "a"}  # a picture beside a video is the same item


def test_a_name_that_is_no_utf8(tmp_path):
    folder = touch(tmp_path / "mine")
    (folder / os.fsdecode(b"caf\xe9.mp4")).touch()
    assert [item_id for item_id, _ in MediaFolder.open(folder).media("video")] == ["caf\\xe9"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(CallError, match="none of its 1 files has the suffix of a video or a picture"):
        MediaFolder.open(touch(tmp_path / "texts", "a.txt"))
    with pytest.raises(CallError, match=r"expected a dataset name or a folder.*No such file"):
        MediaFolder.open(tmp_path / "absent")
    with pytest.raises(CallError, match=r"expected a dataset name or a folder.*Not a directory"):
        MediaFolder.open(touch(tmp_path / "x", "a.mp4") / "a.mp4")
    with pytest.raises(CallError, match="named like a dataset"):
        MediaFolder.open(touch(tmp_path / "synthetic", "a.mp4"))


def pictures(folder, count):
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.png")
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "checkpoints"


@pytest.fixture
def settings(tmp_path, toys):
    root = tmp_path / "data"
    root.mkdir()
    toys.mkdir(exist_ok=True)
    (root / "checkpoints").symlink_to(toys)
    return Settings(root=root, workers=1, device="cpu")


def run(settings, folder, **overrides):
    return extract_features(settings, str(folder), features=["vit"], overrides={"checkpoint": "tiny", **overrides})


def test_pictures(tmp_path, settings):
    folder = pictures(tmp_path / "covers", 3)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    os.mkfifo(folder / "pipe.png")
    touch(folder, "clip.mp4", "notes.txt")
    done = run(settings, folder)
    told = [(item.item_id, item.file, item.outcome, item.n_distinct) for item in done.items]
    assert told == [
        ("broken", "broken.jpg", "quarantined", None),
        ("p0", "p0.png", "row", None),
        ("p1", "p1.png", "row", None),
        ("p2", "p2.png", "row", None),
        ("pipe", "pipe.png", "quarantined", None),
    ]
    assert {item.item_id: item.reason for item in done.items if item.reason} == {
        "broken": "unreadable",
        "pipe": "unreadable",
    }
    assert done.ignored == {"clip.mp4": "read by none of the features", "notes.txt": "no media suffix"}
    assert sorted(FeatureStore.open(settings.root / "stores" / "covers" / "vit").latest().item_ids) == [
        "p0",
        "p1",
        "p2",
    ]
    again = run(settings, folder)
    assert [(report.encoded, report.reused, report.version) for report in again.reports] == [(0, 3, 1)]
    with pytest.raises(CallError, match="verify: decodes videos again, and none of the features"):
        run(settings, folder, verify=0.5)


def test_a_store_belongs_to_one_folder(tmp_path, settings):
    first = pictures(tmp_path / "here" / "covers", 2)
    other = pictures(tmp_path / "there" / "covers", 1)
    run(settings, first)
    with pytest.raises(CallError, match=r"covers/vit holds features of the folder .*/here/covers; rename"):
        run(settings, other)
    first.rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "covers")
    assert [(report.encoded, report.reused) for report in run(settings, tmp_path / "covers").reports] == [(0, 2)]


def test_what_an_encoder_reads_has_to_be_there(tmp_path, settings):
    with pytest.raises(CallError, match=r"no item has a image.*vit.input=video"):
        run(settings, touch(tmp_path / "clips", "a.mp4"))


def test_an_audit_that_finds_a_difference_ends_with_1(tmp_path, settings):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("torchcodec_h265_video.mp4", "decord_video_90.mov"):
        (folder / name).write_bytes((SHARED / "data" / "videos" / name).read_bytes())
    words = ["checkpoint=tiny", "verify=1", "decoder=decord"]
    options = command.argparse.Namespace(dataset=str(folder), features="videomae", overrides=words)
    outcome = command.extract(settings, options)
    assert outcome.code == 1
    assert outcome.payload["audit"]["decoders"] == [
        {"decoder": "decord", "checked": 2, "equal": 1, "different": 1, "failed": 0}
    ]
    (differs,) = outcome.payload["audit"]["items"]
    assert (differs["item_id"], differs["verdict"]) == ("torchcodec_h265_video", "different")
    assert "different: torchcodec_h265_video (decord): 4 of 5 pictures differ" in outcome.text
    options.overrides = ["checkpoint=tiny", "verify=1"]
    assert command.extract(settings, options).code == 0
    options.overrides = ["checkpoint=tiny", "verify=1.5"]
    with pytest.raises(ValueError, match="verify"):
        command.extract(settings, options)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_real_clips_by_one_command(tmp_path):
    folder = SHARED / "data" / "videos"
    words = ["extract", str(folder), "--features", "videomae", "checkpoint=tiny", "verify=0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "--root", str(tmp_path), "--json", *words],
        capture_output=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["dataset"] == "videos"
    assert {item["file"]: item["reason"] for item in printed["items"] if item["outcome"] != "row"} == REASONS
    rows = {item["file"]: item["n_distinct"] for item in printed["items"] if item["outcome"] == "row"}
    assert len(rows) == 25
    assert all(1 <= distinct <= 5 for distinct in rows.values())
    assert printed["ignored"] == {"PROVENANCE.md": "no media suffix", "probe.csv": "no media suffix"}
    (audited,) = printed["audit"]["decoders"]
    assert (audited["checked"], audited["different"]) == (3, 0)
    assert FeatureStore.open(tmp_path / "stores" / "videos" / "videomae").latest().rows == 25
