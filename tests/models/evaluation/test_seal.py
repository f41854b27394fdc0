import json

import pytest

from models.errors import RecordError
from models.evaluation.seal import SEAL_FILE, open_test_split


def test_the_same_choice_may_be_ranked_again(tmp_path):
    for _ in range(2):
        open_test_split(tmp_path, selected_epoch=4, configuration="abc")
    assert json.loads((tmp_path / SEAL_FILE).read_text()) == {"selected_epoch": 4, "configuration": "abc"}


@pytest.mark.parametrize("other", [{"selected_epoch": 5}, {"configuration": "abd"}])
def test_another_choice_is_refused_and_the_first_stays(tmp_path, other):
    first = {"selected_epoch": 4, "configuration": "abc"}
    open_test_split(tmp_path, **first)
    with pytest.raises(RecordError, match="was opened for epoch 4 of abc, now asked for epoch"):
        open_test_split(tmp_path, **first | other)
    open_test_split(tmp_path, **first)


@pytest.mark.parametrize(("text", "message"), [("{", "unreadable"), ("[]", "expected an object, got list")])
def test_a_damaged_seal_is_named(tmp_path, text, message):
    (tmp_path / SEAL_FILE).write_text(text)
    with pytest.raises(RecordError, match=message):
        open_test_split(tmp_path, selected_epoch=1, configuration="abc")
