import io
import json

import polars as pl
import pytest
from PIL import Image

from datasets_spec.download import Retry, Transfer
from datasets_spec.images import fetch_images, image_fault

QUICK = Transfer(retry=Retry(attempts=2, first_delay=0.001))


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_whole_pictures_have_no_fault(tmp_path, kind):
    (tmp_path / "x").write_bytes(picture(kind))
    assert image_fault(tmp_path / "x") is None
