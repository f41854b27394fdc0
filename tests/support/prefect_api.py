"""Plain HTTP to a Prefect server, for tests that look at what it did by itself."""

import time

import httpx


class Patient(httpx.HTTPTransport):
    """Asks again as Prefect's own client does: while SQLite is locked, which is a 503, and where no answer came.

    Only a question is repeated after anything else than a 503: what changes something may have been done all the same.
    Every request has a connection of its own, since the server drops those that idle for 5 s.

    Args:
        busy: Statuses after which a question is asked again.
    """

    def __init__(self, *busy: int):
        super().__init__(limits=httpx.Limits(max_keepalive_connections=0))
        self.busy = busy

    def handle_request(self, request):
        deadline = time.monotonic() + 120
        while True:
            late = time.monotonic() > deadline
            try:
                response = super().handle_request(request)
            except httpx.TransportError:
                if late or not is_question(request):
                    raise
            else:
                locked = response.status_code == httpx.codes.SERVICE_UNAVAILABLE
                if late or not (locked or (response.status_code in self.busy and is_question(request))):
                    return response
                response.close()
            time.sleep(1)


def is_question(request):
    return request.method == "GET" or request.url.path.endswith("/filter")


def client(url):
    return httpx.Client(base_url=url, timeout=120, transport=Patient())


def ask(url, path, **body):
    """The answer to one POST to the API at ``url``."""
    with client(url) as api:
        return api.post(path, json=body).raise_for_status().json()


def automations(api):
    return api.post("/automations/filter", json={"limit": 200}).raise_for_status().json()


def train_nothing(api):
    """Have no commit start a training, which would keep the only worker from what a test waits for."""
    ours = [item["id"] for item in automations(api) if item["name"].startswith("reelstore: train ")]
    assert ours
    for automation in ours:
        api.patch(f"/automations/{automation}", json={"enabled": False}).raise_for_status()


def notice_dead_runs(api, *, after_seconds):
    """Have the server look for dead runs earlier than the 90 s of an installation; the mechanism stays as it is."""
    ours = next(item for item in automations(api) if item["name"] == "reelstore: mark dead runs as crashed")
    assert ours["trigger"]["within"] == 90
    core = {key: ours[key] for key in ("name", "description", "enabled", "trigger", "actions", "tags")}
    core["trigger"]["within"] = after_seconds
    api.put(f"/automations/{ours['id']}", json=core).raise_for_status()
