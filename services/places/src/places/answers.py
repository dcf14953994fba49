"""The bodies of the answers."""

from dataclasses import fields
from datetime import date, datetime
from typing import Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from places.domain.place import Door, Openness, Place, rfc3339
from places.domain.rules import Function, Rules, Zone
from places.store import Found, StoredClosure

Profile = Literal[
    "mediation_access", "work_enterprise", "creation_projects", "coliving", "itinerant"
]
Status = Literal["candidate", "in_network", "suspended", "closed"]
AntiPassback = Literal["off", "soft", "hard", "timed"]
OpensWith = Literal["anybody", "staff_inside", "staff_today"]
Guests = Literal["none", "hours", "host", "hours_or_host"]
RULES = tuple(field.name for field in fields(Rules))


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class PlaceAnswer(Answer):
    """A place. `opening_hours` is an OSM expression; null when nobody knows."""

    place_id: UUID
    version: int
    city_id: str | None
    status: Status
    status_reason: str
    name: str
    profile: Profile
    address: str
    postcode: str
    commune: str
    insee_code: str | None
    latitude: float | None
    longitude: float | None
    timezone: str
    opening_hours: str | None
    capacity: int | None
    anti_passback: AntiPassback
    anti_passback_minutes: int | None
    opens_with: OpensWith
    guests: Guests
    zones: list[Zone]
    functions: list[Function]
    itinerant: bool
    source: str | None
    external_id: str | None
    licence: str | None
    attribution: str | None
    hours_known_until: str

    @classmethod
    def of(cls, place: Place) -> "PlaceAnswer":
        return cls(**place_fields(place))


class ListedPlace(PlaceAnswer):
    """A place of a list; `distance_m` (metres) when one was asked for near a point."""

    distance_m: int | None

    @classmethod
    def of_found(cls, found: Found) -> "ListedPlace":
        distance = None if found.distance_m is None else round(found.distance_m)
        return cls(**place_fields(found.place), distance_m=distance)


class DoorAnswer(Answer):
    """A door. `readers` is null for those who do not run the place."""

    door_id: UUID
    place_id: UUID
    name: str
    kind: Literal["public", "private"]
    min_assurance: int
    unlock_ms: int
    publics: list[str]
    opening_hours: str | None
    from_zone: str | None
    to_zone: str | None
    interlock: str | None
    readers: list[UUID] | None

    @classmethod
    def of(cls, door: Door, *, with_readers: bool = True) -> "DoorAnswer":
        return cls(
            door_id=door.door_id,
            place_id=door.place_id,
            name=door.name,
            kind=door.kind,
            min_assurance=door.min_assurance,
            unlock_ms=door.unlock_ms,
            publics=list(door.publics),
            opening_hours=door.opening_hours,
            from_zone=door.from_zone,
            to_zone=door.to_zone,
            interlock=door.interlock,
            readers=list(door.readers) if with_readers else None,
        )


class ClosureAnswer(Answer):
    """Closed from `from` to `to`, local dates, both included."""

    closure_id: UUID
    place_id: UUID
    from_: date
    to: date
    reason: str

    model_config = ConfigDict(
        frozen=True, alias_generator=lambda name: name.rstrip("_"), populate_by_name=True
    )

    @classmethod
    def of(cls, closure: StoredClosure) -> "ClosureAnswer":
        return cls(
            closure_id=closure.closure_id,
            place_id=closure.place_id,
            from_=closure.from_date,
            to=closure.to_date,
            reason=closure.reason,
        )


class PlaceInFull(PlaceAnswer):
    doors: list[DoorAnswer]
    closures: list[ClosureAnswer]


class Moment(Answer):
    """The same instant twice: in UTC, and on the place's clock with its offset."""

    utc: str
    local: str

    @classmethod
    def of(cls, at: datetime, timezone: ZoneInfo) -> "Moment":
        return cls(utc=rfc3339(at), local=at.astimezone(timezone).isoformat(timespec="seconds"))


class OpennessAnswer(Answer):
    """Whether a place is open at an instant.

    `until`: when the current opening ends. `next_change`: the next opening or closing. Null when
    there is none within the two weeks looked at.
    """

    place_id: UUID
    status: Status
    timezone: str
    at: Moment
    open: bool
    reason: Literal["open", "outside_hours", "closure", "hours_unknown"]
    until: Moment | None
    next_change: Moment | None

    @classmethod
    def of(cls, place: Place, at: datetime, openness: Openness) -> "OpennessAnswer":
        timezone = ZoneInfo(place.details.timezone)
        return cls(
            place_id=place.place_id,
            status=place.status,
            timezone=place.details.timezone,
            at=Moment.of(at, timezone),
            open=openness.open,
            reason=openness.reason,
            until=Moment.of(openness.until, timezone) if openness.until else None,
            next_change=Moment.of(openness.next_change, timezone) if openness.next_change else None,
        )


class PlacesPage(Answer):
    items: list[ListedPlace]
    next: str | None


def place_fields(place: Place) -> dict[str, object]:
    details = place.details
    return {
        "place_id": place.place_id,
        "version": place.version,
        "city_id": place.city_id,
        "status": place.status,
        "status_reason": place.status_reason,
        "name": details.name,
        "profile": details.profile,
        "address": details.address,
        "postcode": details.postcode,
        "commune": details.commune,
        "insee_code": details.insee_code,
        "latitude": details.latitude,
        "longitude": details.longitude,
        "timezone": details.timezone,
        "opening_hours": details.opening_hours,
        "capacity": details.capacity,
        "anti_passback": details.anti_passback,
        **{name: getattr(place.rules, name) for name in RULES},
        "itinerant": details.itinerant,
        "source": details.source,
        "external_id": details.external_id,
        "licence": details.licence,
        "attribution": details.attribution,
        "hours_known_until": rfc3339(place.schedule.expires_at),
    }
