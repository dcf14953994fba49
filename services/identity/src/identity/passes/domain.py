"""Who may have a pass on a phone, who may invite whom and until when. Pure."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from identity.domain import Malformed, Member

PassType = Literal["pass", "guest"]
# What one is to a place where one invites, and where one sees all guests. A keyholder is a visitor.
TEAM = ("staff", "warden")
HOSTS = ("resident", *TEAM)

# A phone, the one before it that still lies in a drawer, and a tablet.
PHONES_MAX = 3
GUEST_PLACES_MAX = 10
GUEST_NAME_LENGTH_MAX = 80
GUESTS_OF_HOST_MAX = 10
GUESTS_OF_PLACE_MAX = 100
# Doors remember each pass for long, also of those who put it on and take it off again all day.
MADE_WITHIN = timedelta(days=1)
PHONES_MADE_MAX = 10
GUESTS_MADE_MAX = 50
GUEST_FOR = timedelta(days=1)
GUEST_FOR_MAX = timedelta(days=14)
GUEST_AHEAD_MAX = timedelta(days=90)
# The clock of who asks may be a little behind.
GUEST_BEHIND_MAX = timedelta(minutes=10)
# As long as late taps may still arrive and a place may want to know who it was.
GUEST_NAME_KEPT = timedelta(days=31)


def mark_of(content: bytes) -> str:
    """Four digits by which people tell one pass from another; nothing can be told from them."""
    return hashlib.sha256(b"copass mark\n" + content).hexdigest()[:4].upper()


def may_invite(host: Member, places: Iterable[UUID], place_cities: Mapping[str, str]) -> bool:
    """Whether somebody may invite guests to all of these places: who lives or works there, and the
    stewards of the city in which they lie. A place that identity has not heard of is nobody's.
    """
    if host.status != "active" or host.city_id is None:
        return False
    is_steward = "steward" in host.roles
    return all(
        str(place) in place_cities
        and (
            host.places.get(str(place)) in HOSTS
            or (is_steward and place_cities[str(place)] == host.city_id)
        )
        for place in places
    )


def may_look_after(staff: Member | None, place: UUID, place_cities: Mapping[str, str]) -> bool:
    """Whether somebody sees all guests of a place and may send them away: its staff, and the
    stewards of its city."""
    if staff is None or staff.status != "active" or str(place) not in place_cities:
        return False
    is_steward = "steward" in staff.roles and place_cities[str(place)] == staff.city_id
    is_admin = "federation_admin" in staff.roles
    return is_steward or is_admin or staff.places.get(str(place)) in TEAM


def read_validity(
    valid_from: datetime | None, valid_until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    """From when to when a guest pass holds: a day from now unless something else is said.

    Raises Malformed with the reason.
    """
    begins = valid_from or now
    ends = valid_until or begins + GUEST_FOR
    if begins < now - GUEST_BEHIND_MAX:
        raise Malformed("a guest pass begins now or later")
    if begins > now + GUEST_AHEAD_MAX:
        raise Malformed(f"a guest pass begins within {GUEST_AHEAD_MAX.days} days")
    if not begins < ends <= begins + GUEST_FOR_MAX:
        raise Malformed(f"a guest pass ends after it begins, within {GUEST_FOR_MAX.days} days")
    if ends <= now:
        raise Malformed("a guest pass ends later than now")
    return begins, ends
