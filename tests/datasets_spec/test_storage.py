"""A disk that fills up: one clear error, nothing half-written in use, and the next call goes on.

The limit is real: the child process may write files up to a size only, which the kernel
enforces as it does a full disk.
"""

import gzip
import json
import resource
import subprocess
import sys

import pytest

from datasets_spec.errors import DiskFullError
from datasets_spec.prepare import prepare
from datasets_spec.storage import is_full
from datasets_spec.synthetic.serve import serve

CHILD = """
import sys
from pathlib import Path
from datasets_spec.errors import DiskFullError
from datasets_spec.prepare import prepare
try:
    prepare("amazon-gift-cards", root=Path(sys.argv[1]), source=sys.argv[2])
except DiskFullError as error:
    print(error)
    sys.exit(7)
"""


@pytest.fixture
def reviews(tmp_path):
    """Thirty users who reviewed the same ten products, poorly compressible: some 80 kB packed."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    with gzip.open(folder / "Gift_Cards_5.json.gz", "wt") as stream:
        for user in range(30):
            for item in range(10):
                text = "".join(chr(33 + (user * 7919 + item * 104729 + place**2 * 31) % 90) for place in range(400))
                row = {"reviewerID": f"U{user}", "asin": f"I{item}", "unixReviewTime": 10**9 + item, "reviewText": text}
                stream.write(json.dumps({"overall": 5.0, "verified": True, **row}) + "\n")
    return folder


def limited(root, source, *, largest_file):
    """Prepare in a process that cannot write a file larger than some bytes."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    call = [sys.executable, "-c", CHILD, str(root), source]
    return subprocess.run(call, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("served", "largest_file"), [(True, 3000), (False, 2000)], ids=["download", "write"])
def test_full_disk_is_one_error_and_the_next_call_goes_on(tmp_path, reviews, served, largest_file):
    root = tmp_path / "data"
    with serve(reviews) as url:
        source = url if served else str(reviews)
        done = limited(root, source, largest_file=largest_file)
        assert done.returncode == 7, done.stderr
        assert "no room to write below" in done.stdout
        assert "run the same command again" in done.stdout
        assert not (root / "prepared" / "amazon-gift-cards").exists()
        assert not list((root / "raw").rglob("*.gz"))  # a cut download is a .part, never the file
        prepared = prepare("amazon-gift-cards", root=root, source=source)
    assert (prepared.n_users, prepared.n_items, prepared.interactions.height) == (30, 10, 300)


def test_other_errors_are_not_taken_for_a_full_disk():
    assert not is_full(PermissionError(13, "Permission denied"))
    assert not is_full(ValueError("(os error 28)"))
    assert is_full(OSError(28, "No space left on device"))
    assert isinstance(DiskFullError("x"), OSError)
