"""Study files: those of the repository, resolved run by run, and what is refused before anything is trained."""

import importlib.util
from pathlib import Path

import pytest

from flows.errors import CallError
from flows.jobs.study_config import find_study, list_studies
from flows.reporting.study import printed_tables
from flows.settings import REPOSITORY, Settings
from models.errors import ConfigError

_spec = importlib.util.spec_from_file_location("study_case", Path(__file__).with_name("study_case.py"))
case = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(case)

STUDIES = sorted((REPOSITORY / "configs" / "studies").glob("*.toml"))

#: Points per seed, from the papers' tables and grids.
POINTS = {
    "dimerec-ablation": 6,
    "dimerec-guidance": 4,
    "dimerec-steps": 5,
    "dimerec-weights": 4 * 4,
    "imecd-ablation": 7,
    "imecd-codes": 5,
    "imecd-experts": 5,
    "imecd-weights": 5 + 5,
    "mealrec-ablation": 4,
    "mealrec-backbones": 6,
    "mealrec-noise": 4 * 4 + 1,
    "mealrec-sensitivity": 7 * 7,
    "mealrec-sensitivity-npd": 5 * 7,
    "mealrec-sensitivity-tcd": 5 * 7,
    "mealrec-steps": 5,
}

#: Experiments on the papers' own datasets that the files name.
CELLS = [
    *(("mealrec-ablation", f"mealrec{backbone}-microlens-small") for backbone in ("", "-cl4srec", "-tedrec")),
    ("mealrec-noise", "mealrec-microlens-big"),
    ("mealrec-backbones", "mealrec-microlens-small"),
    ("mealrec-sensitivity-tcd", "mealrec-shortvideo-small"),
    *((name, "imecd-amazon-toys") for name in POINTS if name.startswith("imecd")),
    ("dimerec-ablation", "dimerec-kuairec"),
    ("dimerec-guidance", "dimerec-yoochoose"),
    ("dimerec-steps", "dimerec-movielens-10m"),
    ("dimerec-weights", "dimerec-kuairec"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Studies without any data: nothing here is trained."""
    root = tmp_path_factory.mktemp("studies")
    experiments = root / "configs" / "experiments"
    experiments.mkdir(parents=True)
    (experiments / "sasrec-movielens-10m.toml").write_text(case.sweeps.EXPERIMENT)
    other = case.sweeps.EXPERIMENT.replace("movielens-10m", "yoochoose")
    (experiments / "sasrec-yoochoose.toml").write_text(other)
    case.write_studies(root)
    return root


@pytest.fixture(scope="module")
def settings(root):
    return case.sweeps.settings_at(root)


def test_the_list_has_every_study_of_the_repository(tmp_path):
    assert {one.name: len(one.config.points) for one in list_studies(Settings(root=tmp_path))} == POINTS


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_run_of_a_study_of_the_repository_is_read_strictly(path, tmp_path):
    study = find_study(Settings(root=tmp_path), path.stem, {})
    assert path.read_text(encoding="utf-8").startswith(f"# reelstore study {path.stem}\n")
    for point in study.config.points:
        for seed in study.config.seeds:
            found = study.experiment(point, seed)
            assert (found.dataset, found.seed) == ("synthetic", seed)
    resolved = [str(study.experiment(point, 0)) for point in study.config.points]
    copies = 1 if path.stem == "imecd-weights" else 0  # where both axes cross: the experiment as it is
    assert len(set(resolved)) >= len(resolved) - copies
    assert {table.table for _, table in printed_tables(study)} == set(study.config.printed)


@pytest.mark.parametrize(("name", "experiment"), CELLS)
def test_a_study_runs_on_the_papers_datasets(name, experiment, tmp_path):
    study = find_study(Settings(root=tmp_path), name, {"experiment": experiment})
    assert study.folder == tmp_path / "studies" / f"{name}--{experiment}"
    dataset = study.experiment(study.config.points[0], 0).dataset
    assert experiment.endswith(dataset)
    assert {table.dataset for _, table in printed_tables(study)} <= {dataset}


def test_ablations_switch_off_what_their_labels_say(tmp_path):
    def switches(name, *keys):
        study = find_study(Settings(root=tmp_path), name, {})
        found = {point.label: study.experiment(point, 0).parameters for point in study.config.points}
        return {label: tuple(parameters[key] for key in keys) for label, parameters in found.items()}

    assert switches("mealrec-ablation", "use_tcd", "use_npd") == {
        "MealRec": (True, True), "− TCD": (False, True), "− NPD": (True, False), "− TCD − NPD": (False, False),
    }  # fmt: skip
    assert switches("imecd-ablation", "use_idmoe", "use_vq", "use_contrastive", "modalities") == {
        "IMECD": (True, True, True, ["id", "txt", "img"]),
        "w/o ID-MoE": (False, True, True, ["id", "txt", "img"]),
        "w/o MS-VQ": (True, False, True, ["id", "txt", "img"]),
        "w/o CDG_CL": (True, True, False, ["id", "txt", "img"]),
        "w/o Text": (True, True, True, ["id", "img"]),
        "w/o Image": (True, True, True, ["id", "txt"]),
        "ids alone": (True, True, True, ["id"]),
    }
    assert switches("dimerec-ablation", "use_gem_loss", "use_recon", "use_ssm", "grw", "serve") == {
        "DimeRec": (True, True, True, "literal_projected", "diffusion"),
        "w/o L_gem": (False, True, True, "literal_projected", "diffusion"),
        "w/o L_recon": (True, False, True, "literal_projected", "diffusion"),
        "w/o L_ssm": (True, True, False, "literal_projected", "diffusion"),
        "w/o GRW": (True, True, True, "euclidean", "diffusion"),
        "guidance alone": (True, False, False, "literal_projected", "interests"),
    }


def test_the_bare_backbones_have_the_sizes_of_those_under_mealrec(tmp_path):
    study = find_study(Settings(root=tmp_path), "mealrec-backbones", {})
    configs = {point.label: study.experiment(point, 0) for point in study.config.points}
    for bare, above in (("SASRec", "sasrec"), ("CL4SRec", "cl4srec"), ("TedRec", "tedrec")):
        mine, theirs = configs[bare], configs[f"MealRec on {bare}"]
        assert (mine.model, theirs.parameters["backbone"]) == (above, above)
        for key in ("max_length", "d", "layers", "heads", "inner", "dropout"):
            assert mine.parameters[key] == theirs.parameters[key]
        assert mine.training == theirs.training
    views, text = (configs[f"MealRec on {name}"].parameters for name in ("CL4SRec", "TedRec"))
    assert views["views"].items() <= configs["CL4SRec"].parameters.items()
    assert text["text_fusion"].items() <= configs["TedRec"].parameters.items()
    assert study.config.reference_of(study.config.variants[3]) == "CL4SRec"


BEGIN = case.HEAD.replace('title = "A small study"\n', 'title = "T"\n')
TWO = '[[variants]]\nlabel = "a"\n[[variants]]\nlabel = "b"\n'
LINE = BEGIN + 'figure = "lines"\n[axes]\n"parameters.d" = [4, 8]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BEGIN + 'figure = "bars"\n[[variants]]\nlabel = "a"\n', r"'bars' expects two or more \[\[variants\]\]"),
        (BEGIN + 'figure = "bars"\n' + TWO + '[axes]\n"parameters.d" = [4]\n', "got 2 variants, 1 axes, 0 series"),
        (BEGIN + 'figure = "lines"\n' + TWO, r"'lines' expects one or more \[axes\]"),
        (LINE.replace("lines", "heatmap"), r"'heatmap' expects two \[axes\]"),
        (BEGIN + 'figure = "pie"\n' + TWO, "'bars', 'lines' or 'heatmap'"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'overides = {}\n', "variants.1.overides: unknown key"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'overrides = { parameters.d = 4 }\n', 'quotes: "parameters.d" ='),
        (BEGIN + 'figure = "bars"\n' + TWO + 'overrides = { "parameters.dd" = 4 }\n', r"study-bad.toml: b: .*dd"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'overrides = { "dataset" = "yoochoose" }\n', "cannot be compared"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'experiment = "sasrec-yoochoose"\n', "dataset movielens-10m as before"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'against = "c"\n', "b: against 'c': expected one of: a, b"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'constant = true\n', "'constant' for lines"),
        (BEGIN + 'figure = "bars"\n' + TWO + 'parameters = { d = 4 }\n', "set model, or use overrides"),
        (BEGIN + 'figure = "bars"\n' + TWO.replace('"b"', '"a"'), "a: two of them have this label"),
        (LINE + '[[series]]\nlabel = "a"\noverrides = { "parameters.d" = 4 }\n', "a: parameters.d is an axis"),
        (LINE + '[names]\n"parameters.dd" = "width"\n', "names: parameters.dd is no axis"),
        (LINE.replace('"parameters.d"', "seed"), "seed cannot be an axis"),
        (LINE.replace("[4, 8]", "[4, -8]"), "study-bad.toml: parameters.d = -8: .*greater than or equal to 1"),
        (LINE.replace("[0, 1]", "[1, 1]"), "expected different seeds"),
        (LINE.replace('"hr@5"', '"hr@50"'), r"no hr@50 with cutoffs \[3, 5\]; set \"training.cutoffs\" in \[base\]"),
        (LINE.replace('"hr@5"', '"recall@5"'), "recall@5: .*write hr@k"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(root, settings, text, message):
    case.write_study(root, "study-bad", text)
    with pytest.raises(ConfigError, match=message):
        find_study(settings, "study-bad", {})
    (root / "configs" / "studies" / "study-bad.toml").unlink()


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("bars", {"parameters.d": 4}, "parameters.d is set for all runs, but the study varies it"),
        ("lines", {"parameters.dropout": 0.1}, "parameters.dropout is set for all runs"),
        ("lines", {"parameters.loss": "full"}, "parameters.loss is set for all runs"),
        ("bars", {"seed": 3}, r"name its seeds with 'seeds=\[0, 1, 2\]'"),
        ("bars", {"experiment": "sasrec-movielens"}, "no experiment at .*did you mean 'sasrec-movielens-10m.toml'"),
        ("bar", {}, r"no study at .*did you mean 'bars\.toml'"),
    ],
)
def test_a_wrong_call_names_what_is_wrong(settings, name, overrides, message):
    with pytest.raises(CallError, match=message):
        find_study(settings, name, overrides)


def test_the_command_line_replaces_experiment_and_seeds(settings):
    study = find_study(settings, "bars", {"experiment": "sasrec-yoochoose", "seeds": [7], "training.epochs": 9})
    assert study.config.seeds == (7,)
    found = study.experiment(study.config.points[2], 7)
    assert (found.dataset, found.seed, found.training["epochs"], found.parameters["d"]) == ("yoochoose", 7, 9, 16)


def test_a_variant_wins_over_the_base_of_all_runs(root, settings):
    base = 'base = { "parameters.d" = 4, "training.epochs" = 5 }\n'
    case.write_study(root, "base", case.BARS.replace('figure = "bars"\n', 'figure = "bars"\n' + base))
    study = find_study(settings, "base", {"training.epochs": 6})
    found = [study.experiment(point, 0) for point in study.config.points]
    assert [(one.parameters["d"], one.training["epochs"]) for one in found] == [(4, 6), (4, 6), (16, 6)]


def test_a_table_that_the_paper_has_not_is_refused(root, settings):
    case.write_study(root, "printed", 'printed = ["Table 9"]\n' + case.BARS)
    with pytest.raises(CallError, match="printed: no 'Table 9'; no paper about sasrec is known"):
        printed_tables(find_study(settings, "printed", {}))
    (root / "configs" / "studies" / "printed.toml").unlink()
