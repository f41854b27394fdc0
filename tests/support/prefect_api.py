"""Plain HTTP to a Prefect server, for tests that look at what it did by itself."""

import time

import httpx


class Patient(httpx.HTTPTransport):
    """Asks again while SQLite is locked, as Prefect's own client does: the server says 503 then."""

    def handle_request(self, request):
        deadline = time.monotonic() + 60
        while True:
            response = super().handle_request(request)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return response
            response.close()
            time.sleep(1)


def client(url):
    return httpx.Client(base_url=url, timeout=60, transport=Patient())


def ask(url, path, **body):
    """The answer to one POST to the API at ``url``."""
    with client(url) as api:
        return api.post(path, json=body).raise_for_status().json()


def notice_dead_runs(api, *, after_seconds):
    """Have the server look for dead runs earlier than the 90 s of an installation; the mechanism stays as it is."""
    found = api.post("/automations/filter", json={"limit": 200}).raise_for_status().json()
    ours = next(item for item in found if item["name"] == "reelstore: mark dead runs as crashed")
    assert ours["trigger"]["within"] == 90
    core = {key: ours[key] for key in ("name", "description", "enabled", "trigger", "actions", "tags")}
    core["trigger"]["within"] = after_seconds
    api.put(f"/automations/{ours['id']}", json=core).raise_for_status()
