"""Audits over HTTP: for auditors and federation admins, of all cities; for stewards, of their own.

What auditors and federation admins ask of the time bank is itself noted, before it is answered.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel

from common.auth import CurrentPrincipal, Principal
from common.db import Conn, Pool
from common.fields import Slug
from common.pages import Page
from common.problems import Problem, forbidden, invalid, not_found
from common.web import StrictRoute
from timebank.audit import store
from timebank.audit.domain import EXPLAINED, HISTORY, Anomaly, Rule, find_anomalies
from timebank.audit.exports import Format, Table, to_archive
from timebank.audit.store import InTransit, PairLine
from timebank.clearing import store as clearing_store
from timebank.routes import PAGE_DEFAULT, VERSION_MAX, CurrentActor, Database, Limit, TheClock
from timebank.statements.routes import INSTANT
from timebank.statements.store import find_before

router = APIRouter(prefix="/v1/audit", route_class=StrictRoute)

PERIOD_MAX = timedelta(days=366)
PERIOD_DEFAULT = timedelta(days=30)
CROSSINGS_MAX = 50_000
ROWS_MAX = 100_000
TRANSFERS_SHOWN = 50
ANOMALIES_SHOWN = 1_000
# No city kept time before; and what is subtracted from a day in the year 1 is no day.
FIRST = datetime(2000, 1, 1, tzinfo=UTC)

Start = Annotated[AwareDatetime | None, Query(alias="from")]


def city_asked(principal: Principal, city_id: str | None) -> str | None:
    """The city that may be looked at; None is every one. Raises Problem 403 or 404."""
    if principal.has("auditor") or principal.has("federation_admin"):
        return city_id
    wanted = city_id or principal.city
    if wanted is None or wanted != principal.city:
        raise not_found("city")
    if not principal.has("steward"):
        raise forbidden()
    return wanted


def check_period(
    start: datetime | None, until: datetime | None, now: datetime
) -> tuple[datetime, datetime]:
    """The last 30 days unless said otherwise. Raises Problem 422 for one that is none, that is yet
    to come or longer than a year."""
    if min(start or FIRST, until or FIRST) < FIRST:
        field = "from" if start and start < FIRST else "until"
        raise invalid(f"query.{field}", f"A period begins in {FIRST.year} or later.")
    end = until or now + INSTANT
    begin = start or end - PERIOD_DEFAULT
    if begin >= end or begin >= now:
        raise invalid("query.from", "A period begins before it ends, and in the past.")
    if end - begin > PERIOD_MAX:
        raise invalid("query.from", f"A period has at most {PERIOD_MAX.days} days.")
    return begin, end


# ── In transit ──────────────────────────────────────────────────────────────────────────────────


class InTransitView(BaseModel):
    """Minutes that left a city and of which it has not heard. `queries`: how often it asked."""

    transfer_id: UUID
    city_id: str
    peer_city_id: str
    minutes: int
    levy_minutes: int
    sent_at: datetime
    deadline: datetime
    age_seconds: int
    overdue: bool
    queries: int


class InTransitPage(Page[InTransitView]):
    pass


def view_in_transit(one: InTransit, now: datetime) -> InTransitView:
    return InTransitView(
        **asdict(one),
        age_seconds=max(0, int((now - one.sent_at).total_seconds())),
        overdue=one.deadline <= now,
    )


@router.get("/in-transit")
async def in_transit(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    clock: TheClock,
    city_id: Slug | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> InTransitPage:
    """What is on its way between cities, the oldest first."""
    city = city_asked(principal, city_id)
    async with pool.acquire() as conn:
        found = await store.list_in_transit(conn, city_id=city, after=cursor, limit=limit + 1)
    now = clock()
    return InTransitPage.of(
        found, limit, lambda one: view_in_transit(one, now), lambda one: one.transfer_id
    )


# ── The statement of a pair ─────────────────────────────────────────────────────────────────────


class MomentView(BaseModel):
    """`balance_minutes`: where the city stands with the peer; above zero its members gave more."""

    at: datetime
    balance_minutes: int
    in_transit_minutes: int


class PairLineView(BaseModel):
    version: int
    posted_at: datetime
    kind: str
    minutes: int
    balance_minutes: int
    ledger_transfer_id: UUID
    clearing_id: UUID | None
    log_index: int | None


class PairStatementView(BaseModel):
    """A city's account of a peer over a period. `next`: the cursor of the page that follows."""

    city_id: str
    peer_city_id: str
    opening: MomentView
    closing: MomentView
    items: list[PairLineView]
    next: str | None


async def read_moment(
    conn: Conn, account_id: UUID, city_id: str, peer: str, at: datetime
) -> tuple[int, MomentView]:
    moment = await find_before(conn, account_id, at)
    minutes = await store.minutes_in_transit(conn, city_id, peer, at)
    return moment.version, MomentView(
        at=at, balance_minutes=moment.balance_minutes, in_transit_minutes=minutes
    )


async def read_pair(
    conn: Conn, city_id: str, peer: str, begin: datetime, end: datetime, after: int, limit: int
) -> tuple[MomentView, MomentView, list[PairLine]]:
    """Raises Problem 404 for two cities that never had anything to do with each other."""
    account_id = await store.find_pair_account(conn, city_id, peer)
    if account_id is None:
        raise not_found("pair", field="query.peer_city_id")
    first, opening = await read_moment(conn, account_id, city_id, peer, begin)
    last, closing = await read_moment(conn, account_id, city_id, peer, end)
    lines = await store.list_pair_lines(
        conn, account_id, after=max(first, after), up_to=last, limit=limit
    )
    return opening, closing, lines


@router.get("/statement")
async def pair_statement(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    clock: TheClock,
    city_id: Slug,
    peer_city_id: Slug,
    start: Start = None,
    until: AwareDatetime | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[int, Query(ge=0, le=VERSION_MAX)] = 0,
) -> PairStatementView:
    """Every minute that moved between two cities in a period, as one of them keeps it, the oldest
    first, from an instant (included) until another (excluded)."""
    city_asked(principal, city_id)
    begin, end = check_period(start, until, clock())
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        opening, closing, lines = await read_pair(
            conn, city_id, peer_city_id, begin, end, cursor, limit + 1
        )
    shown = lines[:limit]
    return PairStatementView(
        city_id=city_id,
        peer_city_id=peer_city_id,
        opening=opening,
        closing=closing,
        items=[PairLineView(**asdict(line)) for line in shown],
        next=str(shown[-1].version) if len(lines) > limit else None,
    )


# ── What looks odd ──────────────────────────────────────────────────────────────────────────────


class RuleView(BaseModel):
    rule: Rule
    looks_for: str


class AnomalyView(BaseModel):
    """What a rule found. `transfer_ids`: the first 50 of `transfers`."""

    rule: Rule
    from_city: str
    to_city: str
    at: datetime
    reason: str
    figures: dict[str, Any]
    transfers: int
    transfer_ids: list[UUID]


class AnomaliesView(BaseModel):
    """`rules`: every rule that was asked, also those that found nothing. `items`: the newest 1,000
    of `found`; an export has all."""

    since: datetime
    until: datetime
    crossings: int
    rules: list[RuleView]
    found: int
    items: list[AnomalyView]


def view_anomaly(anomaly: Anomaly) -> AnomalyView:
    return AnomalyView(
        rule=anomaly.rule,
        from_city=anomaly.from_city,
        to_city=anomaly.to_city,
        at=anomaly.at,
        reason=anomaly.reason,
        figures=dict(anomaly.figures),
        transfers=len(anomaly.transfer_ids),
        transfer_ids=list(anomaly.transfer_ids[:TRANSFERS_SHOWN]),
    )


async def look_for(
    conn: Conn, city: str | None, begin: datetime, end: datetime, now: datetime
) -> tuple[int, list[Anomaly]]:
    """How many transfers there were from `begin` on, and what is odd about them. Raises Problem
    422 when there are too many to look at."""
    found = await store.list_crossings(
        conn, city_id=city, since=begin - HISTORY, until=end, limit=CROSSINGS_MAX + 1
    )
    if len(found) > CROSSINGS_MAX:
        raise invalid(
            "query.from",
            f"More than {CROSSINGS_MAX} transfers in this period and the {HISTORY.days} days before"
            " it: ask for a shorter one, or for one city.",
        )
    crossings = [one for one, _ in found]
    anomalies = await asyncio.to_thread(find_anomalies, crossings, begin, now)
    return sum(one.at >= begin for one in crossings), anomalies


@router.get("/anomalies")
async def anomalies(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    clock: TheClock,
    city_id: Slug | None = None,
    start: Start = None,
    until: AwareDatetime | None = None,
) -> AnomaliesView:
    """Transfers between cities that look odd, each with the rule that says so and its figures. None
    of it blocks anybody; rings and payers are seen only of cities whose book is kept here."""
    city = city_asked(principal, city_id)
    now = clock()
    begin, end = check_period(start, until, now)
    async with pool.acquire() as conn:
        crossings, found = await look_for(conn, city, begin, end, now)
    return AnomaliesView(
        since=begin,
        until=end,
        crossings=crossings,
        rules=[RuleView(rule=rule, looks_for=text) for rule, text in EXPLAINED.items()],
        found=len(found),
        items=[view_anomaly(one) for one in found[:ANOMALIES_SHOWN]],
    )


# ── Who looked ──────────────────────────────────────────────────────────────────────────────────


class LookView(BaseModel):
    """A question that somebody with the right to see every city asked. `city_id`: the one that it
    named, if it did."""

    number: int
    looked_at: datetime
    actor_id: str
    role: Literal["auditor", "federation_admin"]
    city_id: str | None
    path: str
    query: str


class LookPage(Page[LookView]):
    pass


@router.get("/looks")
async def looks(
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    city_id: Slug | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[int | None, Query(ge=1, le=VERSION_MAX)] = None,
) -> LookPage:
    """Who looked at what, the newest first. A city's stewards see what concerned their city, and
    what concerned all."""
    city = city_asked(principal, city_id)
    async with pool.acquire() as conn:
        found = await store.list_looks(conn, concerning=city, before=cursor, limit=limit + 1)
    return LookPage.of(
        found, limit, lambda look: LookView(**asdict(look)), lambda look: look.number
    )


# ── Exports ─────────────────────────────────────────────────────────────────────────────────────


async def rows_of(
    table: Table,
    conn: Conn,
    city: str | None,
    peer: str | None,
    begin: datetime,
    end: datetime,
    now: datetime,
) -> Sequence[Mapping[str, Any]]:
    """The rows of an export, at most one more than it may have."""
    limit = ROWS_MAX + 1
    match table:
        case "positions":
            wanted = [city] if city else None
            return [asdict(one) for one in await clearing_store.list_positions(conn, wanted, now)]
        case "in-transit":
            found = await store.list_in_transit(conn, city_id=city, after=None, limit=limit)
            return [asdict(one) for one in found]
        case "crossings":
            crossings = await store.list_crossings(
                conn, city_id=city, since=begin, until=end, limit=limit
            )
            return [{**asdict(one), "log_index": index} for one, index in crossings]
        case "anomalies":
            return [asdict(one) for one in (await look_for(conn, city, begin, end, now))[1]]
        case "looks":
            seen = await store.list_looks(conn, concerning=city, before=None, limit=limit)
            return [asdict(one) for one in seen]
        case "statement":
            if city is None or peer is None:
                missing = "city_id" if city is None else "peer_city_id"
                raise invalid(f"query.{missing}", "A statement is of two cities: name both.")
            _, _, lines = await read_pair(conn, city, peer, begin, end, 0, limit)
            return [asdict(one) for one in lines]


@router.get("/exports/{table}", response_class=Response)
async def export(
    table: Table,
    principal: CurrentPrincipal,
    _: CurrentActor,
    pool: Database,
    clock: TheClock,
    format: Format = "csv",
    city_id: Slug | None = None,
    peer_city_id: Slug | None = None,
    start: Start = None,
    until: AwareDatetime | None = None,
) -> Response:
    """A table as a zip of one CSV or Parquet file, with the checkpoints that it belongs to: the
    rows that have a `log_index` can be verified against them. Of a period where it has one."""
    city = city_asked(principal, city_id)
    now = clock()
    begin, end = check_period(start, until, now)
    rows, notes = await read_export(pool, table, city, peer_city_id, begin, end, now)
    content = await asyncio.to_thread(to_archive, table, rows, format, notes, now)
    name = f"{table}-{now:%Y-%m-%d}.zip"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    return Response(content, media_type="application/zip", headers=headers)


async def read_export(
    pool: Pool,
    table: Table,
    city: str | None,
    peer: str | None,
    begin: datetime,
    end: datetime,
    now: datetime,
) -> tuple[Sequence[Mapping[str, Any]], dict[str, str]]:
    """Rows and checkpoints of one instant. Raises Problem 422 for too many rows."""
    async with pool.acquire() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        rows = await rows_of(table, conn, city, peer, begin, end, now)
        if len(rows) > ROWS_MAX:
            raise Problem(
                422,
                "too_many_rows",
                f"More than {ROWS_MAX} rows: ask for a shorter period, or for one city.",
                field="query.from",
            )
        return rows, await store.last_checkpoints(conn, city)
