"""Study files: those of the repository, resolved run by run, and what is refused before anything is trained."""

import datetime
import importlib.util
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from flows.config import parse_overrides
from flows.errors import CallError
from flows.jobs.study_config import find_study, list_studies
from flows.reporting.study import command_line, printed_tables
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
    "three-models": 12,
    "three-models-beauty": 4,
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


MODELS = f"""{case.HEAD}figure = "bars"
[[variants]]
label = "SASRec"
[[variants]]
label = "bare"
model = "popularity"
[[variants]]
label = "TedRec"
model = "tedrec"
parameters = {{ max_length = 5, d = 8, heads = 2 }}
"""


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
    case.write_study(root, "models", MODELS)
    case.write_study(root, "walks", case.LINES.partition('[[series]]\nlabel = "popularity"')[0])
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
            dataset = "amazon-beauty-2014" if path.stem == "three-models-beauty" else "synthetic"
            assert (found.dataset, found.seed) == (dataset, seed)
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
        ("walks", {"parameters.dropout": 0.1}, "parameters.dropout is set for all runs"),
        ("walks", {"parameters.loss": "full"}, "parameters.loss is set for all runs"),
        ("models", {"parameters.d": 4}, "parameters.d would not reach bare, TedRec: .*copy the file, set them there"),
        ("models", {"parameters": {"d": 4}}, "parameters would not reach bare, TedRec"),
        ("lines", {"parameters.heads": 1}, "parameters.heads would not reach popularity"),
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


def test_other_overrides_reach_a_variant_with_a_model_of_its_own(settings):
    study = find_study(settings, "models", {"training.epochs": 9})
    found = [study.experiment(point, 0) for point in study.config.points]
    assert [(one.model, one.training["epochs"]) for one in found] == [("sasrec", 9), ("popularity", 9), ("tedrec", 9)]


def test_what_drops_other_items_is_not_compared(root, settings):
    for policy in ("zero", "mean"):
        assert len(find_study(settings, "models", {"missing": policy}).config.points) == 3
    expected = "TedRec: missing = 'drop' .* the items in bert, before those in the dataset; set missing=zero"
    with pytest.raises(CallError, match=expected):
        find_study(settings, "models", {"missing": "drop"})
    case.write_study(root, "policies", MODELS.partition('[[variants]]\nlabel = "TedRec"')[0])
    find_study(settings, "policies", {"missing": "drop"})  # neither reads a store


def test_where_only_one_variant_drops_items_it_is_not_compared(root, settings):
    reads = 'model = "tedrec"\nparameters = { max_length = 5, d = 8, heads = 2 }\n'
    both = TWO.replace('label = "b"\n', f'label = "b"\n{reads}').replace('label = "a"\n', f'label = "a"\n{reads}')
    case.write_study(root, "same", BEGIN + 'figure = "bars"\n' + both)
    find_study(settings, "same", {"missing": "drop"})  # both read the same store
    case.write_study(root, "one", BEGIN + 'figure = "bars"\n' + both + 'overrides = { "missing" = "drop" }\n')
    with pytest.raises(CallError, match=r"one\.toml: b: missing = 'drop' leaves other candidates"):
        find_study(settings, "one", {})


def test_overrides_have_a_folder_of_their_own_whatever_their_order(settings):
    def folder(**overrides):
        return find_study(settings, "bars", {key.replace("__", "."): value for key, value in overrides.items()}).folder

    plain = settings.root / "studies" / "bars"
    trial = folder(training__epochs=1, seeds=[0])
    assert folder() == plain
    assert trial == folder(seeds=[0], training__epochs=1)
    assert trial.parent == plain.parent
    assert re.fullmatch("bars--[0-9a-f]{8}", trial.name)
    both = folder(experiment="sasrec-yoochoose", training__epochs=1, seeds=[0])
    assert both.name == trial.name.replace("bars", "bars--sasrec-yoochoose")
    names = {place.name for place in (plain, trial, both, folder(seeds=[0]), folder(seeds=[1]), folder(missing="mean"))}
    assert len(names) == 6


#: Values that ``key=value`` can bring, as Python has them.
VALUES = {
    "plain": "adamw", "like_a_number": "3", "like_a_switch": "true", "like_a_list": "[1]", "empty": "",
    "spaces": " a  b ", "quotes": "it's \"this\" \\ that", "sign": "a=b; rm $HOME", "umlaut": "größer 😀",
    "whole": 3, "small": 1e-05, "huge": 1e38, "endless": math.inf, "yes": True, "no": False,
    "list": [1, 2.5, "3", [False]], "table": {"d": 32, "views": {"crop": 0.6, "a b": ["x'y"]}}, "none": {},
    "tables": [{"a": 1}, {"b": "2"}], "day": datetime.date(2024, 2, 29),
    "moment": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_the_command_line_of_a_page_reads_back_as_the_same_values(settings, name):
    value = VALUES[name]
    study = replace(find_study(settings, "bars", {}), overrides={"parameters.x": value, "seeds": [0, 1]})
    program, command, called, *pairs = shlex.split(command_line(study))
    assert (program, command, called) == ("reelstore", "study", "bars")
    found = parse_overrides(pairs)
    assert found == {"parameters.x": value, "seeds": [0, 1]}
    assert type(found["parameters.x"]) is type(value)


def test_the_command_line_names_a_file_elsewhere_by_its_path(settings, tmp_path, monkeypatch):
    (tmp_path / "my bars.toml").write_text(case.BARS)
    monkeypatch.chdir(tmp_path)
    study = find_study(settings, "my bars.toml", {})
    assert shlex.split(command_line(study)) == ["reelstore", "study", str(tmp_path / "my bars.toml")]
    listed = find_study(settings, str(settings.configs / "studies" / "bars.toml"), {})
    assert command_line(listed) == "reelstore study bars"


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
