import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pytest
from PIL import Image

from datasets_spec import images
from datasets_spec.download import Retry, Transfer
from datasets_spec.images import fetch_images, image_fault

QUICK = Transfer(retry=Retry(attempts=2, first_delay=0.001, max_delay=0.05))


def picture(kind="JPEG", size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, kind)
    return buffer.getvalue()


def table(**urls):
    return pl.DataFrame(
        {"item_id": list(urls), "image_url": list(urls.values())}, schema_overrides={"image_url": pl.String}
    )


def test_images_are_fetched_decoded_and_failures_are_rows(server, tmp_path):
    server.put("good.jpg", picture())
    server.put("good", picture("PNG"))
    server.put("cut.jpg", picture(size=(400, 400))[:-200])
    server.put("page.jpg", b"<html>404</html>")
    server.put("dot.gif", picture("GIF", (1, 1)))
    items = table(
        a=f"{server.url}/good.jpg",
        b=f"{server.url}/good",
        c=f"{server.url}/cut.jpg",
        d=f"{server.url}/page.jpg",
        e=f"{server.url}/dot.gif",
        f=f"{server.url}/gone.jpg",
        g=None,
    )
    filled, bad = fetch_images(items, tmp_path, transfer=QUICK)
    paths = dict(filled.select("item_id", "image").iter_rows())
    assert paths["a"] == str(tmp_path / "images" / "a.jpg")
    assert [item for item, path in paths.items() if path] == ["a", "b"]
    assert [(row.item_id, row.reason) for row in bad] == [
        ("c", "damaged"),
        ("d", "damaged"),
        ("e", "damaged"),
        ("f", "not_found"),
    ]
    assert "placeholder of 1x1" in bad[2].detail
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["a.jpg", "b.jpg"]


def test_images_that_are_there_are_not_requested(server, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "images").mkdir(parents=True)
    (elsewhere / "images" / "a.png").write_bytes(picture("PNG"))
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "source.json").write_text(json.dumps({"path": str(elsewhere)}))
    filled, bad = fetch_images(table(a=f"{server.url}/a.png"), tmp_path / "raw")
    assert filled["image"].to_list() == [str(elsewhere / "images" / "a.png")]
    assert (bad, server.requests) == ([], [])


def test_an_item_id_that_is_no_file_name_is_quarantined(server, tmp_path):
    filled, bad = fetch_images(table(**{"../x": f"{server.url}/a.png"}), tmp_path)
    assert filled["image"].to_list() == [None]
    assert [(row.item_id, row.reason) for row in bad] == [("../x", "unsafe_name")]


@pytest.mark.parametrize(
    "url", ["", "//host/a.jpg", "ftp://host/a.jpg", "http://[bad/a.jpg", "http:///a.jpg", "http://h:x/"]
)
def test_an_address_that_is_none_is_quarantined(tmp_path, url):
    filled, bad = fetch_images(table(a=url), tmp_path)
    assert filled["image"].to_list() == [None]
    assert [(row.item_id, row.reason) for row in bad] == [("a", "bad_url")]


def test_a_busy_server_is_asked_again_and_a_redirect_is_followed(server, tmp_path):
    server.put("busy.jpg", picture(), statuses=[429, 503], headers={"Retry-After": "1"})
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.put("moved.jpg", b"", statuses=[302], headers={"Location": f"{elsewhere}/there.jpg"})
    server.put("there.jpg", picture())
    server.put("refused.jpg", picture(), statuses=[403])
    items = table(
        a=f"{server.url}/busy.jpg",
        b=f"{server.url}/moved.jpg",
        c=f"{server.url}/refused.jpg",
        d=f"{server.url}/cut.jpg",
    )
    server.put("cut.jpg", picture(), cuts=[20])  # the connection breaks once
    transfer = Transfer(retry=Retry(attempts=3, first_delay=0.001, max_delay=0.05))
    filled, bad = fetch_images(items, tmp_path, transfer=transfer)
    assert [path is not None for path in filled["image"]] == [True, True, False, True]
    assert [(row.item_id, row.reason) for row in bad] == [("c", "http")]
    assert [request.path for request in server.requests].count("/busy.jpg") == 3
    assert [request.path for request in server.requests].count("/refused.jpg") == 1


def test_a_silent_host_is_given_up_and_the_others_are_not(server, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_TIMEOUT", 2.0)
    server.put("good.jpg", picture())
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        urls = {f"s{i:02}": f"{address}/{i}.jpg" for i in range(40)}
        urls = dict(list(urls.items())[:15]) | {"good": f"{server.url}/good.jpg"} | dict(list(urls.items())[15:])
        transfer = Transfer(max_connections=16, per_host=16, retry=Retry(attempts=1))
        seen = []
        filled, bad = fetch_images(
            table(**urls), tmp_path, transfer=transfer, progress=lambda *state: seen.append(state)
        )
    assert filled.filter(pl.col("image").is_not_null())["item_id"].to_list() == ["good"]
    assert {row.reason for row in bad} == {"network"}
    assert sorted(row.item_id for row in bad) == [f"s{i:02}" for i in range(40)]
    # The first batch has 16 images, 15 of them from the silent host; the 25 others are not asked for.
    assert [row.item_id for row in bad if "not asked" in row.detail] == [f"s{i:02}" for i in range(15, 40)]
    assert "answered none of 15 requests" in bad[-1].detail
    assert [state[1:] for state in seen] == [(i, 41) for i in range(1, 17)]


@pytest.fixture
def counting() -> Iterator[tuple[str, list[int]]]:
    """A server that notes how many requests it has at the same time; each waits a while for two others."""
    busy, most = [0], [0]
    lock, three = threading.Lock(), threading.Barrier(3)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                busy[0] += 1
                most[0] = max(most[0], busy[0])
            try:
                three.wait(0.05)
            except threading.BrokenBarrierError:
                three.reset()
            body = picture()
            with lock:
                busy[0] -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", most
    http.shutdown()
    http.server_close()
    thread.join()


def test_no_host_gets_more_requests_at_once_than_allowed(counting, tmp_path):
    url, most = counting
    items = table(**{f"i{i}": f"{url}/{i}.jpg" for i in range(12)})
    filled, bad = fetch_images(items, tmp_path, transfer=Transfer(max_connections=8, per_host=2))
    assert filled["image"].null_count() == 0
    assert bad == []
    assert most[0] <= 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>not found</body></html>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",  # would be handed to another program
        b"BM" + bytes(20),
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        b"GIF89a" + bytes(3),
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
    ],
)
def test_other_files_are_no_images(tmp_path, body):
    (tmp_path / "x.jpg").write_bytes(body)
    fault = image_fault(tmp_path / "x.jpg")
    assert fault is not None
    assert "not an image" in fault


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_whole_pictures_have_no_fault(tmp_path, kind):
    (tmp_path / "x").write_bytes(picture(kind))
    assert image_fault(tmp_path / "x") is None
