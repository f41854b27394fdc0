"""MicroLens videos out of a split archive."""

import logging
import re

import pytest
from split_zips import QUICK, RNG, build, entries, write

from datasets_spec.archive_media import take_remote
from datasets_spec.errors import DownloadError
from datasets_spec.prepare import prepare
from datasets_spec.spec import PrepareConfig


def _tables(items=("1", "2")):
    pairs = "".join(f"{user},{item},1583378629552\n" for user in (1, 2) for item in items)
    titles = "".join(f"{item},title {item}\n" for item in items)
    return {
        "MicroLens-100k_pairs.csv": f"user,item,timestamp\n{pairs}".encode(),
        "MicroLens-100k_title_en.csv": titles.encode(),
    }


VIDEOS = {f"MicroLens-100k_videos/{i}.mp4": RNG.bytes(3_000 + i) for i in range(1, 30)}
ZIPPED = build(entries(VIDEOS), volume=10_000, archive="MicroLens-100k_videos.zip")
CONFIG = PrepareConfig(k_user=1, k_item=1, media=("video",))


def _check(prepared, expected):
    found = {item_id: path.read_bytes() for item_id, path in prepared.media("video")}
    assert found == {item_id: VIDEOS[f"MicroLens-100k_videos/{item_id}.mp4"] for item_id in expected}


@pytest.mark.parametrize("where", ["site", "folder", "placed by hand"])
def test_videos_of_microlens_come_out_of_the_split_zip(tmp_path, site, caplog, where):
    tables = _tables(["1", "2", "77"])
    site.files = tables if where == "placed by hand" else {**tables, **ZIPPED}
    config, source = CONFIG.model_copy(update={"base_url": site.url}), None
    if where == "folder":
        source = str(write(tmp_path / "mine", site.files))
    elif where == "placed by hand":
        write(tmp_path / "raw" / "microlens-100k", ZIPPED)
    with caplog.at_level(logging.INFO, logger="datasets_spec"):
        prepared = prepare("microlens-100k", root=tmp_path, config=config, source=source)
    _check(prepared, ["1", "2"])
    assert re.search(r"3 files are read one by one out of (its 29 members|MicroLens-100k_videos.zip)", caplog.text)
    (row,) = prepared.quarantine.filter(stage="media").iter_rows(named=True)
    assert (row["item_id"], row["reason"]) == ("77", "missing")
    assert row["detail"].startswith("not in MicroLens-100k_videos.zip at ")
    before = len(site.requests)
    _check(prepare("microlens-100k", root=tmp_path, config=config), ["1", "2"])
    assert not [path for path, _, _ in site.requests[before:] if ".z0" in path]  # what is there is not fetched again
    if where == "folder":
        assert {path.name for path in (tmp_path / "mine").iterdir()} == set(tables) | set(ZIPPED)


def test_single_files_are_preferred_to_the_zip(tmp_path, site, caplog):
    site.files = {**_tables(), **ZIPPED, **VIDEOS}
    with caplog.at_level(logging.INFO, logger="datasets_spec"):
        _check(prepare("microlens-100k", root=tmp_path, config=CONFIG, source=site.url), ["1", "2"])
    assert not [path for path, _, _ in site.requests if ".z" in path]
    assert "MicroLens-100k_videos/1.mp4 is there: the files are fetched one by one" in caplog.text


def test_items_may_be_required_to_have_a_video_in_the_zip(tmp_path):
    folder = write(tmp_path / "mine", {**_tables(["1", "2", "77"]), **ZIPPED})
    config = CONFIG.model_copy(update={"require": ("video",)})
    prepared = prepare("microlens-100k", root=tmp_path, config=config, source=str(folder))
    assert prepared.items["item_id"].to_list() == ["1", "2"]


def test_what_one_address_lacks_is_tried_at_the_next(tmp_path, site, windows):
    for name, data in ZIPPED.items():
        site.files[f"b/{name}"] = data
        if not name.endswith("z01"):
            site.files[f"a/{name}"] = data
    bases = [f"{site.url}/none", f"{site.url}/a", f"{site.url}/b"]
    taken = take_remote(*("MicroLens-100k_videos.zip", list(VIDEOS), tmp_path, bases), transfer=QUICK, windows=windows)
    assert taken == ([], [])
    assert {name: (tmp_path / name).read_bytes() for name in VIDEOS} == VIDEOS
    asked = {path for path, _, _ in site.requests}
    assert {"a/MicroLens-100k_videos.z02", "b/MicroLens-100k_videos.z01"} <= asked
    assert "b/MicroLens-100k_videos.z05" not in asked
    absent = take_remote("x.zip", ["x/1.mp4"], tmp_path, bases, transfer=QUICK, windows=windows)
    assert absent is None


def test_a_zip_that_cannot_be_read_is_an_error_that_says_what_to_place_where(tmp_path, site):
    site.files = {**_tables(), **ZIPPED}
    site.ranges = False
    with pytest.raises(
        DownloadError, match=r"(?s)gives no byte ranges.*all volumes of MicroLens-100k_videos.zip.* by hand"
    ):
        prepare("microlens-100k", root=tmp_path, config=CONFIG, source=site.url)
