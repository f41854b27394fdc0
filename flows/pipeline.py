"""The flow ``pipeline``: prepare, extract, train and report in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner
from pydantic import Field

from flows import settings as settings_module
from flows.extract import Fleet, extract_dataset
from flows.jobs.summary import write_summary
from flows.parameters import Options, Verify, Workers
from flows.prepare import prepare_dataset
from flows.train import train

Repeats = dict[str, Annotated[int, Field(ge=1, le=100)]]


@task(name="train", task_run_name="{experiment} seed {seed}", cache_policy=NO_CACHE)
def train_task(experiment: str, seed: int) -> dict[str, Any]:
    """Train one experiment with one seed."""
    return train(experiment, {"seed": seed})


@task(name="report", cache_policy=NO_CACHE)
def report_task() -> str:
    """Write the report of everything below the root and link it."""
    from flows.reporting.build import build_report

    settings = settings_module.load()
    out = settings.root / "report.html"
    build_report(settings, None, out)
    create_link_artifact(key="report", link=out.as_uri(), link_text="report.html")
    return str(out)


@flow(name="train-all")
def train_all_flow(wanted: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """Train several experiments in the processes of the flow's task runner."""
    return [future.result() for future in [train_task.submit(name, seed) for name, seed in wanted]]


def train_all(wanted: list[tuple[str, int]], *, workers: int) -> list[dict[str, Any]]:
    """Train ``(experiment, seed)`` pairs, ``workers`` at a time."""
    if workers == 1:
        return [train_task(name, seed) for name, seed in wanted]
    runner = ProcessPoolTaskRunner(max_workers=workers)
    return train_all_flow.with_options(task_runner=runner)(wanted)  # pyright: ignore[reportArgumentType]


@flow(name="pipeline")
def pipeline(  # noqa: PLR0913  parameters of a deployment are named one by one
    dataset: str = "synthetic",
    source: str | None = None,
    checkpoint: str | None = None,
    features: list[str] | None = None,
    experiments: list[str] | None = None,
    repeats: Repeats | None = None,
    train_workers: Workers = 1,
    options: Options = None,
    workers: Workers = 1,
    verify: Verify = 0.0,
) -> dict[str, Any]:
    """Prepare a dataset, bring its stores up to date, train, and write the report.

    Args:
        dataset: Dataset name.
        source: Path or URL that replaces the official place of the raw files.
        checkpoint: Checkpoint of every encoder; ``tiny`` for the seeded toy ones, None for the configured ones.
        features: Encoders to run; None for all that the dataset has media for.
        experiments: Names of files in ``configs/experiments``; None for all of this dataset.
        repeats: Number of seeds (0, 1, …) by experiment; 1 where it is not named.
        train_workers: Trainings at the same time, each in a process of its own; more than 1 is for models that are
            smaller than the machine.
        options: Further settings of the extraction or of the encoders, such as ``{"videomae.batch_size": 16}``.
        workers: Workers of the pool that encode together.
        verify: Part of the videos to decode again in full after the extraction, 0 to 1.
    """
    prepared = prepare_dataset(dataset, source=source)
    chosen = dict(options or {}) | ({"checkpoint": checkpoint} if checkpoint else {})
    extracted = extract_dataset(dataset, features=features, options=chosen, fleet=Fleet(workers), verify=verify)
    names = experiments if experiments is not None else experiments_of(dataset)
    wanted = [(name, seed) for name in names for seed in range((repeats or {}).get(name, 1))]
    runs = train_all(wanted, workers=train_workers)
    report = report_task()
    summary = {"prepared": prepared, "extracted": extracted, "runs": runs, "report": report}
    write_summary(settings_module.load(), dataset, summary)
    encoded, fresh = sum(row["encoded"] for row in extracted), sum(run["fresh"] for run in runs)
    get_run_logger().info("%d items encoded, %d of %d runs trained, report: %s", encoded, fresh, len(runs), report)
    return summary


def experiments_of(dataset: str) -> list[str]:
    """Names of the experiment files for a dataset, the quick baselines last: what takes longest starts first."""
    folder: Path = settings_module.load().configs / "experiments"
    names = sorted((path.stem for path in folder.glob(f"*-{dataset}.toml")), reverse=True)
    baselines = [name for name in names if name.split("-")[0] in ("popularity", "sasrec")]
    return [*(name for name in names if name not in baselines), *baselines]
