"""A tap at a door that is not the reader's is refused, and the field is named."""

import pytest

from access.tap import check_door
from common.problems import Problem
from copass_tap.decision import Reader


def test_an_unknown_door_is_named() -> None:
    reader = Reader("r", "nantes", "0" * 64, active=True)
    with pytest.raises(Problem) as caught:
        check_door(None, reader)
    assert caught.value.status == 404
    assert [error.field for error in caught.value.errors] == ["body.door_id"]
