"""The contract of every source module, whatever modules there are."""

import inspect

import pytest
from pydantic import ValidationError

from datasets_spec import registry
from datasets_spec.errors import UnknownDatasetError
from datasets_spec.spec import PrepareConfig


@pytest.mark.parametrize("name", registry.names())
def test_every_listed_dataset_has_a_complete_spec(name):
    member, spec = registry.load(name)
    assert member.match(name)
    assert spec.name == name
    assert spec.title
    assert spec.access
    assert spec.licence.name
    assert spec.licence.note
    assert set(spec.media_for(spec.config)) <= set(spec.media)
    paths = [file.path for file in spec.files]
    assert len(set(paths)) == len(paths)
    assert not any(path.startswith("/") or ".." in path.split("/") for path in paths)


@pytest.mark.parametrize("module", registry.modules())
@pytest.mark.parametrize("function", ["match", "spec", "acquire", "parse", "acquire_media"])
def test_every_module_has_the_functions_of_a_source(module, function):
    expected = inspect.signature(getattr(registry.Source, function))
    actual = inspect.signature(getattr(registry.source(module), function))
    assert [(p.name, p.kind) for p in actual.parameters.values()] == [
        (p.name, p.kind) for p in expected.parameters.values() if p.name != "self"
    ]


def test_no_two_modules_list_or_claim_the_same_dataset():
    names = registry.names()
    assert len(set(names)) == len(names)
    for name in names:
        assert sum(registry.source(module).match(name) for module in registry.modules()) == 1, name


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("amazon-toy", "amazon-toys"), ("amazon-gift-card", "amazon-gift-cards"), ("amazn-games", "amazon-games")],
)
def test_an_unknown_dataset_is_met_with_the_near_name(wrong, near):
    with pytest.raises(UnknownDatasetError, match=f"no dataset named '{wrong}'; did you mean '{near}'"):
        registry.load(wrong)


def test_a_name_like_no_other_is_met_with_all_names():
    with pytest.raises(UnknownDatasetError, match=r"no dataset named 'zzz'; expected one of: .*amazon-toys"):
        registry.load("zzz")
    assert UnknownDatasetError.usage


@pytest.mark.parametrize("name", ["", "../etc", "amazon-", "amazon-../x", "amazon-Toys", "AMAZON-TOYS"])
def test_names_that_could_be_paths_are_refused(name):
    with pytest.raises(UnknownDatasetError, match="no dataset named"):
        registry.load(name)


def test_settings_accept_lists_written_with_commas():
    config = PrepareConfig.model_validate({"require": "text, image", "media": "", "mirrors": "http://a,http://b"})
    assert (config.require, config.media, config.mirrors) == (("text", "image"), (), ("http://a", "http://b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k_users": 5}, "k_users"),
        ({"k_user": 0}, "greater than or equal to 1"),
        ({"limit": 0}, "greater than 0"),
        ({"split": "random"}, "leave_one_out"),
        ({"require": "sound"}, "'text', 'image' or 'video'"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        PrepareConfig.model_validate(values)


def test_addresses_of_the_call_replace_those_of_the_dataset():
    _, spec = registry.load("amazon-toys")
    assert spec.bases(PrepareConfig())[0] == spec.config.base_url
    assert spec.bases(PrepareConfig(base_url="http://a", mirrors=("http://b",))) == ("http://a", "http://b")
