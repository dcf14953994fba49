"""The decision of a reader that is alone: the same `decide`, with the facts that this board has.

What it cannot know is who came through other doors since: capacity, passback, interlocks and who is
in charge go by what this door saw itself. docs/offline.md says what follows from that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from copass_edge.reader.credentials import Named, Reading
from copass_edge.reader.journal import Inside, Journal
from copass_edge.reader.papers import Held
from copass_tap.decision import (
    IN_CHARGE,
    STAY_MAX,
    Card,
    Decision,
    Direction,
    Door,
    Facts,
    Member,
    Scene,
    Tap,
    decide,
)
from copass_tap.signatures import is_own
from copass_tap.snapshots import Entry, credential_name

HOUSEHOLD = frozenset({"resident", "staff"})


@dataclass(frozen=True, slots=True)
class Alone:
    """What was decided here, and for whom: the member's short name in hex, None for nobody's."""

    decision: Decision
    member: str | None
    is_in_charge: bool


def decide_alone(
    held: Held | None,
    journal: Journal,
    reading: Reading,
    named: Named | None,
    *,
    tap_id: str,
    door_id: str,
    direction: Direction,
    now: datetime,
    may_trust_visitors: bool,
    is_locked_down: bool,
) -> Alone:
    """Decide without the service. `may_trust_visitors`: the clock is right as far as is known, and
    the service has not turned this reader away."""
    at = now.timestamp()
    if held is None:
        # Nothing is known of this door but that nobody is kept inside.
        granted = direction == "out"
        return Alone(Decision("exit") if granted else Decision("policy_stale"), None, False)
    header = held.snapshot.header
    # What the snapshot says of visitors ends when it does; `decide` has the rung for that.
    ends = header.expires_at if may_trust_visitors else 0
    door = replace(held.door, expires_at=min(held.door.expires_at, ends))
    tap = Tap(
        tap_id=tap_id,
        door_id=door_id,
        credential_type=reading.type,
        credential_hash=named.hash if named else "",
        direction=direction,
        occurred_at=now,
        mode="live",
        counter=named.counter if named and reading.code is None else None,
        code=reading.code,
    )
    card, member = known_card(held, journal, named) if named else (None, None)
    if card is not None and not is_own(tap, card):
        card, member = None, None
    people_inside, is_inside, scene = whereabouts(door, journal, member, at)
    facts = Facts(door, card, member, is_locked_down, people_inside, is_inside, scene)
    decision = decide(facts, tap, now)
    if decision.granted and direction == "in":
        if named is not None and not named.is_believed:
            # A cryptographic card that this board has no key for shows no more than that it is
            # there: nothing that may open a door.
            decision = Decision("credential_too_weak")
        elif reading.code and named and is_used(journal, named):
            decision = Decision("credential_replayed")
        elif decision.reason in HOUSEHOLD and at >= header.household_expires_at:
            decision = Decision("policy_stale")
    in_charge = member is not None and member.relation in IN_CHARGE
    return Alone(decision, member.member_id if member else None, in_charge)


def is_used(journal: Journal, named: Named) -> bool:
    """Whether this door opened to this code of a phone, or to a later one."""
    last = journal.counter(named.hash)
    return last is not None and named.counter is not None and last >= named.counter


def known_card(held: Held, journal: Journal, named: Named) -> tuple[Card | None, Member | None]:
    """A card and its member as the snapshot has them, and what was withdrawn since."""
    name = credential_name(named.hash).hex()
    withdrawn = journal.card_status(name)
    extra = held.snapshot.extras.get(name, {})
    entry = held.snapshot.find(named.hash)
    if entry is None:
        return guest_card(extra, withdrawn), None
    member = restricted(journal, entry)
    counters = [one for one in (entry.last_counter, journal.counter(named.hash)) if one is not None]
    card = Card(
        card_id=str(extra.get("card_id", "")),
        member_id=member.member_id,
        status=withdrawn or entry.card_status,
        last_counter=max(counters, default=None),
        public_key=extra.get("public_key"),
    )
    return card, member


def guest_card(extra: Mapping[str, Any], withdrawn: str | None) -> Card | None:
    """The pass of a guest of this place; None for what is none."""
    if "valid_until" not in extra:
        return None
    card_id = str(extra.get("card_id"))
    return Card(
        card_id=card_id,
        member_id=card_id,
        status=withdrawn or "active",
        last_counter=None,
        valid_from=int(extra["valid_from"]),
        valid_until=int(extra["valid_until"]),
        places=frozenset(extra.get("places") or ()),
        host_member_id=extra.get("host_member_id"),
    )


def restricted(journal: Journal, entry: Entry) -> Member:
    """The member of an entry, with what is newer than the snapshot."""
    name = entry.member.hex()
    newer = journal.member(name)
    if newer is None:
        return Member(name, entry.member_status, entry.relation, entry.standing)
    status, relation, standing = newer
    known = relation if relation in ("resident", "staff", "warden", "keyholder") else None
    return Member(name, status, known, standing)  # type: ignore[arg-type]  # just checked


def whereabouts(
    door: Door, journal: Journal, member: Member | None, at: float
) -> tuple[int, bool, Scene]:
    """Who is inside, by what this door saw: how many, whether the member is, and the scene."""
    inside = journal.inside(at - STAY_MAX.total_seconds())
    own: Inside | None = inside.get(member.member_id) if member else None
    in_charge = [one.entered_at for one in inside.values() if one.is_in_charge]
    # Behind a door within the place everybody came through another one, which this board does
    # not see: they are inside, and it is not known where.
    is_inner = door.from_zone is not None
    scene = Scene(
        entered_at=int(own.entered_at) if own else None,
        zone=door.to_zone if own and not is_inner else None,
        people_in_function=len(inside),
        in_charge=bool(in_charge),
        in_charge_at=int(max(in_charge)) if in_charge else None,
    )
    return len(inside), is_inner or own is not None, scene
