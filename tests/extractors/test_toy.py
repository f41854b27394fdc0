"""Toy checkpoints: the same seed gives the same bytes, and their features tell inputs apart."""

import hashlib
import logging

import numpy as np
import pytest
import torch

from extractors import checkpoint, registry
from extractors.toy import TOY_MARKER, UnknownToyError, draw_weights, toy_checkpoint, write_toy_glove

NAMES = registry.names()
COLOURS = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)])
STEPS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes_other_seed_other_weights(name, toy_root, tmp_path):
    first, again, other = (
        toy_checkpoint(name, toy_root),
        toy_checkpoint(name, tmp_path),
        toy_checkpoint(name, tmp_path, 7),
    )
    assert digests(first) == digests(again)
    weights = next(path.name for path in first.iterdir() if path.stem.startswith(("model", "glove")))
    assert digests(first)[weights] != digests(other)[weights]


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_neither_matters_nor_changes(name, toy_root, tmp_path):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    built = toy_checkpoint(name, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert digests(built) == digests(toy_checkpoint(name, toy_root))


def test_an_existing_checkpoint_is_kept_and_nothing_else_is_left(tmp_path):
    built = toy_checkpoint("glove", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in built.iterdir()}
    assert toy_checkpoint("glove", tmp_path) == built
    assert {path: path.stat().st_mtime_ns for path in built.iterdir()} == before
    assert list(tmp_path.iterdir()) == [built]


def test_half_built_folders_are_removed(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("extractors.toy.write_toy_glove", fail)
    with pytest.raises(OSError, match="disk full"):
        toy_checkpoint("glove", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_toy_is_refused(tmp_path):
    with pytest.raises(UnknownToyError, match="no toy checkpoint named 'clip'; there are: bert, glove"):
        toy_checkpoint("clip", tmp_path)


def test_toys_are_marked_and_warn_once(toy_root, caplog):
    checkpoint._warn_toy.cache_clear()
    with caplog.at_level(logging.WARNING):
        first = registry.describe("glove", {"checkpoint": "tiny"}, toy_root=toy_root)
        registry.describe("glove", {"checkpoint": "tiny"}, toy_root=toy_root)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "TOY" in caplog.text
    assert first.checkpoint.toy
    assert first.checkpoint.seed == 0
    assert "random" in first.checkpoint.licence
    assert (toy_checkpoint("glove", toy_root) / TOY_MARKER).is_file()


def test_glove_vectors_depend_on_the_word_and_the_seed_alone(tmp_path):
    write_toy_glove(tmp_path / "a.txt", ["cat", "dog"])
    write_toy_glove(tmp_path / "b.txt", ["dog", "cat", "dog", "bird"])
    write_toy_glove(tmp_path / "c.txt", ["cat", "dog"], seed=1)
    a, b, c = ((tmp_path / f"{name}.txt").read_text().splitlines() for name in "abc")
    assert set(a) < set(b)
    assert len(b) == 3
    assert not set(a) & set(c)


def test_weights_have_the_stated_spread():
    linear = torch.nn.Sequential()
    linear.add_module("intermediate", torch.nn.Linear(400, 300))
    linear.add_module("query", torch.nn.Linear(400, 300))
    linear.add_module("layernorm", torch.nn.LayerNorm(8))
    draw_weights(linear, torch.Generator().manual_seed(0))
    assert float(linear.intermediate.weight.detach().std()) == pytest.approx(2 / 400**0.5, rel=0.02)
    assert float(linear.query.weight.detach().std()) == pytest.approx(1 / 400**0.5, rel=0.02)
    assert linear.layernorm.weight.tolist() == [1.0] * 8
    assert linear.layernorm.bias.tolist() == [0.0] * 8


def moving_squares(count, seed=0):
    """Videos uint8 ``[count, 5, 224, 224, 3]`` of a coloured square that moves over a noisy grey, with their labels."""
    rng = np.random.default_rng(seed)
    colours, directions = rng.integers(0, 4, count), rng.integers(0, 4, count)
    videos = np.empty((count, 5, 224, 224, 3), dtype=np.uint8)
    for video, colour, direction in zip(videos, colours, directions, strict=True):
        ground = rng.integers(60, 160) + rng.normal(0, 8, (224, 224, 1))
        paint = COLOURS[colour] + rng.integers(-30, 31, 3)
        centre, half = rng.uniform(80, 144, 2), rng.integers(20, 45)
        for j, frame in enumerate(video):
            x, y = (centre + STEPS[direction] * (j - 2) * 31).astype(int)
            frame[:] = np.clip(ground, 0, 255)
            frame[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = np.clip(paint, 0, 255)
    return videos, colours, directions


def probe(features, labels, *, train, penalty=10.0):
    """Accuracy of a ridge classifier on the rows after the first ``train``."""
    flat = features.reshape(len(features), -1)
    flat = (flat - flat[:train].mean(axis=0)) / (flat[:train].std(axis=0) + 1e-9)
    targets = np.eye(labels.max() + 1)[labels]
    gram = flat[:train].T @ flat[:train] + penalty * np.eye(flat.shape[1])
    weights = np.linalg.solve(gram, flat[:train].T @ (targets[:train] - targets[:train].mean(axis=0)))
    return float((np.argmax(flat[train:] @ weights, axis=1) == labels[train:]).mean())


def test_visual_features_tell_colour_and_direction_of_motion(tiny):
    videos, colours, directions = moving_squares(240)
    videomae = tiny("videomae")
    encoded = [videomae.encode(videos[start : start + 8]) for start in range(0, len(videos), 8)]
    embedding, frames = (np.concatenate([getattr(part, key) for part in encoded]) for key in ("embedding", "frames"))
    middle = np.concatenate(
        [tiny("vit").encode(videos[start : start + 24, 2]).embedding for start in range(0, 240, 24)]
    )
    # Chance is 0.25; with 80 test videos its standard deviation is 0.05.
    assert probe(embedding, colours, train=160) > 0.8
    assert probe(middle, colours, train=160) > 0.8
    assert probe(frames, colours, train=160) > 0.8
    assert probe(frames, directions, train=160) > 0.45


@pytest.mark.parametrize("name", ["bert", "roberta", "glove"])
def test_text_features_tell_titles_by_their_words(name, tiny):
    topics = (["noodles", "soup", "garlic", "chef"], ["goal", "stadium", "team", "league"], ["cat", "paws", "kitten"])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    fillers = ["the", "one", "day", "with", "my", "best", "ever", "and"]
    titles = [" ".join(rng.permutation([*rng.choice(topics[label], 2), *rng.choice(fillers, 3)])) for label in labels]
    assert probe(tiny(name).encode(titles).embedding, labels, train=100) > 0.8  # chance is 0.33


def test_real_tokenizers_load_and_cover_any_text(toy_root):
    from transformers import AutoTokenizer

    bert = AutoTokenizer.from_pretrained(toy_checkpoint("bert", toy_root), local_files_only=True)
    assert bert.tokenize("The Kitten purrs") == ["the", "kitten", "p", "##u", "##r", "##r", "##s"]
    assert bert("kitten")["input_ids"][:: len(bert("kitten")["input_ids"]) - 1] == [
        bert.cls_token_id,
        bert.sep_token_id,
    ]
    roberta = AutoTokenizer.from_pretrained(toy_checkpoint("roberta", toy_root), local_files_only=True)
    assert roberta.tokenize("a kitten in 成都") == ["a", "Ġkitten", "Ġin", *roberta.tokenize(" 成都")]
    assert roberta.decode(roberta("a kitten in 成都")["input_ids"], skip_special_tokens=True) == "a kitten in 成都"
