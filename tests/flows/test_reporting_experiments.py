"""Ablations, sweeps, curves, costs: which runs stand together, and closed forms of what is printed about them."""

import math

import pytest
from finished_runs import hits, make_run
from scipy import stats

from flows.reporting import ablations, costs, sweeps
from flows.reporting.build import build_report
from flows.reporting.intervals import over_seeds
from flows.reporting.plots import Curve, mean_curve, training_curves
from flows.reporting.published import papers
from flows.reporting.runs import best_on_validation, group_runs, labels_text, load_runs
from flows.reporting.significance import comparison_table
from flows.reporting.sweeps import families
from flows.settings import Settings

MEALREC = next(paper for paper in papers() if paper.name == "MealRec")
COMPLETE = {"use_tcd": True, "use_npd": True, "steps": 5, "lambda_t": 0.1, "visual_noise_std": 0.0}
WITHOUT_NPD = {**COMPLETE, "use_npd": False}


def groups_of(root):
    return group_runs(load_runs(Settings(root=root), None)[0])


def mealrec(root, parameters, *n_hits, seeds=None, **more):
    """One run per number of hits among 200 users."""
    for seed, number in zip(seeds or range(len(n_hits)), n_hits, strict=True):
        where = {"model": "mealrec", "dataset": "synthetic", "seed": seed, "parameters": parameters}
        make_run(root, **where, ranks=hits(200, number), **more)


def by_column(table):
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_interval_is_students():
    values = [0.31, 0.35, 0.30, 0.42]
    found = over_seeds(values)
    low, high = stats.t.interval(0.95, 3, loc=found.mean, scale=stats.sem(values))
    assert (found.mean, found.n) == (pytest.approx(0.345), 4)
    assert found.text == f"[{low:.4f}, {high:.4f}]"
    assert over_seeds([0.2]).text == "one seed"


def test_mean_curve_ends_with_the_first_seed_that_ends():
    assert mean_curve([[(1, 1.0), (2, 2.0), (3, 9.0)], [(1, 3.0), (2, 5.0)]]) == [(1, 2.0), (2, 3.5)]
    assert mean_curve([[(2, 1.0)], [(1, 1.0)]]) == []


def test_caption_of_curves_names_seeds_and_kept_epochs():
    curves = [Curve(f"seed {n}", ((1, 2.0), (2, 1.0)), {"hr@10": ((2, 0.5),)}, 2) for n in (0, 4)]
    caption = training_curves("mealrec #2", curves).caption
    assert caption.startswith("mealrec #2: ")
    assert "one of 2 seeds" in caption
    assert "seed 0: epoch 2, seed 4: epoch 2" in caption


def test_ablation_is_paired_with_the_complete_model_of_equal_settings(tmp_path):
    mealrec(tmp_path, COMPLETE, 100, 104, 108)
    mealrec(tmp_path, WITHOUT_NPD, 90, 96, 92)
    mealrec(tmp_path, {**COMPLETE, "use_tcd": False, "steps": 10}, 10)  # not comparable: another number of steps
    [family] = ablations.families(MEALREC, groups_of(tmp_path))
    assert list(family.variants) == ["− NPD"]
    part = ablations.collect(groups_of(tmp_path))
    complete, without = by_column(part.tables[0])
    assert complete["HR@10"].text == f"{104 / 200:.4f}"
    assert without["HR@10"].text == f"{(90 + 96 + 92) / 600:.4f}"
    expected = stats.ttest_rel([0.45, 0.48, 0.46], [0.50, 0.52, 0.54])
    interval = expected.confidence_interval()
    assert without["difference over seeds"].text == f"{(90 + 96 + 92 - 312) / 600:+.4f}"
    assert without["difference over seeds"].below == f"[{interval.low:+.4f}, {interval.high:+.4f}]"
    # Over the users of seed 0: 10 of 200 lose a hit, all others are equal.
    share = 10 / 200
    t = -share / math.sqrt(share * (1 - share) * 200 / 199 / 200)
    p_users = 2 * stats.t.sf(-t, 199)
    assert without["difference over users"].text == "-0.0500"
    printed = [
        row.text for row, name in zip(part.tables[0].rows[1], part.tables[0].header, strict=True) if "Holm" in name
    ]
    assert printed == [f"{value:.4f}" for value in (expected.pvalue, p_users)]  # one test in each column
    assert "3 seeds each" in part.pictures[0].caption
    assert "− NPD: hr@10 0.4633, ndcg@10 0.4633" in part.pictures[0].alternative


def test_an_ablation_that_loses_the_same_with_every_seed_is_tested_over_users_alone(tmp_path):
    mealrec(tmp_path, COMPLETE, 100, 104)
    mealrec(tmp_path, WITHOUT_NPD, 90, 94)
    _, without = ablations.collect(groups_of(tmp_path)).tables[0].rows
    seeds, p_seeds, _, p_users = without[-4:]
    assert (seeds.text, seeds.below, p_seeds.text) == ("-0.0500", "no spread", "no spread")
    t = -0.05 / math.sqrt(0.05 * 0.95 / 199)  # 10 of 200 users lose a hit
    assert p_users.text == f"{2 * stats.t.sf(-t, 199):.4f}"


def test_a_comparison_with_sasrec_that_is_the_same_for_every_seed_has_no_test(tmp_path):
    for seed, number in enumerate((100, 104)):
        make_run(tmp_path, model="sasrec", dataset="synthetic", seed=seed, ranks=hits(200, number))
        make_run(tmp_path, model="gru4rec", dataset="synthetic", seed=seed, ranks=hits(200, number + 10))
    table, _ = comparison_table(groups_of(tmp_path))
    for row in by_column(table)[:-1]:  # the last is over users
        assert row["over"].text == "2 seeds (0, 1)"
        assert row["mean difference"].text == "+0.0500"
        assert {row[name].text for name in ("95 % interval", "t (df)", "p", "p (Holm)")} == {"no spread"}


def test_a_variant_may_read_fewer_stores_but_none_in_another_version(tmp_path):
    mealrec(tmp_path, COMPLETE, 100, stores=(("bert", 1), ("videomae", 2)))
    mealrec(tmp_path, WITHOUT_NPD, 90, stores=(("videomae", 2),))
    mealrec(tmp_path, {**COMPLETE, "use_tcd": False}, 80, stores=(("bert", 2), ("videomae", 2)))
    [family] = ablations.families(MEALREC, groups_of(tmp_path))
    assert list(family.variants) == ["− NPD"]


def test_a_partly_filled_grid_is_a_heat_map_and_no_lines(tmp_path):
    cells = {(5, 0.1): 50, (5, 0.5): 60, (10, 0.1): 70, (10, 0.5): 80, (20, 0.1): 90, (5, 0.05): 40, (5, 0.7): 30}
    for (steps, weight), number in cells.items():
        mealrec(tmp_path, {**COMPLETE, "steps": steps, "lambda_t": weight}, number, number + 2)
    mealrec(tmp_path, {**WITHOUT_NPD, "steps": 20, "lambda_t": 0.5}, 1)  # an ablation is no cell
    [grid], lines = families(groups_of(tmp_path))
    assert lines == []
    assert dict(zip(grid.keys, zip(*grid.values, strict=True), strict=True)).keys() == {
        "parameters.steps",
        "parameters.lambda_t",
    }
    places = {
        tuple(sorted(values)): group.values("unmasked", "hr@10")
        for group, values in zip(grid.members, grid.values, strict=True)
    }
    assert places == {tuple(sorted(cell)): [n / 200, (n + 2) / 200] for cell, n in cells.items()}
    settings = {grid.setting(number).name: grid.setting(number).values for number in (0, 1)}
    assert settings == {
        "diffusion steps T": ("5", "10", "20"),
        "λ_T, weight of the frame loss": ("0.05", "0.1", "0.5", "0.7"),
    }
    [picture] = sweeps.collect(groups_of(tmp_path)).pictures
    assert "validation NDCG@10 is highest at " in picture.alternative
    assert "mealrec #1 to #7; 2 seeds each" in picture.caption


def test_a_cross_is_two_lines_and_two_values_are_none(tmp_path):
    for noise in (0.5, 0.0, 0.1, 0.3):
        mealrec(tmp_path, {**COMPLETE, "visual_noise_std": noise}, round(100 - 100 * noise))
    for steps in (10, 100):
        mealrec(tmp_path, {**COMPLETE, "steps": steps}, 70)
    mealrec(tmp_path, {**COMPLETE, "lambda_t": 0.9}, 70)
    grids, lines = families(groups_of(tmp_path))
    assert grids == []
    assert {line.keys[0]: line.axis(0) for line in lines} == {
        "parameters.steps": [5, 10, 100],
        "parameters.visual_noise_std": [0.0, 0.1, 0.3, 0.5],
    }
    pictures = sweeps.collect(groups_of(tmp_path)).pictures
    noise = next(picture for picture in pictures if picture.caption.startswith("σ of the visual noise"))
    assert "test HR@10: 0.5000, 0.4500, 0.3500, 0.2500" in noise.alternative
    assert "validation NDCG@10: 0.5000, 0.4500, 0.3500, 0.2500" in noise.alternative


def test_settings_that_change_together_are_one(tmp_path):
    for length in (5, 10, 20):
        mealrec(tmp_path, {**COMPLETE, "max_length": length}, length, training={"max_length": length})
    grids, [line] = families(groups_of(tmp_path))
    assert (grids, line.keys) == ([], ("parameters.max_length",))


def test_other_data_are_no_setting(tmp_path):
    for version in (1, 2, 3):
        mealrec(tmp_path, COMPLETE, 50 + version, stores=(("bert", version),))
    assert families(groups_of(tmp_path)) == ([], [])


def test_names_are_points_without_a_line(tmp_path):
    for guidance in ("sa", "dr", "mlp"):
        make_run(
            tmp_path, model="dimerec", dataset="synthetic", seed=0, ranks=hits(10, 5), parameters={"gem": guidance}
        )
    _, [line] = families(groups_of(tmp_path))
    assert line.axis(0) == ["dr", "mlp", "sa"]


def test_costs_are_means_over_epochs_and_seeds(tmp_path):
    def epoch(number, seconds, *, validated, memory):
        row = {"epoch": number, "seconds": seconds, "eval_seconds": 8.0 if validated else 0.001, "loss": 1.0}
        return {**row, "peak_memory_bytes": memory, **({"valid": {"ndcg@10": 0.1}} if validated else {})}

    first = [epoch(1, 2.0, validated=False, memory=10**6), epoch(2, 4.0, validated=True, memory=3 * 10**6)]
    second = [epoch(1, 5.0, validated=True, memory=2 * 10**6)]
    where = {"model": "mealrec", "dataset": "microlens-small", "ranks": [0], "parameters": COMPLETE}
    for seed, rows in enumerate((first, second)):
        make_run(tmp_path, **where, seed=seed, epochs=rows, extra={"machine": "a bench", "parameters": 1234})
    make_run(
        tmp_path, model="sasrec", dataset="microlens-small", seed=0, ranks=[0], epochs=[{"epoch": 1, "seconds": 1.0}]
    )
    make_run(tmp_path, model="popularity", dataset="microlens-small", seed=0, ranks=[0], epochs=[{"epoch": 0}])
    ours, theirs = costs.collect(groups_of(tmp_path)).tables
    rows = {row["model"].text: row for row in by_column(ours)}
    assert set(rows) == {"mealrec", "sasrec"}
    assert (rows["mealrec"]["training, s per epoch"].text, rows["mealrec"]["training, s per epoch"].below) == (
        "4.00",
        "3.00 to 5.00",
    )
    assert rows["mealrec"]["evaluation, s"].text == "8.00"
    assert [rows["mealrec"][name].text for name in ("parameters", "peak memory, MB")] == ["1,234", "3"]
    assert [rows["sasrec"][name].text for name in ("parameters", "peak memory, MB")] == ["not recorded"] * 2
    beside = {row["model"].text: row for row in by_column(theirs)}
    assert theirs.caption == "MealRec, Table 3: costs on microlens-small; the paper's machine: NVIDIA A100."
    assert [beside["MealRec"][f"training, s per epoch: {side}"].text for side in ("paper", "ours")] == ["1.87", "4.00"]
    assert beside["TedRec"]["memory, MB: ours"].text == "not run"
    assert beside["IISAN-Versa"]["memory, MB: ours"].text == "not built"


def test_labels_in_short(tmp_path):
    for steps in (5, 6, 7, 8):
        mealrec(tmp_path, {**COMPLETE, "steps": steps}, 10)
    make_run(tmp_path, model="sasrec", dataset="synthetic", seed=0, ranks=[0])
    groups = sorted(groups_of(tmp_path), key=lambda group: group.label)
    assert labels_text(groups) == "mealrec #1 to #4; sasrec"
    assert labels_text([group for group in groups if group.label != "mealrec #2"]) == "mealrec #1, #3 to #4; sasrec"


def test_more_seeds_stand_before_one_lucky_one(tmp_path):
    mealrec(tmp_path, COMPLETE, 199)
    mealrec(tmp_path, WITHOUT_NPD, 100, 110)
    assert best_on_validation(groups_of(tmp_path)).parameters["use_npd"] is False
    html = build_report(Settings(root=tmp_path), None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert "of 1 model, mealrec #2 has the highest test NDCG@10: 0.5250 (history unmasked, 2 seeds" in html


def test_page_has_the_parts_that_hold_something(tmp_path):
    epochs = [{"epoch": 1, "seconds": 1.0, "eval_seconds": 1.0, "loss": 2.0, "valid": {"hr@10": 0.1, "ndcg@10": 0.1}}]
    mealrec(tmp_path, COMPLETE, 100, 104, epochs=epochs)
    html = build_report(Settings(root=tmp_path), None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    titles = [
        title
        for title in ("Ablations", "Settings", "Costs", "Vectors of users and items")
        if f"<h3>{title}</h3>" in html
    ]
    assert titles == ["Costs", "Vectors of users and items"]
    assert "No map of mealrec (seed 0): the weights are not there." in html
    mealrec(tmp_path, WITHOUT_NPD, 90, 96, epochs=epochs)
    for noise in (0.1, 0.3):
        mealrec(tmp_path, {**COMPLETE, "visual_noise_std": noise}, 80, 85, epochs=epochs)
    page = build_report(Settings(root=tmp_path), None, tmp_path / "r.html")
    html = page.path.read_text(encoding="utf-8")
    assert "<h3>Ablations</h3>" in html
    assert "<h3>Settings</h3>" in html
    # NDCG@10 of the models, hits by cut-off, four training curves, one ablation, one line
    assert html.count("data:image/svg+xml") == 2 + 4 + 1 + 1
    assert page.n_runs == 8


def test_a_run_that_dropped_items_is_compared_with_none_that_ranked_all(tmp_path):
    for model, n_items, n_hits in (("popularity", 1000, 20), ("sasrec", 1000, 50), ("tedrec", 700, 90)):
        make_run(tmp_path, model=model, dataset="synthetic", seed=0, ranks=hits(200, n_hits), n_items=n_items)
    page = tmp_path / "report.html"
    build_report(Settings(root=tmp_path), None, page)
    text = page.read_text()
    assert "of 2 models, sasrec has the highest test NDCG@10: 0.2500" in text
    assert "2.50 times popularity" in text
    assert "4.50" not in text
