"""The rungs that ask who is where: anti-passback, who is in charge, guests, functions, airlocks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copass_tap.decision import Card, Decision, Door, Facts, Member, Scene, Tap, decide

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
MINUTE = 60
MIDNIGHT = AT - 10 * 60 * MINUTE

DOOR = Door(
    door_id="door",
    place_id="place",
    city_id="nantes",
    version=1,
    place_status="in_network",
    capacity=None,
    anti_passback="off",
    expires_at=AT + 1,
    kind="public",
    min_assurance=1,
    unlock_ms=3000,
    publics=frozenset({"network"}),
    open_from=(AT - 1,),
    open_until=(AT + 1,),
    readers=frozenset(),
)
CLOSED = {"open_from": (), "open_until": ()}
CARD = Card("card", "member", "active", None)
GUEST = replace(
    CARD,
    member_id="card",
    valid_from=AT,
    valid_until=AT + 1,
    places=frozenset({"place"}),
    host_member_id="host",
)
MEMBER = Member("member", "active", None, "good")
TAP = Tap("tap", "door", "uid", "hash", "in", NOW, "live")


def decided(
    door: dict[str, Any],
    scene: dict[str, Any] | None = None,
    *,
    card: Card = CARD,
    relation: Any = None,
    is_inside: bool = False,
    tap: Tap = TAP,
) -> Decision:
    facts = Facts(
        door=replace(DOOR, **door),
        card=card,
        member=None if card.valid_until else replace(MEMBER, relation=relation),
        locked_down=False,
        people_inside=0,
        is_inside=is_inside,
        scene=Scene(**(scene or {})),
    )
    return decide(facts, tap, NOW)


HARD = {"anti_passback": "hard"}
TIMED = {"anti_passback": "timed", "passback_minutes": 30}
INNER = {"from_zone": "hall", "to_zone": "bois", "has_zones": True}


@pytest.mark.parametrize(
    ("door", "is_inside", "scene", "is_refused"),
    [
        # From outside: whoever is inside is elsewhere.
        (HARD, False, {}, False),
        (HARD, True, {"entered_at": AT - 1}, True),
        ({"anti_passback": "off"}, True, {"entered_at": AT - 1}, False),
        ({"anti_passback": "a new word"}, True, {"entered_at": AT - 1}, True),
        # For so many minutes only, after an entry that is known.
        (TIMED, True, {"entered_at": AT - 30 * MINUTE + 1}, True),
        (TIMED, True, {"entered_at": AT - 30 * MINUTE}, False),
        (TIMED | INNER, False, {}, False),
        # From a zone: only from there, or from who knows where inside.
        (HARD | INNER, True, {"zone": "hall"}, False),
        (HARD | INNER, True, {"zone": None}, False),
        (HARD | INNER, True, {"zone": "bois"}, True),
        (HARD | INNER, False, {}, True),
        # What was pardoned is not held against anybody; what came later is.
        (HARD, True, {"entered_at": AT - 9, "pardoned_at": AT - 9}, False),
        (HARD, True, {"entered_at": AT - 8, "pardoned_at": AT - 9}, True),
        (HARD | INNER, False, {"pardoned_at": AT - 9}, False),
    ],
)
def test_anti_passback(
    door: dict[str, Any], is_inside: bool, scene: dict[str, Any], is_refused: bool
) -> None:
    decision = decided(door, scene, is_inside=is_inside)
    assert decision.reason == ("passback" if is_refused else "network_member")
    asks = door["anti_passback"] != "off"
    assert is_refused or ("unmoved" in decision.needs) == asks
    # Soft grants the same, and says so; those who live or work here are not asked.
    soft = decided(door | {"anti_passback": "soft"}, scene, is_inside=is_inside)
    assert soft.granted
    if door["anti_passback"] == "hard":
        assert soft.flags == (("passback",) if is_refused else ())
    for relation in ("resident", "staff", "warden"):
        at_home = decided(door, scene, is_inside=is_inside, relation=relation)
        assert at_home.reason == ("resident" if relation == "resident" else "staff")


@pytest.mark.parametrize(
    ("opens_with", "scene", "is_open"),
    [
        ("anybody", {}, True),
        ("staff_inside", {}, False),
        ("staff_inside", {"in_charge": True}, True),
        ("staff_inside", {"in_charge_at": AT}, False),
        ("staff_today", {}, False),
        ("staff_today", {"in_charge": True}, True),
        ("staff_today", {"in_charge_at": MIDNIGHT}, True),
        ("staff_today", {"in_charge_at": MIDNIGHT - 1}, False),
        ("a new word", {"in_charge_at": AT}, False),
    ],
)
def test_who_must_be_there_first(opens_with: str, scene: dict[str, Any], is_open: bool) -> None:
    door = {"opens_with": opens_with, "day_starts": (MIDNIGHT, MIDNIGHT + 86_400)}
    decision = decided(door, scene)
    assert decision.reason == ("network_member" if is_open else "no_one_in_charge")
    leans_on_who_is_there = opens_with != "anybody" and "in_charge" in scene
    assert ("in_charge" in decision.needs) == leans_on_who_is_there
    guest = decided({**door, "guests": "hours"}, scene, card=GUEST)
    assert guest.reason == ("guest" if is_open else "no_one_in_charge")
    for relation, reason in (("keyholder", "network_member"), ("warden", "staff")):
        first = decided(door, scene, relation=relation)
        assert (first.reason, first.flags) == (reason, ("in_charge",))


def test_without_midnights_nobody_came_today() -> None:
    assert decided({"opens_with": "staff_today"}, {"in_charge_at": AT}).reason == "no_one_in_charge"


@pytest.mark.parametrize("scene", [{}, {"host_inside": True}])
@pytest.mark.parametrize("hours", [{}, CLOSED])
@pytest.mark.parametrize(
    ("guests", "needs_hours", "needs_host"),
    [("hours", 1, 0), ("host", 0, 1), ("hours_or_host", 1, 1), ("none", 0, 0), ("new word", 0, 0)],
)
def test_guests_come_when_the_place_says(
    guests: str, needs_hours: int, needs_host: int, hours: dict[str, Any], scene: dict[str, Any]
) -> None:
    is_welcome = (needs_hours and not hours) or (needs_host and scene)
    decision = decided({"guests": guests, **hours}, scene, card=GUEST)
    assert decision.reason == ("guest" if is_welcome else "guest_not_valid")


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        ({}, True),
        ({"valid_from": AT + 1}, False),
        ({"valid_until": AT}, False),
        ({"valid_from": None}, False),
        ({"places": frozenset({"elsewhere"})}, False),
        ({"places": None}, False),
    ],
)
def test_a_guest_pass_holds_at_its_times_and_places(
    changes: dict[str, Any], is_valid: bool
) -> None:
    decision = decided({}, card=replace(GUEST, **changes))
    assert decision.reason == ("guest" if is_valid else "guest_not_valid")


def test_a_guest_is_a_visitor_like_others() -> None:
    assert decided({"kind": "private"}, card=GUEST).reason == "not_entitled"
    assert decided({"place_status": "closed"}, card=GUEST).reason == "place_not_in_network"
    assert decided({"capacity": 0}, card=GUEST).reason == "place_full"
    assert decided(HARD, {"entered_at": AT}, card=GUEST, is_inside=True).reason == "passback"
    assert decided({}, card=replace(GUEST, status="blocked")).reason == "credential_blocked"
    assert decided({"min_assurance": 2}, card=GUEST).reason == "credential_too_weak"
    before = replace(TAP, mode="replay", occurred_at=NOW - timedelta(seconds=1))
    assert decided({}, card=GUEST, tap=before).reason == "guest_not_valid"


def test_a_function_has_numbers_of_its_own() -> None:
    door = {**INNER, "function": "atelier", "function_capacity": 4, "function_zones": ("bois", "x")}
    assert decided(door, {"people_in_function": 4}).reason == "function_full"
    assert "function_room" in decided(door, {"people_in_function": 3}).needs
    moving = {"people_in_function": 4, "zone": "x"}
    assert decided(door, moving, is_inside=True).granted
    assert decided(door, moving, is_inside=False).reason == "function_full"
    assert decided(door, {"people_in_function": 4}, relation="staff").granted


def test_of_an_airlock_one_door_is_unlocked() -> None:
    door = {"interlock": "sas"}
    for relation in (None, "resident", "staff", "warden", "keyholder"):
        assert decided(door, {"unlocked_door": "other"}, relation=relation).reason == "interlock"
        for unlocked in (None, "door"):
            decision = decided(door, {"unlocked_door": unlocked}, relation=relation)
            assert decision.granted
            assert "interlock" in decision.needs
    out = replace(TAP, direction="out")
    assert decided(door, {"unlocked_door": "other"}, tap=out).reason == "exit"
    past = replace(TAP, mode="replay")
    assert decided(door, {"unlocked_door": "other"}, tap=past).granted


@pytest.mark.parametrize(
    ("door", "direction", "movement", "zone"),
    [
        ({}, "in", "enter", None),
        ({}, "out", "leave", None),
        ({"to_zone": "hall"}, "in", "enter", "hall"),
        ({"to_zone": "hall"}, "out", "leave", None),
        (INNER, "in", "enter", "bois"),
        (INNER, "out", "move", "hall"),
    ],
)
def test_where_a_tap_leads(door: dict[str, Any], direction: Any, movement: str, zone: Any) -> None:
    tap = replace(TAP, direction=direction)
    decision = decided(door, tap=tap)
    assert (decision.movement, decision.zone) == (movement, zone)
    past = decided(door, tap=replace(tap, mode="replay"))
    assert (past.movement, past.needs) == ("none", ())


@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.sampled_from(["in", "out"]), st.sampled_from(["a", "b"])),
        max_size=40,
    ),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_whatever_visitors_do_the_maximum_holds(
    steps: list[tuple[int, Any, str]], capacity: int, of_function: int
) -> None:
    """Members 0 and 1 live here, zone b serves a function, all come and go as they like; where they
    are is kept as the scripts keep it."""
    where: dict[int, str] = {}
    for person, direction, zone in steps:
        at_home = person < 2
        facts = Facts(
            door=replace(
                DOOR,
                to_zone=zone,
                has_zones=True,
                capacity=capacity,
                function_capacity=of_function if zone == "b" else None,
                function_zones=("b",) if zone == "b" else (),
            ),
            card=CARD,
            member=replace(MEMBER, relation="resident" if at_home else None),
            locked_down=False,
            people_inside=len(where),
            is_inside=person in where,
            scene=Scene(zone=where.get(person), people_in_function=list(where.values()).count("b")),
        )
        decision = decide(facts, replace(TAP, direction=direction), NOW)
        before = dict(where)
        if decision.movement == "enter":
            where[person] = zone
        elif decision.movement == "leave":
            where.pop(person, None)
        assert decision.granted or not (at_home or direction == "out")
        if not at_home and len(where) > len(before):
            assert len(where) <= capacity
        in_function = list(where.values()).count("b")
        if not at_home and in_function > list(before.values()).count("b"):
            assert in_function <= of_function
