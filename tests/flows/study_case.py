"""Small studies over the dataset of ``sweep_case``; as a program: run one and die by SIGKILL amid its training.

usage: study_case.py ROOT STUDY RUN
"""

import importlib.util
import sys
from pathlib import Path

from flows.jobs.study import run_study
from flows.jobs.study_config import find_study

_spec = importlib.util.spec_from_file_location("sweep_case", Path(__file__).with_name("sweep_case.py"))
sweeps = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sweeps)

HEAD = """
title = "A small study"
source = "Nobody, Fig. 1"
experiment = "sasrec-movielens-10m"
seeds = [0, 1]
metrics = ["hr@5", "ndcg@5"]
"""
#: Decoupled decay multiplies every weight by 1 - 1e35: the second step has no finite loss.
HOPELESS = '{ "training.optimiser" = "adamw", "training.weight_decay" = 1e38 }'
BARS = f"""{HEAD.replace("[0, 1]", "[0, 1, 2]")}
figure = "bars"
[[variants]]
label = "SASRec"
[[variants]]
label = "w/o sense"
overrides = {HOPELESS}
[[variants]]
label = "wider"
overrides = {{ "parameters.d" = 16 }}
"""
#: Two models that are the same for each seed, so that two seeds differ by the same amount.
FLOORS = f"""{HEAD}
figure = "bars"
base = {{ "training.epochs" = 0 }}
[[variants]]
label = "counts"
model = "popularity"
[[variants]]
label = "neighbours"
model = "itemknn"
"""
LINES = f"""{HEAD}
figure = "lines"
names = {{ "parameters.d" = "width d" }}
[axes]
"parameters.d" = [4, 8]
"parameters.dropout" = [0.2, 0.5]
[[series]]
label = "full softmax"
[[series]]
label = "gBCE"
overrides = {{ "parameters.loss" = "gbce" }}
[[series]]
label = "popularity"
model = "popularity"
constant = true
"""
HEATMAP = f"""{HEAD.replace("[0, 1]", "[0]")}
figure = "heatmap"
base = {{ "training.optimiser" = "adamw" }}
[axes]
"parameters.d" = [4, 8, 16]
"training.weight_decay" = [0.0, 1e38]
"""


def write_study(root, name, text):
    path = root / "configs" / "studies" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    place = sweeps.settings_at(Path(sys.argv[1]))
    run_study(find_study(place, sys.argv[2], {}), progress=sweeps.dying(int(sys.argv[3])))


def write_studies(root):
    """One study of each figure, called like it."""
    for name, text in (("bars", BARS), ("lines", LINES), ("heatmap", HEATMAP)):
        write_study(root, name, text)
