"""The papers' figures: transcribed without a slip, and set beside the runs of the same dataset only."""

import pytest
from finished_runs import hits, make_run

from flows.reporting import papers
from flows.reporting.build import build_report
from flows.reporting.published import FULL, read
from flows.reporting.published import papers as published
from flows.reporting.runs import group_runs, load_runs
from flows.settings import REPOSITORY, Settings
from models import registry
from models.errors import ConfigError
from models.evaluation.metrics import impossible_values

BY_NAME = {paper.name: paper for paper in published()}
MEALREC, IMECD, DIMEREC = (BY_NAME[name] for name in ("MealRec", "IMECD", "DimeRec"))

#: "Rel. Imp." of MealRec's Table 2 and "Improve" of IMECD's Table II, in per cent, as printed: dataset by dataset.
#: Food's first is printed 1.96; .1401 / .1374 - 1 is 1.97.
IMPROVEMENTS = {
    "MealRec": [7.17, 4.18, 4.92, 6.90, 1.63, 4.11, 3.64, 6.99, 10.86, 1.12, 17.27, 10.58, 11.89, 16.85, 11.30, 15.25],
    "IMECD": [3.90, 1.66, 5.60, 4.60, 4.52, 1.30, 5.75, 4.29, 2.38, 1.32, 2.09, 1.37, 1.97, 1.43, 1.16, 2.76],
}


def groups_of(root):
    return group_runs(load_runs(Settings(root=root), None)[0])


def rows_of(table):
    """Rows by their first cell; each is a dict of cells by column."""
    return {row[0].text: dict(zip(table.header, row, strict=True)) for row in table.rows}


def result_tables():
    return [(paper, table) for paper in published() for table in paper.tables]


@pytest.mark.parametrize("paper", [MEALREC, IMECD], ids=lambda paper: paper.name)
def test_printed_improvements_follow_from_the_cells(paper):
    main = [table for table in paper.tables if table.table in ("Table 2", "Table II")]
    found = []
    for table in main:
        *others, own = table.rows
        assert own.name == paper.name
        best = [max(column) for column in zip(*(row.values for row in others), strict=True)]
        gains = [100 * (value / other - 1) for value, other in zip(own.values, best, strict=True)]
        found += [round(gain, 2) for gain in gains]
    assert found == pytest.approx(IMPROVEMENTS[paper.name], abs=0.011)


def test_dimerecs_tables_agree_where_they_overlap():
    main = {t.dataset: dict(zip(t.metrics, t.rows[-1].values, strict=True)) for t in DIMEREC.tables[:3]}
    rows = [(t, row) for t in DIMEREC.tables[3:] for row in t.rows]
    same = {"Table 3": {"gem": "sa"}, "Table 5": {"steps": 20}}
    for number, parameters in same.items():
        shares = {t.dataset: row.values[0] for t, row in rows if t.table == number and row.parameters == parameters}
        assert shares == {name: pytest.approx(values["hr@20"] / 100) for name, values in main.items()}
    weights = {"yoochoose": 1.0, "kuairec": 1.0, "movielens-10m": 10.0}
    table_8 = [(t.dataset, row) for t, row in rows if t.table == "Table 8"]
    best = {name: row.values[0] for name, row in table_8 if row.parameters["mu_ssm"] == weights[name]}
    assert best == {name: pytest.approx(values["hr@50"] / 100) for name, values in main.items()}


def test_exactly_the_doubted_rows_are_impossible():
    impossible, doubted = set(), set()
    for paper, table in result_tables():
        for row in table.rows:
            shares = {metric: table.share(value) for metric, value in zip(table.metrics, row.values, strict=True)}
            place = (paper.name, table.table, table.dataset, row.name)
            if impossible_values(shares, tolerance=1.5e-4):
                impossible.add(place)
            if row.doubt:
                doubted.add(place)
    assert len(doubted) == 9
    assert impossible == doubted


def test_names_and_parameters_exist_here():
    datasets = {path.stem for path in (REPOSITORY / "configs" / "datasets").glob("*.toml")}
    for _, table in result_tables():
        assert table.dataset in datasets
        for row in table.rows:
            assert row.model is None or registry.parse_config(row.model, row.parameters)
    for paper in published():
        defaults = registry.parse_config(paper.model, None).model_dump(mode="json")
        assert {key: defaults[key] for key in paper.full} == paper.full
        for name, change in paper.variants.items():
            registry.parse_config(paper.model, change)
            assert paper.variant_of({**defaults, **change}) == name
        assert paper.variant_of(defaults) == FULL
    assert IMECD.variant_of({"modalities": ["id"]}) is None


def test_a_row_of_the_wrong_length_is_refused(tmp_path):
    path = tmp_path / "paper.toml"
    rows = 'rows = [{ name = "A", values = [0.1] }]'
    table = f'[[tables]]\ntable = "Table 1"\ndataset = "d"\ncalled = "D"\nmetrics = ["hr@5", "hr@10"]\n{rows}\n'
    path.write_text(f'name = "P"\nmodel = "m"\nsource = "s"\n[full]\n[variants]\n{table}')
    with pytest.raises(ConfigError, match=r"paper.toml: tables.0: .*Table 1, A: expected 2 values"):
        read(path)


def test_ours_beside_the_papers(tmp_path):
    for seed, n_hits in enumerate((80, 90, 100)):
        make_run(tmp_path, model="sasrec", dataset="microlens-small", seed=seed, ranks=hits(1000, n_hits), n_items=8000)
    complete, ablated = {"use_tcd": True, "use_npd": True}, {"use_tcd": False, "use_npd": True}
    make_run(tmp_path, model="mealrec", dataset="microlens-small", seed=0, ranks=hits(1000, 500), parameters=ablated)
    section = _section(tmp_path)
    assert [table.caption for table in section.tables] == ["MealRec, Table 2, MicroLens-small (microlens-small)."]
    rows = rows_of(section.tables[0])
    # Student's t for 2 degrees of freedom is 4.302653, the deviation 0.01: 4.302653 * 0.01 / sqrt(3) = 0.024841
    ours = rows["SASRec"]["HR@10 ours"]
    assert (ours.text, ours.below) == ("0.0900", "[0.0652, 0.1148]")
    assert rows["SASRec"]["HR@10 paper"].text == "0.0781"
    assert rows["SASRec"]["our runs"].text == "sasrec, seeds 0, 1, 2"
    assert {rows[name]["NDCG@20 ours"].text for name in ("CL4SRec", "MealRec")} == {"not run"}
    assert rows["MoRec"]["NDCG@20 ours"].text == "not built"
    assert rows["IISAN-Verse"]["NDCG@10 paper"].kind == "warning"
    # 1,000 test users against 8,694
    assert "These are not the same data" in section.tables[0].note
    make_run(tmp_path, model="mealrec", dataset="microlens-small", seed=0, ranks=hits(1000, 120), parameters=complete)
    row = rows_of(_section(tmp_path).tables[0])["MealRec"]
    assert (row["HR@10 ours"].text, row["HR@10 ours"].below) == ("0.1200", "one seed")


def test_validation_chooses_among_configurations_with_the_most_seeds(tmp_path):
    runs = {0.1: [(0, 300, 100), (1, 300, 100)], 0.2: [(0, 200, 400), (1, 200, 400)], 0.3: [(0, 900, 50)]}
    for dropout, seeds in runs.items():
        for seed, valid, test in seeds:
            ranks = {"ranks": hits(1000, test), "valid": hits(1000, valid)}
            make_run(
                tmp_path, model="sasrec", dataset="amazon-food", seed=seed, parameters={"dropout": dropout}, **ranks
            )
    table = _section(tmp_path, "IMECD").tables[0]
    assert rows_of(table)["SASRec"]["HR@10 ours"].text == "0.1000"


def test_cutoffs_that_a_record_lacks_come_from_its_ranks(tmp_path):
    ranks = [0, 30, 49, 50]  # the record has cut-offs up to 20
    make_run(tmp_path, model="dimerec", dataset="kuairec", seed=0, ranks=ranks, parameters={"steps": 20})
    tables = {table.caption.split(",")[1].strip(): rows_of(table) for table in _section(tmp_path, "DimeRec").tables}
    assert tables["Table 1"]["DimeRec"]["HR@50 ours"].text == "0.7500"
    assert tables["Table 1"]["DimeRec"]["HR@50 paper"].text == "0.1219"
    assert tables["Table 1"]["DimeRec"]["HR@50 paper"].below == "± 0.0013"
    assert tables["Table 5"]["T = 20"]["HR@20 ours"].text == "0.2500"
    assert tables["Table 5"]["T = 50"]["HR@20 ours"].text == "not run"


def test_a_run_on_other_data_is_beside_no_paper(tmp_path):
    make_run(tmp_path, model="mealrec", dataset="synthetic", seed=0, ranks=hits(100, 30))
    for section in papers.collect(groups_of(tmp_path), toy_models={}):
        assert section.tables == ()
        cells = [cell.text for table in section.others for row in table.rows for cell in row[2:-1:2]]
        assert set(cells) <= {"not run", "not built"}
    html = build_report(Settings(root=tmp_path), None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert "Nothing was run on MicroLens-small, MicroLens-big, Shortvideo-small, Shortvideo-big" in html


def _section(root, name="MealRec"):
    return next(section for section in papers.collect(groups_of(root), toy_models={}) if section.name == name)
