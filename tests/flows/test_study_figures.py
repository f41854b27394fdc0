"""What the figure of a study draws: differences from the first bar only, no interval without spread, broken lines."""

import argparse
import base64
import importlib.util
import re
from pathlib import Path

import pytest

from flows.commands.study import study as study_command
from flows.jobs.study import Measured
from flows.jobs.study_config import StudyConfig
from flows.reporting import charts, study_figures
from flows.reporting.plots import COLOURS

_spec = importlib.util.spec_from_file_location("study_case", Path(__file__).with_name("study_case.py"))
case = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(case)

AGAINST_THE_SECOND = f"""{case.FLOORS}
[[variants]]
label = "the same"
model = "itemknn"
against = "neighbours"
"""


@pytest.fixture
def settings(tmp_path):
    return case.sweeps.small_root(tmp_path)


def drawn(settings, text):
    """Figure, page and printed text of a study."""
    case.write_study(settings.configs.parent, "floors", text)
    outcome = study_command(settings, argparse.Namespace(study="floors", overrides=[]))
    figure, page = (Path(outcome.payload[name]).read_text(encoding="utf-8") for name in ("figure", "page"))
    return figure, page, outcome.text


def test_the_panel_of_differences_names_the_first_bar(settings):
    figure, page, _ = drawn(settings, case.FLOORS)
    assert "<!-- difference in NDCG@5, variant − counts -->" in figure
    assert "Right: difference from counts with the same seeds" in page


def test_there_is_no_such_panel_when_the_only_reference_is_another_bar(settings):
    figure, page, text = drawn(settings, AGAINST_THE_SECOND)
    assert "the same against neighbours, ndcg@5 over 2 seeds: +0.0000 [+0.0000, +0.0000], p (Holm) 1.0000" in text
    assert "difference in" not in figure
    assert "Right:" not in page


def test_without_spread_the_words_stand_for_every_figure_of_a_test(settings):
    figure, page, text = drawn(settings, case.FLOORS)
    (line,) = [line for line in text.splitlines() if "hr@5 over 2 seeds" in line]
    assert re.fullmatch(r"neighbours against counts, .*: [+-]\d\.\d{4} no spread, p \(Holm\) no spread", line)
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if "2 seeds" in row and "HR@5" in row]
    assert row.count("no spread") == 4  # interval, effect size, p, p by Holm
    assert "nan" not in text + figure


SWEEP = StudyConfig.model_validate(
    {
        "title": "A line",
        "source": "Nobody, Fig. 2",
        "experiment": "sasrec",
        "seeds": (0,),
        "metrics": ("hr@5",),
        "figure": "lines",
        "axes": {"parameters.d": [1, 2, 4, 8, 16]},
    }
)


@pytest.mark.parametrize(
    ("failed", "strokes"), [(set(), ["MLLLL"]), ({2}, ["MLML"]), ({0}, ["MLLL"]), ({0, 1, 2, 3, 4}, [])]
)
def test_a_line_breaks_where_a_point_failed(failed, strokes):
    measured = [
        Measured(
            point,
            ({"status": "failed", "seed": 0, "reason": "why"},)
            if place in failed
            else ({"status": "finished", "seed": 0, "run_id": str(place), "test_hr@5": 0.1 * (place + 1)},),
        )
        for place, point in enumerate(SWEEP.points)
    ]
    picture = study_figures.picture(SWEEP, measured, {}, about="by hand")
    svg = base64.b64decode(picture.uri.partition(",")[2]).decode()
    lines = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {COLOURS[0].lower()}; stroke-width', svg)
    assert [re.sub(r"[^ML]", "", line) for line in lines] == strokes


def test_a_line_of_the_report_breaks_where_a_value_is_missing():
    """Of five values the third has no run: two strokes, M L and M L."""
    points = {"test HR@10": [[0.1], [0.2], [], [0.4], [0.5]]}
    picture = charts.sweep_lines(charts.Setting("d", tuple("12345")), points, joined=True, caption="by hand")
    svg = base64.b64decode(picture.uri.partition(",")[2]).decode()
    lines = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke: {COLOURS[0].lower()}; stroke-width', svg)
    assert [re.sub(r"[^ML]", "", line) for line in lines] == ["MLML"]
