"""The solidarity fund over HTTP. No route tells anybody but the member and the stewards who was
helped, nor that somebody asked."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from common.db import Conn
from common.fields import Body, LongText, Minutes, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import not_found
from common.web import StrictRoute
from timebank.domain import Actor, Rejected
from timebank.pledges.routes import own_id
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, hidden, once
from timebank.solidarity import service, store
from timebank.solidarity.domain import (
    REQUEST_MINUTES_MAX,
    Gift,
    HelpRequest,
    Purpose,
    RequestStatus,
)

router = APIRouter(prefix="/v1/solidarity", route_class=StrictRoute)

Cursor = Annotated[UUID | None, "the id of the last one seen"]


class GiftBody(Body):
    """`anonymous`: the giver is shown to nobody else among the gifts."""

    gift_id: UUID | None = None
    minutes: Minutes
    anonymous: StrictBool = False


class GiftView(BaseModel):
    """`member_id` null: somebody who does not want to be named."""

    gift_id: UUID
    city_id: str
    minutes: int
    anonymous: bool
    member_id: UUID | None
    given_at: datetime


class GiftPage(Page[GiftView]):
    pass


def view_gift(gift: Gift, actor: Actor) -> GiftView:
    named = not gift.anonymous or str(gift.member_id) == actor.id
    return GiftView(
        gift_id=gift.id,
        city_id=gift.city_id,
        minutes=gift.minutes,
        anonymous=gift.anonymous,
        member_id=gift.member_id if named else None,
        given_at=gift.given_at,
    )


@router.post("/gifts", status_code=201)
async def give(
    body: GiftBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> GiftView:
    """Give minutes to the fund of one's city."""
    member_id = own_id(actor)

    async def decide(conn: Conn, now: datetime) -> Gift | Rejected:
        return await service.give(
            conn,
            actor,
            gift_id=body.gift_id or new_id(),
            member_id=member_id,
            minutes=body.minutes,
            anonymous=body.anonymous,
            now=now,
        )

    def view(gift: Gift) -> GiftView:
        return view_gift(gift, actor)

    return await once(request, actor, key, body, decide, view, as_=GiftView, status=201)


@router.get("/gifts")
async def list_gifts(
    city_id: Annotated[Slug, Query()],
    actor: CurrentActor,
    pool: Database,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> GiftPage:
    """The gifts to a city's fund, the newest first, for everybody in the city."""
    if not actor.may_know_of(city_id):
        raise not_found("city")
    async with pool.acquire() as conn:
        gifts = await store.list_gifts(conn, city_id, before=cursor, limit=limit + 1)
    return GiftPage.of(gifts, limit, lambda gift: view_gift(gift, actor), lambda gift: gift.id)


class RequestBody(Body):
    """Minutes for the member's own `balance`, or for months of their `pledge` that are short."""

    request_id: UUID | None = None
    minutes: Annotated[int, Field(strict=True, ge=1, le=REQUEST_MINUTES_MAX)]
    purpose: Annotated[Purpose, Field(alias="for")]
    reason: LongText | None = None


class RequestView(BaseModel):
    """What was asked of a city's fund, and what became of it."""

    model_config = ConfigDict(populate_by_name=True)

    request_id: UUID
    member_id: UUID
    city_id: str
    minutes: int
    purpose: Annotated[Purpose, Field(alias="for")]
    status: RequestStatus
    asked_at: datetime
    decided_at: datetime | None
    granted_minutes: int | None
    transfer_id: UUID | None


class RequestDetail(RequestView):
    """With the reason, as long as it is not erased."""

    reason: str | None


class RequestPage(Page[RequestView]):
    pass


def view_request(request: HelpRequest) -> RequestView:
    # Without the reason: answers are kept beside their keys.
    return RequestView(
        request_id=request.id,
        member_id=request.member_id,
        city_id=request.city_id,
        minutes=request.minutes,
        purpose=request.purpose,
        status=request.status,
        asked_at=request.asked_at,
        decided_at=request.decided_at,
        granted_minutes=request.granted_minutes,
        transfer_id=request.transfer_id,
    )


@router.post("/requests", status_code=201)
async def ask(
    body: RequestBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RequestView:
    """Ask the fund for minutes. One request at a time for each of the two purposes."""
    member_id = own_id(actor)

    async def decide(conn: Conn, now: datetime) -> HelpRequest | Rejected:
        return await service.ask(
            conn,
            actor,
            request_id=body.request_id or new_id(),
            member_id=member_id,
            minutes=body.minutes,
            purpose=body.purpose,
            reason=body.reason or None,
            now=now,
        )

    return await once(request, actor, key, body, decide, view_request, as_=RequestView, status=201)


class GrantBody(Body):
    """Without `minutes`, all that was asked for; for a pledge, never more than is short."""

    minutes: Minutes | None = None


@router.post("/requests/{request_id}/grant")
async def grant(
    request_id: UUID, body: GrantBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RequestView:
    """Help: by a steward of the city who is not the one who asks."""

    async def decide(conn: Conn, now: datetime) -> HelpRequest | Rejected:
        return await service.grant(conn, actor, request_id, minutes=body.minutes, now=now)

    return await once(request, actor, key, body, decide, view_request, as_=RequestView)


@router.post("/requests/{request_id}/decline")
async def decline(
    request_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RequestView:
    """Decline: by a steward of the city who is not the one who asks."""

    async def decide(conn: Conn, now: datetime) -> HelpRequest | Rejected:
        return await service.decline(conn, actor, request_id, now)

    return await once(request, actor, key, None, decide, view_request, as_=RequestView)


@router.post("/requests/{request_id}/withdraw")
async def withdraw(
    request_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> RequestView:
    """Take one's own request back."""

    async def decide(conn: Conn, now: datetime) -> HelpRequest | Rejected:
        return await service.withdraw(conn, actor, request_id, now)

    return await once(request, actor, key, None, decide, view_request, as_=RequestView)


@router.get("/requests")
async def list_requests(
    actor: CurrentActor,
    pool: Database,
    city_id: Annotated[Slug | None, Query()] = None,
    status: RequestStatus | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> RequestPage:
    """One's own requests; with `city_id`, all of the city, for its stewards. The newest first."""
    if city_id is not None and not actor.is_steward_of(city_id):
        raise hidden("city", actor, city_id)
    async with pool.acquire() as conn:
        requests = await store.list_requests(
            conn,
            member_id=own_id(actor) if city_id is None else None,
            city_id=city_id,
            status=status,
            before=cursor,
            limit=limit + 1,
        )
    return RequestPage.of(requests, limit, view_request, lambda one: one.id)


@router.get("/requests/{request_id}")
async def get_request(request_id: UUID, actor: CurrentActor, pool: Database) -> RequestDetail:
    """A request with its reason, for who asked and the stewards; it does not exist for others."""
    async with pool.acquire() as conn:
        found = await store.find_request(conn, request_id)
        if found is None or not (
            str(found.member_id) == actor.id or actor.is_steward_of(found.city_id)
        ):
            raise not_found("request")
        reason = await store.find_reason(conn, request_id)
    return RequestDetail(**view_request(found).model_dump(), reason=reason)
