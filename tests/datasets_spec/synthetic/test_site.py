"""The site: files as MicroLens names and writes them, videos as wild as announced, written once or not at all."""

import csv
import hashlib
from collections import Counter

import av
import numpy as np
import pytest
from PIL import Image

from datasets_spec.synthetic import site as site_module
from datasets_spec.synthetic.damage import VIDEO_DAMAGE
from datasets_spec.synthetic.latent import draw_catalogue
from datasets_spec.synthetic.site import write_site
from datasets_spec.synthetic.videos import Clip, draw_clips, encode_video, phase_at, scene_of


def _videos(site):
    return {int(path.stem): path for path in (site.folder / "MicroLens-50k_videos").iterdir()}


def _damage(site, part):
    return {damage.item: damage.kind for damage in site.damaged if damage.part == part}


def test_the_tables_are_written_as_microlens_writes_them(site):
    pairs = (site.folder / "MicroLens-50k_pairs.csv").read_bytes().split(b"\n")
    assert pairs[0] == b"user,item,timestamp"
    assert len(pairs) == site.interactions + 2  # header, rows, the empty text after the last line end
    user, item, timestamp = map(int, pairs[1].split(b","))
    assert (user, 1 <= item <= 24, len(str(timestamp))) == (1, True, 13)
    titles = (site.folder / "MicroLens-50k_titles.csv").read_bytes()
    assert titles.startswith(b'item,title\r\n1,"')
    assert titles.count(b"\r\n") == titles.count(b"\n") == 25
    with (site.folder / "MicroLens-50k_titles.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["item"]) for row in rows] == list(range(1, 25))
    assert [int(row["item"]) for row in rows if not row["title"]] == list(_damage(site, "title"))
    likes = (site.folder / "MicroLens-50k_likes_and_views.txt").read_text().splitlines()
    assert [len(line.split("\t")) for line in likes] == [3] * 24


def test_the_checksum_list_covers_every_file(site):
    lines = (site.folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {p.relative_to(site.folder).as_posix(): p for p in site.folder.rglob("*") if p.is_file()}
    assert set(listed) == set(files) - {"SHA256SUMS", "site.json"}
    assert all(hashlib.sha256(files[name].read_bytes()).hexdigest() == digest for name, digest in listed.items())


def test_every_kind_of_damage_occurs_and_nothing_else_is_damaged(site):
    damage = _damage(site, "video")
    assert Counter(damage.values()) == dict.fromkeys(VIDEO_DAMAGE, 1)
    outcome = {item: _decode(path) for item, path in _videos(site).items()}
    for item in range(1, 25):
        kind = damage.get(item)
        if kind == "missing":
            assert item not in outcome
        elif kind is None:
            assert outcome[item] == "whole"
        else:
            assert (
                outcome[item]
                in {
                    "truncated": {"unreadable"},
                    "empty": {"unreadable"},
                    "html": {"unreadable"},
                    "sound_only": {"no video"},
                    "cut_index_first": {"incomplete", "decode error"},
                    "flipped": {"decode error", "corrupt frames", "incomplete"},
                }[kind]
            ), kind


def _decode(path):
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return "no video"
            stream = container.streams.video[0]
            try:
                frames = list(container.decode(stream))
            except av.FFmpegError:
                return "decode error"
            if any(frame.is_corrupt for frame in frames):
                return "corrupt frames"
            return "whole" if len(frames) == stream.frames else "incomplete"
    except av.FFmpegError:
        return "unreadable"


def test_covers_are_jpegs_except_for_the_damaged_ones(site):
    damage = _damage(site, "cover")
    assert sorted(damage.values()) == ["missing", "truncated"]
    for item in range(1, 25):
        path = site.folder / "MicroLens-50k_covers" / f"{item}.jpg"
        if damage.get(item) == "missing":
            assert not path.exists()
        elif damage.get(item) == "truncated":
            with Image.open(path) as image, pytest.raises(OSError, match="truncated"):
                image.load()
        else:
            with Image.open(path) as image:
                assert image.format == "JPEG"
                assert image.size in {(128, 228), (228, 128)}


def test_clips_are_drawn_as_announced():
    clips = draw_clips(2000, np.random.default_rng(0))
    seconds = np.array([clip.seconds for clip in clips])
    assert 0.5 <= seconds.min() < 1.0
    assert 28 < seconds.max() <= 30
    assert 0.7 < ((seconds >= 1) & (seconds <= 8)).mean() < 0.95
    assert 0.02 < (seconds > 15).mean() < 0.08
    assert 0.55 < np.mean([clip.encoder == "libx264" for clip in clips]) < 0.65
    assert {clip.rotation for clip in clips} == {0, 90, 180, 270}
    assert 0.05 < np.mean([clip.rotation != 0 for clip in clips]) < 0.12


@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_turned_video_shows_the_scene_upright_once_the_rotation_is_applied(tmp_path, encoder, rotation):
    clip = Clip(encoder, 1.0, 12, 128, 228, rotation, sound=rotation == 90, keyframe_every=None)
    scene = scene_of(draw_catalogue(6, 3, np.random.default_rng(1)), 0, clip)
    encode_video(tmp_path / "clip.mp4", scene, clip)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == {"libx264": "h264", "libx265": "hevc"}[encoder]
        assert len(container.streams.audio) == (rotation == 90)
        assert len(frames) == 12
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0, abs=0.01)
    assert frames[0].rotation % 360 == rotation
    for index in (0, 6, 11):
        shown = np.rot90(frames[index].to_ndarray(format="rgb24"), k=rotation // 90)
        expected = scene.frame(phase_at((index + 0.5) / 12, 1.0))
        assert shown.shape == expected.shape
        assert np.abs(shown.astype(int) - expected).mean() < 12
        assert np.abs(shown[::-1, ::-1].astype(int) - expected).mean() > 15


def test_one_motion_cycle_is_centred_on_the_middle_of_the_video():
    assert phase_at(10.0, 20.0) == pytest.approx(0.5)
    assert phase_at(8.0, 20.0) == pytest.approx(0.1)  # 2 s before the middle, cycles of 5 s
    assert phase_at(0.5, 2.0) == pytest.approx(0.25)  # a short video is one cycle


def test_equal_parameters_give_equal_sites(site, tmp_path):
    again = write_site(tmp_path / "again", users=40, items=24, seed=3)
    assert again.damaged == site.damaged
    for name in ("pairs.csv", "titles.csv", "likes_and_views.txt"):
        first, second = (folder / f"MicroLens-50k_{name}" for folder in (site.folder, again.folder))
        assert first.read_bytes() == second.read_bytes()
    for path in list(_videos(site).values())[:6]:
        twin = again.folder / path.relative_to(site.folder)
        if _decode(path) == "whole":
            with av.open(str(path)) as one, av.open(str(twin)) as other:
                for a, b in zip(one.decode(video=0), other.decode(video=0), strict=True):
                    np.testing.assert_array_equal(a.to_ndarray(), b.to_ndarray())


def test_a_second_call_does_nothing_and_other_parameters_replace_the_site(tmp_path):
    seen: list[tuple[str, int, int | None]] = []
    first = write_site(tmp_path / "site", users=6, items=3, seed=1, progress=lambda *args: seen.append(args))
    assert first.written
    assert seen == [("site", 1, 3), ("site", 2, 3), ("site", 3, 3)]
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    second = write_site(tmp_path / "site", users=6, items=3, seed=1)
    assert not second.written
    assert second.damaged == first.damaged
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before
    third = write_site(tmp_path / "site", users=6, items=2, seed=1)
    assert third.written
    assert len(list((tmp_path / "site" / "MicroLens-50k_videos").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_an_interrupted_call_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(site_module, "encode_video", fail)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        write_site(tmp_path / "site", users=6, items=3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is not a site"):
        write_site(tmp_path, users=6, items=3)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("users", "items"), [(0, 5), (5, 0)])
def test_an_empty_site_is_refused(tmp_path, users, items):
    with pytest.raises(ValueError, match="at least one user and one item"):
        write_site(tmp_path / "site", users=users, items=items)
