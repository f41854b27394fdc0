"""A server that speaks S3 over HTTP, in a thread of the process of a test."""

import threading
import urllib.request
from contextlib import contextmanager

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *arguments):
        pass


class S3Server:
    """``endpoint``, and ``refusing``: whether every request is answered with 403."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.refusing = False

    def make_bucket(self, name):
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()

    def variables(self):
        """What a client finds in its environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def s3_server():
    """Runs while the block does; one request at a time, for moto's own check of ``If-None-Match`` is not atomic."""
    application, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def answer(environ, start_response):
        if server.refusing:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        with lock:
            return application(environ, start_response)

    listener = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Quiet)
    listener.daemon_threads = True
    server = S3Server(f"http://127.0.0.1:{listener.port}")
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
