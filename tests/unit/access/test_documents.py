"""What a place's event becomes in Redis, and that a door that asks nothing costs nothing."""

from typing import Any

import orjson
import pytest

from access.documents import place_documents, split_door
from copass_tap.documents import read_door

DOOR = {
    "door_id": "door",
    "kind": "public",
    "unlock_ms": 3000,
    "publics": ["network"],
    "open": [[1, 2]],
    "readers": ["reader"],
}


def documents(door: dict[str, Any] | None = None, **place: Any) -> tuple[bytes, bytes]:
    """The documents of a place and its door, but for these."""
    event = {
        "place_id": "place",
        "version": 3,
        "city_id": "nantes",
        "status": "in_network",
        "capacity": 10,
        "anti_passback": "off",
        "expires_at": "2026-12-06T00:00:00Z",
        "doors": [DOOR | (door or {})],
        **place,
    }
    of_place, of_door = place_documents(orjson.dumps(event))
    assert isinstance(of_place.value, str)
    assert isinstance(of_door.value, bytes)
    return of_place.value.encode(), of_door.value


def test_a_plain_door_asks_for_nothing_and_says_nothing_new() -> None:
    of_place, of_door = documents()
    assert of_place == b'3 {"city_id":"nantes","capacity":10}'
    assert of_door.startswith(b'3 place {"city_id"')
    version, place_id, policy = split_door(of_door)
    assert (version, place_id) == (b"3", b"place")
    assert set(orjson.loads(policy)) == {
        "city_id",
        "status",
        "capacity",
        "anti_passback",
        "expires_at",
        "kind",
        "min_assurance",
        "unlock_ms",
        "publics",
        "open",
        "readers",
    }
    # As one of an event from before there was more to say.
    new_words = {"from_zone": None, "to_zone": None, "interlock": None, "passback_minutes": None}
    assert documents(
        {**new_words, "anti_passback": "off"},
        opens_with="anybody",
        guests="hours",
        zones=[],
        functions=[],
        day_starts=[],
    ) == (of_place, of_door)


@pytest.mark.parametrize(
    ("door", "place", "asked"),
    [
        ({"anti_passback": "soft"}, {}, {"passback"}),
        ({}, {"anti_passback": "hard"}, {"passback"}),
        ({"interlock": "sas"}, {}, {"interlock"}),
        ({}, {"opens_with": "staff_today"}, {"charge"}),
        ({}, {"zones": [{"zone": "hall"}]}, {"zones"}),
        ({}, {"guests": "host"}, set()),
    ],
)
def test_a_door_asks_for_what_its_place_wants_to_know(
    door: dict[str, Any], place: dict[str, Any], asked: set[str]
) -> None:
    _, of_door = documents(door, **place)
    asks = of_door.split(b" ", 3)[2]
    assert asks.startswith(b"+") == bool(asked)
    if asked:
        assert set(orjson.loads(asks[1:])) == asked
    read = read_door("door", "place", 3, orjson.loads(split_door(of_door)[2]))
    assert read.guests == place.get("guests", "hours")
    assert read.interlock == door.get("interlock")


def test_a_door_to_a_zone_has_the_numbers_of_its_function() -> None:
    zones = [{"zone": "bois", "function": "atelier"}, {"zone": "metal", "function": "atelier"}]
    functions = [{"function": "atelier", "capacity": 0, "opens_with": "staff_inside"}]
    _, of_door = documents({"to_zone": "bois"}, zones=zones, functions=functions)
    door = read_door("door", "place", 3, orjson.loads(split_door(of_door)[2]))
    assert (door.function, door.function_capacity) == ("atelier", 0)
    assert door.function_zones == ("bois", "metal")
    assert (door.opens_with, door.is_charge_local) == ("staff_inside", True)
    _, of_other = documents({"to_zone": "hall"}, zones=zones, functions=functions)
    other = read_door("door", "place", 3, orjson.loads(split_door(of_other)[2]))
    assert (other.function, other.function_capacity, other.opens_with) == (None, None, "anybody")
