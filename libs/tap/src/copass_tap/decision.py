"""The tap decision: pure, and the one place where it can change.

`decide` is a ladder: the first rung that applies gives the reason. The reasons and their order are
those of docs/contracts.md; what each says to the person at the door is in the access service's
messages.py. The service calls it for every tap, and a reader that is alone calls it too.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal, get_args

from copass_tap.passes import PassCode

Direction = Literal["in", "out"]
Mode = Literal["live", "replay"]
CredentialType = Literal["uid", "ntag424", "pass", "guest"]
# `move`: to another zone, for who is inside; nobody else becomes so by it.
Movement = Literal["enter", "leave", "move", "none"]
# A warden is staff who answers for those inside, a keyholder a visitor who answers for visitors.
Relation = Literal["resident", "staff", "warden", "keyholder"]
AntiPassback = Literal["off", "soft", "hard", "timed"]
OpensWith = Literal["anybody", "staff_inside", "staff_today"]
Guests = Literal["none", "hours", "host", "hours_or_host"]
# What must still hold of the place when a decision is recorded, see Decision.
Need = Literal["room", "function_room", "unmoved", "in_charge", "interlock"]
Flag = Literal["passback", "in_charge"]
GrantReason = Literal["staff", "resident", "guest", "network_member", "exit"]
DenyReason = Literal[
    "unknown_credential",
    "credential_blocked",
    "credential_too_weak",
    "pass_expired",
    "credential_replayed",
    "interlock",
    "member_suspended",
    "place_locked_down",
    "place_not_in_network",
    "policy_stale",
    "not_entitled",
    "guest_not_valid",
    "outside_hours",
    "standing_lapsed",
    "no_one_in_charge",
    "place_full",
    "function_full",
    "passback",
]
Reason = GrantReason | DenyReason

GRANTS: frozenset[str] = frozenset(get_args(GrantReason))
# 1: a number that anybody can copy; 2: a secret that answers for the card or the phone.
ASSURANCE: Mapping[CredentialType, int] = {"uid": 1, "ntag424": 2, "pass": 2, "guest": 1}
# Those whom a place is left in charge of while they are inside.
IN_CHARGE: frozenset[str | None] = frozenset({"staff", "warden", "keyholder"})
# Somebody who entered and never tapped out is taken to have left after this.
STAY_MAX = timedelta(hours=16)
FUTURE_MAX = timedelta(minutes=2)
LIVE_AGE_MAX = timedelta(minutes=10)
REPLAY_AGE_MAX = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Tap:
    """A credential held to a reader. `counter` is the card's own, None for a plain UID; `code` is
    what a phone showed, believed by signatures.is_own before anything is decided of it."""

    tap_id: str
    door_id: str
    credential_type: CredentialType
    credential_hash: str
    direction: Direction
    occurred_at: datetime
    mode: Mode
    counter: int | None = None
    code: PassCode | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """A door with the policy of its place. Times are epoch seconds, `open` is half-open in UTC.

    The door leads from `from_zone` to `to_zone`; None is outside, or the place as a whole. What
    follows has effect only where a place asks for it: a `function` is what the zone behind the door
    serves (a workshop, a kitchen), with numbers of its own over `function_zones`; `opens_with`
    says who must be inside (`is_charge_local`: inside the function, not just the place);
    `interlock` names the doors of which one is unlocked at a time; `day_starts` are the midnights
    of the place.
    """

    door_id: str
    place_id: str
    city_id: str
    version: int
    place_status: str
    capacity: int | None
    anti_passback: str
    expires_at: int
    kind: str
    min_assurance: int
    unlock_ms: int
    publics: frozenset[str]
    open_from: tuple[int, ...]
    open_until: tuple[int, ...]
    readers: frozenset[str]
    passback_minutes: int = 0
    has_zones: bool = False
    from_zone: str | None = None
    to_zone: str | None = None
    interlock: str | None = None
    function: str | None = None
    function_capacity: int | None = None
    function_zones: tuple[str, ...] = ()
    opens_with: str = "anybody"
    is_charge_local: bool = False
    day_starts: tuple[int, ...] = ()
    guests: str = "hours"

    def is_open(self, at: int) -> bool:
        """Whether an open interval holds `at`."""
        index = bisect_right(self.open_from, at) - 1
        return index >= 0 and at < self.open_until[index]

    def day_start(self, at: int) -> int | None:
        """The midnight before `at`, by the clock of the place; None where it is not known."""
        index = bisect_right(self.day_starts, at) - 1
        return self.day_starts[index] if index >= 0 else None


@dataclass(frozen=True, slots=True)
class Reader:
    reader_id: str
    city_id: str
    key_sha256: str
    active: bool


@dataclass(frozen=True, slots=True)
class Card:
    """`public_key` is that of a phone pass. The last four are a guest pass's, which holds from one
    instant to another (epoch seconds, half-open), and whose `member_id` is nobody's."""

    card_id: str
    member_id: str
    status: str
    last_counter: int | None
    public_key: str | None = None
    valid_from: int | None = None
    valid_until: int | None = None
    places: frozenset[str] | None = None
    host_member_id: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """`relation` is what the member is to the place of this door. `standing` None: not told yet."""

    member_id: str
    status: str
    relation: Relation | None
    standing: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """Who and what is where in the place, for the doors that ask; times in epoch seconds.

    entered_at, zone: of the member, when inside. pardoned_at: what they did until then is not held
    against them. in_charge: somebody is; in_charge_at: when somebody last came. unlocked_door:
    of the interlock. host_inside: the guest's host is in the place.
    """

    entered_at: int | None = None
    zone: str | None = None
    pardoned_at: int | None = None
    people_in_function: int = 0
    in_charge: bool = False
    in_charge_at: int | None = None
    unlocked_door: str | None = None
    host_inside: bool = False


# Of a door that does not ask.
EMPTY_SCENE = Scene()


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a decision rests on, read at one instant."""

    door: Door
    card: Card | None
    member: Member | None
    locked_down: bool
    people_inside: int
    is_inside: bool
    scene: Scene = EMPTY_SCENE


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and what must still hold when it is recorded.

    needs: `room`, `function_room`: a seat is free, or the member has one already; `unmoved`: the
    member is where they were; `in_charge`: somebody still is; `interlock`: no other door is open.
    flags: `passback`: let in although not where the door leads from; `in_charge`: came to be.
    zone: where the movement ends.
    """

    reason: Reason
    movement: Movement = "none"
    needs: tuple[Need, ...] = ()
    flags: tuple[Flag, ...] = ()
    zone: str | None = None

    @property
    def granted(self) -> bool:
        return self.reason in GRANTS


def decide(facts: Facts, tap: Tap, now: datetime) -> Decision:
    """Grant or deny a tap. Total: every combination of facts has exactly one answer.

    A replayed tap is judged by what is known now about the instant at which it happened. It moves
    nobody, and who was where at that instant is not known: later taps have said where they are.
    """
    door, card, member = facts.door, facts.card, facts.member
    live = tap.mode == "live"
    at = int((now if live else tap.occurred_at).timestamp())

    if tap.direction == "out":  # nobody is ever kept inside, whatever the card
        return leave(door, live=live)

    # Is this a credential that may be believed?
    is_guest = card is not None and member is None and card.valid_until is not None
    if card is None or not (is_guest or (member is not None and member.status != "erased")):
        return Decision("unknown_credential")
    if card.status != "active":
        return Decision("credential_blocked")
    if ASSURANCE[tap.credential_type] < door.min_assurance:
        return Decision("credential_too_weak")
    if tap.credential_type == "pass" and (tap.code is None or not tap.code.is_current(at)):
        return Decision("pass_expired")
    if not is_counter_fresh(tap, card):
        return Decision("credential_replayed")
    # For seconds, and for all who enter: two open doors of an airlock are none.
    if live and door.interlock and facts.scene.unlocked_door not in (None, door.door_id):
        return Decision("interlock")

    # A home and a place in one's charge open always: no suspension takes a home away, no lockdown
    # keeps out those who live there or look after it; nor do hours, standing or numbers. They
    # count all the same, and visitors have the room that they leave.
    if member is not None:
        if member.relation == "resident":
            return enter("resident", facts, live=live)
        if member.status != "active":
            return Decision("member_suspended")
        if member.relation in ("staff", "warden"):
            return enter("staff", facts, live=live)

    # Everybody else visits.
    if facts.locked_down:
        return Decision("place_locked_down")
    if door.place_status != "in_network":
        return Decision("place_not_in_network")
    if at >= door.expires_at:
        return Decision("policy_stale")
    if door.kind != "public" or "network" not in door.publics:
        return Decision("not_entitled")
    if member is None:
        if not is_guest_welcome(card, facts, at):
            return Decision("guest_not_valid")
    else:
        if not door.is_open(at):
            return Decision("outside_hours")
        if member.standing == "lapsed":  # not told yet: owes nothing yet
            return Decision("standing_lapsed")
    right: GrantReason = "guest" if member is None else "network_member"
    return visit(right, facts, at) if live else Decision(right)


def visit(right: GrantReason, facts: Facts, at: int) -> Decision:
    """Whether there is room, and all else that depends on who is inside, for who may visit."""
    door, member, scene = facts.door, facts.member, facts.scene
    needs: tuple[Need, ...] = ()
    flags: tuple[Flag, ...] = ()

    is_keyholder = member is not None and member.relation == "keyholder"
    if door.opens_with != "anybody" and not is_keyholder and not was_in_charge_today(facts, at):
        if not scene.in_charge:
            return Decision("no_one_in_charge")
        needs += ("in_charge",)
    if door.capacity is not None:
        if not facts.is_inside and facts.people_inside >= door.capacity:
            return Decision("place_full")
        needs += ("room",)
    if door.function_capacity is not None:
        has_seat = facts.is_inside and scene.zone in door.function_zones
        if not has_seat and scene.people_in_function >= door.function_capacity:
            return Decision("function_full")
        needs += ("function_room",)
    if door.anti_passback != "off":
        if is_passback(facts, at):
            if door.anti_passback != "soft":
                return Decision("passback")
            flags += ("passback",)
        needs += ("unmoved",)
    return enter(right, facts, live=True, needs=needs, flags=flags)


def enter(
    reason: GrantReason,
    facts: Facts,
    *,
    live: bool,
    needs: tuple[Need, ...] = (),
    flags: tuple[Flag, ...] = (),
) -> Decision:
    """A grant, and the movement through the door."""
    if not live:
        return Decision(reason)
    door, member = facts.door, facts.member
    if door.interlock:
        needs += ("interlock",)
    if member is not None and member.relation in IN_CHARGE:
        flags += ("in_charge",)
    return entry(reason, needs, flags, door.to_zone)


@lru_cache(maxsize=1024)
def entry(
    reason: GrantReason, needs: tuple[Need, ...], flags: tuple[Flag, ...], zone: str | None
) -> Decision:
    """Kept: the same few decisions are made over and over."""
    return Decision(reason, "enter", needs, flags, zone)


def leave(door: Door, *, live: bool) -> Decision:
    """Out of the place, or back into the zone that the door leads from."""
    if not live:
        return Decision("exit")
    if door.from_zone is None:
        return Decision("exit", "leave")
    return Decision("exit", "move", zone=door.from_zone)


def is_guest_welcome(card: Card, facts: Facts, at: int) -> bool:
    """Whether a guest pass holds here and now, and the place takes guests now."""
    door = facts.door
    holds = (
        card.valid_from is not None
        and card.valid_until is not None
        and card.valid_from <= at < card.valid_until
        and card.places is not None
        and door.place_id in card.places
    )
    by_hours = door.guests in ("hours", "hours_or_host") and door.is_open(at)
    by_host = door.guests in ("host", "hours_or_host") and facts.scene.host_inside
    return holds and (by_hours or by_host)


def was_in_charge_today(facts: Facts, at: int) -> bool:
    """Whether it is enough here that somebody in charge came today, and somebody did."""
    came_at = facts.scene.in_charge_at
    if facts.door.opens_with != "staff_today" or came_at is None:
        return False
    midnight = facts.door.day_start(at)
    return midnight is not None and came_at >= midnight


def is_passback(facts: Facts, at: int) -> bool:
    """Whether the member, by all that is known, is not where this door leads from.

    Somebody who came through a door without zones may be in any of them.
    """
    door, scene = facts.door, facts.scene
    if door.from_zone is None:
        is_elsewhere = facts.is_inside
    else:
        is_elsewhere = not facts.is_inside or scene.zone not in (None, door.from_zone)
    if not is_elsewhere:
        return False
    entered_at = scene.entered_at if facts.is_inside else None
    if scene.pardoned_at is not None and (entered_at or 0) <= scene.pardoned_at:
        return False
    if door.anti_passback == "timed":
        return entered_at is not None and at - entered_at < door.passback_minutes * 60
    return True


def is_counter_fresh(tap: Tap, card: Card) -> bool:
    """Whether the card's counter is beyond all that was seen of it. A plain UID has no counter.

    One that a reader sends later may be lower: since then the card was used elsewhere.
    """
    if tap.counter is None or card.last_counter is None or tap.mode == "replay":
        return True
    return tap.counter > card.last_counter


def age_error(tap_mode: Mode, occurred_at: datetime, now: datetime) -> str | None:
    """Why a tap cannot have happened when it says, or happened too long ago; None if it is fine."""
    age = now - occurred_at
    if age < -FUTURE_MAX:
        return "is more than 2 minutes in the future"
    if tap_mode == "live" and age > LIVE_AGE_MAX:
        return "is more than 10 minutes old: send it with mode replay"
    if age > REPLAY_AGE_MAX:
        return "is more than 30 days old"
    return None
