"""What the tasks of an extraction are, without a server: which errors are tried again, how many are under way."""

import errno
import sys

import httpx
import pytest
from prefect.assets import Asset
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from feature_store import QualityGateError
from feature_store.errors import StorageError
from flows.encode import asset_key, commit, encode_shard
from flows.errors import CallError
from flows.extract import Fleet, extract_amazon, extract_microlens, extract_shortvideo
from flows.runners import cluster_runner, windowed
from flows.transient import is_transient


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.EIO, "input/output error"), True),
        (OSError(errno.ESTALE, "stale file handle"), True),
        (ConnectionResetError("peer"), True),
        (TimeoutError("the task"), True),
        (httpx.ReadTimeout("hub"), True),
        (caused(StorageError("shard"), OSError(errno.EIO, "input/output error")), True),
        (caused(StorageError("shard"), OSError(errno.ENOSPC, "no space")), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (PermissionError(errno.EACCES, "not yours"), False),
        (OSError("weights of this name do not exist"), False),
        (caused(CallError("wrong"), OSError(errno.EIO, "input/output error")), False),
        (QualityGateError("zero vectors"), False),
        (RuntimeError("CUDA out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_which_errors_are_tried_again(error, again):
    assert is_transient(error) is again
    retry = encode_shard.retry_condition_fn
    assert retry(encode_shard, TaskRun.model_construct(), Failed(data=error)) is again


def test_a_shard_is_never_cached_and_waits_longer_before_each_retry():
    assert encode_shard.retries == 3
    assert encode_shard.retry_delay_seconds == [10, 20, 40]
    assert encode_shard.retry_jitter_factor == 0.5
    assert encode_shard.persist_result is False
    assert commit.persist_result is False


class Future:
    def __init__(self, number, under_way):
        self.number, self.under_way = number, under_way
        under_way.add(number)

    def result(self):
        self.under_way.discard(self.number)
        if self.number == 7:
            raise RuntimeError("shard 7")
        return self.number

    def wait(self):
        self.under_way.discard(self.number)


def test_a_bounded_number_of_shards_is_under_way():
    under_way, most = set(), []

    def submit(number):
        future = Future(number, under_way)
        most.append(len(under_way))
        return future

    assert windowed(submit, range(7), window=3) == list(range(7))
    assert (max(most), under_way) == (3, set())
    with pytest.raises(RuntimeError, match="shard 7"):
        windowed(submit, range(20), window=3)
    assert under_way == set()  # those under way were waited for


def test_a_cluster_that_is_not_installed_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefect_dask", None)  # as if it were not there
    with pytest.raises(CallError, match=r"task_runner=dask: prefect_dask is not installed.*extra dask"):
        cluster_runner("dask", None)


def test_a_cluster_and_several_workers_exclude_each_other():
    with pytest.raises(CallError, match="workers=2 and task_runner=ray exclude each other"):
        Fleet(2, "ray")


def test_stores_are_assets():
    assert Asset(key=asset_key("amazon-toys", "bert")).key == "reelstore://stores/amazon-toys/bert"
    assert Asset(key=asset_key("my clips [1]", "vit")).key == "reelstore://stores/my-clips-1-/vit"


@pytest.mark.parametrize("flow", [extract_microlens, extract_shortvideo, extract_amazon])
def test_the_schema_of_the_parameters_refuses_nonsense(flow):
    properties = flow.parameters.model_dump()["properties"]
    assert properties["workers"] | {"minimum": 1, "maximum": 64} == properties["workers"]
    assert properties["verify"] | {"minimum": 0, "maximum": 1} == properties["verify"]
    assert properties["task_runner"]["enum"] == ["local", "ray", "dask"]
    assert properties["only"]["anyOf"][0]["const"] == "failed"
    assert "pattern" in properties["shards"]["anyOf"][0]
    assert "pattern" in properties["since"]["anyOf"][0]
