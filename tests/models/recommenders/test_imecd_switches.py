"""IMECD: every switch, the tables that it reads, and the index that it serves from."""

import pytest
import torch
from histories import batch, seeded
from imecd_cases import N_ITEMS, SMALL, loss, model, score, tables, trained

from models.errors import ConfigError, MissingFeatureError
from models.evaluation.index import ItemIndex
from models.evaluation.mode import eval_mode
from models.recommenders.imecd import Config, required_features
from models.registry import build, parse_config


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"sampler_stride": 8}, "only sampler='ddim' can skip steps"),
        ({"sampler": "ddim", "sampler_stride": 5}, "must divide steps=32"),
    ],
)
def test_a_stride_that_does_not_fit_is_refused(switches, message):
    with pytest.raises(ConfigError, match=message):
        parse_config("imecd", switches)


PARAMETERS = [
    ("use_idmoe", False, -2 * (3 * (8 + 1) + 3 * (64 + 8))),  # gates 8 -> 3 and 3 experts 8 -> 8, twice
    ("use_vq", False, -3 * (6 * 8 * 3 + 3)),  # selectors 48 -> 3
    ("modalities", ("id", "txt"), None),
    ("pos_emb", True, 3 * 6 * 8),
    ("experts", 4, 2 * (9 + 72)),
    ("codes", 4, 3 * 49),
]


@pytest.mark.parametrize(("switch", "value", "difference"), PARAMETERS, ids=lambda value: str(value))
def test_switches_change_the_size(switch, value, difference):
    sizes = [sum(p.numel() for p in imecd.parameters()) for imecd in (model(**{switch: value}), model())]
    if difference is None:
        assert sizes[0] < sizes[1]
    else:
        assert sizes[0] - sizes[1] == difference


LOSSES = [
    ("use_contrastive", False),
    ("lambda_c", 0.5),
    ("tau_c", 0.07),
    ("exclude_self", True),
    ("mask_same_target", True),
    ("lambda_q", 0.1),
    ("codebook", "batch_mean"),
    ("codebook", "legacy_batch"),
    ("inject", "delta"),
    ("inject", "prepend_token"),
    ("ce", "joint"),
    ("gate_from", "modality"),
    ("schedule", "linear"),
    ("use_vq", False),
    ("use_idmoe", False),
]


@pytest.mark.parametrize(("switch", "value"), LOSSES, ids=str)
def test_switches_change_the_loss(switch, value):
    losses = []
    for imecd in (model(**{switch: value}).train(), model().train()):
        with torch.no_grad():
            for step in range(3):  # the codes of the first batch do not yet know their mode
                terms = loss(imecd, seed=step)
        losses.append(terms.total.item())
    assert abs(losses[0] - losses[1]) > 1e-5


def test_without_the_contrastive_loss_only_its_parts_are_gone():
    whole, without = loss(model()).parts, loss(model(use_contrastive=False)).parts
    assert set(whole) - set(without) == {"repulsion_id", "repulsion_txt", "repulsion_img"}
    assert all(torch.equal(without[name], whole[name]) for name in without)


@pytest.mark.parametrize(
    ("switch", "value"),
    [("variance", "fixedlarge"), ("variance", "none"), ("sampler", "ddim"), ("sampler", "one_step")],
    ids=str,
)
def test_switches_change_the_scores_and_not_the_weights(switch, value):
    other, usual = model(**{switch: value}), model()
    other.load_state_dict(usual.state_dict())
    assert (score(other) - score(usual))[:, 1:].abs().max() > 1e-5


def test_tables_follow_the_modalities():
    assert required_features(Config()) == ("roberta", "vit")
    assert required_features(Config(modalities=("img", "id"), image_table="videomae")) == ("videomae",)
    assert required_features(Config(modalities=("id",))) == ()


def test_a_missing_table_is_named():
    with pytest.raises(MissingFeatureError, match="model imecd needs the feature table 'vit'; given: roberta"):
        build("imecd", SMALL, n_items=N_ITEMS, features={"roberta": tables()["roberta"]})


@pytest.mark.parametrize(("name", "shape"), [("roberta", (13, 4, 5)), ("vit", (13,))])
def test_a_table_without_one_vector_per_item_is_refused(name, shape):
    found = rf"feature table '{name}': expected \[items, width\], got \[{', '.join(map(str, shape))}\]; name a feature"
    with pytest.raises(MissingFeatureError, match=found):
        build("imecd", SMALL, n_items=N_ITEMS, features=tables() | {name: torch.ones(shape)})


def test_a_table_of_a_modality_that_is_not_read_may_have_any_shape():
    build("imecd", SMALL | {"modalities": ("id", "txt")}, n_items=N_ITEMS, features=tables() | {"vit": torch.ones(3)})


@pytest.mark.parametrize("modalities", [("id", "txt", "img"), ("img", "id"), ("txt",)])
def test_an_index_of_the_item_vectors_answers_as_the_model_does(modalities):
    """Eq. 19 is one inner product, whatever the order in which the modalities are named."""
    imecd = trained(modalities=modalities)
    with eval_mode(imecd):
        state = imecd.query(batch(), generator=seeded())
        found = ItemIndex.of_model(imecd).recommend(state, k=5)
        expected = imecd.recommend(batch(), k=5, exclude=None, generator=seeded())
        table = imecd.item_vectors()
    assert table.shape == (N_ITEMS + 1, 8 * len(modalities))
    assert not table[0].any()
    assert torch.equal(found.items, expected.items)
    torch.testing.assert_close(found.scores, expected.scores)


@pytest.mark.parametrize("modalities", [(), ("id", "id")])
def test_modalities_are_one_to_three_different_ones(modalities):
    with pytest.raises(ConfigError, match="one to three different ones of id, txt, img"):
        model(modalities=modalities)
