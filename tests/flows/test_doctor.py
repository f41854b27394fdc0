"""``reelstore doctor``: each finding against a real server, or a real lack of one."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from services import wait_until

from flows.doctor import examine
from flows.server_checks import check_server
from flows.settings import Settings

pytestmark = pytest.mark.timeout(600)


@contextmanager
def server_with_password(version='"3.8.8"'):
    """What a Prefect server behind a password answers: its health to anybody, the rest to who knows it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers.get("Authorization") == "Basic YWRtaW46b3Blbg=="  # admin:open
            open_to_all = self.path == "/api/health"
            self.send_response(200 if known or open_to_all else 401)
            self.end_headers()
            self.wfile.write(b"true" if open_to_all else version.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def first(settings):
    return next(check_server(settings))


def test_without_a_server_address_nothing_is_wrong(tmp_path):
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        (line,) = check_server(Settings(root=tmp_path))
    assert line[:2] == ("NOTE", "server")
    assert "PREFECT_API_URL" in line[3]


def test_a_server_that_does_not_answer(tmp_path):
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        (line,) = check_server(Settings(root=tmp_path))
    assert line[:2] == ("FAIL", "server")
    assert "does not answer" in line[2]


@pytest.mark.parametrize(("auth", "told"), [(None, "asks for a password"), ("admin:wrong", "is not the server's")])
def test_a_server_behind_a_password_names_the_variable(tmp_path, auth, told):
    with server_with_password() as url, temporary_settings({PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: auth}):
        (line,) = check_server(Settings(root=tmp_path))
    assert line[:2] == ("FAIL", "server")
    assert told in line[2]
    assert "PREFECT_API_AUTH_STRING=user:password" in line[3]


def test_a_server_of_another_version_is_told(tmp_path):
    settings = {PREFECT_API_AUTH_STRING: "admin:open"}
    with server_with_password('"2.20.1"') as url, temporary_settings({PREFECT_API_URL: url, **settings}):
        state, what, detail, advice = first(Settings(root=tmp_path))
    assert (state, what) == ("NOTE", "server")
    assert "version 2.20.1, the client has 3." in detail
    assert advice


def test_with_everything_deployed_only_the_worker_is_missing(registered):
    def answered():
        found = list(check_server(registered.settings))
        return found if found[0][0] != "FAIL" else None

    found = wait_until(answered, "a server with much to do answers within the doctor's 5 s")
    lines = {what: (state, detail, advice) for state, what, detail, advice in found}
    assert {what: line[0] for what, line in lines.items()} == {"server": "OK", "worker": "NOTE", "deployments": "OK"}
    assert "prefect worker start --pool reelstore" in lines["worker"][2]


def test_a_root_that_cannot_be_written_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        good = {finding.what: finding for finding in examine(Settings(root=tmp_path / "new" / "data"))}
        lost = {finding.what: finding for finding in examine(Settings(root=in_the_way / "data"))}
    assert (good["root"].state, good["root"].detail.endswith(f"it will be made in {tmp_path}")) == ("OK", True)
    assert (good["hub"].state, "checkpoint=tiny" in good["hub"].advice) == ("NOTE", True)
    assert lost["root"].state == "FAIL"
    assert "--root" in lost["root"].advice
