"""Identifiers."""

import pickle
from uuid import UUID

from common.ids import new_id, row_id


def test_ids_lie_in_the_order_in_which_they_were_made() -> None:
    made = [new_id() for _ in range(1000)]
    assert made == sorted(made)
    assert {one.version for one in made} == {7}


def test_an_id_as_the_driver_has_it_is_the_same_id() -> None:
    one = new_id()
    other = row_id(one.bytes)
    assert isinstance(other, UUID)
    assert (other == one, one == other, hash(other) == hash(one)) == (True, True, True)
    assert {one: 1}[other] == 1
    assert str(other) == str(one)
    assert sorted([other, one]) == [one, other]
    assert pickle.loads(pickle.dumps(other)) == one
