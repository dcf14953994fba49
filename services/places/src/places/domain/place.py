"""Places, doors, closures: values, and what the other services are told of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from places.domain import hours
from places.domain.calendar import holidays_of
from places.domain.departements import departement_of
from places.domain.hours import Closure, Interval
from places.domain.rules import Rules, day_starts, passback_behind

PROFILES = ("mediation_access", "work_enterprise", "creation_projects", "coliving", "itinerant")
CANDIDATE, IN_NETWORK, SUSPENDED, CLOSED = "candidate", "in_network", "suspended", "closed"
STATUSES = (CANDIDATE, IN_NETWORK, SUSPENDED, CLOSED)
PUBLISHED = (IN_NETWORK, SUSPENDED, CLOSED)
NO_RULES = Rules()


@dataclass(frozen=True, slots=True)
class Details:
    """What people say of a place. Coordinates in degrees (WGS 84), both or neither.

    `opening_hours` is an OSM expression, None when nobody knows; `capacity` in people, None for
    no limit. The last four tell where open data came from; None for what people typed in.
    """

    name: str
    profile: str
    postcode: str
    commune: str
    address: str = ""
    insee_code: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    timezone: str = "Europe/Paris"
    opening_hours: str | None = None
    capacity: int | None = None
    anti_passback: str = "off"
    itinerant: bool = False
    source: str | None = None
    external_id: str | None = None
    licence: str | None = None
    attribution: str | None = None

    @property
    def coordinates(self) -> tuple[float, float] | None:
        if self.latitude is None or self.longitude is None:
            return None
        return self.latitude, self.longitude

    @property
    def departement(self) -> str | None:
        return departement_of(self.insee_code, self.postcode)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is open, and for how long that is known: until `expires_at`."""

    open: tuple[Interval, ...]
    computed_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """A place. One without a city is a `candidate`: known, but not of the network."""

    place_id: UUID
    version: int
    city_id: str | None
    status: str
    status_reason: str
    details: Details
    schedule: Schedule
    rules: Rules = NO_RULES


@dataclass(frozen=True, slots=True)
class Door:
    """A door. Without hours of its own it has those of the place. `unlock_ms` in milliseconds.

    It leads from one zone to another, None is outside, or the place as a whole; of the doors of one
    `interlock` one is unlocked at a time.
    """

    door_id: UUID
    place_id: UUID
    name: str
    kind: str
    min_assurance: int
    unlock_ms: int
    publics: tuple[str, ...]
    opening_hours: str | None
    open: tuple[Interval, ...]
    readers: tuple[UUID, ...] = ()
    from_zone: str | None = None
    to_zone: str | None = None
    interlock: str | None = None


def schedule(details: Details, closures: Sequence[Closure], now: datetime) -> Schedule:
    """The coming days of a place, from its own midnight before `now`. Raises UnreadableHours."""
    timezone = ZoneInfo(details.timezone)
    start = now.astimezone(timezone).date()
    _begins, expires_at = hours.horizon(timezone, start)
    return Schedule(
        open=open_intervals(details, details.opening_hours, closures, start),
        computed_at=now,
        expires_at=expires_at,
    )


def open_intervals(
    details: Details,
    expression: str | None,
    closures: Sequence[Closure],
    start: date,
    days: int = hours.HORIZON_DAYS,
) -> tuple[Interval, ...]:
    """The intervals of an expression at this place. Raises UnreadableHours."""
    return tuple(
        hours.compile_open_intervals(
            expression,
            ZoneInfo(details.timezone),
            holidays_of(details.departement, start.year),
            closures,
            start,
            days,
            coordinates=details.coordinates,
        )
    )


def compile_door(door: Door, details: Details, closures: Sequence[Closure], now: datetime) -> Door:
    """The door with its intervals of the coming days. Raises UnreadableHours."""
    start = now.astimezone(ZoneInfo(details.timezone)).date()
    expression = door.opening_hours or details.opening_hours
    return replace(door, open=open_intervals(details, expression, closures, start))


def door_policy(place: Place, doors: Sequence[Door]) -> dict[str, Any]:
    """The data of `places.place.changed.v1`: all that a reader must know of a place.

    Raises ValueError for a candidate: nobody is told of it.
    """
    if place.status not in PUBLISHED:
        raise ValueError(f"place {place.place_id} is a {place.status}")
    return {
        "place_id": str(place.place_id),
        "version": place.version,
        "city_id": place.city_id,
        "name": place.details.name,
        "status": place.status,
        "timezone": place.details.timezone,
        "capacity": place.details.capacity,
        # Doors say it in full; this is for who knows no other words.
        "anti_passback": "hard" if place.details.anti_passback == "hard" else "off",
        "computed_at": rfc3339(place.schedule.computed_at),
        "expires_at": rfc3339(place.schedule.expires_at),
        **rules_policy(place),
        "doors": [
            door_of_policy(place, door) for door in sorted(doors, key=lambda door: door.door_id)
        ],
    }


def rules_policy(place: Place) -> dict[str, Any]:
    rules = place.rules
    timezone = ZoneInfo(place.details.timezone)
    today = rules.asks_for_today
    return {
        "opens_with": rules.opens_with,
        "guests": rules.guests,
        "zones": [{"zone": zone.zone, "function": zone.function} for zone in rules.zones],
        "functions": [
            {
                "function": function.function,
                "capacity": function.capacity,
                "opens_with": function.opens_with,
            }
            for function in rules.functions
        ],
        "day_starts": day_starts(timezone, place.schedule.computed_at) if today else [],
    }


def door_of_policy(place: Place, door: Door) -> dict[str, Any]:
    passback, minutes = passback_behind(place.rules, place.details.anti_passback, door.to_zone)
    return {
        "door_id": str(door.door_id),
        "name": door.name,
        "kind": door.kind,
        "min_assurance": door.min_assurance,
        "unlock_ms": door.unlock_ms,
        "publics": list(door.publics),
        "open": [list(interval) for interval in door.open],
        "readers": sorted(str(reader) for reader in door.readers),
        "anti_passback": passback,
        "passback_minutes": minutes,
        "from_zone": door.from_zone,
        "to_zone": door.to_zone,
        "interlock": door.interlock,
    }


def rfc3339(at: datetime) -> str:
    """UTC, to the second, with a Z."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Openness:
    """Whether open at an instant; `until` is the end of the current opening, `next_change` the
    next opening or closing within the days looked at, `reason` why it is closed."""

    open: bool
    until: datetime | None
    next_change: datetime | None
    reason: str


def openness(details: Details, closures: Sequence[Closure], at: datetime) -> Openness:
    """Looks from `at` over the coming two weeks. Raises UnreadableHours."""
    timezone = ZoneInfo(details.timezone)
    today = at.astimezone(timezone).date()
    intervals = open_intervals(details, details.opening_hours, closures, today)
    _begins, horizon = hours.horizon(timezone, today)
    second = int(at.timestamp())
    for begin, end in intervals:
        if begin <= second < end:
            # At the horizon nothing changes: it is only where we stopped looking.
            change = hours.from_epoch(end) if end < int(horizon.timestamp()) else None
            return Openness(True, change, change, "open")
        if begin > second:
            return Openness(
                False, None, hours.from_epoch(begin), why_closed(details, closures, today)
            )
    return Openness(False, None, None, why_closed(details, closures, today))


def why_closed(details: Details, closures: Sequence[Closure], today: date) -> str:
    if details.opening_hours is None:
        return "hours_unknown"
    if any(closure.from_date <= today <= closure.to_date for closure in closures):
        return "closure"
    return "outside_hours"


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What `after` says and `before` did not."""
    return {name: value for name, value in after.items() if before.get(name) != value}
