"""What every recommender in the folder keeps to, see ``models.interface``."""

import pytest
import torch

from models import registry
from models.errors import ConfigError
from models.evaluation.index import InnerProductScored
from models.evaluation.mode import eval_mode
from models.evaluation.ranking import evaluate
from models.interface import HistoriesFitted, Recommender
from models.sequences.batch import SequenceBatch
from models.sequences.dataset import SequenceData
from models.training.checkpoint import load_weights, save_checkpoint

N_ITEMS = 40
MAX_LENGTH = 6

#: Sizes for quick tests; a model that is not named here is tested at its defaults.
SMALL = {
    "bert4rec": {"d": 16, "inner": 32, "dropout": 0.0, "max_length": 8},
    "cl4srec": {"d": 16, "inner": 32, "dropout": 0.0, "max_length": 8},
    "comirec": {"d": 16, "max_length": 8},
    "diffurec": {"d": 16, "layers": 1, "heads": 2, "steps": 5, "dropout": 0.0, "embedding_dropout": 0.0},
    "dimerec": {"d": 16, "hidden": 64, "steps": 5, "max_length": 8},
    "dreamrec": {"d": 32, "steps": 20, "dropout": 0.0, "max_length": 8},
    "gru4rec": {"d": 16, "hidden": 24, "dropout": 0.0},
    "imecd": {
        "d": 16,
        "layers_id": 1,
        "heads": 2,
        "experts": 2,
        "codes": 3,
        "steps": 5,
        "dropout": 0.0,
        "max_length": 8,
    },
    "itemknn": {"k": 12},
    "mealrec": {"d": 16, "inner": 32, "steps": 5, "dropout": 0.0, "unet_channels": 16, "max_length": 8},
    "popularity": {},
    "sasrec": {"d": 16, "inner": 32, "dropout": 0.0, "max_length": 8},
    "tedrec": {"d": 16, "inner": 32, "dropout": 0.0, "experts": 2, "adaptor_dropout": 0.0, "max_length": 8},
}

INNER_PRODUCTS = {"bert4rec", "cl4srec", "dimerec", "gru4rec", "imecd", "sasrec", "tedrec"}

every_model = pytest.mark.parametrize("name", registry.names())


def tables(name):
    """Random features of the shapes that the stores have, 16 columns wide; the last two items have none."""
    config = registry.parse_config(name, SMALL.get(name))
    generator = torch.Generator().manual_seed(3)
    found = {}
    for table in registry.load(name).required_features(config):
        shape = (N_ITEMS + 1, 5, 16) if table.endswith(".frames") else (N_ITEMS + 1, 16)
        found[table] = torch.randn(shape, generator=generator)
        found[table][[0, N_ITEMS - 1, N_ITEMS]] = 0.0
    return found


def build(name, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = registry.build(name, SMALL.get(name), n_items=N_ITEMS, features=tables(name))
    if isinstance(model, HistoriesFitted):
        read = torch.randint(1, N_ITEMS + 1, (300,), generator=torch.Generator().manual_seed(4))
        model.fit_histories(read, torch.arange(0, 301, 5))
    return model


@every_model
def test_an_index_of_the_item_vectors_holds_the_scores(name):
    """Of a model with ``query`` and ``item_vectors``; these are named, so that none loses them unnoticed."""
    model = build(name)
    assert isinstance(model, InnerProductScored) == (name in INNER_PRODUCTS)
    if name in INNER_PRODUCTS:
        batch = make_batch()
        with eval_mode(model):
            products = model.query(batch, generator=seeded()) @ model.item_vectors().T
        torch.testing.assert_close(products[:, 1:], score(model, batch)[:, 1:], rtol=1e-4, atol=1e-5)


def exceptions(name):
    return getattr(registry.load(name), "CONTRACT_EXCEPTIONS", {})


def make_batch(rows=8, *, seed=0, all_positions=False):
    """Histories of 1 to MAX_LENGTH items; targets are different items."""
    generator = torch.Generator().manual_seed(seed)
    item_ids = torch.randint(1, N_ITEMS + 1, (rows, MAX_LENGTH), generator=generator)
    mask = torch.arange(MAX_LENGTH) <= (torch.arange(rows) % MAX_LENGTH).unsqueeze(1)
    target = torch.randperm(N_ITEMS, generator=generator)[:rows] + 1
    targets = torch.randint(1, N_ITEMS + 1, (rows, MAX_LENGTH), generator=generator) * mask
    return SequenceBatch(
        item_ids=item_ids * mask,
        mask=mask,
        target=target,
        user=torch.arange(rows),
        targets=targets if all_positions else None,
    )


def rows_of(batch, index):
    return SequenceBatch(batch.item_ids[index], batch.mask[index], batch.target[index], batch.user[index])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def score(model, batch, seed=0):
    with eval_mode(model):
        return model.score(batch, generator=seeded(seed))


def train(model, batches, *, learning_rate=0.01):
    """Plain Adam steps; returns the losses."""
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for number, batch in enumerate(batches):
            optimiser.zero_grad()
            terms = model.training_loss(batch, generator=seeded(number))
            terms.total.backward()
            optimiser.step()
            losses.append(terms.total.item())
    return losses


def trained(name, steps=3):
    model = build(name)
    train(model, [make_batch(seed=step) for step in range(steps)])
    return model


@every_model
def test_it_is_a_recommender(name):
    model = build(name)
    assert isinstance(model, Recommender)
    assert isinstance(model, torch.nn.Module)
    assert model.n_items == N_ITEMS
    assert isinstance(model.causal, bool)


@every_model
@pytest.mark.parametrize("all_positions", [False, True])
def test_the_loss_is_finite_and_its_parts_are_for_the_log(name, all_positions):
    model = build(name).train()
    batch = make_batch(all_positions=all_positions and model.causal)
    terms = model.training_loss(batch, generator=seeded())
    assert terms.total.isfinite()
    assert terms.total.requires_grad
    for part in terms.parts.values():
        assert part.ndim == 0
        assert part.isfinite()
        assert not part.requires_grad


@every_model
def test_the_loss_may_be_computed_in_bfloat16(name):
    """Eight bits of mantissa: a sum of a few thousand terms is right to some per cent, and every gradient is there."""
    totals, reached = [], []
    for enabled in (False, True):
        model = build(name).train()
        with torch.random.fork_rng(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.manual_seed(0)
            terms = model.training_loss(make_batch(), generator=seeded())
        terms.total.backward()
        gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        totals.append(terms.total.item())
        reached.append(set(gradients))
    assert totals[1] == pytest.approx(totals[0], rel=0.05)
    assert reached[0] == reached[1]


@every_model
@pytest.mark.parametrize("width", [1, 2])
def test_a_batch_is_as_wide_as_its_longest_history(name, width):
    model, batch = build(name).train(), make_batch()
    short = batch.lengths <= width
    narrow = SequenceBatch(
        batch.item_ids[short, :width], batch.mask[short, :width], batch.target[short], batch.user[short]
    )
    assert model.training_loss(narrow, generator=seeded()).total.isfinite()


@every_model
def test_every_parameter_learns(name):
    model = build(name).train()
    largest = dict.fromkeys((key for key, _ in model.named_parameters()), 0.0)
    for step in range(4):
        model.zero_grad()
        model.training_loss(make_batch(32, seed=step), generator=seeded(step)).total.backward()
        for key, value in model.named_parameters():
            if value.grad is not None:
                largest[key] = max(largest[key], value.grad.abs().max().item())
    rounding = 1e-7 * max(largest.values())  # what is zero on paper is seldom exactly zero in float32
    reached = {key for key, value in largest.items() if value > rounding}
    trainable = {key for key, value in model.named_parameters() if value.requires_grad}
    excepted = {key.removeprefix("gradient:") for key in exceptions(name) if key.startswith("gradient:")}
    assert trainable - reached == excepted


@every_model
def test_exceptions_name_what_exists_and_say_why(name):
    model = build(name)
    allowed = {"overfits", *(f"gradient:{key}" for key, _ in model.named_parameters())}
    allowed |= {f"saved:{key}" for key, _ in model.named_buffers()}
    for key, reason in exceptions(name).items():
        assert key in allowed
        assert len(reason.split()) >= 3


@every_model
def test_scores_cover_the_catalogue_and_never_padding(name):
    scores = score(build(name), make_batch())
    assert scores.shape == (8, N_ITEMS + 1)
    assert scores.dtype == torch.float32
    assert (scores[:, 0] == -torch.inf).all()
    assert scores[:, 1:].isfinite().all()


@every_model
def test_padding_changes_no_row(name):
    model, batch = trained(name), make_batch()
    wider = torch.nn.functional.pad(batch.item_ids, (0, 2))
    padded = SequenceBatch(wider, wider > 0, batch.target, batch.user)
    torch.testing.assert_close(score(model, padded), score(model, batch), rtol=1e-4, atol=1e-5)


@every_model
def test_a_row_does_not_depend_on_its_batch(name):
    model, batch = trained(name), make_batch()
    together = score(model, batch)
    for row in range(len(batch)):
        alone = score(model, rows_of(batch, slice(row, row + 1)))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)
    backwards = score(model, rows_of(batch, torch.arange(7, -1, -1)))
    torch.testing.assert_close(backwards.flip(0), together, rtol=1e-4, atol=1e-5)


@every_model
def test_ranks_do_not_depend_on_how_many_users_are_scored_at_once(name):
    """Whatever a model draws to score a user is the same in every batch."""
    model = trained(name)
    items = torch.randint(1, N_ITEMS + 1, (9 * 4,), generator=seeded(5)).tolist()
    users, places = [user for user in range(9) for _ in range(4)], [*range(4)] * 9
    data = SequenceData.from_arrays(users, items, places, ["train", "train", "valid", "test"] * 9, n_items=N_ITEMS)
    ranks = [evaluate(model, data, "test", max_length=MAX_LENGTH, batch_size=size).rank.tolist() for size in (9, 4, 1)]
    assert ranks[0] == ranks[1] == ranks[2]


@every_model
def test_the_generator_alone_fixes_the_scores(name):
    model, batch = trained(name), make_batch()
    first = score(model, batch, seed=1)
    torch.manual_seed(123)
    score(model, batch, seed=2)
    assert torch.equal(score(model, batch, seed=1), first)


@every_model
def test_the_target_changes_no_score(name):
    model, batch = trained(name), make_batch()
    other = SequenceBatch(batch.item_ids, batch.mask, batch.target.flip(0), batch.user)
    unknown = SequenceBatch(batch.item_ids, batch.mask, torch.zeros_like(batch.target), batch.user)
    assert torch.equal(score(model, other), score(model, batch))
    assert torch.equal(score(model, unknown), score(model, batch))


@every_model
def test_weights_survive_the_file(name, tmp_path):
    model, batch = trained(name), make_batch()
    save_checkpoint(tmp_path / "best", model, {})
    other = build(name, seed=1)
    load_weights(tmp_path / "best", other)
    assert torch.equal(score(other, batch), score(model, batch))


@every_model
def test_scores_follow_the_weights(name, tmp_path):
    """Nothing that was computed from older weights is left over after more training."""
    model, batch = trained(name), make_batch()
    before = score(model, batch)
    train(model, [make_batch(seed=9)])
    save_checkpoint(tmp_path / "best", model, {})
    fresh = build(name, seed=1)
    load_weights(tmp_path / "best", fresh)
    after = score(model, batch)
    assert torch.equal(after, score(fresh, batch))
    assert not torch.equal(after, before)


@every_model
def test_feature_tables_are_not_saved(name):
    """They belong to a store; nothing of the catalogue's length is saved but what is trained or fitted."""
    model = build(name)
    trained_names = {key for key, _ in model.named_parameters(remove_duplicate=False)}
    saved = {key for key, value in model.state_dict().items() if value.ndim and len(value) == N_ITEMS + 1}
    fitted_names = {key.removeprefix("saved:") for key in exceptions(name) if key.startswith("saved:")}
    assert fitted_names <= saved <= trained_names | fitted_names


@every_model
def test_padding_and_excluded_items_are_never_recommended(name):
    model, batch = trained(name), make_batch()
    exclude = torch.cat([batch.item_ids, batch.item_ids[:, :1]], dim=1)  # with padding and repetitions
    k = N_ITEMS - MAX_LENGTH
    with eval_mode(model):
        top = model.recommend(batch, k=k, exclude=exclude, generator=seeded())
        free = model.recommend(batch, k=N_ITEMS, exclude=None, generator=seeded())
    for row in range(len(batch)):
        found = top.items[row].tolist()
        assert len(set(found)) == k
        assert not set(found) & {0, *exclude[row].tolist()}
    assert (free.items.sort(dim=1).values == torch.arange(1, N_ITEMS + 1)).all()
    scores = score(model, batch)
    assert torch.equal(top.scores, scores.gather(1, top.items))
    assert (top.scores.diff(dim=1) <= 0).all()


@every_model
def test_it_overfits_one_small_batch(name):
    model, batch = build(name), make_batch()
    before = model.training_loss(batch, generator=seeded()).total.item()
    missed = len(batch)
    for _ in range(10):
        losses = train(model, [batch] * 60)
        scores = score(model, batch)
        missed = int(((scores >= scores.gather(1, batch.target[:, None])).sum(dim=1) > 1).sum())
        if missed == 0 or "overfits" in exceptions(name):
            break
    assert losses[-1] < before
    assert (missed > 0) == ("overfits" in exceptions(name))


@every_model
def test_its_configuration_makes_the_round_trip_and_is_strict(name):
    config = registry.parse_config(name, SMALL.get(name))
    assert registry.parse_config(name, config.model_dump()) == config
    assert registry.parse_config(name, config.model_dump(mode="json")) == config
    assert type(config).model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ConfigError, match=f"model {name}: nonsense: unknown key"):
        registry.parse_config(name, {"nonsense": 1})


@every_model
def test_an_empty_history_is_finite(name):
    batch = make_batch(2)
    empty = SequenceBatch(torch.zeros_like(batch.item_ids), torch.zeros_like(batch.mask), batch.target, batch.user)
    assert score(trained(name), empty)[:, 1:].isfinite().all()
