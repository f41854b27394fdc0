import pytest

from models.modules.length import check_length


def test_as_long_as_built_for_is_allowed_and_one_more_is_not():
    check_length(5, 5)
    with pytest.raises(ValueError, match="at most 5 items, got 6; raise the model's max_length"):
        check_length(6, 5)
