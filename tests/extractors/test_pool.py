"""Files that hang, crash or eat memory cost only themselves, and no process outlives the pool."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from extractors.errors import PoolError, SamplingError, UnknownDecoderError
from extractors.frames import FrameBatch, sample_frames
from extractors.pool import DecodePool, FrameFailure
from extractors.resize import FrameTransform

ROOT = Path(__file__).resolve().parents[2]
TASKS = """
import ctypes, os, signal, time
from pathlib import Path
import numpy as np
from extractors.errors import FrameError

def misbehave(path, *, scale=1):
    word, _, rest = path.partition(":")
    if word == "hang":
        Path(rest).write_text(str(os.getpid())) if rest else None
        time.sleep(1000)
    if word == "wait" and not Path(rest).exists():
        Path(rest).write_text(str(os.getpid()))
        time.sleep(1000)
    if word == "spin":
        while True: pass
    if word == "segfault":
        ctypes.string_at(0)
    if word == "exit":
        os._exit(7)
    if word == "suicide":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "once" and not Path(rest).exists():
        Path(rest).touch()
        os._exit(7)
    if word == "eat":
        held = []
        while True: held.append(np.ones(1 << 20))
    if word == "gulp":
        return {"data": np.zeros(1 << 40)}
    if word == "raise":
        raise FrameError("corrupt", "as told")
    if word == "stumble":
        raise KeyError("oh")
    if word == "big":
        return {"data": np.full((int(rest), 1000, 1000), 7, np.uint8)}
    if word == "close":
        os.closerange(3, 100)
        time.sleep(1000)
    if word == "babble":
        for number in range(3, 100):
            try: os.write(number, b"\\0\\0\\0\\3abc")
            except OSError: pass
        time.sleep(1000)
    numbers = np.arange(6, dtype=np.int16).reshape(2, 3) * scale
    return {"data": numbers, "word": word, "pid": os.getpid(), "none": np.zeros((0, 2))}

def threads(path):
    return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
"""
TASK = "pool_test_tasks:misbehave"


@pytest.fixture(autouse=True)
def tasks(tmp_path, monkeypatch):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "pool_test_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def alive(pid):
    """Whether a process runs (one that has ended and waits to be reaped does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def outcomes(words, **settings):
    settings = {"workers": 2, "deadline_seconds": 60.0} | settings
    with DecodePool(**settings) as pool:
        found = list(pool.run(TASK, [(f"item {position}", word) for position, word in enumerate(words)], {}))
    assert sorted(item_id for item_id, _ in found) == sorted(f"item {position}" for position in range(len(words)))
    return [outcome for _, outcome in sorted(found, key=lambda pair: int(pair[0].split()[1]))]


def test_results_come_back_once_each_with_their_arrays():
    found = outcomes(["fine"] * 25)
    for outcome in found:
        assert outcome["data"].dtype == np.int16
        np.testing.assert_array_equal(outcome["data"], [[0, 1, 2], [3, 4, 5]])
        assert (outcome["word"], outcome["none"].shape) == ("fine", (0, 2))
    assert 1 <= len({outcome["pid"] for outcome in found}) <= 2
    assert os.getpid() not in {outcome["pid"] for outcome in found}


@pytest.mark.parametrize(
    ("word", "reason", "detail"),
    [
        ("segfault", "crashed", r"signal 11 \(SIGSEGV\)"),
        ("exit", "crashed", "exit status 7"),
        ("suicide", "crashed", r"signal 9 \(SIGKILL\) \(the system may be out of memory\)"),
        ("raise", "corrupt", "as told"),
        ("stumble", "error", "KeyError: 'oh'"),
        ("gulp", "too_large", "more memory"),
        ("close", "crashed", "closed its connection"),
        ("babble", "crashed", "no valid answer"),
    ],
)
def test_a_bad_file_costs_only_itself(word, reason, detail):
    first, bad, second, third = outcomes(["fine", word, "fine", "fine"], workers=1)
    assert isinstance(bad, FrameFailure)
    assert (bad.item_id, bad.stage, bad.reason) == ("item 1", "decode", reason)
    assert re.search(detail, bad.detail)
    assert [outcome["word"] for outcome in (first, second, third)] == ["fine"] * 3
    assert second["pid"] == third["pid"]
    assert (first["pid"] == second["pid"]) == (reason != "crashed")


def test_a_file_whose_process_ends_gets_another_process(tmp_path):
    first, second = outcomes(["fine", f"once:{tmp_path / 'tried'}"], workers=1)
    assert (first["word"], second["word"]) == ("fine", "once")
    assert first["pid"] != second["pid"]


def test_a_process_that_is_killed_costs_no_file(tmp_path):
    with DecodePool(1, deadline_seconds=600) as pool:
        results = pool.run(TASK, [("a", f"wait:{tmp_path / 'pid'}"), ("b", "fine")], {})
        found = []
        taker = threading.Thread(target=lambda: found.extend(results))
        taker.start()
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, signal.SIGKILL)
        taker.join(60)
    assert [(item_id, outcome["word"]) for item_id, outcome in found] == [("a", "wait"), ("b", "fine")]
    assert pid not in {outcome["pid"] for _, outcome in found}
    assert not alive(pid)


@pytest.mark.parametrize("word", ["hang", "spin"])
def test_a_file_that_takes_too_long(word):
    first, bad, second = outcomes(["fine", word, "fine"], workers=1, deadline_seconds=2.0)
    assert (bad.reason, bad.detail) == ("timeout", "decoding took longer than 2 s")
    assert first["pid"] != second["pid"]
    assert not alive(first["pid"])


def test_a_file_that_eats_memory():
    bad, fine = outcomes(["eat", "fine"], workers=1, memory_limit_bytes=200 << 20)
    assert bad.reason == "too_large"
    assert fine["word"] == "fine"


def test_everything_at_once():
    words = ["fine", "segfault", "hang", "eat", "exit", "raise"] * 3 + ["fine"] * 6
    found = outcomes(words, deadline_seconds=5.0, memory_limit_bytes=100 << 20)
    expected = {"segfault": "crashed", "hang": "timeout", "eat": "too_large", "exit": "crashed", "raise": "corrupt"}
    for word, outcome in zip(words, found, strict=True):
        assert outcome["word"] == "fine" if word == "fine" else outcome.reason == expected[word]


def test_results_that_nobody_takes_hold_the_work_back():
    read = []

    def items():
        for position in range(40):
            read.append(position)
            yield str(position), "big:5"  # 5 MB each

    with DecodePool(2, buffer_bytes=20_000_000) as pool:
        results = pool.run(TASK, items(), {})
        item_id, outcome = next(results)
        assert outcome["data"].shape == (5, 1000, 1000)
        wait_until(lambda: len(read) >= 6)
        time.sleep(0.5)
        # one taken, four that wait, and for each worker one that is done and one that it has just asked for
        assert len(read) <= 1 + 4 + 2 * 2
        rest = list(results)
    assert sorted([item_id, *(name for name, _ in rest)], key=int) == [str(position) for position in range(40)]
    assert all((values["data"] == 7).all() for _, values in rest)


def test_leaving_the_pool_ends_its_processes(tmp_path):
    with DecodePool(2, deadline_seconds=600) as pool:
        results = pool.run(TASK, [("a", "fine"), *((str(n), f"hang:{tmp_path / str(n)}") for n in range(5))], {})
        assert next(results)[0] == "a"
        wait_until(lambda: all((tmp_path / str(n)).exists() and (tmp_path / str(n)).read_text() for n in range(2)))
    pids = [int((tmp_path / str(n)).read_text()) for n in range(2)]
    assert not any(alive(pid) for pid in pids)
    assert list(results) == []


def test_a_run_that_is_given_up_ends_its_processes(tmp_path):
    with DecodePool(1, deadline_seconds=600) as pool:
        results = pool.run(TASK, [("a", "fine"), ("b", f"hang:{tmp_path / 'pid'}")], {})
        pid = next(results)[1]["pid"]
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() == str(pid))
        results.close()
        assert not alive(pid)
        assert next(pool.run(TASK, [("a", "fine")], {}))[1]["pid"] != pid


def test_processes_stay_for_the_next_run_of_the_same_task():
    def pids(pool, **options):
        return {values["pid"] for _, values in pool.run(TASK, [(str(n), "fine") for n in range(8)], options)}

    with DecodePool(1) as pool:
        first, second, other = pids(pool), pids(pool), pids(pool, scale=2)
        assert first == second != other
        assert not any(alive(pid) for pid in first)
        assert all(alive(pid) for pid in other)
    assert not any(alive(pid) for pid in other)
    loose = DecodePool(1)
    assert not any(alive(pid) for pid in pids(loose))


def test_an_error_of_the_items_is_raised():
    def items():
        yield "a", "fine"
        raise RuntimeError("the list broke")

    with DecodePool(1) as pool, pytest.raises(RuntimeError, match="the list broke"):
        list(pool.run(TASK, items(), {}))


@pytest.mark.parametrize(
    ("task", "words"),
    [("pool_test_tasks:absent", "AttributeError.*absent"), ("no_such_module:task", "ModuleNotFoundError")],
)
def test_a_task_that_does_not_exist(task, words):
    with DecodePool(2) as pool, pytest.raises(PoolError, match=f"cannot begin its task: {words}"):
        list(pool.run(task, [("a", "fine")], {}))


def test_a_process_that_cannot_start(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodePool(1) as pool, pytest.raises(PoolError, match=r"ended 3 times before it took a file.*exit status 1"):
        list(pool.run(TASK, [("a", "fine")], {}))


def test_each_process_uses_one_thread_and_no_gpu():
    with DecodePool(1) as pool:
        ((_, values),) = pool.run("pool_test_tasks:threads", [("a", "x")], {})
    assert values == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


SCRIPT = """
import sys
import polars  # whose handler of SIGINT restarts system calls
sys.path.insert(0, {tasks!r})
from extractors.pool import DecodePool
with DecodePool(2, deadline_seconds=600) as pool:
    for item in pool.run("pool_test_tasks:misbehave", [(str(n), "hang:{pids}/" + str(n)) for n in range(4)], {{}}):
        pass
"""


@pytest.mark.parametrize(
    ("send", "to_group", "code"),
    [
        (signal.SIGINT, False, -signal.SIGINT),
        (signal.SIGINT, True, -signal.SIGINT),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
    ids=["interrupt", "interrupt-terminal", "kill"],
)
def test_no_process_is_left_behind(tmp_path, tasks, send, to_group, code):
    pids = tmp_path / "pids"
    pids.mkdir()
    script = SCRIPT.format(tasks=str(tasks), pids=pids)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE, start_new_session=True
    ) as parent:
        wait_until(lambda: sum(bool(path.read_text()) for path in pids.iterdir()) == 2)
        children = [int(path.read_text()) for path in pids.iterdir()]
        assert all(alive(pid) for pid in children)
        (os.killpg if to_group else os.kill)(parent.pid, send)
        parent.communicate(timeout=30)
        assert parent.returncode == code
        wait_until(lambda: not any(alive(pid) for pid in children), seconds=60)


def clip(path, frames=60, size=(48, 32)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for position in range(frames):
            pixels = np.full((size[1], size[0], 3), 4 * position, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_videos(tmp_path):
    good, other = clip(tmp_path / "good.mp4"), clip(tmp_path / "other.mkv", frames=3, size=(64, 80))
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    items = [("good", good), ("bad", str(tmp_path / "bad.mp4")), ("other", other), ("gone", tmp_path / "gone.mp4")]
    with DecodePool(1) as pool:
        plain = dict(pool.map(items))
        squashed = dict(pool.map(items[:1], n=3, decoder="sequential", transform=FrameTransform.of("squash", 16)))
    for name, path in (("good", good), ("other", other)):
        here = sample_frames(path)
        np.testing.assert_array_equal(plain[name].data, here.data)
        np.testing.assert_array_equal(plain[name].pts_seconds, here.pts_seconds)
        assert repr(plain[name]) == repr(here)
    assert (plain["bad"].reason, plain["gone"].reason) == ("unreadable", "missing_file")
    assert isinstance(squashed["good"], FrameBatch)
    here = sample_frames(good, n=3, decoder="sequential")
    np.testing.assert_array_equal(squashed["good"].data, FrameTransform.of("squash", 16)(here.data))


def test_pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    items = [("a", tmp_path / "a.png"), ("gone", tmp_path / "b.png")]
    with DecodePool(1) as pool:
        plain = dict(pool.map_images(items))
        mirrored = dict(pool.map_images(items[:1], transform=partial(np.flip, axis=2)))
    np.testing.assert_array_equal(plain["a"], pixels)
    assert plain["gone"].reason == "missing_file"
    np.testing.assert_array_equal(mirrored["a"], pixels[:, ::-1])


def test_wrong_calls():
    with DecodePool(1) as pool:
        with pytest.raises(SamplingError, match="n: expected"):
            pool.map([], n=0)
        with pytest.raises(UnknownDecoderError, match="decoder: expected"):
            pool.map([], decoder="best")
        assert list(pool.map([])) == []
    with pytest.raises(ValueError, match="at least one worker"):
        DecodePool(0)
    with pytest.raises(ValueError, match="limits above 0"):
        DecodePool(1, deadline_seconds=0)
