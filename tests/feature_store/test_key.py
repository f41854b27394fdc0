"""Hashes of specs and catalogues."""

import hashlib

import pytest

from feature_store.errors import SpecError
from feature_store.key import canonical_json, check_catalogue, plain_spec, spec_hash


def test_canonical_json_is_sorted_and_without_blanks():
    assert canonical_json({"b": (1, 2.5), "a": {"z": None, "é": True}}) == '{"a":{"z":null,"é":true},"b":[1,2.5]}'


def test_the_hash_is_sha256_of_the_canonical_text_without_recorded():
    expected = hashlib.sha256(b'{"dim":4,"encoder":"toy"}').hexdigest()
    assert spec_hash({"encoder": "toy", "dim": 4}) == expected
    assert spec_hash({"dim": 4, "encoder": "toy", "recorded": {"torch": "2"}}) == expected
    assert spec_hash({"dim": 4, "encoder": "toy", "sampling": {"recorded": 1}}) != expected


def test_a_spec_becomes_plain_json_values():
    assert plain_spec({"shape": (5, 3), "recorded": {"a": ()}}) == {"shape": [5, 3], "recorded": {"a": []}}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"a": {"b": float("nan")}}, r"spec\.a\.b: nan has no JSON text"),
        ({"a": [1, float("inf")]}, r"spec\.a\[1\]: inf has no JSON text"),
        ({"a": {1: 2}}, r"spec\.a: keys are strings, got 1 \(int\)"),
        ({"a": b"x"}, r"spec\.a: a spec holds JSON values only, got bytes b'x'"),
    ],
)
def test_what_json_cannot_say_is_refused_by_its_key(spec, message):
    with pytest.raises(SpecError, match=message):
        spec_hash(spec)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"a": b"short"}, "item 'a': expected the 32-byte sha256 of its content, got 5 bytes"),
        ({"a": "0" * 32}, "got str '0000"),
        ({"": bytes(32)}, r"expected item ids to be non-empty strings, got '' \(str\)"),
        ({7: bytes(32)}, r"got 7 \(int\)"),
    ],
)
def test_malformed_catalogues_are_refused(items, message):
    with pytest.raises(SpecError, match=message):
        check_catalogue(items)
