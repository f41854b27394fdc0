"""``keep_frames=`` through the command line: what one encoder had decoded, the next one reads from the store."""

import json

import av
import numpy as np
import pytest

from extractors import registry
from extractors.frames import sample_frames
from extractors.pool import DecodePool
from feature_store import FeatureStore
from flows import cli

NAMES = ["v0", "v1", "v2"]


def write_video(path, seed):
    """Six seconds at 10 per second of noise that moves."""
    picture = np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        write_video(folder / f"{name}.mp4", seed)
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """Item ids that went to the decoding processes."""
    found = []
    decode = DecodePool.map

    def noted(pool, items, **options):
        wanted = list(items)
        found.extend(item_id for item_id, _ in wanted)
        return decode(pool, wanted, **options)

    monkeypatch.setattr(DecodePool, "map", noted)
    return found


@pytest.fixture
def reelstore(tmp_path, toys, monkeypatch, capsys, decoded):
    """Run ``reelstore extract clips …``; gives rows encoded and reused by feature, and which items were decoded."""
    monkeypatch.setenv("REELSTORE_WORKERS", "1")
    monkeypatch.setenv("REELSTORE_DEVICE", "cpu")
    data = tmp_path / "data"
    data.mkdir()
    (data / "checkpoints").symlink_to(toys)

    def run(*words):
        decoded.clear()
        code = cli.main(["--root", str(data), "--json", "extract", str(tmp_path / "clips"), "checkpoint=tiny", *words])
        printed = capsys.readouterr().out
        assert code == 0, printed
        counts = {one["feature"]: (one["encoded"], one["reused"]) for one in json.loads(printed)["features"]}
        return counts, sorted(decoded)

    return run


VIT = ("--features", "vit", "vit.input=video")


def test_what_was_decoded_for_one_encoder_serves_the_next(tmp_path, clips, toys, reelstore):
    # VideoMAE looks at a crop and ViT at the whole frame squashed: both are kept
    first = reelstore("--features", "videomae", "keep_frames=centre_crop,squash")
    assert first == ({"videomae": (3, 0), "frames224": (3, 0)}, NAMES)
    assert reelstore(*VIT) == ({"vit": (3, 0)}, [])

    encoder = registry.build("vit", {"checkpoint": "tiny", "input": "video"}, toy_root=toys)
    frames = [encoder.settings.transform(sample_frames(clips / f"{name}.mp4").data) for name in NAMES]
    store = FeatureStore.open(tmp_path / "data" / "stores" / "clips" / "vit")
    np.testing.assert_allclose(
        store.latest().matrix(NAMES).values, encoder.encode(np.stack(frames)).embedding, rtol=1e-5, atol=1e-5
    )

    write_video(clips / "v3.mp4", 3)
    later = reelstore(*VIT, "keep_frames=centre_crop,squash")
    assert later == ({"vit": (1, 3), "frames224": (1, 3)}, ["v3"])
