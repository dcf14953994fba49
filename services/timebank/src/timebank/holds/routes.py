"""Holds over HTTP."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel

from common.db import Conn
from common.fields import Body, LongText, Minutes
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import not_found
from common.web import StrictRoute
from timebank import store as ledger_store
from timebank.domain import Leg, Rejected, Transfer, TransferRequest
from timebank.holds import service, store
from timebank.holds.domain import Hold, HoldStatus, may_see
from timebank.routes import (
    PAGE_DEFAULT,
    CurrentActor,
    Database,
    Limit,
    PostedView,
    hidden,
    once,
    readable_account,
    view_posted,
)

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class HoldBody(Body):
    """`minutes` are set aside by one account for another of the same city, until `expires_at`."""

    hold_id: UUID | None = None
    from_account: UUID
    to_account: UUID
    minutes: Minutes
    expires_at: AwareDatetime
    memo: LongText | None = None


class HoldView(BaseModel):
    hold_id: UUID
    city_id: str
    from_account: UUID
    to_account: UUID
    minutes: int
    memo: str | None
    status: HoldStatus
    created_at: datetime
    expires_at: datetime
    resolved_at: datetime | None
    posted_minutes: int | None
    transfer_id: UUID | None


class HoldPage(Page[HoldView]):
    pass


class HoldPostedView(BaseModel):
    hold: HoldView
    transfer: PostedView


def view_hold(hold: Hold) -> HoldView:
    return HoldView(
        hold_id=hold.id,
        city_id=hold.city_id,
        from_account=hold.from_account,
        to_account=hold.to_account,
        minutes=hold.minutes,
        memo=hold.memo,
        status=hold.status,
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        resolved_at=hold.resolved_at,
        posted_minutes=hold.posted_minutes,
        transfer_id=hold.transfer_id,
    )


@router.post("/holds", status_code=201)
async def place_hold(
    body: HoldBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> HoldView:
    """Set minutes aside: they count against the floor, and are not given yet."""

    async def decide(conn: Conn, now: datetime) -> Hold | Rejected:
        wanted = TransferRequest(
            transfer_id=body.hold_id or new_id(),
            own_id=body.hold_id is not None,
            key=key,
            actor=actor,
            legs=(Leg(body.from_account, -body.minutes), Leg(body.to_account, body.minutes)),
            memo=body.memo,
        )
        return await service.place(conn, wanted, expires_at=body.expires_at, now=now)

    return await once(
        request, actor, key, body, decide, view_hold, as_=HoldView, status=201, of_body=True
    )


class PostHoldBody(Body):
    """Without `minutes`, all that is held."""

    minutes: Minutes | None = None


@router.post("/holds/{hold_id}/post", status_code=201)
async def post_hold(
    hold_id: UUID, body: PostHoldBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> HoldPostedView:
    """Give what is held, in full or in part; what is not given is free again."""

    async def decide(conn: Conn, now: datetime) -> tuple[Hold, Transfer] | Rejected:
        return await service.post(
            conn,
            hold_id,
            actor,
            minutes=body.minutes,
            transfer_id=new_id(),
            key=key,
            now=now,
        )

    def view(done: tuple[Hold, Transfer]) -> HoldPostedView:
        return HoldPostedView(hold=view_hold(done[0]), transfer=view_posted(done[1]))

    return await once(request, actor, key, body, decide, view, as_=HoldPostedView, status=201)


@router.post("/holds/{hold_id}/void")
async def void_hold(
    hold_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> HoldView:
    """Release what is held."""

    async def decide(conn: Conn, now: datetime) -> Hold | Rejected:
        return await service.void(conn, hold_id, actor, now)

    return await once(request, actor, key, None, decide, view_hold, as_=HoldView)


@router.get("/holds/{hold_id}")
async def get_hold(hold_id: UUID, actor: CurrentActor, pool: Database) -> HoldView:
    """A hold, for its two sides and the stewards."""
    async with pool.acquire() as conn:
        hold = await store.find_hold(conn, hold_id)
        if hold is None:
            raise not_found("hold")
        sides = await ledger_store.find_accounts(conn, [hold.from_account, hold.to_account])
    if not may_see(hold, {account.id: account for account in sides}, actor):
        raise hidden("hold", actor, hold.city_id)
    return view_hold(hold)


@router.get("/accounts/{account_id}/holds")
async def list_holds(
    account_id: UUID,
    actor: CurrentActor,
    pool: Database,
    status: HoldStatus | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Annotated[UUID | None, "the id of the last one seen"] = None,
) -> HoldPage:
    """The holds from and to an account, the newest first; for its owner and the stewards."""
    account = await readable_account(pool, account_id, actor)
    if not (actor.owns(account) or actor.is_steward_of(account.city_id)):
        raise hidden("account", actor, account.city_id)
    async with pool.acquire() as conn:
        holds = await store.list_holds(
            conn, account_id, status=status, before=cursor, limit=limit + 1
        )
    return HoldPage.of(holds, limit, view_hold, lambda hold: hold.id)
