"""The tap decision: pure, and the one place where it can change.

`decide` is a ladder: the first rung that applies gives the reason. The reasons and their order are
those of docs/contracts.md; what each says to the person at the door is in the access service's
messages.py. The service calls it for every tap, and a reader that is alone calls it too.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from copass_tap.passes import PassCode

Direction = Literal["in", "out"]
Mode = Literal["live", "replay"]
CredentialType = Literal["uid", "ntag424", "pass", "guest"]
Movement = Literal["enter", "leave", "none"]
Relation = Literal["resident", "staff"]
GrantReason = Literal["staff", "resident", "network_member", "exit"]
DenyReason = Literal[
    "unknown_credential",
    "credential_blocked",
    "credential_too_weak",
    "pass_expired",
    "credential_replayed",
    "member_suspended",
    "place_locked_down",
    "place_not_in_network",
    "policy_stale",
    "not_entitled",
    "outside_hours",
    "standing_lapsed",
    "place_full",
    "passback",
]
Reason = GrantReason | DenyReason

GRANTS: frozenset[str] = frozenset({"staff", "resident", "network_member", "exit"})
# 1: a number that anybody can copy; 2: a secret that answers for the card or the phone.
ASSURANCE: Mapping[CredentialType, int] = {"uid": 1, "ntag424": 2, "pass": 2, "guest": 1}
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
    """A door with the policy of its place. Times are epoch seconds, `open` is half-open in UTC."""

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

    def is_open(self, at: int) -> bool:
        """Whether an open interval holds `at`."""
        index = bisect_right(self.open_from, at) - 1
        return index >= 0 and at < self.open_until[index]


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
class Facts:
    """All that a decision rests on, read at one instant."""

    door: Door
    card: Card | None
    member: Member | None
    locked_down: bool
    people_inside: int
    is_inside: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided, and what must still hold when it is recorded.

    needs_room: a seat must be free, or the member must have one already.
    needs_outside: the member must not be inside.
    """

    reason: Reason
    movement: Movement = "none"
    needs_room: bool = False
    needs_outside: bool = False

    @property
    def granted(self) -> bool:
        return self.reason in GRANTS


def decide(facts: Facts, tap: Tap, now: datetime) -> Decision:
    """Grant or deny a tap. Total: every combination of facts has exactly one answer.

    A replayed tap is judged by what is known now about the instant at which it happened. It moves
    nobody: where that person is now, later taps have said.
    """
    door, card, member = facts.door, facts.card, facts.member
    live = tap.mode == "live"
    at = int((now if live else tap.occurred_at).timestamp())

    if tap.direction == "out":  # nobody is ever kept inside, whatever the card
        return Decision("exit", movement="leave" if live else "none")

    # Is this a credential that may be believed?
    if card is None or member is None or member.status == "erased":
        return Decision("unknown_credential")
    if card.status != "active":
        return Decision("credential_blocked")
    if ASSURANCE[tap.credential_type] < door.min_assurance:
        return Decision("credential_too_weak")
    if tap.credential_type == "pass" and (tap.code is None or not tap.code.is_current(at)):
        return Decision("pass_expired")
    if not is_counter_fresh(tap, card):
        return Decision("credential_replayed")

    # A home and a place in one's charge open always: no suspension takes a home away, no lockdown
    # keeps out those who live there or look after it; nor do hours, standing or numbers.
    entering: Movement = "enter" if live else "none"
    if member.relation == "resident":
        return Decision("resident", movement=entering)
    if member.status != "active":
        return Decision("member_suspended")
    if member.relation == "staff":
        return Decision("staff", movement=entering)

    # Everybody else visits.
    if facts.locked_down:
        return Decision("place_locked_down")
    if door.place_status != "in_network":
        return Decision("place_not_in_network")
    if at >= door.expires_at:
        return Decision("policy_stale")
    if door.kind != "public" or "network" not in door.publics:
        return Decision("not_entitled")
    if not door.is_open(at):
        return Decision("outside_hours")
    if member.standing == "lapsed":  # not told yet: owes nothing yet
        return Decision("standing_lapsed")
    has_limit = live and door.capacity is not None
    if has_limit and not facts.is_inside and facts.people_inside >= (door.capacity or 0):
        return Decision("place_full")
    is_strict = live and door.anti_passback == "hard"
    if is_strict and facts.is_inside:
        return Decision("passback")
    return Decision(
        "network_member", movement=entering, needs_room=has_limit, needs_outside=is_strict
    )


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
