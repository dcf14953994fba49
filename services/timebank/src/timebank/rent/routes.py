"""Rent credits and the operator's statement over HTTP."""

import asyncio
from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from common.clock import Clock
from common.db import Conn, Pool
from common.fields import Body
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import forbidden, invalid, not_found
from common.web import StrictRoute
from timebank import store as ledger_store
from timebank.domain import Actor, Rejected
from timebank.pledges.domain import month_of
from timebank.pledges.routes import own_id
from timebank.rent import service, store
from timebank.rent.documents import to_csv
from timebank.rent.domain import RentCredit, RentStatement, runs
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, TheClock, once
from timebank.rules.domain import RENT_MINUTES_MAX

router = APIRouter(prefix="/v1", route_class=StrictRoute)

LINES_MAX = 10_000

Month = Annotated[str, StringConstraints(pattern=r"^(19|20)[0-9]{2}-(0[1-9]|1[0-2])$")]


class RentCreditBody(Body):
    """`minutes` of the caller's own, for the organisation that they pay rent to."""

    rent_credit_id: UUID | None = None
    organisation_id: UUID
    minutes: Annotated[int, Field(strict=True, ge=1, le=RENT_MINUTES_MAX)]


class RentCreditView(BaseModel):
    """`credit_cents`: what it takes off the rent of `month`, at the city's rate of that day."""

    rent_credit_id: UUID
    member_id: UUID
    organisation_id: UUID
    city_id: str
    month: str
    minutes: int
    cents_per_hour: int
    credit_cents: int
    status: Literal["made", "reversed"]
    made_at: datetime
    reversed_at: datetime | None
    transfer_id: UUID


class RentCreditPage(Page[RentCreditView]):
    pass


def view_credit(credit: RentCredit) -> RentCreditView:
    return RentCreditView(
        rent_credit_id=credit.id,
        member_id=credit.member_id,
        organisation_id=credit.organisation_id,
        city_id=credit.city_id,
        month=f"{credit.month:%Y-%m}",
        minutes=credit.minutes,
        cents_per_hour=credit.cents_per_hour,
        credit_cents=credit.credit_cents,
        status="reversed" if credit.reversed else "made",
        made_at=credit.made_at,
        reversed_at=credit.reversed_at,
        transfer_id=credit.transfer_id,
    )


@router.post("/rent-credits", status_code=201)
async def make_credit(
    body: RentCreditBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RentCreditView:
    """Give minutes to an organisation of one's city for rent, at the rate that the city sets."""
    member_id = own_id(actor)

    async def decide(conn: Conn, now: datetime) -> RentCredit | Rejected:
        return await service.make(
            conn,
            actor,
            rent_credit_id=body.rent_credit_id or new_id(),
            member_id=member_id,
            organisation_id=body.organisation_id,
            minutes=body.minutes,
            now=now,
        )

    return await once(
        request, actor, key, body, decide, view_credit, as_=RentCreditView, status=201
    )


@router.post("/rent-credits/{rent_credit_id}/reverse")
async def reverse_credit(
    rent_credit_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RentCreditView:
    """Take a rent credit back, whole and once: by a steward of the city, not their own."""

    async def decide(conn: Conn, now: datetime) -> RentCredit | Rejected:
        return await service.reverse(conn, actor, rent_credit_id, now)

    return await once(request, actor, key, None, decide, view_credit, as_=RentCreditView)


@router.get("/rent-credits")
async def list_credits(
    actor: CurrentActor,
    pool: Database,
    member_id: UUID | None = None,
    organisation_id: UUID | None = None,
    month: Annotated[Month | None, Query()] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[UUID | None, "the id of the last one seen"] = None,
) -> RentCreditPage:
    """One's own, or, for the stewards and operators of the city, a member's or an organisation's;
    the oldest first."""
    if member_id is None and organisation_id is None:
        raise invalid("query.member_id", "Name a member_id or an organisation_id.")
    city_id = None
    if str(member_id) != actor.id:
        if actor.city_id is None or not runs(actor, actor.city_id):
            raise forbidden("These rent credits are not yours.")
        city_id = actor.city_id
    async with pool.acquire() as conn:
        found = await store.list_credits(
            conn,
            member_id=member_id,
            organisation_id=organisation_id,
            city_id=city_id,
            month=first_day(month) if month else None,
            after=cursor,
            limit=limit + 1,
        )
    return RentCreditPage.of(found, limit, view_credit, lambda credit: credit.id)


def first_day(month: str) -> date:
    return date.fromisoformat(f"{month}-01")


@router.get(
    "/organisations/{organisation_id}/rent-statement.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def get_csv(
    organisation_id: UUID,
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    month: Annotated[Month | None, Query()] = None,
) -> Response:
    """An organisation's rent credits of a month (without one, this month), for a spreadsheet; for
    the stewards and operators of the city."""
    statement = await read_statement(pool, organisation_id, actor, month, clock)
    return Response(
        await asyncio.to_thread(to_csv, statement),
        media_type="text/csv; charset=utf-8",
        headers=download(statement, "csv"),
    )


@router.get(
    "/organisations/{organisation_id}/rent-statement.pdf",
    response_class=Response,
    responses={
        200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def get_pdf(
    organisation_id: UUID,
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    month: Annotated[Month | None, Query()] = None,
) -> Response:
    """An organisation's rent credits of a month (without one, this month), for paper; for the
    stewards and operators of the city."""
    statement = await read_statement(pool, organisation_id, actor, month, clock)
    return Response(
        await asyncio.to_thread(make_pdf, statement, clock()),
        media_type="application/pdf",
        headers=download(statement, "pdf"),
    )


def make_pdf(statement: RentStatement, made_at: datetime) -> bytes:
    # Imported here: nothing else needs the library, and most processes never make a page.
    from timebank.rent.pdf import to_pdf

    return to_pdf(statement, made_at)


def download(statement: RentStatement, ending: str) -> dict[str, str]:
    name = f"rent-{statement.organisation_id}-{statement.month:%Y-%m}.{ending}"
    return {"Content-Disposition": f'attachment; filename="{name}"'}


async def read_statement(
    pool: Pool, organisation_id: UUID, actor: Actor, month: str | None, clock: Clock
) -> RentStatement:
    """The rent credits of an organisation in the caller's city.

    Raises Problem 403, 404, and 422 `statement_too_long` for more than LINES_MAX lines.
    """
    city_id = actor.city_id
    if city_id is None or not runs(actor, city_id):
        raise forbidden("Only a steward or an operator of the city reads this.")
    async with pool.acquire() as conn:
        if await ledger_store.find_organisation_account(conn, organisation_id, city_id) is None:
            raise not_found("organisation")
        today = await ledger_store.city_today(conn, city_id, clock())
        of = first_day(month) if month else month_of(today)
        lines = await store.list_credits(
            conn,
            member_id=None,
            organisation_id=organisation_id,
            city_id=city_id,
            month=of,
            after=None,
            limit=LINES_MAX + 1,
        )
    if len(lines) > LINES_MAX:
        raise invalid("query.month", f"More than {LINES_MAX} lines.", "statement_too_long")
    lines.sort(key=lambda line: (line.made_at, line.id))
    return RentStatement(organisation_id, city_id, of, lines)
