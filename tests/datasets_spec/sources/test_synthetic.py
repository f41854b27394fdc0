"""The made-up dataset, through the same door as the real one."""

import polars as pl
import pytest

from datasets_spec.prepare import prepare
from datasets_spec.sources import synthetic
from datasets_spec.spec import PrepareConfig
from datasets_spec.synthetic import site as site_module
from datasets_spec.synthetic.serve import serve
from datasets_spec.synthetic.site import write_site

CONFIG = PrepareConfig(k_user=2, k_item=2)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site") / "site", users=60, items=21, seed=1)


@pytest.fixture
def small(monkeypatch):
    """The generator at a size for tests, as the source calls it."""

    def write_small(folder, *, progress=None):
        return write_site(folder, users=40, items=8, topics=4, seed=2, progress=progress)

    monkeypatch.setattr(synthetic, "write_site", write_small)


def test_the_default_site_is_generated_served_and_downloaded(tmp_path, small):
    stages: dict[str, int] = {}
    prepared = prepare(
        "synthetic", root=tmp_path, config=CONFIG, progress=lambda stage, done, total: stages.update({stage: done})
    )
    assert stages["site"] == 8
    raw = tmp_path / "raw" / "synthetic"
    assert (raw / "site" / "site.json").is_file()
    assert (raw / "MicroLens-50k_pairs.csv").read_bytes() == (raw / "site" / "MicroLens-50k_pairs.csv").read_bytes()
    assert not (raw / "source.json").exists()  # the port of the server is another every time
    for _, path in prepared.media("video"):
        assert path.parent == raw / "MicroLens-50k_videos"
        assert path.read_bytes() == (raw / "site" / "MicroLens-50k_videos" / path.name).read_bytes()


def test_a_second_preparation_changes_nothing(tmp_path, small):
    first = prepare("synthetic", root=tmp_path, config=CONFIG)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    second = prepare("synthetic", root=tmp_path, config=CONFIG)
    assert second.version == first.version
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")} == before


def test_a_site_of_other_parameters_takes_the_place_of_the_old_one(tmp_path, small, monkeypatch):
    first = prepare("synthetic", root=tmp_path, config=CONFIG)
    monkeypatch.setattr(
        synthetic, "write_site", lambda folder, progress: write_site(folder, users=40, items=8, topics=4, seed=9)
    )
    second = prepare("synthetic", root=tmp_path, config=CONFIG)
    assert second.version != first.version
    raw = tmp_path / "raw" / "synthetic"
    for _, path in second.media("video"):
        assert path.read_bytes() == (raw / "site" / "MicroLens-50k_videos" / path.name).read_bytes()


@pytest.mark.parametrize("how", ["folder", "address"])
def test_another_site_by_source(tmp_path, site, how):
    if how == "folder":
        prepared = prepare("synthetic", root=tmp_path, config=CONFIG, source=str(site.folder))
    else:
        with serve(site.folder) as url:
            prepared = prepare("synthetic", root=tmp_path, config=CONFIG, source=url)
    assert not (tmp_path / "raw" / "synthetic" / "site").exists()
    items = set(prepared.items["item_id"])
    missing = {str(d.item) for d in site.damaged if d.kind == "missing"} & items
    empty = {str(d.item) for d in site.damaged if d.kind == "empty" and d.part == "title"}
    quarantine = prepared.quarantine
    assert missing
    assert set(quarantine.filter(pl.col("reason") == "missing")["item_id"]) == missing
    assert set(quarantine.filter(pl.col("reason") == "empty_title")["item_id"]) == empty
    # what is damaged is fetched all the same: the extraction quarantines it
    broken = {str(d.item) for d in site.damaged if d.part == "video" and d.kind in ("truncated", "html", "flipped")}
    assert broken & items <= {item_id for item_id, _ in prepared.media("video")}


def test_the_folder_and_the_address_give_the_same_tables(tmp_path, site):
    local = prepare("synthetic", root=tmp_path / "a", config=CONFIG, source=str(site.folder))
    with serve(site.folder) as url:
        fetched = prepare("synthetic", root=tmp_path / "b", config=CONFIG, source=url)
    assert local.version == fetched.version


def test_the_demo_keeps_most_of_the_default_site(tmp_path, monkeypatch):
    """At the default size, without the media, which take most of the time."""
    monkeypatch.setattr(site_module, "_write_media", lambda *args, **kwargs: None)
    written = write_site(tmp_path / "site")
    prepared = prepare("synthetic", root=tmp_path, source=str(written.folder))
    assert (written.users, written.items) == (site_module.USERS, site_module.ITEMS)
    assert prepared.n_items > 0.97 * written.items
    assert prepared.n_users > 0.93 * written.users
    assert prepared.manifest["config"]["k_user"] == prepared.manifest["config"]["k_item"] == 5
