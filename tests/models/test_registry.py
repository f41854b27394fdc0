import pytest
import torch

from models import registry
from models.config import StrictModel, parse_strict, suggest
from models.errors import ConfigError, MissingFeatureError, UnknownModelError
from models.interface import LossTerms


class Inner(StrictModel):
    width: int = 3


class Outer(StrictModel):
    inner: Inner = Inner()
    rate: float = 0.5


def test_the_folder_is_the_registry():
    assert {"sasrec", "popularity", "mealrec", "imecd", "dimerec"} <= set(registry.names())
    assert registry.names() == sorted(registry.names())


def test_unknown_names_are_answered_with_the_near_one():
    with pytest.raises(UnknownModelError, match="no model named 'sasrek'; did you mean 'sasrec'"):
        registry.load("sasrek")
    assert suggest("zzz", ["a", "b"]) == "expected one of: a, b"


def test_configurations_come_in_three_forms():
    config = registry.parse_config("sasrec", {"d": 32})
    assert registry.parse_config("sasrec", config) is config
    assert registry.parse_config("sasrec", None).model_dump() == registry.parse_config("sasrec", {}).model_dump()
    model = registry.build("sasrec", config, n_items=5)
    assert model.encoder.items.table.shape == (6, 32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"inner": {"widht": 4}}, r"here: inner.widht: unknown key \(got 4\); did you mean 'width'"),
        ({"rat": 1}, "here: rat: unknown key .*'rate'"),
        ({"rate": "fast"}, r"here: rate: .*\(got 'fast'\)"),
        ({"inner": {"width": 1.5}, "rate": []}, r"(?s)here: inner.width: .*\nhere: rate: "),
    ],
)
def test_faults_are_named_by_their_dotted_key(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_strict(Outer, values, where="here")


def test_configurations_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Outer().rate = 1.0


def test_feature_tables_are_checked_before_the_model_is_built():
    with pytest.raises(MissingFeatureError, match="model m needs the feature table 'bert'; given: vit"):
        registry.check_features("m", ("bert",), {"vit": torch.zeros(4, 2)}, n_items=3)
    with pytest.raises(MissingFeatureError, match=r"'bert': expected 4 rows .*, got 3"):
        registry.check_features("m", ("bert",), {"bert": torch.zeros(3, 2)}, n_items=3)


def test_a_loss_is_a_scalar():
    with pytest.raises(ValueError, match=r"expected a scalar, got shape \[2\]"):
        LossTerms(torch.zeros(2))
