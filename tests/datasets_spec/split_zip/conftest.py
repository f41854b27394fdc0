"""A server for split archives, and windows onto it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from split_zips import ONCE, QUICK, Site

from datasets_spec.remote_ranges import Windows


@pytest.fixture
def site():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, headers, body = made.answer(self.path.lstrip("/"), self.headers)
            cut = made.cuts.pop(0) if made.cuts and len(body) > 10_000 else len(body)
            made.requests.append((self.path.lstrip("/"), self.headers.get("Range"), len(body[:cut])))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            self.wfile.write(body[:cut])
            self.close_connection = cut < len(body)

        def log_message(self, *_):
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *_: None  # a client leaves in the middle of an answer that is of no use to it
    made = Site(f"http://127.0.0.1:{http.server_address[1]}", {})
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def windows():
    made = Windows(transfer=QUICK)
    yield made
    made.close()


@pytest.fixture
def impatient():
    made = Windows(transfer=ONCE)
    yield made
    made.close()
