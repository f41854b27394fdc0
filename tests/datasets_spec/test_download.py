import hashlib
import threading

import httpx
import numpy as np
import pytest

from datasets_spec.download import Retry, Transfer, addresses, default_client, fetch, fetch_many
from datasets_spec.errors import ChecksumError, DownloadError
from datasets_spec.spec import RemoteFile

BODY = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SHA = hashlib.sha256(BODY).hexdigest()
QUICK = Retry(attempts=3, first_delay=0.001)


@pytest.fixture
def client():
    with default_client() as made:
        yield made


def remote(server, **known):
    return RemoteFile("data.bin", f"{server.url}/data.bin", **known)


def test_a_file_arrives_whole_and_leaves_no_trace_of_the_download(server, client, tmp_path):
    server.put("data.bin", BODY)
    path = fetch(remote(server, sha256=SHA, bytes=len(BODY)), tmp_path / "deep" / "data.bin", client=client)
    assert path.read_bytes() == BODY
    assert [entry.name for entry in path.parent.iterdir()] == ["data.bin"]


def test_a_file_that_is_there_is_not_requested(server, client, tmp_path):
    (tmp_path / "data.bin").write_bytes(BODY)
    fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client)
    assert server.requests == []


def test_a_file_that_is_there_and_wrong_is_fetched_anew(server, client, tmp_path):
    server.put("data.bin", BODY)
    (tmp_path / "data.bin").write_bytes(OTHER)
    fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client)
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_dropped_connection_is_resumed_where_it_broke_off(server, client, tmp_path):
    server.put("data.bin", BODY, cuts=[100_000, 50_000])
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert [request.range for request in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.bytes_sent == len(BODY)  # not one byte twice


def test_an_interrupted_download_is_resumed_by_the_next_call(server, client, tmp_path):
    server.put("data.bin", BODY, cuts=[120_000])
    with pytest.raises(DownloadError, match="failed 1 times in a row"):
        fetch(remote(server), tmp_path / "data.bin", client=client, retry=Retry(attempts=1))
    assert not (tmp_path / "data.bin").exists()
    assert (tmp_path / "data.bin.part").stat().st_size == 120_000
    fetch(remote(server), tmp_path / "data.bin", client=client)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.bytes_sent == len(BODY)


@pytest.mark.parametrize("check_if_range", [True, False], ids=["honours If-Range", "ignores If-Range"])
def test_a_remote_file_that_changed_is_never_mixed(server, client, tmp_path, check_if_range):
    server.put("data.bin", BODY, cuts=[120_000])
    with pytest.raises(DownloadError, match=r"failed 1 times in a row; last: RemoteProtocolError"):
        fetch(remote(server), tmp_path / "data.bin", client=client, retry=Retry(attempts=1))
    server.put("data.bin", OTHER, check_if_range=check_if_range)
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == OTHER


def test_without_validator_the_download_starts_again(server, client, tmp_path):
    server.put("data.bin", BODY, etag=None, cuts=[100_000])
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert [request.range for request in server.requests] == [None, None]


def test_a_weak_etag_proves_nothing(server, client, tmp_path):
    server.put("data.bin", BODY, etag='W/"same"', cuts=[100_000])
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert [request.range for request in server.requests] == [None, None]


def test_a_known_digest_allows_resuming_without_validator(server, client, tmp_path):
    server.put("data.bin", BODY, etag=None, cuts=[100_000])
    fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client, retry=QUICK)
    assert server.requests[1].range == "bytes=100000-"
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_mixture_found_by_the_digest_is_fetched_again_whole(server, client, tmp_path):
    server.put("data.bin", OTHER, etag=None, cuts=[100_000])
    with pytest.raises(DownloadError, match="failed 1 times"):
        fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client, retry=Retry(attempts=1))
    server.put("data.bin", BODY, etag=None)
    fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client, retry=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_server_that_ignores_range_still_gives_the_file(server, client, tmp_path):
    server.put("data.bin", BODY, ranges=False, cuts=[100_000])
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert [request.status for request in server.requests] == [200, 200]


def test_a_complete_part_needs_no_byte_more(server, client, tmp_path):
    server.put("data.bin", BODY, cuts=[len(BODY) - 1])
    with pytest.raises(DownloadError, match="failed 1 times"):
        fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client, retry=Retry(attempts=1))
    with (tmp_path / "data.bin.part").open("ab") as part:
        part.write(BODY[-1:])
    fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client)
    assert (tmp_path / "data.bin").read_bytes() == BODY
    assert server.bytes_sent == len(BODY) - 1


def test_a_wrong_checksum_is_named_and_nothing_is_left(server, client, tmp_path):
    server.put("data.bin", OTHER)
    with pytest.raises(ChecksumError, match=rf"data.bin: expected SHA-256 {SHA}, got .* by hand"):
        fetch(remote(server, sha256=SHA), tmp_path / "data.bin", client=client)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_size_is_named(server, client, tmp_path):
    server.put("data.bin", BODY)
    with pytest.raises(ChecksumError, match="expected 7 bytes, got 300000"):
        fetch(remote(server, bytes=7), tmp_path / "data.bin", client=client)


def test_passing_errors_are_retried(server, client, tmp_path):
    server.put("data.bin", BODY, statuses=[503, 429], headers={"Retry-After": "0"})
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert [request.status for request in server.requests] == [503, 429, 200]


def test_lasting_errors_are_not_retried(server, client, tmp_path):
    with pytest.raises(DownloadError, match="answered HTTP 404 Not Found"):
        fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert len(server.requests) == 1


def test_attempts_are_counted_anew_after_progress(server, client, tmp_path):
    server.put("data.bin", BODY, cuts=[50_000] * 5)  # more breaks than attempts, each with progress
    fetch(remote(server), tmp_path / "data.bin", client=client, retry=QUICK)
    assert server.bytes_sent == len(BODY)


def test_a_host_that_is_not_there(client, tmp_path):
    file = RemoteFile("data.bin", "http://127.0.0.1:1/data.bin")
    with pytest.raises(DownloadError, match="failed 3 times in a row; last: ConnectError"):
        fetch(file, tmp_path / "data.bin", client=client, retry=QUICK)


def test_bytes_arrive_as_they_lie_on_the_server(tmp_path):
    def answer(request):
        assert request.headers["accept-encoding"] == "identity"
        body = httpx.ByteStream(b"\x1f\x8bnot unpacked")
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=body)

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        path = fetch(RemoteFile("a.gz", "http://host/a.gz"), tmp_path / "a.gz", client=client)
    assert path.read_bytes() == b"\x1f\x8bnot unpacked"


def test_progress_ends_at_the_total(server, client, tmp_path):
    server.put("data.bin", BODY)
    seen = []
    fetch(remote(server), tmp_path / "data.bin", client=client, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("download data.bin", len(BODY), len(BODY))


def test_many_files_and_the_failures_among_them(server, tmp_path):
    files = [RemoteFile(f"{i}.bin", f"{i}.bin") for i in range(12)]
    for i in range(0, 12, 2):
        server.put(f"{i}.bin", f"content {i}".encode())
    seen = []
    transfer = Transfer(max_connections=3, retry=QUICK)
    failures = fetch_many(
        files, tmp_path, bases=[server.url], transfer=transfer, progress=lambda *step: seen.append(step)
    )
    assert [failure.file.path for failure in failures] == [f"{i}.bin" for i in range(1, 12, 2)]
    assert {failure.reason for failure in failures} == {"not_found"}
    assert {path.name for path in tmp_path.iterdir()} == {f"{i}.bin" for i in range(0, 12, 2)}
    assert seen == [("download", i, 12) for i in range(1, 13)]


def test_a_mirror_serves_what_the_first_address_does_not(server, tmp_path):
    server.put("mirror/data.bin", BODY)
    bases = [f"{server.url}/gone", f"{server.url}/mirror/"]
    assert fetch_many([RemoteFile("data.bin", "data.bin")], tmp_path, bases=bases) == []
    assert (tmp_path / "data.bin").read_bytes() == BODY


def test_a_mirror_serves_when_the_first_holds_another_file(server, tmp_path):
    server.put("old/data.bin", OTHER)
    server.put("new/data.bin", BODY)
    bases = [f"{server.url}/old", f"{server.url}/new"]
    assert fetch_many([RemoteFile("data.bin", "data.bin", sha256=SHA)], tmp_path, bases=bases) == []
    failures = fetch_many([RemoteFile("b.bin", "data.bin", sha256=SHA)], tmp_path, bases=bases[:1])
    assert [failure.reason for failure in failures] == ["checksum"]


def test_a_file_that_the_check_refuses_is_removed(server, tmp_path):
    server.put("data.bin", BODY)
    failures = fetch_many([remote(server)], tmp_path, check=lambda path: f"{path.name} is no good")
    assert [(failure.reason, failure.detail) for failure in failures] == [
        ("damaged", f"{server.url}/data.bin: data.bin is no good")
    ]
    assert not (tmp_path / "data.bin").exists()


def test_never_more_connections_to_a_host_than_allowed(tmp_path):
    lock, state = threading.Lock(), {"now": 0, "most": 0}

    def answer(request):
        with lock:
            state["now"] += 1
            state["most"] = max(state["most"], state["now"])
        barrier.wait(timeout=120)  # holds the answer until two are in flight, so that a third would show
        with lock:
            state["now"] -= 1
        return httpx.Response(200, stream=httpx.ByteStream(b"x"))

    barrier = threading.Barrier(2)
    files = [RemoteFile(f"{i}.bin", f"http://host/{i}.bin") for i in range(8)]
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        assert fetch_many(files, tmp_path, client=client, transfer=Transfer(max_connections=8, per_host=2)) == []
    assert state["most"] == 2


def test_an_error_in_progress_stops_the_others(server, tmp_path):
    for i in range(6):
        server.put(f"{i}.bin", BODY)

    def interrupt(*_):
        raise KeyboardInterrupt

    files = [RemoteFile(f"{i}.bin", f"{i}.bin") for i in range(6)]
    with pytest.raises(KeyboardInterrupt):
        fetch_many(files, tmp_path, bases=[server.url], transfer=Transfer(max_connections=1), progress=interrupt)
    assert len(server.requests) < 6


def test_relative_addresses_lie_below_every_base():
    assert addresses(RemoteFile("a", "x/a"), ["http://one/", "http://two"]) == ["http://one/x/a", "http://two/x/a"]
    assert addresses(RemoteFile("a", "http://three/a"), ["http://one"]) == ["http://three/a"]
