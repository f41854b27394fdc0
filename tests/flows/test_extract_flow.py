"""The flow of an extraction on a real server: a gate stops one feature alone, and what a person finds afterwards."""

import base64
import io
import json
import re
import time

import httpx
import pytest
from PIL import Image
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings

from feature_store import FeatureStore, NoSnapshotError, QualityGateError
from flows import settings
from flows.extract import extract_dataset
from flows.jobs.prepare import prepare_dataset
from flows.jobs.sessions import SESSIONS

pytestmark = pytest.mark.timeout(600)

DATASET = "microlens-50k"


@pytest.fixture
def ask(automatic_server, site, tmp_path, monkeypatch):
    """A client of the server, with the small site prepared under a root of its own."""
    monkeypatch.setenv("REELSTORE_ROOT", str(tmp_path))
    monkeypatch.setenv("REELSTORE_WORKERS", "1")
    prepare_dataset(settings.load(), DATASET, {"source": site})

    def post(what, **body):
        return httpx.post(f"{automatic_server}/{what}/filter", json=body, timeout=60).raise_for_status().json()

    with temporary_settings({PREFECT_API_URL: automatic_server, PREFECT_SERVER_EPHEMERAL_ENABLED: False}):
        yield post


@flow(name="extract-for-a-test")
def extract(options):
    return extract_dataset(DATASET, features=["videomae", "bert"], options={"checkpoint": "tiny", **options})


def artifact(ask, key):
    (found,) = ask("artifacts/latest", artifacts={"key": {"any_": [key]}})
    return found


def test_a_gate_of_one_feature_stops_no_other(ask):
    with pytest.raises(QualityGateError, match=r"videomae: nothing was published.*\n.*min_coverage = 1"):
        extract({"videomae.gates.min_coverage": 1.0, "task_size": 16})
    stores = settings.load().stores / DATASET
    with pytest.raises(NoSnapshotError):
        FeatureStore.open(stores / "videomae").latest()
    text = FeatureStore.open(stores / "bert").latest()
    assert text.version == 1
    assert SESSIONS._open is None

    quality = {row["feature"]: row for row in table(ask, f"quality-{DATASET}")}
    assert quality["videomae"]["version"] is None
    assert "min_coverage = 1," in quality["videomae"]["gates"]
    assert "nothing was published" in quality["videomae"]["held back"]
    assert (quality["bert"]["version"], quality["bert"]["rows"], quality["bert"]["held back"]) == (1, text.rows, "")
    shards = table(ask, f"shards-{DATASET}")
    assert {row["group"] for row in shards} == {"videomae", "bert"}
    assert all(row["missing"] == 0 and row["done"] + row["quarantined"] == row["items"] for row in shards)
    assert [row["feature"] for row in table(ask, f"extract-{DATASET}")] == ["bert"]
    shown = artifact(ask, f"frames-{DATASET}")
    kind, _, data = shown["data"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).width == 5 * 150
    assert len(data) < 200_000

    def events():
        since = {"occurred": {"since": "2020-01-01T00:00:00Z"}}
        names = {"name": ["featurestore.materialized", "prefect.asset.materialization.succeeded"]}
        found = ask("events", filter={"event": names, **since})["events"]
        ours = [event for event in found if re.search(f"{DATASET}.bert$", event["resource"]["prefect.resource.id"])]
        return {event["event"]: event for event in ours}

    end = time.monotonic() + 60  # events reach the server a little later
    while len(events()) < 2 and time.monotonic() < end:
        time.sleep(0.5)
    told = events()
    spec_hash = text.manifest.spec_hash
    expected = {"dataset": DATASET, "feature": "bert", "spec_hash": spec_hash, "version": 1, "toy": True}
    assert told["featurestore.materialized"]["payload"] == expected
    asset = told["prefect.asset.materialization.succeeded"]
    assert asset["resource"]["prefect.resource.id"] == f"reelstore://stores/{DATASET}/bert"
    assert asset["payload"]["version"] == 1


def table(ask, key):
    return json.loads(artifact(ask, key)["data"])
