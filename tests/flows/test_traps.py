"""What goes wrong when caches, locks and lists of Prefect are trusted with the state of the work; none is trusted here.

What a server is needed for lies elsewhere: late and overlapping runs, schedules that a file no longer names, limits of
parameters and short names (``test_deploy``, ``test_deployments``), killed processes (``test_killed``), cancelled runs.
"""

import ast
import dataclasses
import importlib
import inspect
import json
import pkgutil

import numpy as np
import pytest
from PIL import Image
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE

import extractors
import flows
from flows import encode
from flows.jobs.extract import extract_features
from flows.jobs.file_lock import FileLock
from flows.jobs.sessions import Job
from flows.settings import REPOSITORY, Settings


def members(kind):
    """Every task or flow that a module of ``flows`` defines."""
    found = {}
    for module in pkgutil.walk_packages(flows.__path__, "flows."):
        if module.name.endswith("__main__"):
            continue
        found |= {
            f"{module.name}.{name}": value
            for name, value in vars(importlib.import_module(module.name)).items()
            if isinstance(value, kind) and value.fn.__module__ == module.name
        }
    return found


def test_no_task_is_answered_from_a_cache_and_nothing_is_pickled_for_later():
    tasks, run = members(Task), members(Flow)
    assert {"flows.encode.encode_shard", "flows.encode.commit"} <= tasks.keys()
    assert {"flows.extract.extract_microlens", "flows.train.train_mealrec"} <= run.keys()
    assert [name for name, task in tasks.items() if task.cache_policy is not NO_CACHE or task.cache_key_fn] == []
    assert [name for name, made in {**tasks, **run}.items() if made.persist_result] == []


def test_failures_are_raised_and_never_returned():
    for path in sorted((REPOSITORY / "flows").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                assert getattr(node.value.func, "id", "") not in {"Failed", "Crashed", "Cancelled"}, path


def test_tasks_are_told_what_to_do_in_a_few_plain_values():
    job = Job.of("microlens-50k", features=["vit"], options={"limit": 200}, root="/data")
    plain = json.loads(json.dumps(dataclasses.asdict(job)))
    assert Job(**{**plain, "features": tuple(plain["features"])}) == job
    assert len(json.dumps(plain)) < 1_000
    allowed = {"Job", "str", "int", "float", "list[int]", "dict[str, Any]"}
    told = {
        str(parameter.annotation)
        for task in (encode.encode_shard, encode.commit, encode.commit_nothing_new, encode.encode_on_runner)
        for parameter in inspect.signature(task.fn).parameters.values()
    }
    assert told <= allowed


def test_names_with_dots_are_different_locks(tmp_path):
    first, second = FileLock(tmp_path / "microlens-v1.0"), FileLock(tmp_path / "microlens-v1.1")
    assert first.acquire()
    assert second.acquire()
    assert not FileLock(tmp_path / "microlens-v1.0").acquire()


@pytest.fixture
def folder(tmp_path):
    covers = tmp_path / "covers"
    covers.mkdir()
    for number in range(3):
        picture(covers / f"{number}.png", seed=number)
    return covers


def picture(path, *, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def settings(tmp_path):
    return Settings(root=tmp_path / "data", workers=1, device="cpu")


def encoded(settings, folder, **options):
    (report,) = extract_features(
        settings, str(folder), features=["vit"], overrides={"checkpoint": "tiny", **options}
    ).reports
    return report.encoded, report.reused


def test_the_content_decides_and_neither_the_path_nor_its_date(settings, folder):
    assert encoded(settings, folder) == (3, 0)
    (folder / "0.png").touch()
    assert encoded(settings, folder) == (0, 3)
    picture(folder / "1.png", seed=100)
    assert encoded(settings, folder) == (1, 2)


def test_a_result_whose_file_is_gone_is_made_again(settings, folder):
    assert encoded(settings, folder, task_size=1) == (3, 0)
    next((settings.stores / "covers" / "vit" / "shards").glob("*.parquet")).unlink()
    assert encoded(settings, folder, task_size=1) == (1, 2)


def test_other_settings_of_an_encoder_are_another_result(settings, folder):
    assert encoded(settings, folder) == (3, 0)
    assert encoded(settings, folder, precision="bf16") == (3, 0)


def test_no_child_leaves_the_process_group_that_a_cancel_ends():
    for package in (flows, extractors):
        for path in sorted((REPOSITORY / package.__name__).rglob("*.py")):
            assert "start_new_session" not in path.read_text(), path
            assert "setsid" not in path.read_text(), path
