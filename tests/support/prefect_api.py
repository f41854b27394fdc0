"""Plain HTTP to a Prefect server, for tests that look at what it did by itself."""

import time

import httpx


class Patient(httpx.HTTPTransport):
    """Asks again as Prefect's own client does: while SQLite is locked, which is a 503, and where no answer came.

    Only a question is repeated for want of an answer; what changes something may have been done all the same.
    """

    def handle_request(self, request):
        deadline = time.monotonic() + 120
        while True:
            late = time.monotonic() > deadline
            try:
                response = super().handle_request(request)
            except httpx.ReadTimeout:
                if late or not is_question(request):
                    raise
                continue
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or late:
                return response
            response.close()
            time.sleep(1)


def is_question(request):
    return request.method == "GET" or request.url.path.endswith("/filter")


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
