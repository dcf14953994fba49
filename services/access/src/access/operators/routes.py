"""What operators and stewards of a city ask of its doors."""

import asyncio
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from access import service
from access.operators import domain, live, store
from access.operators.domain import Trouble
from access.operators.live import LiveTaps
from access.operators.store import Health
from access.redis_pipe import RedisPipe
from access.service import CITY_STAFF
from access.snapshots.routes import CurrentOffice, CurrentReader
from access.snapshots.service import check_reader
from common.auth import CurrentPrincipal, Principal
from common.db import Pool
from common.fields import Body, Day
from common.pages import Page
from common.problems import forbidden, invalid
from common.streaming import HoldingResponse
from common.web import StrictRoute
from copass_tap.decision import STAY_MAX

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["operators"])

PAGE_MAX = 200
# As long as an access token: who may no longer watch does not for longer than that.
WATCH_S = 600.0
QUIET_S = 15.0
MOVEMENTS_MAX = 50_000
DAYS_MAX = 366
HISTORY = timedelta(days=30)
CLOCK_OFFSET_MAX_MS = 2**31 - 1

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
# A reader without a battery may think that it is 1970; none is of the year 9999, of which there is
# no tomorrow to show in another time zone.
Instant = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC)),
]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


def city_of(principal: Principal) -> str:
    """The city that the caller answers for. Raises Problem 403."""
    if principal.city is None or not principal.has(*CITY_STAFF):
        raise forbidden()
    return principal.city


# ── Now ─────────────────────────────────────────────────────────────────────────────────────────


@router.get(
    "/live",
    summary="Taps as they happen",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def watch(
    request: Request, principal: CurrentPrincipal, place_id: UUID | None = None
) -> StreamingResponse:
    """Server-sent events, `tap` for each: door, direction and decision, without names or cards; and
    `lost` with a number, for who reads too slowly. It ends after ten minutes: ask again. For the
    operators and stewards of the city, of one of its places or of all."""
    city = city_of(principal)
    if place_id is not None:
        pipe: RedisPipe = request.app.state.pipe
        await service.place_of(pipe, principal, place_id, federation=False)
    taps: LiveTaps = request.app.state.live
    loop = asyncio.get_running_loop()
    # Begun here, so that one too many is told so instead of a stream that ends.
    watcher = taps.begin(city, str(place_id) if place_id else None)
    return HoldingResponse(
        live.events(watcher, quiet_s=QUIET_S, until=loop.time() + WATCH_S),
        let_go=lambda: taps.end(watcher),
        seconds_max=WATCH_S + QUIET_S,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


# ── By hour, by reason ──────────────────────────────────────────────────────────────────────────


class HourView(BaseModel):
    """`entered`, `left`: how many; `peak`: the most who were inside at once."""

    start: datetime
    entered: int
    left: int
    peak: int


class OccupancyView(BaseModel):
    """Numbers, never names. `capacity` null: no limit."""

    place_id: UUID
    capacity: int | None
    hours: list[HourView]


@router.get("/places/{place_id}/occupancy", summary="How full a place was, hour by hour")
async def occupancy(
    place_id: UUID,
    request: Request,
    principal: CurrentPrincipal,
    start: Annotated[AwareDatetime, Query(alias="from")],
    hours: Annotated[int, Query(ge=1, le=domain.HOURS_MAX)] = 24,
) -> OccupancyView:
    """From an instant of the last 30 days, for so many hours. For the operators and stewards of the
    place's city."""
    place = await service.place_of(request.app.state.pipe, principal, place_id, federation=False)
    now: datetime = request.app.state.clock()
    if not now - HISTORY <= start <= now:
        raise invalid("query.from", "Ask for an instant of the last 30 days.")
    pool: Pool = request.app.state.pool
    async with pool.acquire() as conn:
        moved = await store.movements(
            conn,
            place_id,
            since=start - STAY_MAX,
            until=min(now, start + hours * domain.HOUR),
            limit=MOVEMENTS_MAX + 1,
        )
    if len(moved) > MOVEMENTS_MAX:
        raise invalid("query.hours", f"More than {MOVEMENTS_MAX} movements: ask for fewer hours.")
    past = min(hours, -(-int((now - start).total_seconds()) // 3600) or 1)
    return OccupancyView(
        place_id=place_id,
        capacity=place.capacity,
        hours=[HourView(**asdict(one)) for one in domain.hours_of(moved, start, past)],
    )


class CountView(BaseModel):
    """How many taps of one kind there were on a day in UTC."""

    day: date
    direction: Literal["in", "out"]
    decision: Literal["grant", "deny"]
    reason: str
    taps: int


class CountsView(BaseModel):
    place_id: UUID
    items: list[CountView]


@router.get("/places/{place_id}/counts", summary="Taps by day and reason")
async def get_counts(
    place_id: UUID,
    request: Request,
    principal: CurrentPrincipal,
    first: Annotated[Day, Query(alias="from")],
    last: Annotated[Day, Query(alias="until")],
) -> CountsView:
    """From the first day to the last, both included, also of days whose taps are long forgotten.
    For the operators and stewards of the place's city."""
    await service.place_of(request.app.state.pipe, principal, place_id, federation=False)
    if not timedelta(0) <= last - first < timedelta(days=DAYS_MAX):
        raise invalid("query.until", f"A period has 1 to {DAYS_MAX} days.")
    pool: Pool = request.app.state.pool
    async with pool.acquire() as conn:
        found = await store.counts(conn, place_id, first=first, last=last)
    return CountsView(place_id=place_id, items=[CountView(**asdict(one)) for one in found])


# ── Readers ─────────────────────────────────────────────────────────────────────────────────────


class HealthBody(Body):
    """What a reader says of itself. `clock_offset_ms`: its clock less the server's; `backlog`: taps
    that the history does not have yet; `problems`: codes of its own."""

    program: Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,100}$")]
    snapshot_issued_at: Instant | None = None
    clock_offset_ms: Annotated[
        int | None, Field(strict=True, ge=-CLOCK_OFFSET_MAX_MS, le=CLOCK_OFFSET_MAX_MS)
    ] = None
    backlog: Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)] = 0
    oldest_waiting_at: Instant | None = None
    problems: Annotated[list[Code], Field(max_length=20)] = Field(default_factory=list)


@router.put("/readers/self/health", summary="A reader says how it is", status_code=204)
async def put_health(body: HealthBody, reader: CurrentReader, office: CurrentOffice) -> None:
    """Every minute or so. Saying it again replaces it."""
    async with office.pool.acquire() as conn, conn.transaction():
        found = await check_reader(conn, reader.reader_id, reader.sha256)
        await store.save_health(
            conn,
            Health(
                reader_id=reader.reader_id,
                city_id=found.city_id,
                reported_at=office.clock(),
                **body.model_dump(),
            ),
        )


class ReaderView(BaseModel):
    """`trouble`: what somebody should look at; nothing is well."""

    reader_id: UUID
    doors: list[UUID]
    last_tap_at: datetime | None
    reported_at: datetime | None
    program: str | None
    snapshot_issued_at: datetime | None
    clock_offset_ms: int | None
    backlog: int | None
    oldest_waiting_at: datetime | None
    problems: list[str]
    trouble: list[Trouble]


class ReaderPage(Page[ReaderView]):
    pass


@router.get("/readers/health", summary="How the readers of a city are")
async def get_readers(
    request: Request,
    principal: CurrentPrincipal,
    cursor: UUID | None = None,
    limit: Limit = 50,
) -> ReaderPage:
    """Those in service, by id. For the operators and stewards of the city."""
    city = city_of(principal)
    now: datetime = request.app.state.clock()
    pool: Pool = request.app.state.pool
    async with pool.acquire() as conn:
        found = await store.list_readers(conn, city, after=cursor, limit=limit + 1)
    return ReaderPage.of(
        found,
        limit,
        lambda one: ReaderView(
            **{name: value for name, value in asdict(one).items() if name != "city_id"},
            trouble=domain.troubles_of(one, now),
        ),
        lambda one: one.reader_id,
    )


# ── Who looked ──────────────────────────────────────────────────────────────────────────────────


class LookView(BaseModel):
    """Somebody asked for more than their own taps, and was shown so many."""

    look_id: UUID
    looked_at: datetime
    looked_by: str
    place_id: UUID | None
    member_id: UUID | None
    filters: dict[str, Any]
    taps: int


class LookPage(Page[LookView]):
    pass


@router.get("/taps/looks", summary="Who looked at whose taps")
async def get_looks(
    request: Request,
    principal: CurrentPrincipal,
    member_id: UUID | None = None,
    cursor: UUID | None = None,
    limit: Limit = 50,
) -> LookPage:
    """The newest first: everybody sees who asked for them, stewards see all of their city."""
    own = member_id is not None and str(member_id) == principal.sub
    if not own and not (principal.city and principal.has("steward")):
        raise forbidden("You may see who looked at your own taps: give your member_id.")
    pool: Pool = request.app.state.pool
    async with pool.acquire() as conn:
        found = await store.list_looks(
            conn,
            city_id=None if own else principal.city,
            member_id=member_id,
            before=cursor,
            limit=limit + 1,
        )
    return LookPage.of(
        found,
        limit,
        lambda one: LookView(
            **{name: value for name, value in asdict(one).items() if name != "city_id"}
        ),
        lambda one: one.look_id,
    )
