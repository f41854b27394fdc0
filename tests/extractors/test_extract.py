"""From files and texts to committed snapshots: every item is a row or a reason."""

import hashlib

import av
import numpy as np
import polars as pl
import pytest
from PIL import Image

from extractors import registry
from extractors.batching import EncodeError
from extractors.extract import (
    announce,
    chunks,
    commit_feature,
    extract_text,
    extract_visual,
    hash_media,
    hash_texts,
    open_feature,
    run_text,
    run_visual,
)
from extractors.frames import sample_frames
from extractors.lanes import Feature, Tally
from extractors.pool import DecodePool
from feature_store.store import FeatureStore

TITLES = {
    "t1": "a sleepy kitten",
    "t2": "the night market",
    "t3": "",
    "t4": "a sleepy kitten",
    "t5": "spicy noodles and soup",
}


def write_video(path, seed, frames=60):
    """Six seconds at 10 fps: a square of one colour that moves."""
    rng = np.random.default_rng(seed)
    colour, start = rng.integers(60, 256, 3), rng.integers(0, 40)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(frames):
            picture = np.full((64, 96, 3), 40, np.uint8)
            left = (start + index) % 70
            picture[20:44, left : left + 24] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Five videos, one of them twice under another id, one file that is no video, one that is not there."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(5):
        write_video(folder / f"v{seed}.mp4", seed)
    (folder / "copy.mp4").write_bytes((folder / "v1.mp4").read_bytes())
    (folder / "page.mp4").write_text("<html>502 Bad Gateway</html>")
    names = ["v0", "v1", "v2", "page", "copy", "v3", "v4", "gone"]
    return {name: folder / f"{name}.mp4" for name in names}


@pytest.fixture
def stores(tmp_path):
    return lambda name: FeatureStore.open(tmp_path / "synthetic" / name, create=True)


@pytest.fixture
def visual(stores, toy_root):
    """Open features over videos: ``visual(contents, videomae={}, vit={"shard_size": 2})``."""

    def build(contents, **features):
        return [
            open_feature(
                name,
                {"checkpoint": "tiny", **({"input": "video"} if name == "vit" else {}), **settings},
                contents=contents,
                store=stores(name),
                toy_root=toy_root,
                recorded={"dataset": "synthetic"},
            )
            for name, settings in features.items()
        ]

    return build


def reasons(store):
    return dict(store.quarantined().select("item_id", "reason").iter_rows())


def test_videos_become_a_snapshot_and_failures_become_rows(videos, visual, stores):
    contents = hash_media(videos)
    (report,) = extract_visual(
        videos, visual(contents, videomae={"shard_size": 3}), contents=contents, catalogue_size=8
    )
    assert (report.version, report.encoded, report.failed, report.reused, report.toy) == (1, 6, 2, 0, True)
    assert report.items_per_second > 0
    snapshot = stores("videomae").latest()
    assert sorted(snapshot.item_ids) == ["copy", "v0", "v1", "v2", "v3", "v4"]
    assert reasons(stores("videomae")) == {"page": "unreadable", "gone": "missing_file"}
    assert len(snapshot.item_ids) + len(stores("videomae").quarantined()) == len(videos)
    assert snapshot.spec["recorded"]["dataset"] == "synthetic"
    matrix = snapshot.matrix(["v1", "copy", "v2", "page"])
    np.testing.assert_array_equal(matrix.values[0], matrix.values[1])
    assert np.abs(matrix.values[0] - matrix.values[2]).max() > 1e-3
    assert matrix.present.tolist() == [True, True, True, False]


def test_a_row_outlives_its_file(videos, visual, stores):
    """At any time each item is a row or in quarantine, never both: 8 items, of which v1 vanishes and comes back."""

    def extract():
        contents = hash_media(videos)
        (report,) = extract_visual(videos, visual(contents, videomae={}), contents=contents, catalogue_size=8)
        snapshot, bad = stores("videomae").latest(), reasons(stores("videomae"))
        assert sorted([*snapshot.item_ids, *bad]) == sorted(videos)
        return report, snapshot, bad

    _, before, bad = extract()
    hidden = videos["v1"].with_suffix(".away")
    videos["v1"].rename(hidden)
    report, after, still_bad = extract()
    assert (report.encoded, report.reused, report.failed, report.source_gone) == (0, 6, 1, 1)
    assert (report.version, still_bad) == (before.version, bad)
    np.testing.assert_array_equal(after.matrix(["v1"]).values, before.matrix(["v1"]).values)
    hidden.rename(videos["v1"])
    report, _, _ = extract()
    assert (report.encoded, report.failed, report.source_gone) == (0, 1, 0)


def test_stored_rows_equal_what_the_encoder_says_about_the_sampled_frames(videos, visual, stores, tiny):
    contents = hash_media(videos)
    extract_visual(videos, visual(contents, videomae={}, vit={}), contents=contents)
    frames = np.stack([sample_frames(videos[name]).data for name in ("v0", "v3")])
    for name, encoder in (("videomae", tiny("videomae")), ("vit", tiny("vit", input="video"))):
        expected, snapshot = encoder.encode(frames), stores(name).latest()
        np.testing.assert_allclose(snapshot.matrix(["v0", "v3"]).values, expected.embedding, atol=2e-5)
        np.testing.assert_allclose(snapshot.matrix(["v0", "v3"], column="frames").values, expected.frames, atol=2e-5)


def test_n_distinct_is_stored(tmp_path, visual, stores):
    files = {"still": tmp_path / "still.mp4", "moving": tmp_path / "moving.mp4"}
    write_video(files["still"], 0, frames=1)
    write_video(files["moving"], 0)
    contents = hash_media(files)
    extract_visual(files, visual(contents, videomae={}), contents=contents)
    shards = list((tmp_path / "synthetic" / "videomae" / "shards").glob("*.parquet"))
    rows = pl.concat([pl.read_parquet(shard, columns=["item_id", "n_distinct"]) for shard in shards])
    assert dict(rows.iter_rows()) == {"still": 1, "moving": 5}


def count_decodes(monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "extractors.run.sample_frames", lambda path, *rest: decoded.append(path.stem) or sample_frames(path, *rest)
    )
    return decoded


def test_one_decode_feeds_all_encoders_and_equal_content_is_read_once(videos, visual, monkeypatch):
    decoded = count_decodes(monkeypatch)
    contents = hash_media(videos)
    features = visual(contents, videomae={"resize": "squash"}, vit={"shard_size": 2})
    reports = extract_visual(videos, features, contents=contents)
    assert sorted(decoded) == ["page", "v0", "v1", "v2", "v3", "v4"]
    assert [report.encoded for report in reports] == [6, 6]


def test_each_encoder_gets_only_what_it_still_needs(videos, visual, monkeypatch):
    contents = hash_media(videos)
    few = {name: videos[name] for name in ("v0", "v1")}
    extract_visual(few, visual(hash_media(few), videomae={}), contents=hash_media(few))
    decoded = count_decodes(monkeypatch)
    features = visual(contents, videomae={}, vit={})
    built = [feature.encoder for feature in features]
    seen = {feature.name: 0 for feature in features}
    for encoder in built:
        original = encoder.encode

        def counting(batch, original=original, name=encoder.spec.name):
            seen[name] += len(batch)
            return original(batch)

        monkeypatch.setattr(encoder, "encode", counting)
    reports = extract_visual(videos, features, contents=contents)
    assert sorted(decoded) == ["copy", "page", "v0", "v2", "v3", "v4"]  # copy has the content of v1: one of them
    assert seen == {"videomae": 4, "vit": 5}
    assert [(report.encoded, report.reused) for report in reports] == [(4, 2), (6, 0)]


def test_an_unchanged_catalogue_loads_no_model_and_makes_no_version(videos, visual, stores, monkeypatch):
    contents = hash_media(videos)
    extract_visual(videos, visual(contents, videomae={}), contents=contents)

    def refuse(*_args, **_kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(registry, "build", refuse)
    (report,) = extract_visual(videos, visual(contents, videomae={}), contents=contents)
    assert (report.version, report.encoded, report.reused, report.known_bad) == (1, 0, 6, 1)
    assert stores("videomae").versions() == [1]


def test_a_changed_file_and_a_new_one_are_encoded_alone(tmp_path, visual, stores):
    files = {name: tmp_path / f"{name}.mp4" for name in ("a", "b", "c")}
    for seed, path in enumerate(files.values()):
        write_video(path, seed)
    contents = hash_media({name: files[name] for name in ("a", "b")})
    extract_visual(files, visual(contents, videomae={}), contents=contents)
    before = stores("videomae").latest().matrix(["a", "b"]).values
    write_video(files["b"], 77)
    contents = hash_media(files)
    (report,) = extract_visual(files, visual(contents, videomae={}), contents=contents)
    assert (report.version, report.encoded, report.reused) == (2, 2, 1)
    after = stores("videomae").latest().matrix(["a", "b"]).values
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[1] - after[1]).max() > 1e-3


def test_other_settings_encode_everything_anew(videos, visual, stores):
    contents = hash_media(videos)
    extract_visual(videos, visual(contents, videomae={}), contents=contents)
    (report,) = extract_visual(videos, visual(contents, videomae={"resize": "squash"}), contents=contents)
    assert (report.version, report.encoded, report.reused) == (2, 6, 0)


def test_a_killed_run_goes_on_where_it_stopped(videos, visual, stores, monkeypatch):
    contents = hash_media(videos)
    features = visual(contents, videomae={"shard_size": 2, "batch_size": 2})
    original, calls = features[0].encoder.encode, []

    def dying(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(batch)

    monkeypatch.setattr(features[0].encoder, "encode", dying)
    with pytest.raises(KeyboardInterrupt):
        run_visual(videos, features)
    assert stores("videomae").versions() == []
    (report,) = extract_visual(videos, visual(contents, videomae={"shard_size": 2}), contents=contents)
    assert report.encoded < 6
    assert report.encoded + report.reused == 6
    assert len(stores("videomae").latest().item_ids) == 6


def test_tasks_of_a_few_items_and_one_commit(videos, visual, stores):
    contents = hash_media(videos)
    features = visual(contents, videomae={}, vit={})
    tasks = chunks(features, list(videos), 2)
    assert tasks == [["v0", "v1", "copy"], ["v2", "page"], ["v3", "v4"]]
    tallies = {feature.name: Tally() for feature in features}
    for task in tasks:
        for name, tally in run_visual({item_id: videos[item_id] for item_id in task}, features).items():
            tallies[name].add(tally)
    reports = [commit_feature(feature, tallies[feature.name], unreadable=1) for feature in features]
    assert [(report.version, report.encoded, report.failed) for report in reports] == [(1, 6, 2), (1, 6, 2)]
    assert chunks(visual(contents, videomae={}), list(videos), 2) == []


def test_the_same_work_gives_the_same_bytes(videos, visual, stores, tmp_path, toy_root):
    contents = hash_media(videos)
    extract_visual(videos, visual(contents, videomae={"shard_size": 3}), contents=contents)
    other = FeatureStore.open(tmp_path / "again" / "videomae", create=True)
    feature = open_feature(
        "videomae", {"checkpoint": "tiny", "shard_size": 3}, contents=contents, store=other, toy_root=toy_root
    )
    with DecodePool(workers=2) as pool:  # results in any order
        run_visual(videos, [feature], pool=pool)
    names = [
        sorted(path.name for path in (tmp_path / run / "videomae" / "shards").iterdir())
        for run in ("synthetic", "again")
    ]
    assert names[0] == names[1]
    assert reasons(other) == {"page": "unreadable", "gone": "missing_file"}


def test_pictures(tmp_path, visual, stores, toy_root, tiny):
    rng = np.random.default_rng(0)
    files = {name: tmp_path / f"{name}.png" for name in ("a", "b", "c")}
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (50, 80, 3), dtype=np.uint8)).save(files[name])
    files["c"].write_bytes(b"GIF89a but not really")
    contents = hash_media(files)
    feature = open_feature("vit", {"checkpoint": "tiny"}, contents=contents, store=stores("vit"), toy_root=toy_root)
    (report,) = extract_visual(files, [feature], contents=contents)
    assert (report.encoded, report.failed) == (2, 1)
    expected = tiny("vit").encode([np.asarray(Image.open(files[name])) for name in ("a", "b")]).embedding
    np.testing.assert_allclose(stores("vit").latest().matrix(["a", "b"]).values, expected, atol=2e-5)
    assert set(reasons(stores("vit"))) == {"c"}


def test_features_over_different_media_do_not_share_a_pass(videos, visual, toy_root, stores):
    contents = hash_media(videos)
    features = visual(contents, videomae={}, vit={"fps": 2.0})
    with pytest.raises(ValueError, match="same frame sampling"):
        run_visual(videos, features)
    reports = extract_visual(videos, features, contents=contents)  # two passes
    assert [report.encoded for report in reports] == [6, 6]


def test_every_item_failing_leaves_reasons_and_no_version(tmp_path, visual, stores):
    files = {"x": tmp_path / "x.mp4"}
    files["x"].write_text("nothing")
    contents = hash_media(files)
    (report,) = extract_visual(files, visual(contents, videomae={}), contents=contents)
    assert (report.version, report.encoded, report.failed, report.items_per_second) == (None, 0, 1, 0.0)
    assert set(reasons(stores("videomae"))) == {"x"}


def test_an_encoder_that_fails_on_everything_blames_no_item(videos, visual, stores, monkeypatch):
    contents = hash_media(videos)
    features = visual(contents, videomae={})

    def broken(batch):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(features[0].encoder, "encode", broken)
    with pytest.raises(EncodeError, match=r"videomae failed on each of 5 rows.*the device is gone"):
        run_visual(videos, features)
    assert set(reasons(stores("videomae"))) <= {"gone", "page"}


@pytest.mark.parametrize("name", ["bert", "roberta", "glove"])
def test_texts(name, stores, toy_root, tiny):
    contents = hash_texts(TITLES)
    assert contents.hashes["t1"] == hashlib.sha256(TITLES["t1"].encode()).digest()
    settings = {"checkpoint": "tiny", "shard_size": 2}
    feature = open_feature(name, settings, contents=contents, store=stores(name), toy_root=toy_root)
    seen = []
    report = extract_text(TITLES, feature, catalogue_size=5, progress=lambda *call: seen.append(call))
    assert (report.version, report.encoded, report.failed) == (1, 4, 1)
    assert ("encode", 4, 4) in seen  # four contents
    assert report.counts["tokens"] > 0
    snapshot = stores(name).latest()
    expected = tiny(name).encode([TITLES[item_id] for item_id in ("t1", "t2", "t4", "t5")]).embedding
    np.testing.assert_allclose(snapshot.matrix(["t1", "t2", "t4", "t5"]).values, expected, atol=2e-5)
    assert reasons(stores(name)) == {"t3": "empty_text"}
    again = open_feature(name, settings, contents=contents, store=stores(name), toy_root=toy_root)
    assert run_text(TITLES, again).encoded == 0
    assert isinstance(again, Feature)
    assert again._encoder is None


def test_words_without_vectors_go_to_quarantine_and_are_counted(stores, toy_root):
    texts = {"a": "qqqq zzzz", "b": "the qqqq cat"}
    feature = open_feature(
        "glove", {"checkpoint": "tiny"}, contents=hash_texts(texts), store=stores("glove"), toy_root=toy_root
    )
    report = extract_text(texts, feature)
    assert report.counts == {"tokens": 5, "oov_tokens": 3}
    assert reasons(stores("glove")) == {"a": "all_oov"}


def test_announced_texts_are_looked_up_in_one_pass(stores, tmp_path, monkeypatch):
    texts = {"a": "the cat", "b": "spicy noodles", "c": "guitar"}
    toy_root = tmp_path / "checkpoints"  # of its own: words that another test looked up are kept there

    def opened():
        contents, store = hash_texts(texts), stores("glove")
        return open_feature("glove", {"checkpoint": "tiny"}, contents=contents, store=store, toy_root=toy_root)

    feature, passes = opened(), []
    read = type(feature.encoder._table).read
    monkeypatch.setattr(feature.encoder._table, "read", lambda wanted: passes.append(wanted) or read(table, wanted))
    table = feature.encoder._table
    announce(texts, feature)
    for item_id, text in texts.items():
        assert run_text({item_id: text}, feature).encoded == 1
    assert passes == [{"the", "cat", "spicy", "noodles", "guitar"}]
    commit_feature(feature, Tally())
    done = opened()
    announce(texts, done)
    assert done._encoder is None


def test_float16_is_stored_as_such(stores, toy_root, tmp_path):
    texts = {"a": "the cat"}
    settings = {"checkpoint": "tiny", "dtype": "float16"}
    contents = hash_texts(texts)
    feature = open_feature("bert", settings, contents=contents, store=stores("bert"), toy_root=toy_root)
    extract_text(texts, feature)
    (shard,) = (tmp_path / "synthetic" / "bert" / "shards").glob("*.parquet")
    assert pl.read_parquet_schema(shard)["embedding"] == pl.Array(pl.Float16, 64)
