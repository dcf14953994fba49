"""The ladder of the tap decision: each rung, their order, and the laws that hold for all facts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.messages import MESSAGES
from copass_tap.decision import (
    GRANTS,
    Card,
    DenyReason,
    Door,
    Facts,
    GrantReason,
    Member,
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


def facts(
    *,
    door: dict[str, Any] | None = None,
    card: dict[str, Any] | None = None,
    member: dict[str, Any] | None = None,
    **others: Any,
) -> Facts:
    """The facts of a grant, but for these."""
    return replace(
        FACTS,
        door=replace(DOOR, **(door or {})),
        card=replace(CARD, **(card or {})),
        member=replace(MEMBER, **(member or {})),
        **others,
    )


def test_a_member_in_good_standing_enters_a_public_door_in_open_hours() -> None:
    decision = decide(FACTS, TAP, NOW)
    assert decision.reason == "network_member"
    assert decision.granted
    assert decision.movement == "enter"
    assert decision.needs_room
    assert decision.needs_outside


# What makes each rung apply, in the order of docs/contracts.md.
RUNGS: list[tuple[str, dict[str, Any]]] = [
    ("unknown_credential", {"member": {"status": "erased"}}),
    ("credential_blocked", {"card": {"status": "blocked"}}),
    ("credential_too_weak", {"door": {"min_assurance": 2}}),
    ("credential_replayed", {"card": {"last_counter": 9}}),
    ("member_suspended", {"member": {"status": "suspended"}}),
    ("place_locked_down", {"locked_down": True}),
    ("place_not_in_network", {"door": {"place_status": "suspended"}}),
    ("policy_stale", {"door": {"expires_at": AT}}),
    ("not_entitled", {"door": {"kind": "private"}}),
    ("outside_hours", {"door": {"open_from": (), "open_until": ()}}),
    ("standing_lapsed", {"member": {"standing": "lapsed"}}),
    ("place_full", {"people_inside": 10}),
    ("passback", {"is_inside": True}),
]
COUNTED = replace(TAP, counter=9)


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
            if {reason, later} == {"place_full", "passback"}:
                continue  # who is inside has a seat: never both
            both: dict[str, Any] = dict(more)
            for name, value in changes.items():
                both[name] = {**both.get(name, {}), **value} if isinstance(value, dict) else value
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
    assert not decision.needs_room


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
    assert not decision.needs_room


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
    anti_passback=st.sampled_from(["off", "hard"]),
    expires_at=st.integers(AT - 10, AT + 10),
    kind=st.sampled_from(["public", "private", "new word"]),
    min_assurance=st.integers(1, 3),
    unlock_ms=st.integers(0, 60_000),
    publics=st.frozensets(st.sampled_from(["network", "other"])),
    open_from=st.sampled_from([(), (AT - 5,), (AT + 5,)]),
    open_until=st.just((AT + 6,)),
    readers=st.just(frozenset[str]()),
)
cards = st.none() | st.builds(
    Card,
    card_id=st.just("card"),
    member_id=st.just("member"),
    status=st.sampled_from(["active", "blocked", "replaced", "new word"]),
    last_counter=st.none() | st.integers(0, 3),
)
members = st.none() | st.builds(
    Member,
    member_id=st.just("member"),
    status=st.sampled_from(["active", "suspended", "erased", "new word"]),
    relation=st.sampled_from([None, "resident", "staff"]),
    standing=st.sampled_from([None, "good", "grace", "lapsed", "exempt", "new word"]),
)
all_facts = st.builds(
    Facts,
    door=doors,
    card=cards,
    member=members,
    locked_down=st.booleans(),
    people_inside=st.integers(0, 9),
    is_inside=st.booleans(),
)
taps = st.builds(
    Tap,
    tap_id=st.just("tap"),
    door_id=st.just("door"),
    credential_type=st.sampled_from(["uid", "ntag424", "pass"]),
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
def test_a_resident_is_only_ever_refused_for_the_credential(found: Facts, tap: Tap) -> None:
    if found.member is None or found.member.status == "erased":
        return
    at_home = replace(found, member=replace(found.member, relation="resident"))
    decision = decide(at_home, tap, NOW)
    assert decision.granted or decision.reason in {
        "unknown_credential",
        "credential_blocked",
        "credential_too_weak",
        "credential_replayed",
    }
    assert not decision.needs_room
    assert not decision.needs_outside


@given(all_facts, taps)
def test_no_card_that_is_not_active_ever_enters(found: Facts, tap: Tap) -> None:
    entering = replace(tap, direction="in")
    if found.card is None or found.card.status != "active":
        assert not decide(found, entering, NOW).granted


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
