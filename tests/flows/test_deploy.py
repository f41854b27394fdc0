"""``reelstore deploy`` against a real server: what it makes, what it repairs, what the server then refuses."""

import time

import pytest
import yaml
from prefect_api import client

from flows import deploy
from flows.deployfile import DEPLOYMENT_FILE, read_file
from flows.difference import differing
from flows.errors import CallError, WorkError
from flows.local_server import running_server
from flows.names import DEPLOYMENTS, HEARTBEAT_SECONDS
from models.errors import ConfigError

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def automatic_server(tmp_path_factory):
    """A server that nothing was deployed to."""
    with running_server(tmp_path_factory.mktemp("empty") / "prefect", automations=True) as url:
        yield url


@pytest.fixture(scope="module")
def api(registered):
    """Plain HTTP to the server, so that the tests read what any client would."""
    with client(registered.url) as opened:
        yield opened


def deployment(api, name):
    return api.get(f"/deployments/name/{name}/{name}").raise_for_status().json()


def call(api, name, **parameters):
    return api.post(f"/deployments/{deployment(api, name)['id']}/create_flow_run", json={"parameters": parameters})


def planned(registered):
    changes, _ = deploy.run(dry_run=True, settings=registered.settings)
    return [str(change) for change in changes]


def test_the_first_deploy_makes_everything_and_the_second_finds_nothing_to_change(registered, api):
    made = set(registered.first)
    assert {f"create deployment {name}" for name in DEPLOYMENTS} <= made
    assert {"create work pool reelstore", "create work queue gpu", "create limit device-cuda0"} <= made
    assert "create automation reelstore: train mealrec-microlens-50k" in made
    assert planned(registered) == []
    queues = api.post("/work_pools/reelstore/queues/filter", json={}).raise_for_status().json()
    assert {queue["name"]: queue["priority"] for queue in queues} == {"default": 1, "gpu": 2}


def test_deployments_are_on_the_server_as_the_file_says(registered, api):
    microlens = deployment(api, "extract-microlens")
    assert microlens["parameters"] == {"variant": "50k"}
    assert microlens["work_queue_name"] == "gpu"
    assert microlens["global_concurrency_limit"]["limit"] == 1
    assert microlens["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert microlens["job_variables"]["env"] == {
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS": "flows.console.ConsoleHandler",
    }
    (nightly,) = microlens["schedules"]
    assert (nightly["slug"], nightly["schedule"]["cron"], nightly["schedule"]["timezone"], nightly["active"]) == (
        "nightly", "0 3 * * *", "UTC", False,
    )  # fmt: skip


def test_what_somebody_changed_by_hand_is_told_and_repaired(registered, api):
    amazon, gc = deployment(api, "extract-amazon"), deployment(api, "gc-stores")
    api.patch(f"/deployments/{amazon['id']}", json={"parameters": {"category": "food"}}).raise_for_status()
    api.patch(
        f"/deployments/{amazon['id']}/schedules/{amazon['schedules'][0]['id']}", json={"active": True}
    ).raise_for_status()
    stale = {"schedule": {"cron": "1 1 1 1 *", "timezone": "UTC"}, "active": False, "slug": "old"}
    api.post(f"/deployments/{gc['id']}/schedules", json=[stale]).raise_for_status()
    api.patch("/v2/concurrency_limits/device-cuda0", json={"limit": 3}).raise_for_status()
    left = {
        "name": "reelstore: of an older version",
        "trigger": {"type": "event", "posture": "Reactive", "expect": ["nothing"], "threshold": 1, "within": 0},
        "actions": [{"type": "do-nothing"}],
    }
    api.post("/automations/", json=left).raise_for_status()
    mine = api.post("/automations/", json={**left, "name": "somebody else's"}).raise_for_status().json()

    expected = [
        "change limit device-cuda0: limit: 3 → 1",
        "change deployment extract-amazon: parameters.category: 'food' → 'toys'",
        "change schedule extract-amazon:nightly: active: True → False",
        "clear schedule gc-stores:old",
        "clear automation reelstore: of an older version",
    ]
    assert planned(registered) == expected
    changes, cleared = deploy.run(dry_run=False, settings=registered.settings)
    assert [str(change) for change in changes] == expected  # the dry run changed nothing
    assert cleared == ["gc-stores:old", "reelstore: of an older version"]
    assert planned(registered) == []
    assert deployment(api, "extract-amazon")["parameters"] == {"category": "toys"}
    assert [schedule["slug"] for schedule in deployment(api, "gc-stores")["schedules"]] == ["weekly"]
    api.delete(f"/automations/{mine['id']}").raise_for_status()  # it was not ours to clear


def test_a_changed_automation_is_set_back(registered, api):
    found = api.post("/automations/filter", json={"limit": 200}).raise_for_status().json()
    ours = next(item for item in found if item["name"] == "reelstore: train mealrec-microlens-50k")
    api.patch(f"/automations/{ours['id']}", json={"enabled": False}).raise_for_status()
    assert planned(registered) == [f"change automation {ours['name']}: enabled: False → True"]
    deploy.run(dry_run=False, settings=registered.settings)
    assert planned(registered) == []
    assert api.get(f"/automations/{ours['id']}").raise_for_status().json()["enabled"] is True


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("extract-microlens", {"variant": "7"}, "variant"),
        ("extract-microlens", {"limit": 0}, "less than the minimum"),
        ("extract-microlens", {"varaint": "50k"}, "varaint"),
        ("extract-amazon", {"category": "Toys & Games"}, "does not match"),
        ("train-mealrec", {"experiment": ""}, "experiment"),
        ("check-freshness", {"max_age_days": 0}, "max_age_days"),
        ("check-freshness", {"datasets": {"shortvideo": -1}}, "datasets"),
        ("gc-stores", {"keep": 0}, "less than the minimum"),
        ("gc-stores", {"grace": "a week"}, "does not match"),
        ("reconcile", {"new": "perhaps"}, "boolean"),
    ],
)
def test_the_server_refuses_bad_parameters_with_the_reason(api, name, parameters, reason):
    answer = call(api, name, **parameters)
    assert answer.status_code in (409, 422)
    assert reason in answer.text


def test_a_schedule_makes_runs_and_one_that_overlaps_is_cancelled(registered, api):
    freshness = deployment(api, "check-freshness")
    every = {"schedule": {"interval": 3600.0}, "active": True, "slug": "every-hour"}
    api.post(f"/deployments/{freshness['id']}/schedules", json=[every]).raise_for_status()
    wanted = {"deployments": {"id": {"any_": [freshness["id"]]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 2}
    made = wait_for(lambda: api.post("/flow_runs/filter", json=wanted).raise_for_status().json(), count=2)
    assert all(run["auto_scheduled"] for run in made)

    first, second = (begin(api, run["id"]) for run in made)
    assert (first["status"], first["state"]["type"]) == ("ACCEPT", "PENDING")
    assert second["state"]["type"] == "CANCELLED"
    assert planned(registered) == ["clear schedule check-freshness:every-hour"]
    later = {**wanted, "limit": 200, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}

    def to_come():
        runs = api.post("/flow_runs/filter", json=later).raise_for_status().json()
        return [run for run in runs if run["auto_scheduled"]]

    assert wait_for(to_come, count=1)
    deploy.run(dry_run=False, settings=registered.settings)
    assert to_come() == []


def begin(api, run_id):
    """What a worker asks before it starts a run."""
    return api.post(f"/flow_runs/{run_id}/set_state", json={"state": {"type": "PENDING"}}).raise_for_status().json()


def wait_for(read, *, count, seconds=120):
    deadline = time.monotonic() + seconds
    while len(found := read()) < count and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def test_a_wrong_address_and_a_missing_one_are_told(monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), pytest.raises(WorkError, match="PREFECT_API"):
        deploy.run(dry_run=True)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(WorkError, match="prefect server start"):
        deploy.run(dry_run=True)


def edited(tmp_path, edit):
    document = yaml.safe_load(DEPLOYMENT_FILE.read_text())
    edit(document)
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("edit", "error", "told"),
    [
        (lambda d: d["deployments"].pop(), CallError, "missing"),
        (lambda d: d["deployments"][0].update(schedule=[]), ConfigError, "schedules"),
        (lambda d: d["deployments"][0]["work_pool"].update(work_queue_name="gpus"), CallError, "gpu"),
        (lambda d: d["reelstore"]["limits"][0].update(limit=0), ConfigError, "limit"),
        (lambda d: d["reelstore"].update(pool="other"), CallError, "WORK_POOL|names.py"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_its_name(tmp_path, edit, error, told):
    with pytest.raises(error, match=told):
        read_file(edited(tmp_path, edit))


def test_differences_name_the_field_and_both_values():
    was = {"a": 1, "b": {"x": 1, "y": 2}, "c": [1]}
    assert differing(was, {"a": 1, "b": {"x": 1, "y": 3}, "c": [2]}) == ("b.y: 2 → 3", "c: [1] → [2]")
