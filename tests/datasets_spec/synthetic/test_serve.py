"""The local server, asked by an HTTP client."""

import httpx
import pytest

from datasets_spec.synthetic.serve import serve

BODY = bytes(range(100))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    root = folder / "root"
    (root / "sub dir").mkdir(parents=True)
    (root / "sub dir" / "a.mp4").write_bytes(BODY)
    (root / "empty.csv").write_bytes(b"")
    (folder / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(folder / "secret.txt")
    with serve(root) as address:
        yield address


@pytest.fixture(scope="module")
def client(base):
    with httpx.Client(base_url=base) as made:
        yield made


def test_a_whole_file_comes_with_what_a_client_needs_to_resume(client):
    answer = client.get("/sub%20dir/a.mp4")
    assert (answer.status_code, answer.content) == (200, BODY)
    assert answer.headers["content-length"] == "100"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["last-modified"].endswith("GMT")


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("0-9", 0, 9), ("10-", 10, 99), ("-7", 93, 99), ("90-500", 90, 99), ("99-99", 99, 99), ("-500", 0, 99)],
)
def test_a_range_is_answered_with_that_part(client, wanted, first, last):
    answer = client.get("/sub dir/a.mp4", headers={"Range": f"bytes={wanted}"})
    assert answer.status_code == 206
    assert answer.content == BODY[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/100"


@pytest.mark.parametrize("wanted", ["100-", "200-300", "-0"])
def test_a_range_beyond_the_end_cannot_be_satisfied(client, wanted):
    answer = client.get("/sub dir/a.mp4", headers={"Range": f"bytes={wanted}"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */100"


@pytest.mark.parametrize("wanted", ["bytes=9-3", "lines=0-9", "bytes=-", "bytes=0-1,5-6"])
def test_a_range_that_means_nothing_is_ignored(client, wanted):
    answer = client.get("/sub dir/a.mp4", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, BODY)


def test_if_range_gives_the_part_only_of_the_same_file(client):
    etag = client.head("/sub dir/a.mp4").headers["etag"]
    same = client.get("/sub dir/a.mp4", headers={"Range": "bytes=50-", "If-Range": etag})
    other = client.get("/sub dir/a.mp4", headers={"Range": "bytes=50-", "If-Range": '"another"'})
    assert (same.status_code, same.content) == (206, BODY[50:])
    assert (other.status_code, other.content) == (200, BODY)


def test_an_unchanged_file_is_not_sent_again(client):
    etag = client.head("/sub dir/a.mp4").headers["etag"]
    answer = client.get("/sub dir/a.mp4", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_head_has_no_body(client):
    answer = client.head("/sub dir/a.mp4")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "100")


def test_an_empty_file_is_a_file(client):
    answer = client.get("/empty.csv")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/nothing", "/", "/sub dir", "/%2e%2e/secret.txt", "/link.txt", "/a%00b"])
def test_what_is_no_file_of_the_folder_is_not_found(client, path):
    assert client.get(path).status_code == 404


def test_a_folder_that_is_not_there_cannot_be_served(tmp_path):
    with pytest.raises(NotADirectoryError, match="there is no such folder"), serve(tmp_path / "none"):
        pass
