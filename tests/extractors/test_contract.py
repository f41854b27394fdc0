"""What holds for every encoder: a new file in ``extractors/encoders`` is tested by being there."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch

from extractors import registry
from extractors.spec import EncoderSpec, StrictModel
from feature_store.key import spec_hash

NAMES = registry.names()
TEXTS = ["A sleepy kitten on the balcony", "street food", "the night market, part 12: spicy noodles and soup!"]


def rows(encoder, count=3, seed=0):
    """Rows of the encoder's modality, at the size it wants."""
    if encoder.spec.modality == "text":
        return TEXTS[:count]
    frames = (encoder.spec.sampling["frames"],) if encoder.spec.modality == "video" else ()
    size = encoder.settings.transform.crop
    return np.random.default_rng(seed).integers(0, 256, (count, *frames, *size, 3), dtype=np.uint8)


def test_names_are_the_files_of_the_folder():
    from pathlib import Path

    from extractors import encoders

    files = Path(next(iter(encoders.__path__))).glob("*.py")
    assert sorted(file.stem for file in files if file.stem != "__init__") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_module_states_its_name_licence_and_settings(name):
    module = registry.load(name)
    assert name == module.NAME
    assert module.LICENCE
    assert issubclass(module.Config, StrictModel)
    assert module.Config().shard_size > 0


@pytest.mark.parametrize("name", NAMES)
def test_description_equals_that_of_the_built_encoder_and_is_json(name, tiny, toy_root):
    spec = registry.describe(name, {"checkpoint": "tiny"}, toy_root=toy_root)
    assert isinstance(spec, EncoderSpec)
    assert spec == tiny(name).spec
    identity = spec.identity({"dataset": "synthetic"})
    assert json.loads(json.dumps(identity)) == identity
    assert identity["checkpoint"]["toy"] is True
    assert identity["recorded"]["dataset"] == "synthetic"
    assert len(identity["checkpoint"]["weights_sha256"]) == 64


@pytest.mark.parametrize("name", NAMES)
def test_where_the_weights_lie_and_library_versions_do_not_change_the_identity(name, toy_root, tmp_path):
    import shutil

    from extractors.toy import toy_checkpoint

    here = registry.describe(name, {"checkpoint": "tiny"}, toy_root=toy_root)
    copy = shutil.copytree(toy_checkpoint(name, toy_root), tmp_path / "copy")
    files = [path for path in copy.iterdir() if path.suffix == ".txt"] if name == "glove" else [copy]
    there = registry.describe(name, {"checkpoint": str(files[0])}, toy_root=toy_root)
    assert there.checkpoint.source != here.checkpoint.source
    assert there.checkpoint.toy
    assert spec_hash(there.identity()) == spec_hash(here.identity({"dataset": "x"}))


@pytest.mark.parametrize("name", NAMES)
def test_rows_have_the_declared_shape_and_type_and_are_finite(name, tiny):
    encoder = tiny(name)
    encoded = encoder.encode(rows(encoder))
    assert encoded.embedding.shape == (3, *encoder.spec.columns["embedding"])
    assert encoded.embedding.dtype == np.float32
    assert np.isfinite(encoded.embedding).all()
    assert not encoded.faults
    assert (encoded.frames is not None) == ("frames" in encoder.spec.columns)
    if encoded.frames is not None:
        assert encoded.frames.shape == (3, *encoder.spec.columns["frames"])
        np.testing.assert_allclose(encoded.frames.mean(axis=1), encoded.embedding, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_different_rows_give_different_vectors_and_equal_rows_equal_ones(name, tiny):
    encoder = tiny(name)
    first, again = encoder.encode(rows(encoder)).embedding, encoder.encode(rows(encoder)).embedding
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - first[1]).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_one_equals_its_row_in_a_batch_of_many(name, tiny):
    encoder = tiny(name)
    batch = rows(encoder)
    together = encoder.encode(batch).embedding
    for index in range(len(batch)):
        alone = encoder.encode(batch[index : index + 1]).embedding[0]
        np.testing.assert_allclose(alone, together[index], atol=2e-5)  # sums in another order, values up to 3


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_is_refused(name, tiny):
    encoder = tiny(name)
    with pytest.raises(ValueError, match="at least one row"):
        encoder.encode(rows(encoder)[:0])


@pytest.mark.parametrize("name", NAMES)
def test_unknown_settings_are_refused_with_the_near_name(name):
    with pytest.raises(registry.EncoderConfigError, match=f"encoder {name}: shard_sise: .*did you mean 'shard_size'"):
        registry.parse_config(name, {"shard_sise": 4})


def test_unknown_encoder_is_refused_with_the_near_name():
    with pytest.raises(registry.UnknownEncoderError, match="did you mean 'videomae'"):
        registry.load("videomea")
    assert registry.UnknownEncoderError.usage


def test_impossible_values_are_named():
    with pytest.raises(registry.EncoderConfigError, match=r"precision: .*fp32.*got 'fp8'"):
        registry.parse_config("bert", {"precision": "fp8"})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "glove"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_stays_close(name, precision, tiny):
    exact, reduced = tiny(name), tiny(name, precision=precision)
    assert reduced.spec != exact.spec
    a, b = exact.encode(rows(exact)).embedding, reduced.encode(rows(reduced)).embedding
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.999
    assert np.abs(a - b).max() > 0  # the setting has an effect
    assert b.dtype == np.float32


@pytest.mark.parametrize("name", [name for name in NAMES if name != "glove"])
def test_a_rewritten_model_gives_the_same_vectors_under_the_same_identity(name, tiny, toy_root, monkeypatch):
    compiler = functools.partial(torch.compile, backend="eager")  # the graph is captured; no C++ compiler is needed
    monkeypatch.setattr("extractors.transformer.torch.compile", compiler)
    plain, rewritten = tiny(name), registry.build(name, {"checkpoint": "tiny", "compile": True}, toy_root=toy_root)
    assert rewritten.spec == plain.spec
    assert type(rewritten._model).__name__ == "OptimizedModule"
    for count in (3, 2):  # the last batch is smaller
        batch = rows(plain, count)
        np.testing.assert_allclose(rewritten.encode(batch).embedding, plain.encode(batch).embedding, atol=2e-5)


def test_encoded_batch_refuses_wrong_shapes():
    from extractors.spec import EncodedBatch

    with pytest.raises(ValueError, match=r"expected float32 \[b, d\]"):
        EncodedBatch(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"frames: expected \[2, f, d\]"):
        EncodedBatch(np.zeros((2, 3), np.float32), np.zeros((1, 5, 3), np.float32))
    assert "[2, 3]" in repr(EncodedBatch(np.zeros((2, 3), np.float32)))
    assert dataclasses.is_dataclass(EncodedBatch)
