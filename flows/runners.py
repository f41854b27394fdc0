"""Shards on a cluster of Ray or Dask instead of in the process of the flow."""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Literal

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner

from flows.errors import CallError

Cluster = Literal["ray", "dask"]

_MODULES = {"ray": ("prefect_ray", "RayTaskRunner"), "dask": ("prefect_dask", "DaskTaskRunner")}


def cluster_runner(name: Cluster, address: str | None) -> TaskRunner[Any]:
    """The task runner of a cluster.

    Args:
        name: ``ray`` or ``dask``.
        address: Where the cluster is; None for ``RAY_ADDRESS`` or ``DASK_ADDRESS``, and where that is not set either
            a cluster on this machine for the time of the run.

    Raises:
        CallError: When what it needs is not installed, naming the extra.
    """
    module, runner = _MODULES[name]
    try:
        found: Callable[..., TaskRunner[Any]] = getattr(importlib.import_module(module), runner)
    except ImportError as error:
        raise CallError(
            f"task_runner={name}: {error.name or module} is not installed; it comes with the extra {name}: "
            f"uv pip install 'reelstore[{name}]'"
        ) from None
    return found(address=address or os.environ.get(f"{name.upper()}_ADDRESS") or None)


def windowed(submit: Callable[[int], PrefectFuture[Any]], numbers: Iterable[int], *, window: int) -> list[Any]:
    """Results of submitted tasks, in order, with at most ``window`` of them under way.

    Args:
        submit: Submits the task of a shard.
        numbers: The shards.
        window: Tasks that are submitted and not done yet.

    Raises:
        Exception: What the first failed task raised, when those under way have ended.
    """
    under_way: deque[PrefectFuture[Any]] = deque()
    results: list[Any] = []
    try:
        for number in numbers:
            if len(under_way) >= window:
                results.append(under_way.popleft().result())
            under_way.append(submit(number))
        while under_way:
            results.append(under_way.popleft().result())
    finally:
        for future in under_way:
            future.wait()
    return results
