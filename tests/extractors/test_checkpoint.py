"""Where weights come from, and what is refused."""

import hashlib
import json

import huggingface_hub
import pytest

from extractors import registry
from extractors.checkpoint import CheckpointChoiceError, CheckpointError, config_value, read_json, resolve
from extractors.toy import toy_checkpoint
from extractors.vision import image_settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(toy_root, tmp_path):
    """A copy of the toy BERT without its marker, as somebody's own weights."""
    copy = tmp_path / "own"
    copy.mkdir()
    for path in toy_checkpoint("bert", toy_root).iterdir():
        if path.name != "TOY.json":
            (copy / path.name).write_bytes(path.read_bytes())
    return copy


def find(checkpoint, tmp_path, revision=COMMIT):
    return resolve("bert", str(checkpoint), revision=revision, toy_root=tmp_path, licence="MIT", tokenizer=True)


def test_local_folder(folder, tmp_path):
    spec = find(folder, tmp_path).spec()
    assert spec.source == str(folder)
    assert (spec.toy, spec.seed, spec.revision) == (False, None, None)
    assert spec.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_hub_id_is_downloaded_at_its_commit(folder, tmp_path, monkeypatch):
    asked = {}

    def snapshot(repository, **arguments):
        asked.update(arguments, repository=repository)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    checkpoint = find("someone/bert", tmp_path)
    assert asked == {
        "repository": "someone/bert",
        "revision": COMMIT,
        "allow_patterns": ["*.json", "*.txt", "*.safetensors"],
    }
    assert checkpoint.path == folder
    assert (checkpoint.spec().source, checkpoint.spec().revision) == ("someone/bert", COMMIT)
    assert checkpoint.spec().licence == "MIT"


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12]])
def test_a_hub_id_must_be_pinned_to_a_commit(revision, tmp_path):
    with pytest.raises(CheckpointChoiceError, match=r"someone/bert.*must be pinned.*40 hexadecimal digits"):
        find("someone/bert", tmp_path, revision)
    assert CheckpointChoiceError.usage


def test_an_unreachable_hub_says_what_to_pass_instead(tmp_path, monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError("Name or service not known\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(CheckpointError) as caught:
        find("someone/bert", tmp_path)
    message = str(caught.value)
    for part in ("someone/bert", COMMIT, "Name or service not known", "checkpoint=PATH", "checkpoint=tiny"):
        assert part in message
    assert "\n" not in message
    assert not CheckpointError.usage


def test_pickled_weights_are_not_loaded(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors.*found .*pytorch_model\.bin.*can run code"):
        find(folder, tmp_path)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointChoiceError, match=r"holds no config\.json"):
        find(tmp_path, tmp_path)


def test_weights_in_several_files(folder, tmp_path):
    for part in ("a", "b"):
        (folder / f"model-{part}.safetensors").write_bytes(part.encode())
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"x": "model-b.safetensors", "y": "model-a.safetensors", "z": "model-a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    digests = "\n".join(hashlib.sha256(part).hexdigest() for part in (b"a", b"b"))
    assert find(folder, tmp_path).spec().weights_sha256 == hashlib.sha256(digests.encode()).hexdigest()
    (folder / "model-b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected model-b\.safetensors"):
        find(folder, tmp_path)


def test_settings_that_change_the_numbers_change_the_digest(folder, tmp_path):
    def digest(**changes):
        config = read_json(original) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return find(folder, tmp_path).spec().settings_sha256

    original = tmp_path / "config.json"
    original.write_bytes((folder / "config.json").read_bytes())
    before = digest()
    assert digest(transformers_version="9.9", _name_or_path="elsewhere") == before
    assert digest(layer_norm_eps=0.5) != before
    digest()
    (folder / "vocab.txt").write_text("other words\n")
    assert find(folder, tmp_path).spec().settings_sha256 != before


@pytest.mark.parametrize("content", ["not json", "[1]"])
def test_damaged_settings_are_named(content, folder, tmp_path):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON"):
        find(folder, tmp_path).spec()


def test_missing_numbers_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="expected a whole number 'image_size', got None"):
        config_value(find(folder, tmp_path), "image_size")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_mean": None}, "image_mean: expected three numbers"),
        ({"image_std": [0.5]}, "image_std: expected three numbers"),
        ({"resample": 3}, "resample=3.*supported are bilinear"),
        ({"do_normalize": False}, "do_normalize=False"),
        ({"size": {"longest_edge": 224}}, "size: expected a number, height and width, or shortest_edge"),
        ({"crop_size": "large"}, "crop_size: expected a number, or height and width"),
        ({"crop_size": 192}, "gives pictures of .192, 192., but the model takes 224"),
    ],
)
def test_image_settings_that_cannot_be_followed_are_refused(changes, message, toy_root, tmp_path):
    settings = read_json(toy_checkpoint("videomae", toy_root) / "preprocessor_config.json") | changes
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=message):
        image_settings("videomae", tmp_path, resize="checkpoint", square=False, side=224)


def test_standard_checkpoints_are_pinned_where_a_commit_is_known():
    pinned = {name: registry.load(name).Config().revision for name in registry.names()}
    assert pinned.pop("glove") is None
    assert all(len(revision) == 40 for revision in pinned.values())
