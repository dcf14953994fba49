import json
import re
from pathlib import Path

import pytest

import copass.demo_data
from copass.demo_data import build_network, demo_id, demo_network, demo_uid

NETWORK = demo_network()
REAL = [place for place in NETWORK.places if not place.key.startswith(("demo-", "house-"))]


def test_the_network_is_as_large_as_promised() -> None:
    assert len(NETWORK.cities) >= 12
    assert {"bourges", "nantes"} <= {city.city_id for city in NETWORK.cities}
    assert len(REAL) >= 60
    assert len(NETWORK.members) >= 300


def test_two_builds_are_equal() -> None:
    raw = json.loads(
        Path(copass.demo_data.__file__).with_name("data").joinpath("demo_places.json").read_bytes()
    )
    assert build_network(raw, fingerprint=NETWORK.fingerprint) == NETWORK


def test_ids_are_distinct() -> None:
    ids = [place.place_id for place in NETWORK.places]
    ids += [one for _place, door in NETWORK.doors() for one in (door.door_id, door.reader_id)]
    ids += [member.member_id for member in NETWORK.members]
    ids += [card.card_id for card in NETWORK.cards]
    assert len(set(ids)) == len(ids)


def test_uids_are_distinct_and_meet_no_real_card() -> None:
    every = [one for card in NETWORK.cards for one in (card, card.replaced_by) if one]
    uids = [card.uid for card in every]
    assert len(set(uids)) == len(uids)
    assert all(re.fullmatch("00[0-9A-F]{12}", uid) for uid in uids)


def test_cards_are_in_all_states() -> None:
    assert {card.state for card in NETWORK.cards} == {"active", "blocked", "replaced"}
    assert all(
        (card.state == "replaced") == (card.replaced_by is not None) for card in NETWORK.cards
    )


def test_every_place_has_coordinates_and_hours_and_a_city() -> None:
    cities = {city.city_id for city in NETWORK.cities}
    for place in NETWORK.places:
        assert place.city_id in cities
        assert -90 <= place.fields["latitude"] <= 90
        assert -180 <= place.fields["longitude"] <= 180
        assert place.fields["opening_hours"]
        assert 1 <= len(place.doors) <= 2


def test_published_hours_are_told_from_invented_ones() -> None:
    for place in REAL:
        invented = "Horaires inventés" in place.fields["attribution"]
        assert invented == place.key.startswith("cget-")
        assert place.fields["licence"]


def test_the_corner_cases_are_there() -> None:
    assert NETWORK.place("demo-night").always_open
    assert NETWORK.place("demo-closed").fields["opening_hours"] == "off"
    assert NETWORK.place("demo-small").fields["capacity"] == 2
    assert NETWORK.place("demo-airlock").fields["anti_passback"] == "hard"
    assert {door.kind for door in NETWORK.place("house-bourges").doors} == {"public", "private"}


@pytest.mark.parametrize("city", NETWORK.cities, ids=lambda city: city.city_id)
def test_every_city_has_a_steward_who_logs_in_and_residents(city: copass.demo_data.City) -> None:
    people = [member for member in NETWORK.members if member.city_id == city.city_id]
    assert any("steward" in one.roles and one.email for one in people)
    house = str(demo_id("place", f"house-{city.city_id}"))
    assert any(one.places.get(house) == "resident" for one in people)
    assert any("staff" in one.places.values() for one in people)


def test_ids_and_uids_come_from_the_name_alone() -> None:
    assert demo_id("door", "x") == demo_id("door", "x") != demo_id("reader", "x")
    assert demo_uid("x") == demo_uid("x") != demo_uid("y")
