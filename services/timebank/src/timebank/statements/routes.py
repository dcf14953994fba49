"""Balances and statements over HTTP."""

import asyncio
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel

from common.db import Pool
from common.problems import invalid
from common.web import StrictRoute
from timebank.domain import Account, Actor
from timebank.routes import (
    PAGE_DEFAULT,
    VERSION_MAX,
    CurrentActor,
    Database,
    Limit,
    TheClock,
    readable_account,
)
from timebank.statements import store
from timebank.statements.documents import Statement, to_csv
from timebank.statements.readers import shown_to

router = APIRouter(prefix="/v1", route_class=StrictRoute)

CSV_LINES_MAX = 20_000
PDF_LINES_MAX = 2_000
# The database knows no shorter time: what is before the next one is up to and with this one.
INSTANT = timedelta(microseconds=1)

Start = Annotated[AwareDatetime | None, Query(alias="from")]


class BalanceView(BaseModel):
    """`version` counts the postings up to and with the instant `at`."""

    account_id: UUID
    at: datetime
    balance_minutes: int
    version: int


@router.get("/accounts/{account_id}/balance")
async def get_balance(
    account_id: UUID,
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    at: AwareDatetime | None = None,
) -> BalanceView:
    """What an account's balance was at an instant; now, without one."""
    await readable_account(pool, account_id, actor)
    at = check_instant("query.at", at, clock())
    async with pool.acquire() as conn:
        moment = await store.find_before(conn, account_id, at + INSTANT)
    return BalanceView(
        account_id=account_id,
        at=at,
        balance_minutes=moment.balance_minutes,
        version=moment.version,
    )


def check_instant(field: str, at: datetime | None, now: datetime) -> datetime:
    """Raises Problem 422 for what is still to come, or before all time banks."""
    if at is not None and (at > now or at.year < 1900):
        raise invalid(field, "Ask for an instant of the past.", "not_in_the_past")
    return at or now


class LineView(BaseModel):
    """Positive minutes were received, negative ones given.

    `transfer_id` null: of gifts to the solidarity fund and help from it, for others than stewards.
    `occurred_at`: when it happened elsewhere, of what was imported.
    """

    transfer_id: UUID | None
    kind: str
    version: int
    minutes: int
    balance_minutes: int
    posted_at: datetime
    occurred_at: datetime | None
    memo: str | None
    reverses: UUID | None


class StatementPage(BaseModel):
    items: list[LineView]
    next: str | None


@router.get("/accounts/{account_id}/postings")
async def list_postings(
    account_id: UUID,
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    start: Start = None,
    until: AwareDatetime | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[int | None, Query(ge=1, le=VERSION_MAX)] = None,
) -> StatementPage:
    """The statement of an account, the newest first, each line with the balance after it; from an
    instant (included) until another (excluded).

    Memos are for the owner and the stewards, not for all who may read an account.
    """
    account = await readable_account(pool, account_id, actor)
    end = check_instant("query.until", until, clock()) if until else None
    check_period(start, end or clock())
    async with pool.acquire() as conn:
        opening = await store.find_before(conn, account_id, start) if start else store.NOTHING
        up_to = (await store.find_before(conn, account_id, end)).version if end else VERSION_MAX
        lines = await store.list_newest(
            conn,
            account_id,
            after=opening.version,
            up_to=min(up_to, cursor - 1) if cursor else up_to,
            limit=limit + 1,
        )
    page = [shown_to(actor, account, line) for line in lines[:limit]]
    return StatementPage(
        items=[
            LineView(
                transfer_id=line.transfer_id,
                kind=line.kind,
                version=line.posting.account_version,
                minutes=line.posting.minutes,
                balance_minutes=line.posting.balance_minutes,
                posted_at=line.posted_at,
                occurred_at=line.occurred_at,
                memo=line.memo,
                reverses=line.reverses,
            )
            for line in page
        ],
        next=str(page[-1].posting.account_version) if len(lines) > limit else None,
    )


def check_period(start: datetime | None, end: datetime) -> None:
    """Raises Problem 422 for a statement that would end before it begins, or begin before all time
    banks."""
    if start is not None and (start >= end or start.year < 1900):
        raise invalid("query.from", "The statement must begin before it ends.", "not_in_the_past")


@router.get(
    "/accounts/{account_id}/statement.csv",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def get_csv(
    account_id: UUID,
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    start: Start = None,
    until: AwareDatetime | None = None,
) -> Response:
    """The statement from an instant (included) until another (excluded), for a spreadsheet."""
    account = await readable_account(pool, account_id, actor)
    end = check_instant("query.until", until, clock())
    statement = await read_statement(pool, account, actor, start, end, CSV_LINES_MAX)
    return Response(
        await asyncio.to_thread(to_csv, statement),
        media_type="text/csv; charset=utf-8",
        headers=download(account, "csv"),
    )


@router.get(
    "/accounts/{account_id}/statement.pdf",
    response_class=Response,
    responses={
        200: {"content": {"application/pdf": {"schema": {"type": "string", "format": "binary"}}}}
    },
)
async def get_pdf(
    account_id: UUID,
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    start: Start = None,
    until: AwareDatetime | None = None,
) -> Response:
    """The statement from an instant (included) until another (excluded), for paper."""
    account = await readable_account(pool, account_id, actor)
    end = check_instant("query.until", until, clock())
    statement = await read_statement(pool, account, actor, start, end, PDF_LINES_MAX)
    return Response(
        await asyncio.to_thread(make_pdf, statement),
        media_type="application/pdf",
        headers=download(account, "pdf"),
    )


def make_pdf(statement: Statement) -> bytes:
    # Imported here: nothing else needs the library, and most processes never make a page.
    from timebank.statements.pdf import to_pdf

    return to_pdf(statement)


def download(account: Account, ending: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="statement-{account.id}.{ending}"'}


async def read_statement(
    pool: Pool,
    account: Account,
    actor: Actor,
    start: datetime | None,
    end: datetime,
    lines_max: int,
) -> Statement:
    """What happened on an account from `start` (included) to `end` (excluded).

    Raises Problem 422 when that is nothing, or more than `lines_max` lines.
    """
    check_period(start, end)
    async with pool.acquire() as conn:
        opening = await store.find_before(conn, account.id, start) if start else store.NOTHING
        closing = await store.find_before(conn, account.id, end)
        if closing.version - opening.version > lines_max:
            raise invalid(
                "query.from", f"More than {lines_max} lines: ask for less.", "statement_too_long"
            )
        lines = await store.list_between(
            conn, account.id, after=opening.version, up_to=closing.version
        )
    return Statement(
        account_id=account.id,
        city_id=account.city_id,
        start=start,
        end=end,
        opening_minutes=opening.balance_minutes,
        closing_minutes=closing.balance_minutes,
        lines=[shown_to(actor, account, line) for line in lines],
    )
