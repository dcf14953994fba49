"""The ladder of the tap decision: each rung, their order, and the laws that hold for all facts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.messages import MESSAGES
from copass_tap.decision import (
    EMPTY_SCENE,
    GRANTS,
    Card,
    DenyReason,
    Door,
    Facts,
    GrantReason,
    Member,
    Scene,
    Tap,
    age_error,
    decide,
)
from copass_tap.passes import PassCode, window_at

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
HOUR = 3600

DOOR = Door(
    door_id="door",
    place_id="place",
    city_id="nantes",
    version=7,
    place_status="in_network",
    capacity=10,
    anti_passback="hard",
    expires_at=AT + 24 * HOUR,
    kind="public",
    min_assurance=1,
    unlock_ms=3000,
    publics=frozenset({"network"}),
    open_from=(AT - HOUR, AT + 5 * HOUR),
    open_until=(AT + HOUR, AT + 6 * HOUR),
    readers=frozenset({"reader"}),
)
CARD = Card("card", "member", "active", last_counter=None)
MEMBER = Member("member", "active", relation=None, standing="good")
FACTS = Facts(DOOR, CARD, MEMBER, locked_down=False, people_inside=3, is_inside=False)
TAP = Tap("tap", "door", "uid", "hash", "in", NOW, "live")
# In place of changes to the member: there is none, as for a guest.
NOBODY: dict[str, Any] = {}


def facts(
    *,
    door: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    member: dict[str, Any] | None = None,
    scene: dict[str, Any] | None = None,
    **others: Any,
) -> Facts:
    """The facts of a grant, but for these."""
    return replace(
        FACTS,
        door=replace(DOOR, **(door or {})),
        card=replace(CARD, **(card or {})),
        member=replace(MEMBER, **(member or {})) if member is not NOBODY else None,
        scene=replace(EMPTY_SCENE, **(scene or {})),
        **others,
    )


def test_a_member_in_good_standing_enters_a_public_door_in_open_hours() -> None:
    decision = decide(FACTS, TAP, NOW)
    assert decision.reason == "network_member"
    assert decision.granted
    assert decision.movement == "enter"
    assert decision.needs == ("room", "unmoved")


# What makes each rung apply, in the order of docs/contracts.md.
RUNGS: list[tuple[str, dict[str, Any]]] = [
    ("unknown_credential", {"member": {"status": "erased"}}),
    ("credential_blocked", {"card": {"status": "blocked"}}),
    ("credential_too_weak", {"door": {"min_assurance": 2}}),
    ("credential_replayed", {"card": {"last_counter": 9}}),
    ("interlock", {"door": {"interlock": "sas"}, "scene": {"unlocked_door": "other"}}),
    ("member_suspended", {"member": {"status": "suspended"}}),
    ("place_locked_down", {"locked_down": True}),
    ("place_not_in_network", {"door": {"place_status": "suspended"}}),
    ("policy_stale", {"door": {"expires_at": AT}}),
    ("not_entitled", {"door": {"kind": "private"}}),
    (
        "guest_not_valid",
        {"card": {"valid_from": AT, "valid_until": AT, "places": frozenset()}, "member": NOBODY},
    ),
    ("outside_hours", {"door": {"open_from": (), "open_until": ()}}),
    ("standing_lapsed", {"member": {"standing": "lapsed"}}),
    ("no_one_in_charge", {"door": {"opens_with": "staff_inside"}}),
    ("place_full", {"people_inside": 10}),
    ("function_full", {"door": {"function_capacity": 4}, "scene": {"people_in_function": 4}}),
    ("passback", {"is_inside": True}),
]
COUNTED = replace(TAP, counter=9)
# Who is inside has a seat, and a guest is no member.
NEVER_BOTH = (
    {"place_full", "passback"},
    {"guest_not_valid", "unknown_credential"},
    {"guest_not_valid", "member_suspended"},
    {"guest_not_valid", "standing_lapsed"},
)


def test_the_rungs_are_all_reasons_of_a_denial_in_their_order() -> None:
    # That of phones alone is in test_passes.py.
    others = [reason for reason in get_args(DenyReason) if reason != "pass_expired"]
    assert [reason for reason, _ in RUNGS] == others


@pytest.mark.parametrize(("reason", "changes"), RUNGS)
def test_each_rung_alone_gives_its_reason(reason: str, changes: dict[str, Any]) -> None:
    decision = decide(facts(**changes), COUNTED, NOW)
    assert decision.reason == reason
    assert not decision.granted
    assert decision.movement == "none"


def test_of_two_rungs_the_earlier_gives_the_reason() -> None:
    for first, (reason, changes) in enumerate(RUNGS):
        for later, more in RUNGS[first + 1 :]:
            if {reason, later} in NEVER_BOTH:
                continue
            both: dict[str, Any] = dict(more)
            for name, value in changes.items():
                if isinstance(value, dict) and NOBODY not in (value, both.get(name)):
                    value = {**both.get(name, {}), **value}
                both[name] = value
            assert decide(facts(**both), COUNTED, NOW).reason == reason, later


def test_no_card_is_an_unknown_credential() -> None:
    assert decide(replace(FACTS, card=None, member=None), TAP, NOW).reason == "unknown_credential"


def test_a_card_whose_member_is_not_known_is_an_unknown_credential() -> None:
    assert decide(replace(FACTS, member=None), TAP, NOW).reason == "unknown_credential"


def test_a_replaced_card_is_a_blocked_card() -> None:
    assert decide(facts(card={"status": "replaced"}), TAP, NOW).reason == "credential_blocked"


def test_a_counter_must_rise() -> None:
    strong = replace(TAP, credential_type="ntag424", counter=10)
    assert decide(facts(card={"last_counter": 9}), strong, NOW).granted
    assert not decide(facts(card={"last_counter": 10}), strong, NOW).granted
    assert decide(facts(card={"last_counter": None}), replace(strong, counter=0), NOW).granted


def test_a_stronger_credential_opens_a_door_that_a_copy_does_not() -> None:
    strict = facts(door={"min_assurance": 2})
    assert decide(strict, TAP, NOW).reason == "credential_too_weak"
    phone = replace(TAP, credential_type="pass", code=PassCode("card", window_at(AT), b""))
    assert decide(strict, phone, NOW).granted


def test_a_suspended_resident_still_gets_home() -> None:
    home = facts(member={"status": "suspended", "relation": "resident"}, door={"kind": "private"})
    assert decide(home, TAP, NOW).reason == "resident"


def test_suspended_staff_are_refused() -> None:
    work = facts(member={"status": "suspended", "relation": "staff"})
    assert decide(work, TAP, NOW).reason == "member_suspended"


def test_a_resident_with_a_blocked_card_is_refused_for_it_was_lost_or_stolen() -> None:
    lost = facts(member={"relation": "resident"}, card={"status": "blocked"})
    assert decide(lost, TAP, NOW).reason == "credential_blocked"


def test_an_open_interval_holds_its_start_and_not_its_end() -> None:
    assert DOOR.is_open(AT - HOUR)
    assert not DOOR.is_open(AT - HOUR - 1)
    assert DOOR.is_open(AT + HOUR - 1)
    assert not DOOR.is_open(AT + HOUR)
    assert DOOR.is_open(AT + 5 * HOUR)


def test_a_door_without_the_network_among_its_publics_opens_to_no_visitor() -> None:
    assert decide(facts(door={"publics": frozenset()}), TAP, NOW).reason == "not_entitled"


@pytest.mark.parametrize("standing", ["good", "grace", "exempt", None])
def test_any_standing_but_lapsed_enters(standing: str | None) -> None:
    assert decide(facts(member={"standing": standing}), TAP, NOW).granted


def test_no_limit_means_never_full() -> None:
    crowd = facts(door={"capacity": None}, people_inside=10_000)
    decision = decide(crowd, TAP, NOW)
    assert decision.granted
    assert "room" not in decision.needs


def test_who_is_inside_of_a_full_place_has_a_seat() -> None:
    full = facts(door={"anti_passback": "off"}, people_inside=10, is_inside=True)
    assert decide(full, TAP, NOW).granted


def test_a_replayed_tap_is_judged_at_the_time_it_happened_and_moves_nobody() -> None:
    before = replace(TAP, mode="replay", occurred_at=NOW - timedelta(hours=2))
    assert decide(FACTS, before, NOW).reason == "outside_hours"
    in_hours = replace(before, occurred_at=NOW - timedelta(minutes=30))
    decision = decide(facts(people_inside=10, is_inside=True), in_hours, NOW)
    assert decision.reason == "network_member"
    assert decision.movement == "none"
    assert "room" not in decision.needs


def test_every_reason_has_a_message_in_both_languages() -> None:
    assert set(MESSAGES) == {*get_args(GrantReason), *get_args(DenyReason)}
    assert all(message["fr"] and message["en"] for message in MESSAGES.values())
    assert set(get_args(GrantReason)) == GRANTS


# --- laws -----------------------------------------------------------------------------------------

doors = st.builds(
    Door,
    door_id=st.just("door"),
    place_id=st.just("place"),
    city_id=st.just("nantes"),
    version=st.integers(0, 9),
    place_status=st.sampled_from(["in_network", "suspended", "closed", "new word"]),
    capacity=st.none() | st.integers(0, 5),
    anti_passback=st.sampled_from(["off", "soft", "hard", "timed", "new word"]),
    expires_at=st.integers(AT - 10, AT + 10),
    kind=st.sampled_from(["public", "private", "new word"]),
    min_assurance=st.integers(1, 3),
    unlock_ms=st.integers(0, 60_000),
    publics=st.frozensets(st.sampled_from(["network", "other"])),
    open_from=st.sampled_from([(), (AT - 5,), (AT + 5,)]),
    open_until=st.just((AT + 6,)),
    readers=st.just(frozenset[str]()),
    passback_minutes=st.integers(0, 2),
    has_zones=st.booleans(),
    from_zone=st.sampled_from([None, "hall"]),
    to_zone=st.sampled_from([None, "hall", "workshop"]),
    interlock=st.sampled_from([None, "sas"]),
    function_capacity=st.none() | st.integers(0, 5),
    function_zones=st.sampled_from([(), ("workshop",)]),
    opens_with=st.sampled_from(["anybody", "staff_inside", "staff_today", "new word"]),
    day_starts=st.sampled_from([(), (AT - 60,)]),
    guests=st.sampled_from(["none", "hours", "host", "hours_or_host", "new word"]),
)
cards = st.none() | st.builds(
    Card,
    card_id=st.just("card"),
    member_id=st.just("member"),
    status=st.sampled_from(["active", "blocked", "replaced", "new word"]),
    last_counter=st.none() | st.integers(0, 3),
    valid_from=st.none() | st.integers(AT - 5, AT + 5),
    valid_until=st.none() | st.integers(AT - 5, AT + 5),
    places=st.none() | st.sampled_from([frozenset({"place"}), frozenset({"elsewhere"})]),
)
members = st.none() | st.builds(
    Member,
    member_id=st.just("member"),
    status=st.sampled_from(["active", "suspended", "erased", "new word"]),
    relation=st.sampled_from([None, "resident", "staff", "warden", "keyholder"]),
    standing=st.sampled_from([None, "good", "grace", "lapsed", "exempt", "new word"]),
)
times = st.none() | st.integers(AT - 200, AT)
scenes = st.builds(
    Scene,
    entered_at=times,
    zone=st.sampled_from([None, "hall", "workshop"]),
    pardoned_at=times,
    people_in_function=st.integers(0, 9),
    in_charge=st.booleans(),
    in_charge_at=times,
    unlocked_door=st.sampled_from([None, "door", "other"]),
    host_inside=st.booleans(),
)
all_facts = st.builds(
    Facts,
    door=doors,
    card=cards,
    member=members,
    locked_down=st.booleans(),
    people_inside=st.integers(0, 9),
    is_inside=st.booleans(),
    scene=scenes,
)
taps = st.builds(
    Tap,
    tap_id=st.just("tap"),
    door_id=st.just("door"),
    credential_type=st.sampled_from(["uid", "ntag424", "pass", "guest"]),
    credential_hash=st.just("hash"),
    direction=st.sampled_from(["in", "out"]),
    occurred_at=st.integers(-60, 60).map(lambda s: NOW + timedelta(seconds=s)),
    mode=st.sampled_from(["live", "replay"]),
    counter=st.none() | st.integers(0, 4),
)


@given(all_facts, taps)
def test_every_tap_has_an_answer_with_a_known_reason(found: Facts, tap: Tap) -> None:
    decision = decide(found, tap, NOW)
    assert decision.reason in MESSAGES
    assert decision.granted or decision.movement == "none"
    assert tap.mode == "live" or decision.movement == "none"


@given(all_facts, taps)
def test_an_exit_is_never_denied(found: Facts, tap: Tap) -> None:
    assert decide(found, replace(tap, direction="out"), NOW).reason == "exit"


@given(all_facts, taps)
def test_a_resident_is_is_refused_for_the_credential_or_an_airlock_alone(
    found: Facts, tap: Tap
) -> None:
    if found.member is None or found.member.status == "erased":
        return
    at_home = replace(found, member=replace(found.member, relation="resident"))
    decision = decide(at_home, tap, NOW)
    assert decision.granted or decision.reason in {
        "unknown_credential",
        "credential_blocked",
        "credential_too_weak",
        "pass_expired",
        "credential_replayed",
        "interlock",  # for the seconds that another door of the airlock is open
    }
    assert not {"room", "function_room", "unmoved", "in_charge"} & set(decision.needs)


@given(all_facts, taps)
def test_no_card_that_is_not_active_ever_enters(found: Facts, tap: Tap) -> None:
    entering = replace(tap, direction="in")
    if found.card is None or found.card.status != "active":
        assert not decide(found, entering, NOW).granted


@given(all_facts, taps)
def test_no_visitor_is_let_in_beyond_the_maximum(found: Facts, tap: Tap) -> None:
    """And what must hold when it is recorded says so, for those who come at the same time."""
    decision = decide(found, tap, NOW)
    if decision.reason not in ("network_member", "guest") or decision.movement != "enter":
        return
    door = found.door
    if door.capacity is not None:
        assert found.is_inside or found.people_inside < door.capacity
        assert "room" in decision.needs
    if door.function_capacity is not None:
        has_seat = found.is_inside and found.scene.zone in door.function_zones
        assert has_seat or found.scene.people_in_function < door.function_capacity
        assert "function_room" in decision.needs


@given(all_facts, taps)
def test_what_was_never_asked_of_a_place_changes_nothing(found: Facts, tap: Tap) -> None:
    """Whatever is where in it, a door that does not ask gives the same answer."""
    plain = replace(
        found.door,
        anti_passback="off",
        from_zone=None,
        interlock=None,
        function_capacity=None,
        opens_with="anybody",
        guests="hours",
    )
    one = replace(found, door=plain)
    assert decide(one, tap, NOW) == decide(replace(one, scene=EMPTY_SCENE), tap, NOW)


def test_the_times_of_a_tap_are_bounded() -> None:
    def age(mode: Any, delta: timedelta) -> str | None:
        return age_error(mode, NOW - delta, NOW)

    assert age("live", timedelta(minutes=10)) is None
    assert age("live", timedelta(minutes=10, seconds=1)) is not None
    assert age("live", timedelta(minutes=-2)) is None
    assert age("live", timedelta(minutes=-2, seconds=-1)) is not None
    assert age("replay", timedelta(days=30)) is None
    assert age("replay", timedelta(days=30, seconds=1)) is not None
    assert age("replay", timedelta(minutes=-3)) is not None
