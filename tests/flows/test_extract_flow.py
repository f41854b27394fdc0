"""The flow of an extraction on a real server: a gate stops one feature alone, and what a person finds afterwards."""

import base64
import io
import json
import os
import re
import time
from pathlib import Path

import pytest
from PIL import Image
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED, temporary_settings
from prefect_api import client

from feature_store import FeatureStore, NoSnapshotError, QualityGateError
from flows import settings
from flows.errors import WorkError
from flows.extract import extract_dataset
from flows.jobs.prepare import prepare_dataset
from flows.jobs.sessions import SESSIONS
from flows.settings import REPOSITORY

pytestmark = pytest.mark.timeout(600)

DATASET = "microlens-50k"
SHARED = Path(os.environ.get("REELSTORE_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture
def ask(automatic_server, site, tmp_path, monkeypatch):
    """A client of the server, with the small site prepared under a root of its own."""
    monkeypatch.setenv("REELSTORE_ROOT", str(tmp_path))
    monkeypatch.setenv("REELSTORE_WORKERS", "1")
    prepare_dataset(settings.load(), DATASET, {"source": site})

    def post(what, **body):
        return api.post(f"/{what}/filter", json=body).raise_for_status().json()

    with (
        temporary_settings({PREFECT_API_URL: automatic_server, PREFECT_SERVER_EPHEMERAL_ENABLED: False}),
        client(automatic_server) as api,
    ):
        yield post


@flow(name="verify-for-a-test")
def verify(folder, **options):
    options = {"checkpoint": "tiny", **options}
    return extract_dataset(str(folder), features=["videomae"], options=options, verify=1.0)


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
    sheet = Image.open(io.BytesIO(base64.b64decode(data)))  # 3 videos, 5 frames of each, in cells of up to 150 x 112
    assert (sheet.width % 5, sheet.height % 3) == (0, 0)
    assert max(sheet.width / 5 / 150, sheet.height / 3 / 112) == 1
    assert len(data) < 200_000

    def events():
        since = {"occurred": {"since": "2020-01-01T00:00:00Z"}}
        names = {"name": ["featurestore.materialized", "prefect.asset.materialization.succeeded"]}
        found = ask("events", filter={"event": names, **since})["events"]
        ours = [event for event in found if re.search(f"{DATASET}.bert$", event["resource"]["prefect.resource.id"])]
        return {event["event"]: event for event in ours}

    end = time.monotonic() + 240  # events reach the server a little later
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


def test_a_video_that_decodes_differently_in_full_fails_the_run_and_is_listed(ask, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("torchcodec_h265_video.mp4", "decord_video_90.mov"):
        (folder / name).write_bytes((SHARED / "data" / "videos" / name).read_bytes())
    with pytest.raises(WorkError, match=r"1 of 2 videos of \S*clips decode differently.* is torchcodec_h265_video"):
        verify(folder, decoder="decord")
    (key,) = {row["key"] for row in ask("artifacts/latest") if str(row["key"]).startswith("verify-")}
    rows = {row["item_id"]: row for row in table(ask, key)}
    assert {name: row["verdict"] for name, row in rows.items()} == {"torchcodec_h265_video": "different"}
    (report,) = verify(folder)
    assert report["failed"] == 0
    assert table(ask, key) == []
