"""What a real server starts by itself when an event comes: trainings, extractions, and crashed runs again."""

import asyncio
import time
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect_api import client, notice_dead_runs

from flows.rerun import attempt_of, rerun

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def api(registered):
    with client(registered.url) as opened:
        yield opened


def deployment_id(api, name):
    return api.get(f"/deployments/name/{name}/{name}").raise_for_status().json()["id"]


def runs_of(api, name):
    wanted = {"deployments": {"id": {"any_": [deployment_id(api, name)]}}, "limit": 200}
    return api.post("/flow_runs/filter", json=wanted).raise_for_status().json()


def wait_for_runs(api, name, *, more_than=0, seconds=120):
    deadline = time.monotonic() + seconds
    while len(found := runs_of(api, name)) <= more_than and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def crashed_run(api, name, parameters, tags=()):
    """A run of a deployment that crashed, made without a worker."""
    body = {"parameters": parameters, "tags": list(tags)}
    run = api.post(f"/deployments/{deployment_id(api, name)}/create_flow_run", json=body).raise_for_status().json()
    for state in ("PENDING", "RUNNING", "CRASHED"):
        set_state(api, run["id"], state)
    return run


def set_state(api, run_id, state):
    body = {"state": {"type": state}, "force": True}
    assert api.post(f"/flow_runs/{run_id}/set_state", json=body).raise_for_status().json()["status"] == "ACCEPT"


def start_again(run_id):
    async def call():
        async with get_client() as client:
            return await rerun(client, UUID(str(run_id)))

    return asyncio.run(call())


def test_a_committed_store_starts_the_trainings_that_read_it(registered, api):
    payload = {"dataset": "microlens-50k", "feature": "videomae", "version": 1, "toy": True}
    for feature in ("nobody-reads-this", "videomae"):
        emit_event(
            "featurestore.materialized",
            resource={"prefect.resource.id": f"featurestore.microlens-50k.{feature}"},
            payload={**payload, "feature": feature},
        )
    (run,) = wait_for_runs(api, "train-mealrec")
    assert run["parameters"] == {"experiment": "mealrec-microlens-50k"}
    assert run["work_queue_name"] == "gpu"
    assert runs_of(api, "train-dimerec") == []  # it reads ids only


def make_stale(dataset, feature, payload):
    emit_event(
        "featurestore.stale",
        resource={"prefect.resource.id": f"featurestore.{dataset}.{feature}", "featurestore.dataset": dataset},
        payload=payload,
    )


def test_a_stale_dataset_is_extracted_again_once_as_it_was_made(registered, api):
    payload = {"variant": "100k", "features": ["videomae", "vit"], "checkpoint": "tiny", "limit": 200}
    for feature in ("vit", "videomae"):
        make_stale("microlens-100k", feature, payload)
    (run,) = wait_for_runs(api, "extract-microlens")
    assert run["parameters"] == payload
    whole = {"checkpoint": None, "limit": None}
    make_stale("amazon-gift-cards", "bert", {"variant": "gift-cards", "features": ["bert"], **whole})
    (run,) = wait_for_runs(api, "extract-amazon")
    assert run["parameters"] == {"category": "gift-cards", "features": ["bert"], **whole}
    make_stale("shortvideo-small", "glove", {"variant": "small", "features": ["glove"], **whole})
    (run,) = wait_for_runs(api, "extract-shortvideo")
    assert run["parameters"] == {"variant": "small", "features": ["glove"], **whole}
    assert len(runs_of(api, "extract-microlens")) == 1


def test_a_run_without_a_sign_of_life_is_marked_crashed_and_started_again(registered, api):
    notice_dead_runs(api, after_seconds=15)
    body = {"parameters": {"experiment": "imecd-microlens-50k"}}
    run = api.post(f"/deployments/{deployment_id(api, 'train-imecd')}/create_flow_run", json=body).json()
    for state in ("PENDING", "RUNNING"):
        set_state(api, run["id"], state)
    emit_event(
        "prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run['id']}"},
        related=[{"prefect.resource.id": "prefect.tag.reelstore", "prefect.resource.role": "tag"}],
    )
    (call,) = wait_for_runs(api, "rerun-crashed")
    assert call["parameters"] == {"flow_run_id": run["id"]}
    state = api.get(f"/flow_runs/{run['id']}").json()["state"]
    assert (state["type"], state["message"]) == ("CRASHED", "no sign of life for 90 s")


def test_a_crashed_run_has_three_attempts_with_the_same_parameters(registered, api):
    before = len(runs_of(api, "rerun-crashed"))
    first = crashed_run(api, "prepare-dataset", {"dataset": "synthetic"}, tags=["nightly"])
    calls = wait_for_runs(api, "rerun-crashed", more_than=before)
    assert first["id"] in [call["parameters"]["flow_run_id"] for call in calls]

    ids = [first["id"]]
    for attempt in (2, 3):
        outcome = start_again(ids[-1])
        run = api.get(f"/flow_runs/{outcome.flow_run}").json()
        assert run["parameters"] == {"dataset": "synthetic"}
        assert [tag for tag in run["tags"] if tag.startswith("reelstore-attempt:")] == [f"reelstore-attempt:{attempt}"]
        assert {"nightly", "reelstore", "reelstore-rerun"} <= set(run["tags"])
        assert start_again(ids[-1]).flow_run is None  # the attempt that waits is the newer run
        for state in ("PENDING", "RUNNING", "CRASHED"):
            set_state(api, run["id"], state)
        ids.append(run["id"])
    last = start_again(ids[-1])
    assert (last.flow_run, last.reason) == (None, "attempt 3 of 3 was the last")


def test_a_newer_run_that_does_the_same_stands_in_for_the_crashed_one(registered, api):
    crashed = crashed_run(api, "pipeline", {"dataset": "shortvideo"})
    body = {"parameters": {"dataset": "kuairec"}}
    api.post(f"/deployments/{deployment_id(api, 'pipeline')}/create_flow_run", json=body).raise_for_status()
    body = {"parameters": {"dataset": "shortvideo"}}
    same = api.post(f"/deployments/{deployment_id(api, 'pipeline')}/create_flow_run", json=body).json()
    assert start_again(crashed["id"]).reason == f"the newer run {same['name']} does the same work"
    set_state(api, same["id"], "CANCELLED")
    assert start_again(crashed["id"]).flow_run is not None  # that of kuairec does other work


def test_a_run_that_did_not_crash_is_left_alone(registered, api):
    body = {"parameters": {"dataset": "kuairec"}}
    run = api.post(f"/deployments/{deployment_id(api, 'prepare-dataset')}/create_flow_run", json=body).json()
    assert start_again(run["id"]).reason == "it is Scheduled, not Crashed"


@pytest.mark.parametrize(
    ("tags", "attempt"),
    [([], 1), (["reelstore-attempt:2"], 2), (["x", "reelstore-attempt:2", "reelstore-attempt:3"], 3),
     (["reelstore-attempt:two"], 1)],
)  # fmt: skip
def test_the_attempt_is_read_from_the_tags(tags, attempt):
    assert attempt_of(tags) == attempt
