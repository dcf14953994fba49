"""The HTTP interface: parse, call the service, map the answer.

Everybody may read. Commands want a token and an Idempotency-Key.
"""

import base64
from collections.abc import Awaitable, Callable, Mapping, Set
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import available_timezones

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from common.auth import CurrentPrincipal, OptionalPrincipal
from common.clock import Clock
from common.db import Conn, Pool
from common.fields import Body, LongText, ShortText, Slug, printable, single_line
from common.idempotency import Answer as StoredAnswer
from common.idempotency import IdempotencyKey, run_once
from common.ids import new_id
from common.problems import invalid, not_found
from common.web import StrictRoute
from places import service, store
from places.answers import (
    RULES,
    Answer,
    AntiPassback,
    ClosureAnswer,
    DoorAnswer,
    Guests,
    ListedPlace,
    OpennessAnswer,
    OpensWith,
    PlaceAnswer,
    PlaceInFull,
    PlacesPage,
    Profile,
    Status,
)
from places.domain.departements import fold
from places.domain.place import Details, Door
from places.domain.rules import TIMED, Function, Rules, Zone

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["places"])

RADIUS_M_MAX = 200_000


@lru_cache(maxsize=1)
def timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def known_timezone(name: str) -> str:
    if name not in timezones():
        raise ValueError("must be a time zone of the IANA database, such as Europe/Paris")
    return name


Address = Annotated[
    str,
    StringConstraints(strip_whitespace=True, max_length=300),
    AfterValidator(printable),
    AfterValidator(single_line),
]
Postcode = Annotated[str, StringConstraints(pattern=r"^[0-9]{5}$")]
InseeCode = Annotated[str, StringConstraints(pattern=r"^([013-9][0-9]|2[AB1-9])[0-9]{3}$")]
Latitude = Annotated[float, Field(strict=True, ge=-90, le=90)]
Longitude = Annotated[float, Field(strict=True, ge=-180, le=180)]
Timezone = Annotated[str, StringConstraints(max_length=64), AfterValidator(known_timezone)]
Hours = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=1000),
    AfterValidator(printable),
]
Capacity = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Minutes = Annotated[int, Field(strict=True, ge=1, le=1440)]
# Part of keys at the door.
ZoneName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
ZONES_MAX = 30
Flag = Annotated[bool, Field(strict=True)]


class ZoneBody(Body):
    """A part of the place that doors lead to, and what of it differs from the place."""

    zone: ZoneName
    name: ShortText
    function: ZoneName | None = None
    anti_passback: AntiPassback | None = None
    anti_passback_minutes: Minutes | None = None


class FunctionBody(Body):
    """What one or more zones serve, such as a workshop. `capacity`: people in them together."""

    function: ZoneName
    name: ShortText
    capacity: Capacity | None = None
    opens_with: OpensWith | None = None


Zones = Annotated[list[ZoneBody], Field(max_length=ZONES_MAX)]
Functions = Annotated[list[FunctionBody], Field(max_length=ZONES_MAX)]


class CreatePlace(Body):
    place_id: UUID | None = None
    city_id: Slug
    name: ShortText
    profile: Profile
    postcode: Postcode
    commune: ShortText
    address: Address = ""
    insee_code: InseeCode | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    timezone: Timezone | None = Field(
        default=None, description="Default: of the département, else of the city"
    )
    opening_hours: Hours | None = Field(default=None, description="An OSM expression")
    capacity: Capacity | None = Field(default=None, description="People; null: no limit")
    anti_passback: AntiPassback = "off"
    anti_passback_minutes: Minutes | None = Field(default=None, description="When it is timed")
    opens_with: OpensWith = Field(default="anybody", description="Who is there before visitors")
    guests: Guests = Field(
        default="hours", description="When guest passes open: or with their host"
    )
    zones: Zones = Field(default_factory=list)
    functions: Functions = Field(default_factory=list)
    itinerant: Flag = False
    source: ShortText | None = Field(default=None, description="Where open data came from")
    external_id: ShortText | None = Field(default=None, description="Its id there")
    licence: ShortText | None = None
    attribution: ShortText | None = None


class ChangePlace(Body):
    """What is absent stays; null empties what may be empty."""

    name: ShortText | None = None
    profile: Profile | None = None
    postcode: Postcode | None = None
    commune: ShortText | None = None
    address: Address | None = None
    insee_code: InseeCode | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    timezone: Timezone | None = None
    opening_hours: Hours | None = None
    capacity: Capacity | None = None
    anti_passback: AntiPassback | None = None
    anti_passback_minutes: Minutes | None = None
    opens_with: OpensWith | None = None
    guests: Guests | None = None
    zones: Zones | None = Field(default=None, description="All of them")
    functions: Functions | None = Field(default=None, description="All of them")
    itinerant: Flag | None = None


MAY_BE_NULL = {
    "insee_code",
    "latitude",
    "longitude",
    "opening_hours",
    "capacity",
    "anti_passback_minutes",
}


class SetStatus(Body):
    status: Literal["in_network", "suspended", "closed"]
    reason: LongText


class Adopt(Body):
    city_id: Slug


class AddClosure(Body):
    from_: date = Field(alias="from")
    to: date
    reason: LongText


class AddDoor(Body):
    door_id: UUID | None = None
    name: ShortText
    kind: Literal["public", "private"] = "public"
    min_assurance: Annotated[int, Field(strict=True, ge=1, le=2)] = 1
    unlock_ms: Annotated[int, Field(strict=True, ge=500, le=30_000)] = 3000
    publics: Annotated[list[Literal["network"]], Field(max_length=1)] | None = Field(
        default=None, description="Default: the network for a public door, none for a private one"
    )
    opening_hours: Hours | None = Field(default=None, description="Default: the place's")
    from_zone: ZoneName | None = Field(default=None, description="Null: outside")
    to_zone: ZoneName | None = Field(default=None, description="Null: the place as a whole")
    interlock: ZoneName | None = Field(
        default=None, description="Of the doors of one, one is unlocked at a time"
    )


class ChangeDoor(Body):
    """What is absent stays; null empties what may be empty."""

    name: ShortText | None = None
    min_assurance: Annotated[int, Field(strict=True, ge=1, le=2)] | None = None
    unlock_ms: Annotated[int, Field(strict=True, ge=500, le=30_000)] | None = None
    publics: Annotated[list[Literal["network"]], Field(max_length=1)] | None = None
    opening_hours: Hours | None = None
    from_zone: ZoneName | None = None
    to_zone: ZoneName | None = None
    interlock: ZoneName | None = None


DOOR_MAY_BE_NULL = {"opening_hours", "from_zone", "to_zone", "interlock"}


class PutReader(Body):
    reader_id: UUID


# --- plumbing


def pool_of(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


def clock_of(request: Request) -> Clock:
    clock: Clock = request.app.state.clock
    return clock


async def run(
    request: Request,
    principal: CurrentPrincipal,
    key: str,
    body: Body | None,
    command: Callable[[Conn], Awaitable[Answer]],
    *,
    status: int = 200,
) -> JSONResponse:
    """Run a command once, in one transaction, and give its answer (or the first one) back."""

    async def answered(conn: Conn) -> StoredAnswer:
        answer = await command(conn)
        return StoredAnswer(status, answer.model_dump(mode="json", by_alias=True))

    stored = await run_once(
        pool_of(request),
        scope=f"{principal.sub}:{request.method} {request.url.path}",
        key=key,
        request=body.model_dump(mode="json", exclude_unset=True) if body else {},
        now=clock_of(request)(),
        command=answered,
    )
    return JSONResponse(stored.body, stored.status)


def refuse_nulls(changes: Mapping[str, Any], may_be_null: Set[str]) -> None:
    """Raises Problem 422 for a null where there must be something."""
    for name, value in changes.items():
        if value is None and name not in may_be_null:
            raise invalid(f"body.{name}", "This cannot be null.")


def take_rules(fields: dict[str, Any]) -> dict[str, Any]:
    """Those of the fields of a place that are its rules, taken out of the others."""
    rules = {name: fields.pop(name) for name in RULES if name in fields}
    if "zones" in rules:
        rules["zones"] = tuple(Zone(**zone) for zone in rules["zones"])
    if "functions" in rules:
        rules["functions"] = tuple(Function(**function) for function in rules["functions"])
    return rules


# --- reading


def write_cursor(found: store.Found) -> str:
    return base64.urlsafe_b64encode(
        orjson.dumps([found.sort_key, str(found.place.place_id)])
    ).decode()


def read_cursor(cursor: str, *, by_distance: bool) -> tuple[Any, UUID]:
    try:
        key, place_id = orjson.loads(base64.urlsafe_b64decode(cursor))
        if not isinstance(key, float if by_distance else str) or "\x00" in str(key):
            raise TypeError
        return key, UUID(place_id)
    except (ValueError, TypeError, AttributeError) as error:
        raise invalid("query.cursor", "This is no cursor of this list.") from error


@router.get("/places", response_model=PlacesPage)
async def list_places(
    request: Request,
    city_id: Annotated[Slug | None, Query()] = None,
    status: Annotated[Status | None, Query(description="Default: all but the candidates")] = None,
    q: Annotated[
        str, Query(max_length=200, description="Words of the name, the town or the address")
    ] = "",
    open_now: Annotated[bool, Query(description="Only places of the network, open now")] = False,
    lat: Annotated[float | None, Query(ge=-90, le=90, allow_inf_nan=False)] = None,
    lon: Annotated[float | None, Query(ge=-180, le=180, allow_inf_nan=False)] = None,
    radius_m: Annotated[float, Query(gt=0, le=RADIUS_M_MAX, allow_inf_nan=False)] = 10_000,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=4000)] = None,
) -> Any:
    """Places by name, or nearest first when `lat` and `lon` are given."""
    if (lat is None) != (lon is None):
        raise invalid("query.lat", "Give both lat and lon, or neither.")
    near = None if lat is None or lon is None else (lat, lon, radius_m)
    words = fold(q)
    if q.strip() and not words:
        return PlacesPage(items=[], next=None)
    search = store.Search(
        city_id=city_id,
        status=status,
        text=words,
        open_at=clock_of(request)() if open_now else None,
        near=near,
        after=read_cursor(cursor, by_distance=near is not None) if cursor else None,
        limit=limit + 1,
    )
    async with pool_of(request).acquire() as conn:
        found = await store.search_places(conn, search)
    more = len(found) > limit
    return PlacesPage(
        items=[ListedPlace.of_found(each) for each in found[:limit]],
        next=write_cursor(found[limit - 1]) if more else None,
    )


@router.get("/places/{place_id}", response_model=PlaceInFull)
async def get_place(request: Request, place_id: UUID, principal: OptionalPrincipal) -> Any:
    """A place with its doors and its closures; readers only for those who run it."""
    async with (
        pool_of(request).acquire() as conn,
        conn.transaction(isolation="repeatable_read", readonly=True),
    ):
        place = await store.get_place(conn, place_id)
        if place is None:
            raise not_found("place")
        doors = (await store.doors_of(conn, [place_id]))[place_id]
        closures = (await store.closures_of(conn, [place_id]))[place_id]
    runs = principal is not None and service.runs_places(principal, place.city_id)
    return PlaceInFull(
        **PlaceAnswer.of(place).model_dump(),
        doors=[DoorAnswer.of(door, with_readers=runs) for door in doors],
        closures=[ClosureAnswer.of(closure) for closure in closures],
    )


@router.get("/places/{place_id}/openness", response_model=OpennessAnswer)
async def get_openness(
    request: Request,
    place_id: UUID,
    at: Annotated[
        AwareDatetime | None, Query(description="Default: now; with an offset, or Z")
    ] = None,
) -> Any:
    """Whether a place is open, until when, and when that changes next."""
    now = clock_of(request)()
    moment: datetime = now if at is None else at
    async with pool_of(request).acquire() as conn:
        place, openness = await service.openness(conn, place_id, moment, now)
    return OpennessAnswer.of(place, moment, openness)


# --- commands


@router.post("/places", status_code=201, response_model=PlaceAnswer)
async def create_place(
    request: Request, body: CreatePlace, principal: CurrentPrincipal, key: IdempotencyKey
) -> JSONResponse:
    """Add a place to a city."""
    place_id = body.place_id or new_id()
    if (body.source is None) != (body.external_id is None):
        raise invalid("body.external_id", "Give both source and external_id, or neither.")
    fields = body.model_dump(exclude={"place_id", "city_id", "timezone"})
    rules = Rules(**take_rules(fields))

    async def command(conn: Conn) -> Answer:
        place = await service.create_place(
            conn,
            principal,
            place_id=place_id,
            city_id=body.city_id,
            details=Details(**fields),
            timezone=body.timezone,
            now=clock_of(request)(),
            rules=rules,
        )
        return PlaceAnswer.of(place)

    return await run(request, principal, key, body, command, status=201)


@router.patch("/places/{place_id}", response_model=PlaceAnswer)
async def change_place(
    request: Request,
    place_id: UUID,
    body: ChangePlace,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Change some of what is said of a place."""
    changes = body.model_dump(exclude_unset=True)
    refuse_nulls(changes, MAY_BE_NULL)
    if changes.get("anti_passback", TIMED) != TIMED:
        changes.setdefault("anti_passback_minutes", None)
    new_rules = take_rules(changes)

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        return PlaceAnswer.of(
            await service.change_place(conn, principal, place_id, changes, now, new_rules)
        )

    return await run(request, principal, key, body, command)


@router.put("/places/{place_id}/status", response_model=PlaceAnswer)
async def set_status(
    request: Request,
    place_id: UUID,
    body: SetStatus,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Admit, suspend or close a place: the federation's decision."""

    async def command(conn: Conn) -> Answer:
        return PlaceAnswer.of(
            await service.set_status(
                conn, principal, place_id, body.status, body.reason, clock_of(request)()
            )
        )

    return await run(request, principal, key, body, command)


@router.post("/places/{place_id}/adopt", response_model=PlaceAnswer)
async def adopt_place(
    request: Request, place_id: UUID, body: Adopt, principal: CurrentPrincipal, key: IdempotencyKey
) -> JSONResponse:
    """Take a candidate (imported, without a city) into a city, and so into the network."""

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        return PlaceAnswer.of(
            await service.adopt_place(conn, principal, place_id, body.city_id, now)
        )

    return await run(request, principal, key, body, command)


@router.post("/places/{place_id}/closures", status_code=201, response_model=ClosureAnswer)
async def add_closure(
    request: Request,
    place_id: UUID,
    body: AddClosure,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Close a place for some days."""
    closure = store.StoredClosure(
        closure_id=new_id(),
        place_id=place_id,
        from_date=body.from_,
        to_date=body.to,
        reason=body.reason,
    )

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        return ClosureAnswer.of(await service.add_closure(conn, principal, closure, now))

    return await run(request, principal, key, body, command, status=201)


@router.delete("/closures/{closure_id}", response_model=ClosureAnswer)
async def remove_closure(
    request: Request, closure_id: UUID, principal: CurrentPrincipal, key: IdempotencyKey
) -> JSONResponse:
    """Take a closure back."""

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        return ClosureAnswer.of(await service.remove_closure(conn, principal, closure_id, now))

    return await run(request, principal, key, None, command)


@router.post("/places/{place_id}/doors", status_code=201, response_model=DoorAnswer)
async def add_door(
    request: Request,
    place_id: UUID,
    body: AddDoor,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Add a door to a place."""
    publics = body.publics
    if publics is None:
        publics = ["network"] if body.kind == "public" else []
    door = Door(
        door_id=body.door_id or new_id(),
        place_id=place_id,
        name=body.name,
        kind=body.kind,
        min_assurance=body.min_assurance,
        unlock_ms=body.unlock_ms,
        publics=tuple(publics),
        opening_hours=body.opening_hours,
        open=(),
        from_zone=body.from_zone,
        to_zone=body.to_zone,
        interlock=body.interlock,
    )

    async def command(conn: Conn) -> Answer:
        saved = await service.add_door(conn, principal, door, clock_of(request)())
        return DoorAnswer.of(saved.door)

    return await run(request, principal, key, body, command, status=201)


@router.patch("/doors/{door_id}", response_model=DoorAnswer)
async def change_door(
    request: Request,
    door_id: UUID,
    body: ChangeDoor,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Change some of what is said of a door."""
    changes = body.model_dump(exclude_unset=True)
    refuse_nulls(changes, DOOR_MAY_BE_NULL)
    if "publics" in changes:
        changes["publics"] = tuple(changes["publics"])

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        return DoorAnswer.of(
            (await service.change_door(conn, principal, door_id, changes, now)).door
        )

    return await run(request, principal, key, body, command)


@router.post("/doors/{door_id}/readers", status_code=201, response_model=DoorAnswer)
async def put_reader(
    request: Request,
    door_id: UUID,
    body: PutReader,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Put a reader on a door."""

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        saved = await service.put_reader(conn, principal, door_id, body.reader_id, now)
        return DoorAnswer.of(saved.door)

    return await run(request, principal, key, body, command, status=201)


@router.delete("/doors/{door_id}/readers/{reader_id}", response_model=DoorAnswer)
async def take_reader(
    request: Request,
    door_id: UUID,
    reader_id: UUID,
    principal: CurrentPrincipal,
    key: IdempotencyKey,
) -> JSONResponse:
    """Take a reader off a door."""

    async def command(conn: Conn) -> Answer:
        now = clock_of(request)()
        saved = await service.take_reader(conn, principal, door_id, reader_id, now)
        return DoorAnswer.of(saved.door)

    return await run(request, principal, key, None, command)
