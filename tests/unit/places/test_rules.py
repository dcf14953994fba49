"""What a place may ask of those who enter, and what its doors are told of it."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import pytest

from access.documents import place_documents
from copass_tap.decision import Card, Facts, Member, Tap, decide
from copass_tap.documents import read_door
from places.domain.place import Details, Door, Place, compile_door, door_policy, schedule
from places.domain.rules import (
    Function,
    Rules,
    Zone,
    day_starts,
    passback_behind,
    wrong_rules,
    wrong_way,
)

PLACE, DOOR, READER = (UUID(int=number) for number in (1, 2, 3))
ZONES = (
    Zone("hall", "Hall"),
    Zone("bois", "Bois", "atelier", "timed", 10),
    Zone("metal", "Métal", "atelier"),
)
TIMELESS = Zone("a", "A", anti_passback="timed")
RULES = Rules(zones=ZONES, functions=(Function("atelier", "Atelier", 12, "staff_inside"),))


@pytest.mark.parametrize(
    ("rules", "passback", "used", "field"),
    [
        (RULES, "off", ("hall", "bois"), None),
        (RULES, "timed", (), "anti_passback_minutes"),
        (replace(RULES, anti_passback_minutes=5), "soft", (), "anti_passback_minutes"),
        (replace(RULES, anti_passback_minutes=5), "timed", (), None),
        (replace(RULES, functions=()), "off", (), "zones.1.function"),
        (replace(RULES, functions=RULES.functions * 2), "off", (), "functions"),
        (replace(RULES, zones=(*ZONES, ZONES[0])), "off", (), "zones"),
        (Rules(zones=(TIMELESS,)), "off", (), "zones.0.anti_passback_minutes"),
        (RULES, "off", ("cave",), "zones"),
    ],
)
def test_rules_fit_together(
    rules: Rules, passback: str, used: tuple[str, ...], field: str | None
) -> None:
    wrong = wrong_rules(rules, passback, used)
    assert (wrong.field if wrong else None) == field


@pytest.mark.parametrize(
    ("way", "field"),
    [
        ((None, None), None),
        ((None, "hall"), None),
        (("hall", "bois"), None),
        (("hall", None), "to_zone"),
        (("hall", "hall"), "to_zone"),
        (("cave", "hall"), "from_zone"),
        ((None, "cave"), "to_zone"),
    ],
)
def test_a_door_leads_in_and_never_out(
    way: tuple[str | None, str | None], field: str | None
) -> None:
    wrong = wrong_way(ZONES, *way)
    assert (wrong.field if wrong else None) == field


def test_the_zone_behind_a_door_says_before_the_place() -> None:
    assert passback_behind(RULES, "hard", "bois") == ("timed", 10)
    assert passback_behind(RULES, "hard", "metal") == ("hard", None)
    assert passback_behind(RULES, "hard", None) == ("hard", None)


def test_midnights_are_those_of_the_place_also_when_its_clock_is_changed() -> None:
    starts = day_starts(ZoneInfo("Europe/Paris"), datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert len(starts) == 15
    assert [after - before for before, after in pairwise(starts)][:3] == [
        24 * 3600,
        25 * 3600,
        24 * 3600,
    ]


# --- from what a place says to what is decided ----------------------------------------------------

MEMBER = Member("member", "active", None, "good")
CARD = Card("card", "member", "active", None)


def decided(place: Place, door: Door, at: datetime, member: Member = MEMBER) -> str:
    """As it is at the door: compiled, published, projected, read, decided."""
    now = datetime(2026, 12, 20, 3, tzinfo=UTC)
    place = replace(place, schedule=schedule(place.details, (), now))
    policy = door_policy(place, [compile_door(door, place.details, (), now)])
    *_, document = place_documents(orjson.dumps(policy))
    read = read_door("door", str(PLACE), 1, orjson.loads(bytes(document.value).split(b" ", 2)[2]))
    facts = Facts(read, CARD, member, locked_down=False, people_inside=0, is_inside=False)
    return decide(facts, Tap("tap", "door", "uid", "hash", "in", at, "live"), at).reason


def test_a_holiday_closes_to_visitors_and_not_to_those_who_live_there() -> None:
    details = Details(
        name="Le Dix",
        profile="coliving",
        postcode="44100",
        commune="Nantes",
        insee_code="44109",
        opening_hours="Mo-Su 09:00-18:00; PH off",
    )
    schedule_of_old = schedule(details, (), datetime(2026, 1, 1, tzinfo=UTC))
    place = Place(PLACE, 1, "nantes", "in_network", "", details, schedule_of_old)
    door = Door(DOOR, PLACE, "Rue", "public", 1, 3000, ("network",), None, (), (READER,))
    christmas = datetime(2026, 12, 25, 12, tzinfo=UTC)
    assert decided(place, door, christmas) == "outside_hours"
    assert decided(place, door, christmas.replace(day=24)) == "network_member"
    at_home = replace(MEMBER, relation="resident")
    assert decided(place, door, christmas, at_home) == "resident"
