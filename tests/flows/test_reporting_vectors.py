"""Vectors of users and items: they are those that score, and the page says why where there are none."""

import mealrec_cases
import numpy as np
import pytest
import small_lab
import torch
from finished_runs import hits, make_run

from flows.reporting import vectors
from flows.reporting.build import build_report
from flows.reporting.charts import UserVectors
from flows.reporting.runs import group_runs, load_runs
from flows.reporting.vectors import NoVectorsError, Vectors, flat_map, mean_cosines, of_model
from flows.settings import Settings
from models.registry import build

N_ITEMS = mealrec_cases.N_ITEMS
SMALL = {"d": 8, "max_length": 6}
CONTENT = {name: torch.randn(N_ITEMS + 1, 5, generator=torch.Generator().manual_seed(7)) for name in ("roberta", "vit")}


def made(name, parameters, features=None):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(name, parameters, n_items=N_ITEMS, features=features).eval()


MODELS = {
    "sasrec": lambda: made("sasrec", SMALL),
    "dimerec": lambda: made("dimerec", SMALL),
    "imecd": lambda: made("imecd", {**SMALL, "experts": 2, "codes": 3, "steps": 4}, CONTENT),
    "mealrec": mealrec_cases.loud,
    "mealrec without NPD": lambda: mealrec_cases.loud(use_npd=False),
}


@pytest.mark.parametrize("name", MODELS)
def test_their_inner_product_is_the_score(name):
    model, batch = MODELS[name](), mealrec_cases.batch()
    with torch.no_grad():
        found = of_model(model, batch, generator=mealrec_cases.seeded())
        scores = model.score(batch, generator=mealrec_cases.seeded())
    wanted = scores.gather(1, batch.target.unsqueeze(1)).squeeze(1).double().numpy()
    np.testing.assert_allclose((found.users * found.targets).sum(axis=1), wanted, rtol=1e-4, atol=1e-5)


def test_frames_are_what_the_preference_denoiser_reads_of_the_target(monkeypatch):
    """Eq. 10 has refined them for this user: the same video's frames differ from user to user."""
    model, draws = mealrec_cases.loud(), mealrec_cases.seeded()
    batch = mealrec_cases.batch([[3, 1, 4], [5, 9, 2], [6, 0, 0]], target=6)
    ends_with_target = mealrec_cases.batch([[1, 4, 6], [9, 2, 6], [6, 6, 0]])  # the oldest item makes room
    read, given = [], model.denoiser.given

    def spy(frames, text):
        read.append(frames)
        return given(frames, text)

    monkeypatch.setattr(model.denoiser, "given", spy)
    with torch.no_grad():
        found = of_model(model, batch, generator=mealrec_cases.seeded()).frames
        model.denoised_preference(batch, generator=draws)
        model.denoised_preference(ends_with_target, generator=draws)
        wanted = model.denoiser.visual(read[-1]).double().numpy()
    assert found.shape == (3, 5, 8)
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(found[0] - found[1]).max() > 1e-3


def test_without_the_preference_denoiser_there_are_no_frames():
    found = of_model(mealrec_cases.loud(use_npd=False), mealrec_cases.batch(), generator=mealrec_cases.seeded())
    assert found.frames is None


@pytest.mark.parametrize(("name", "parameters"), [("popularity", {}), ("dimerec", {**SMALL, "serve": "interests"})])
def test_other_scores_have_no_vectors(name, parameters):
    with pytest.raises(NoVectorsError, match="no inner product"):
        of_model(made(name, parameters), mealrec_cases.batch(), generator=mealrec_cases.seeded())


def test_cosines():
    users = np.array([[1.0, 0.0], [0.0, 2.0]])
    targets = np.array([[3.0, 0.0], [1.0, 1.0]])
    # own: 1 and cos 45°; the other's: cos 45° and 0
    assert mean_cosines(Vectors(users, targets)) == pytest.approx(((1 + 0.5**0.5) / 2, 0.5**0.5 / 2))


def test_map_is_repeatable_and_keeps_equal_vectors_together():
    rng = np.random.default_rng(3)
    users = rng.normal(size=(9, 6))
    frames = rng.normal(size=(9, 2, 6))
    found = Vectors(users, 5 * users, frames)  # the same directions: one point each after scaling to length 1
    chosen = np.array([0, 2, 4, 6, 8])
    places, owners = flat_map(found, chosen)
    again, _ = flat_map(found, chosen)
    np.testing.assert_array_equal(places, again)
    assert places.shape == (5 + 5 + 10, 2)
    assert owners[1] == UserVectors(1, 6, (12, 13))
    apart = np.linalg.norm(places[:5, None] - places[None, :5], axis=-1)
    pairs = np.linalg.norm(places[:5] - places[5:10], axis=1)
    assert pairs.max() < apart[~np.eye(5, dtype=bool)].min()


def test_page_shows_a_map_of_a_trained_run_and_reasons_for_the_others(tmp_path, capsys):
    root = tmp_path / "data"
    small_lab.make_lab(root)
    small_lab.train(root, capsys, "sasrec")
    small_lab.train(root, capsys, "popularity")
    html = build_report(Settings(root=root), None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    section = html.partition("<h3>Vectors of users and items</h3>")[2].partition("<h3>")[0]
    assert section.count("data:image/svg+xml") == 1
    assert "Distances in a t-SNE map are not evidence" in section
    assert "Over 25 test users: mean cosine of a user and the own target" in section
    assert "No map of popularity (seed 0): the score is no inner product" in section


@pytest.mark.parametrize("sklearn", [True, False])
def test_what_is_missing_is_a_sentence(tmp_path, monkeypatch, sklearn):
    run_dir = make_run(tmp_path, model="sasrec", dataset="synthetic", seed=0, ranks=hits(10, 5))
    (run_dir / "checkpoints").mkdir()
    monkeypatch.setattr(vectors, "find_spec", lambda name: object() if sklearn else None)
    groups = group_runs(load_runs(Settings(root=tmp_path), None)[0])
    [sentence] = vectors.collect(Settings(root=tmp_path), groups).sentences
    reason = "no prepared dataset at" if sklearn else "scikit-learn is not installed"
    assert sentence.startswith(f"No map of sasrec (seed 0): {reason}")
