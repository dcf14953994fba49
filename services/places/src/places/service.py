"""The use cases: load and lock, decide, save, tell.

Each function runs inside the caller's transaction, on `conn`. Whatever changes a place, its doors,
its readers or its closures first locks the place's row, and ends in `save`, which compiles the
hours again, adds one to the version and puts the new state in the outbox.

Raises Problem: 404 for what is not there or belongs to another city, 403 for a role that may not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from common import outbox
from common.auth import Principal
from common.db import Conn
from common.logging import get_logger
from common.problems import conflict, forbidden, invalid, not_found
from places import store
from places.domain import place as domain
from places.domain.departements import INSEE_CODE, timezone_of
from places.domain.hours import UnreadableHours, check_expression
from places.domain.place import (
    CANDIDATE,
    CLOSED,
    IN_NETWORK,
    NO_RULES,
    PUBLISHED,
    Details,
    Door,
    Openness,
    Place,
    Schedule,
)
from places.domain.rules import Rules, wrong_rules, wrong_way
from places.events import PLACE_CHANGED, PLACES

# Compiled hours reach 13 to 14 days ahead; a refresh is due once they reach less than this.
REFRESH_BELOW = timedelta(days=13)
REFRESH_BATCH = 50
DOORS_MAX = 50
CLOSURES_MAX = 500
CLOSURE_DAYS_MAX = 3660
LOOK_AROUND = timedelta(days=366)
NOTHING: Mapping[str, Any] = {}

log = get_logger(__name__)


# --- who may


def is_federation(principal: Principal) -> bool:
    return principal.has("federation_admin")


def runs_places(principal: Principal, city_id: str | None) -> bool:
    """Operators and stewards of the city, and the federation."""
    return is_federation(principal) or principal.in_city(city_id, "operator", "steward")


def is_own(principal: Principal, place: Place) -> bool:
    """Of the caller's city; a candidate is of none."""
    return place.city_id is not None and principal.city == place.city_id


async def lock_own_place(
    conn: Conn, principal: Principal, place_id: UUID, *, what: str = "place"
) -> Place:
    """The place, locked, if the caller may change it. `what` is what was asked for, for the 404."""
    place = await store.lock_place(conn, place_id)
    if place is None or not (is_federation(principal) or is_own(principal, place)):
        raise not_found(what)
    if not runs_places(principal, place.city_id):
        raise forbidden("Operators and stewards of the city change its places.")
    return place


# --- compiling and telling


def compile_schedule(
    details: Details, closures: Sequence[store.StoredClosure], now: datetime
) -> Schedule:
    """The coming days. Hours that cannot be read any more, since the library that reads them
    changed, are no hours: never open by mistake, and the place is not stuck."""
    days = [closure.days for closure in closures]
    try:
        return domain.schedule(details, days, now)
    except UnreadableHours as error:
        log.error("hours_unreadable", hours=details.opening_hours, error=str(error))
        return domain.schedule(replace(details, opening_hours=None), days, now)


def compile_door(
    door: Door, details: Details, closures: Sequence[store.StoredClosure], now: datetime
) -> Door:
    try:
        return domain.compile_door(door, details, [closure.days for closure in closures], now)
    except UnreadableHours as error:
        log.error("hours_unreadable", door_id=str(door.door_id), error=str(error))
        return replace(door, open=())


async def save(conn: Conn, place: Place, now: datetime) -> Place:
    """Write a locked place with its hours compiled anew, under a new version, and tell of it."""
    doors = (await store.doors_of(conn, [place.place_id]))[place.place_id]
    closures = (await store.closures_of(conn, [place.place_id]))[place.place_id]
    return await save_compiled(conn, place, doors, closures, now)


async def save_compiled(
    conn: Conn,
    place: Place,
    doors: Sequence[Door],
    closures: Sequence[store.StoredClosure],
    now: datetime,
) -> Place:
    saved = replace(
        place,
        version=place.version + 1,
        schedule=compile_schedule(place.details, closures, now),
    )
    compiled = [compile_door(door, place.details, closures, now) for door in doors]
    for before, after in zip(doors, compiled, strict=True):
        if before.open != after.open:
            await store.update_door(conn, after)
    await store.update_place(conn, saved, now)
    await tell(conn, saved, compiled, now)
    return saved


async def tell(conn: Conn, place: Place, doors: Sequence[Door], now: datetime) -> None:
    if place.status in PUBLISHED:
        await outbox.add(
            conn,
            topic=PLACES,
            key=str(place.place_id),
            type=PLACE_CHANGED,
            data=domain.door_policy(place, doors),
            now=now,
        )


async def refresh_hours(conn: Conn, now: datetime) -> int:
    """Compile again the hours that run short, a batch of places; returns how many there were."""
    places = await store.lock_short_of_hours(conn, now + REFRESH_BELOW, REFRESH_BATCH)
    ids = [place.place_id for place in places]
    doors = await store.doors_of(conn, ids)
    closures = await store.closures_of(conn, ids)
    for place in places:
        await save_compiled(conn, place, doors[place.place_id], closures[place.place_id], now)
    return len(places)


# --- places


async def known_city(conn: Conn, city_id: str, *, field: str) -> store.City:
    city = await store.get_city(conn, city_id)
    if city is None:
        raise invalid(
            field,
            f"There is no city {city_id!r} that we know of. If it has just been founded, the news "
            "is on its way: try again in a second.",
            code="unknown_city",
        )
    if city.status != "active":
        raise invalid(field, f"The city {city_id!r} has left the federation.", code="city_left")
    return city


def check_details(details: Details, *, prefix: str = "body") -> None:
    """What no single field can tell. Raises Problem 422."""
    if (details.latitude is None) != (details.longitude is None):
        raise invalid(f"{prefix}.latitude", "Give both latitude and longitude, or neither.")
    if details.insee_code is not None and not INSEE_CODE.fullmatch(details.insee_code):
        raise invalid(f"{prefix}.insee_code", "This is no INSEE code of a commune.")
    check_hours(details.opening_hours, field=f"{prefix}.opening_hours")


def check_rules(rules: Rules, anti_passback: str, doors: Sequence[Door]) -> None:
    """Raises Problem 422 for rules that do not fit together, or with the doors there are."""
    used = {zone for door in doors for zone in (door.from_zone, door.to_zone) if zone is not None}
    wrong = wrong_rules(rules, anti_passback, used)
    if wrong is not None:
        raise invalid(f"body.{wrong.field}", wrong.reason, code="wrong_rules")


def check_door(door: Door, place: Place) -> None:
    """Raises Problem 422 for a door that cannot be one of this place."""
    check_hours(door.opening_hours, field="body.opening_hours")
    if door.kind == "private" and door.publics:
        raise invalid("body.publics", "A private door opens to residents and staff only.")
    wrong = wrong_way(place.rules.zones, door.from_zone, door.to_zone)
    if wrong is not None:
        raise invalid(f"body.{wrong.field}", wrong.reason, code="wrong_rules")


def check_hours(expression: str | None, *, field: str) -> None:
    if expression is None:
        return
    try:
        check_expression(expression)
    except UnreadableHours as error:
        raise invalid(
            field, f"These are no OSM opening hours: {error}", code="unreadable_hours"
        ) from error


async def create_place(
    conn: Conn,
    principal: Principal,
    *,
    place_id: UUID,
    city_id: str,
    details: Details,
    timezone: str | None,
    now: datetime,
    rules: Rules = NO_RULES,
) -> Place:
    """A new place of a city, in the network at once. Without a time zone: the département's, or
    the city's where the département is not known."""
    if not runs_places(principal, city_id):
        raise forbidden("Operators and stewards of the city add its places.")
    city = await known_city(conn, city_id, field="body.city_id")
    if timezone is None:
        timezone = timezone_of(details.departement).key if details.departement else city.timezone
    details = replace(details, timezone=timezone)
    check_details(details)
    check_rules(rules, details.anti_passback, [])
    place = Place(
        place_id=place_id,
        version=1,
        city_id=city_id,
        status=IN_NETWORK,
        status_reason="",
        details=details,
        schedule=compile_schedule(details, [], now),
        rules=rules,
    )
    if not await store.insert_place(conn, place, None, now):
        raise conflict(
            "place_exists",
            "There is a place with this id, or with this external_id of this source.",
            field="body.place_id",
        )
    await tell(conn, place, [], now)
    return place


async def change_place(
    conn: Conn,
    principal: Principal,
    place_id: UUID,
    changes: Mapping[str, Any],
    now: datetime,
    new_rules: Mapping[str, Any] = NOTHING,
) -> Place:
    """Change some details, and some rules. What is the same already makes no new version."""
    place = await lock_own_place(conn, principal, place_id)
    details = replace(place.details, **changes)
    rules = replace(place.rules, **new_rules)
    if details == place.details and rules == place.rules:
        return place
    check_details(details)
    doors = (await store.doors_of(conn, [place_id]))[place_id]
    check_rules(rules, details.anti_passback, doors)
    return await save(conn, replace(place, details=details, rules=rules), now)


async def set_status(
    conn: Conn, principal: Principal, place_id: UUID, status: str, reason: str, now: datetime
) -> Place:
    """The federation's decision about a place. A candidate must first be taken by a city."""
    place = await store.lock_place(conn, place_id)
    if place is None or not (is_federation(principal) or is_own(principal, place)):
        raise not_found("place")
    if not is_federation(principal):
        raise forbidden("The federation decides about the status of a place.")
    if place.status == CANDIDATE:
        raise conflict("place_without_city", "This place has no city yet: a city takes it first.")
    if (place.status, place.status_reason) == (status, reason):
        return place
    return await save(conn, replace(place, status=status, status_reason=reason), now)


async def adopt_place(
    conn: Conn, principal: Principal, place_id: UUID, city_id: str, now: datetime
) -> Place:
    """A city takes a candidate into the network."""
    if not runs_places(principal, city_id):
        raise forbidden("Operators and stewards of the city take places into it.")
    await known_city(conn, city_id, field="body.city_id")
    place = await store.lock_place(conn, place_id)
    if place is None:
        raise not_found("place")
    if place.city_id == city_id:
        return place
    if place.status != CANDIDATE:
        raise conflict("place_has_city", "This place is of another city.")
    return await save(conn, replace(place, city_id=city_id, status=IN_NETWORK), now)


async def openness(
    conn: Conn, place_id: UUID, at: datetime, now: datetime
) -> tuple[Place, Openness]:
    """Whether a place is open at an instant, at most a year away."""
    if abs(at - now) > LOOK_AROUND:
        raise invalid("query.at", "Ask about a time at most a year away.")
    place = await store.get_place(conn, place_id)
    if place is None:
        raise not_found("place")
    closures = (await store.closures_of(conn, [place_id]))[place_id]
    days = [closure.days for closure in closures]
    try:
        return place, domain.openness(place.details, days, at)
    except UnreadableHours as error:
        log.error("hours_unreadable", place_id=str(place_id), error=str(error))
        return place, Openness(False, None, None, "hours_unknown")


# --- closures


async def add_closure(
    conn: Conn, principal: Principal, closure: store.StoredClosure, now: datetime
) -> store.StoredClosure:
    """Close a place from midnight of the first day to midnight after the last, by its own clock."""
    place = await lock_own_place(conn, principal, closure.place_id)
    today = now.astimezone(ZoneInfo(place.details.timezone)).date()
    if closure.to_date < closure.from_date:
        raise invalid("body.to", "The last day comes before the first.")
    if closure.to_date < today:
        raise invalid("body.to", "The closure is over already.")
    if (closure.to_date - closure.from_date).days > CLOSURE_DAYS_MAX:
        raise invalid("body.to", "Ten years at most: close the place for good instead.")
    closures = (await store.closures_of(conn, [place.place_id]))[place.place_id]
    if len(closures) >= CLOSURES_MAX:
        raise conflict("too_many_closures", f"A place has {CLOSURES_MAX} closures at most.")
    if not await store.insert_closure(conn, closure, now):
        raise conflict("closure_exists", "There is a closure with this id.")
    await save(conn, place, now)
    return closure


async def remove_closure(
    conn: Conn, principal: Principal, closure_id: UUID, now: datetime
) -> store.StoredClosure:
    closure = await store.get_closure(conn, closure_id)
    if closure is None:
        raise not_found("closure")
    place = await lock_own_place(conn, principal, closure.place_id, what="closure")
    await store.delete_closure(conn, closure_id)
    await save(conn, place, now)
    return closure


# --- doors


@dataclass(frozen=True, slots=True)
class DoorOfPlace:
    """A door as it was saved, and the version of the place that tells of it."""

    door: Door
    place: Place


async def add_door(conn: Conn, principal: Principal, door: Door, now: datetime) -> DoorOfPlace:
    place = await lock_own_place(conn, principal, door.place_id)
    if place.status in {CANDIDATE, CLOSED}:
        raise conflict("place_not_in_network", "A place outside of the network gets no doors.")
    check_door(door, place)
    doors = (await store.doors_of(conn, [place.place_id]))[place.place_id]
    if len(doors) >= DOORS_MAX:
        raise conflict("too_many_doors", f"A place has {DOORS_MAX} doors at most.")
    if not await store.insert_door(conn, door):
        raise conflict("door_exists", "There is a door with this id.", field="body.door_id")
    return await saved_door(conn, place, door.door_id, now)


async def change_door(
    conn: Conn, principal: Principal, door_id: UUID, changes: Mapping[str, Any], now: datetime
) -> DoorOfPlace:
    """Change some of what is said of a door. What is the same already makes no new version."""
    place, door = await lock_own_door(conn, principal, door_id)
    changed = replace(door, **changes)
    if changed == door:
        return DoorOfPlace(door, place)
    check_door(changed, place)
    await store.update_door(conn, changed)
    return await saved_door(conn, place, door_id, now)


async def lock_own_door(conn: Conn, principal: Principal, door_id: UUID) -> tuple[Place, Door]:
    door = await store.get_door(conn, door_id)
    if door is None:
        raise not_found("door")
    place = await lock_own_place(conn, principal, door.place_id, what="door")
    # Read again: between the first reading and the lock somebody may have changed it.
    locked = await store.get_door(conn, door_id)
    if locked is None:
        raise not_found("door")
    return place, locked


async def saved_door(conn: Conn, place: Place, door_id: UUID, now: datetime) -> DoorOfPlace:
    saved = await save(conn, place, now)
    door = await store.get_door(conn, door_id)
    if door is None:
        raise RuntimeError(f"door {door_id} vanished under the lock of its place")
    return DoorOfPlace(door, saved)


async def put_reader(
    conn: Conn, principal: Principal, door_id: UUID, reader_id: UUID, now: datetime
) -> DoorOfPlace:
    """A reader is on one door. One that identity has not told us of yet is taken on trust: its
    key opens nothing before access knows it too, and it must be of the place's city by then."""
    place, door = await lock_own_door(conn, principal, door_id)
    reader = await store.get_reader(conn, reader_id)
    if reader is not None and (reader.city_id != place.city_id or reader.status != "active"):
        raise invalid(
            "body.reader_id", "The city has no such active reader.", code="unknown_reader"
        )
    if reader_id in door.readers:
        return DoorOfPlace(door, place)
    if await store.put_reader_on_door(conn, reader_id, door_id) != door_id:
        raise conflict(
            "reader_on_another_door", "The reader is on another door.", field="body.reader_id"
        )
    return await saved_door(conn, place, door_id, now)


async def take_reader(
    conn: Conn, principal: Principal, door_id: UUID, reader_id: UUID, now: datetime
) -> DoorOfPlace:
    place, _door = await lock_own_door(conn, principal, door_id)
    if not await store.take_reader_off_door(conn, reader_id, door_id):
        raise not_found("reader on this door")
    return await saved_door(conn, place, door_id, now)
