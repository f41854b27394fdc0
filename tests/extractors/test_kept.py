"""Frames that are kept: the bytes that decoding gives, read instead of decoding."""

import av
import numpy as np
import pytest

from extractors import kept
from extractors.extract import commit_feature, extract_visual, hash_media, keep_frames, open_feature, run_visual
from extractors.frames import sample_frames
from extractors.kept import KeptFrames
from extractors.resize import FrameTransform
from extractors.views import Views, parts_of
from feature_store.store import FeatureStore

SAMPLING = {"frames": 5, "fps": 1.0, "decoder": "planned"}
CROP, SQUASH = FrameTransform.of("centre_crop"), FrameTransform.of("squash")


def write_video(path, seed):
    """Six seconds at 10 fps of noise that changes slowly."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(60):
            shifted = np.roll(picture, index, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos, one of them twice, and one file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(3):
        write_video(folder / f"v{seed}.mp4", seed)
    (folder / "copy.mp4").write_bytes((folder / "v1.mp4").read_bytes())
    (folder / "page.mp4").write_text("<html>502 Bad Gateway</html>")
    return {name: folder / f"{name}.mp4" for name in ("v0", "v1", "page", "copy", "v2")}


@pytest.fixture
def opened(tmp_path, toy_root):
    """Open features: ``opened(contents, "videomae", resize="squash")``, by default in the folder ``a``."""

    def build(contents, name, folder="a", **settings):
        config = {"checkpoint": "tiny", **({"input": "video"} if name == "vit" else {}), **settings}
        store = FeatureStore.open(tmp_path / folder / name, create=True)
        return open_feature(name, config, contents=contents, store=store, toy_root=toy_root)

    return build


@pytest.fixture
def keeping(tmp_path):
    return FeatureStore.open(tmp_path / "a" / "frames224", create=True)


@pytest.fixture
def decoded(monkeypatch):
    files = []
    monkeypatch.setattr(
        "extractors.run.sample_frames", lambda path, *rest: files.append(path.stem) or sample_frames(path, *rest)
    )
    return files


def keep(videos, store, modes=("centre_crop",), features=()):
    contents = hash_media(videos)
    feature = keep_frames(modes, SAMPLING, contents=contents, store=store)
    reports = extract_visual(videos, [*features, feature], contents=contents)
    return reports[-1]


def shards(tmp_path, folder, name):
    return sorted(path.name for path in (tmp_path / folder / name / "shards").iterdir())


def test_kept_frames_are_those_of_the_decoder(videos, keeping):
    report = keep(videos, keeping)
    assert (report.version, report.encoded, report.failed) == (1, 4, 1)
    snapshot = keeping.latest()
    assert snapshot.columns["pixels"] == (5, 224, 224, 3)
    expected = CROP(sample_frames(videos["v2"]).data)
    np.testing.assert_array_equal(snapshot.matrix(["v2"], column="pixels").values[0], expected)
    colours = expected.reshape(5, -1, 3).mean(axis=1) / 255
    np.testing.assert_allclose(snapshot.matrix(["v2"], column="frames").values[0], colours, rtol=1e-6)
    np.testing.assert_allclose(snapshot.matrix(["v2"]).values[0], colours.mean(axis=0), rtol=1e-6)
    assert snapshot.matrix(["v2"], column="n_distinct").values[0] == 5


def test_a_later_encoder_decodes_nothing_and_writes_the_same_bytes(videos, keeping, opened, decoded, tmp_path):
    contents = hash_media(videos)
    extract_visual(videos, [opened(contents, "videomae", "direct")], contents=contents)
    keep(videos, keeping)
    del decoded[:]
    frames = KeptFrames.find(keeping)
    (report,) = extract_visual(videos, [opened(contents, "videomae")], contents=contents, frames=frames)
    assert decoded == ["page"]  # of which there are no frames to keep
    assert (report.encoded, report.failed) == (4, 1)
    assert shards(tmp_path, "a", "videomae") == shards(tmp_path, "direct", "videomae")


def test_one_decode_feeds_the_keeper_and_the_encoders(videos, keeping, opened, decoded):
    contents = hash_media(videos)
    features = [opened(contents, "videomae"), opened(contents, "vit")]
    report = keep(videos, keeping, ("centre_crop", "squash"), features)
    assert report.encoded == 4
    assert sorted(decoded) == ["page", "v0", "v1", "v2"]
    assert keeping.latest().columns["pixels"] == (5, 224, 448, 3)


def test_two_geometries_serve_both_encoders(videos, keeping, opened, decoded, tmp_path):
    contents = hash_media(videos)
    extract_visual(videos, [opened(contents, "vit", "direct")], contents=contents)
    keep(videos, keeping, ("squash", "centre_crop"))
    del decoded[:]
    frames = KeptFrames.find(keeping)
    features = [opened(contents, "videomae"), opened(contents, "vit")]
    run_visual(videos, features, frames=frames)
    assert decoded == ["page"]
    assert shards(tmp_path, "a", "vit") == shards(tmp_path, "direct", "vit")


@pytest.mark.parametrize("settings", [{"resize": "squash"}, {"fps": 2.0}, {"decoder": "sequential"}])
def test_what_does_not_fit_is_decoded(settings, videos, keeping, opened, decoded):
    keep(videos, keeping)
    del decoded[:]
    contents = hash_media(videos)
    run_visual(videos, [opened(contents, "videomae", **settings)], frames=KeptFrames.find(keeping))
    assert sorted(decoded) == ["page", "v0", "v1", "v2"]


def test_only_what_is_missing_is_decoded_and_kept(videos, keeping, opened, decoded):
    few = {name: videos[name] for name in ("v0", "v1")}
    keep(few, keeping)
    contents = hash_media(videos)
    feature = keep_frames(["centre_crop"], SAMPLING, contents=contents, store=keeping)
    del decoded[:]
    tallies = run_visual(videos, [opened(contents, "videomae"), feature], frames=KeptFrames.find(keeping))
    assert sorted(decoded) == ["page", "v2"]  # the content of "copy" is kept under another id
    assert commit_feature(feature, tallies["frames224"]).encoded == 2
    assert tallies["videomae"].encoded == 4


def test_nothing_kept_is_none_and_other_stores_are_not_taken_for_frames(videos, keeping, opened, tmp_path):
    assert KeptFrames.find(keeping) is None
    contents = hash_media(videos)
    extract_visual(videos, [opened(contents, "videomae")], contents=contents)
    assert KeptFrames.find(FeatureStore.open(tmp_path / "a" / "videomae")) is None


def test_parts_of_views():
    both = Views((CROP, SQUASH))
    frames = np.random.default_rng(0).integers(0, 256, (2, 300, 400, 3), dtype=np.uint8)
    data = both(frames)
    assert data.shape == (2, *both.crop, 3) == (2, 224, 448, 3)
    np.testing.assert_array_equal(both.part(data, SQUASH), SQUASH(frames))
    np.testing.assert_array_equal(both.part(data, Views((SQUASH, CROP))), Views((SQUASH, CROP))(frames))
    assert both.part(data, both) is data
    assert (parts_of(CROP), parts_of(both)) == ((CROP,), (CROP, SQUASH))
    with pytest.raises(KeyError):
        both.part(data, FrameTransform.of("squash", 112))


def test_other_sizes_side_by_side_are_black_below():
    small, large = FrameTransform.of("squash", 8), FrameTransform.of("squash", 16)
    data = Views((small, large))(np.full((1, 20, 20, 3), 255, np.uint8))
    assert data.shape == (1, 16, 24, 3)
    assert data[:, :8].min() == 255
    assert data[:, 8:, :8].max() == 0


def test_an_empty_batch_is_refused():
    _, keeper = kept.describe(["centre_crop"], SAMPLING)
    with pytest.raises(ValueError, match="at least one row"):
        keeper.encode(np.zeros((0, 5, 224, 224, 3), np.uint8))
