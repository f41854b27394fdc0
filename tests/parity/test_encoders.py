"""Each encoder against the library's own processor, tokenizer and model, at toy size.

Tolerances: float32 sums in another order, on values of order 1: 2e-5. Frames that are resized differ by at most one
grey level of 255 from PIL, see ``test_resized_frames_are_within_one_grey_level``; the vectors then differ by less than
1 % of their norm.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    BertModel,
    RobertaModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    ViTModel,
)
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from extractors import registry
from extractors.checkpoint import CheckpointError
from extractors.toy import toy_checkpoint
from extractors.transformer import ModelLoadError
from extractors.vision import image_settings

TOLERANCE = 2e-5
TITLES = ["A sleepy kitten on the balcony", "soup", "12 seconds of street food with Mei, the chef, at the end!"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def build(name, root, **settings):
    return registry.build(name, {"checkpoint": "tiny", **settings}, toy_root=root)


def clips(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def smooth(height, width, seed=0):
    """A picture without noise: what resizing does to it is seen."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    return (127.5 + 120 * np.sin(9 * x[..., None] + 7 * y[..., None] + phases)).astype(np.uint8)


def hf_videomae(folder, videos):
    """f_j and v from the library's processor and model: every frame twice, 196 patches a tubelet."""
    doubled = [list(np.repeat(video, 2, axis=0)) for video in videos]
    pixels = AutoImageProcessor.from_pretrained(folder)(doubled, return_tensors="pt")["pixel_values"]
    model = VideoMAEModel.from_pretrained(folder, num_frames=10).eval()
    tokens = model(pixels).last_hidden_state.numpy()  # [b, 980, d]
    frames = np.stack([tokens[:, 196 * j : 196 * (j + 1)].mean(axis=1) for j in range(5)], axis=1)
    return frames, frames.mean(axis=1)


def test_videomae_equals_the_library_on_doubled_frames(root):
    videos = clips(2, 5, 224, 224)
    frames, embedding = hf_videomae(toy_checkpoint("videomae", root), videos)
    encoded = build("videomae", root).encode(videos)
    np.testing.assert_allclose(encoded.frames, frames, atol=TOLERANCE)
    np.testing.assert_allclose(encoded.embedding, embedding, atol=TOLERANCE)


def test_videomae_equals_the_library_on_frames_that_are_resized_and_cropped(root):
    videos = np.stack([[smooth(320, 180, seed=5 * b + j) for j in range(5)] for b in range(2)])
    frames, _ = hf_videomae(toy_checkpoint("videomae", root), videos)
    encoded = build("videomae", root).encode(videos).frames
    assert np.linalg.norm(encoded - frames, axis=-1).max() < 0.01 * np.linalg.norm(frames, axis=-1).min()


@pytest.mark.parametrize("frame", range(5))
def test_every_frame_is_read(frame, root):
    """Five frames given as ``num_frames=5`` would make two tubelets, and the last frame would have no influence."""
    encoder = build("videomae", root)
    video = clips(1, 5, 224, 224)
    changed = video.copy()
    changed[0, frame] = 255 - changed[0, frame]
    before, after = encoder.encode(video), encoder.encode(changed)
    assert np.abs(before.embedding - after.embedding).max() > 1e-2
    moved = np.abs(before.frames - after.frames).max(axis=(0, 2))
    assert moved.argmax() == frame


def test_videomae_positions_are_the_first_rows_of_the_trained_table(root):
    folder = toy_checkpoint("videomae", root)
    trained = VideoMAEModel.from_pretrained(folder).embeddings.position_embeddings
    used = build("videomae", root)._model.embeddings.position_embeddings
    assert trained.shape[1] == 1568
    torch.testing.assert_close(used, trained[:, :980], rtol=0, atol=0)


@pytest.fixture(scope="module")
def backbone(root):
    return VideoMAEModel.from_pretrained(toy_checkpoint("videomae", root))


def save_as(model_class, backbone, folder, root, **settings):
    """A checkpoint of another model class with the toy's backbone, and the toy's image settings."""
    config = VideoMAEConfig(**{**backbone.config.to_dict(), "decoder_hidden_size": 32, **settings})
    config.decoder_num_attention_heads, config.decoder_num_hidden_layers, config.decoder_intermediate_size = 2, 1, 32
    model = model_class(config)
    model.videomae.load_state_dict(backbone.state_dict(), strict=False)
    model.save_pretrained(folder)
    source = toy_checkpoint("videomae", root) / "preprocessor_config.json"
    (folder / source.name).write_bytes(source.read_bytes())
    return model


@pytest.mark.parametrize("claim", [False, True])
def test_final_norm_of_pretrained_weights_is_kept_whatever_the_config_says(claim, backbone, root, tmp_path):
    save_as(VideoMAEForPreTraining, backbone, tmp_path, root, use_mean_pooling=False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "use_mean_pooling": claim}))
    videos = clips(1, 5, 224, 224)
    encoder = registry.build("videomae", {"checkpoint": str(tmp_path)}, toy_root=root)
    assert "layernorm" in encoder.spec.pooling
    np.testing.assert_allclose(
        encoder.encode(videos).embedding, build("videomae", root).encode(videos).embedding, atol=TOLERANCE
    )


def test_fine_tuned_weights_use_their_own_norm(backbone, root, tmp_path):
    model = save_as(VideoMAEForVideoClassification, backbone, tmp_path, root, use_mean_pooling=True, num_frames=10)
    torch.nn.init.normal_(model.fc_norm.weight, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(tmp_path)
    videos = clips(1, 5, 224, 224)
    pixels = AutoImageProcessor.from_pretrained(tmp_path)([list(np.repeat(videos[0], 2, axis=0))], return_tensors="pt")
    tokens = model.eval().videomae(pixels["pixel_values"]).last_hidden_state
    expected = model.fc_norm(tokens.reshape(1, 5, 196, -1).mean(dim=2)).numpy()
    encoder = registry.build("videomae", {"checkpoint": str(tmp_path)}, toy_root=root)
    assert "fc_norm" in encoder.spec.pooling
    np.testing.assert_allclose(encoder.encode(videos).frames, expected, atol=TOLERANCE)


def test_weights_without_a_final_norm_are_refused(backbone, root, tmp_path):
    bare = VideoMAEModel(VideoMAEConfig(**{**backbone.config.to_dict(), "use_mean_pooling": True}))
    bare.save_pretrained(tmp_path)
    source = toy_checkpoint("videomae", root) / "preprocessor_config.json"
    (tmp_path / source.name).write_bytes(source.read_bytes())
    with pytest.raises(CheckpointError, match="neither layernorm nor fc_norm"):
        registry.build("videomae", {"checkpoint": str(tmp_path)}, toy_root=root)


def hf_vit(folder, pictures):
    pixels = AutoImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")["pixel_values"]
    return ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()(pixels).last_hidden_state[:, 0].numpy()


def test_vit_equals_the_library(root):
    pictures = clips(3, 224, 224)
    encoded = build("vit", root).encode(pictures).embedding
    np.testing.assert_allclose(encoded, hf_vit(toy_checkpoint("vit", root), list(pictures)), atol=TOLERANCE)


def test_vit_equals_the_library_on_pictures_of_other_sizes(root):
    pictures = [smooth(300, 200, 1), smooth(150, 400, 2), smooth(224, 224, 3)]
    expected = hf_vit(toy_checkpoint("vit", root), pictures)
    difference = np.linalg.norm(build("vit", root).encode(pictures).embedding - expected, axis=1)
    assert difference.max() < 0.01 * np.linalg.norm(expected, axis=1).min()


def test_vit_on_videos_is_vit_on_each_frame(root):
    videos = clips(2, 5, 224, 224)
    frames = build("vit", root).encode(videos.reshape(10, 224, 224, 3)).embedding.reshape(2, 5, -1)
    encoded = build("vit", root, input="video").encode(videos)
    np.testing.assert_allclose(encoded.frames, frames, atol=TOLERANCE)
    np.testing.assert_allclose(encoded.embedding, frames.mean(axis=1), atol=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(1280, 720), (300, 533), (150, 200), (224, 225)])
@pytest.mark.parametrize(
    ("name", "processor"), [("videomae", VideoMAEImageProcessorPil), ("vit", ViTImageProcessorPil)]
)
def test_resized_frames_are_within_one_grey_level(name, processor, height, width, root):
    folder = toy_checkpoint(name, root)
    settings = image_settings(name, folder, resize="checkpoint", square=name == "vit", side=224)
    frame = smooth(height, width)
    reference = processor.from_pretrained(folder)([[frame]] if name == "videomae" else [frame])["pixel_values"][0]
    ours = settings.pixel_values(settings.fit(frame[None]), "cpu")[0].numpy()
    grey = 1 / 255 / min(settings.std)
    assert np.abs(ours - np.asarray(reference).reshape(ours.shape)).max() <= grey * 1.01


@pytest.mark.parametrize(
    ("name", "legacy"),
    [
        ("videomae", {"feature_extractor_type": "VideoMAEFeatureExtractor", "do_center_crop": True, "size": 224}),
        ("vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": 224}),
        ("vit", {"image_processor_type": "ViTImageProcessor", "size": {"height": 224, "width": 224}}),
    ],
)
def test_image_settings_of_older_checkpoints_are_read_as_the_library_reads_them(name, legacy, root, tmp_path):
    values = {"do_normalize": True, "do_resize": True, "resample": 2, "image_mean": [0.4, 0.5, 0.6]}
    values |= {"image_std": [0.2, 0.3, 0.4], **legacy}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    (tmp_path / "config.json").write_bytes((toy_checkpoint(name, root) / "config.json").read_bytes())
    settings = image_settings(name, tmp_path, resize="checkpoint", square=name == "vit", side=224)
    frame = smooth(250, 330)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)([[frame]] if name == "videomae" else [frame])["pixel_values"]
    ours = settings.pixel_values(settings.fit(frame[None]), "cpu")[0].numpy()
    np.testing.assert_allclose(ours, np.asarray(theirs[0]).reshape(ours.shape), atol=1 / 255 / 0.2 * 1.01)


@pytest.mark.parametrize(("name", "model_class"), [("bert", BertModel), ("roberta", RobertaModel)])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_text_encoders_equal_the_library_one_title_at_a_time(name, model_class, pooling, root):
    folder = toy_checkpoint(name, root)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = model_class.from_pretrained(folder, add_pooling_layer=False).eval()
    expected = []
    for title in TITLES:  # alone, so that there is no padding at all
        hidden = model(**tokenizer(title, return_tensors="pt")).last_hidden_state[0]
        expected.append((hidden[0] if pooling == "cls" else hidden.mean(dim=0)).numpy())
    encoded = build(name, root, pooling=pooling).encode(TITLES)
    np.testing.assert_allclose(encoded.embedding, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "prefix", "renames"),
    [
        (
            "videomae",
            "videomae.",
            {"attention.query.bias": "attention.q_bias", "attention.value.bias": "attention.v_bias"},
        ),
        ("bert", "bert.", {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}),
        ("roberta", "roberta.", {}),
        ("vit", "vit.", {}),
    ],
)
def test_the_tensor_names_of_the_published_checkpoints_load(name, prefix, renames, root, tmp_path):
    """Published weights carry the prefix of the model they were trained in, and names of older library versions."""
    source = toy_checkpoint(name, root)
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = {}
    for key, value in load_file(source / "model.safetensors").items():
        for new, old in renames.items():
            key = key.replace(new, old)
        weights[prefix + key] = value
    assert all(any(old in key for key in weights) for old in renames.values())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    batch = TITLES if name in {"bert", "roberta"} else clips(1, *((5,) if name == "videomae" else ()), 224, 224)
    published = registry.build(name, {"checkpoint": str(tmp_path)}, toy_root=root).encode(batch).embedding
    np.testing.assert_array_equal(published, build(name, root).encode(batch).embedding)


def test_weights_that_do_not_fit_are_refused_instead_of_being_random(root, tmp_path):
    source = toy_checkpoint("bert", root)
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(source / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelLoadError, match=r"missing keys encoder\.layer\.1\.output\.dense\.weight.* would be random"
    ):
        registry.build("bert", {"checkpoint": str(tmp_path)}, toy_root=root)
