"""Exchanges over HTTP."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from common.db import Conn
from common.fields import Body, LongText
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.problems import not_found
from common.web import StrictRoute
from timebank.board.exchanges import service, store
from timebank.board.exchanges.domain import Exchange, Status, Terms, is_party, may_read
from timebank.board.listings.domain import (
    DEPOSIT_MINUTES_MAX,
    Category,
    Kind,
    OwnerKind,
    What,
)
from timebank.board.listings.routes import Price, Quantity
from timebank.board.listings.service import member_id_of
from timebank.domain import Actor, Rejected
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, hidden, once

router = APIRouter(prefix="/v1", route_class=StrictRoute)


class RequestBody(Body):
    """`minutes`: another price than the listing's, for its owner to agree to. A loan has days,
    both included; of a surplus one can ask for several."""

    exchange_id: UUID | None = None
    message: LongText | None = None
    minutes: Price | None = None
    quantity: Quantity | None = None
    from_: Annotated[date | None, Field(alias="from")] = None
    until: date | None = None


class ClaimBody(Body):
    """What a damage or a loss is worth, at most the deposit."""

    minutes: Annotated[int, Field(strict=True, ge=1, le=DEPOSIT_MINUTES_MAX)]
    note: LongText | None = None


class RulingBody(Body):
    """What of the claim is given; 0 is nothing."""

    minutes: Annotated[int, Field(strict=True, ge=0, le=DEPOSIT_MINUTES_MAX)]
    note: LongText | None = None


class PartyView(BaseModel):
    kind: OwnerKind
    id: UUID


class ExchangeView(BaseModel):
    """`message` is for both sides alone; the notes for them, the mediators and the stewards."""

    exchange_id: UUID
    listing_id: UUID
    city_id: str
    kind: Kind
    what: What
    category: Category
    requester_id: UUID
    giver: PartyView
    receiver: PartyView
    minutes: int
    deposit_minutes: int
    quantity: int | None
    from_on: date | None
    until_on: date | None
    status: Status
    message: str | None
    claimed_minutes: int | None
    claim_note: str | None
    settled_minutes: int | None
    ruling_note: str | None
    price_hold_id: UUID | None
    deposit_hold_id: UUID | None
    contribution_id: UUID | None
    transfer_id: UUID | None
    created_at: datetime
    ended_at: datetime | None
    version: int


class ExchangePage(BaseModel):
    items: list[ExchangeView]
    next: str | None


def view_exchange(exchange: Exchange, *, with_message: bool) -> ExchangeView:
    return ExchangeView(
        exchange_id=exchange.id,
        listing_id=exchange.listing_id,
        city_id=exchange.city_id,
        kind=exchange.kind,
        what=exchange.what,
        category=exchange.category,
        requester_id=exchange.requester_id,
        giver=PartyView(kind=exchange.giver.kind, id=exchange.giver.id),
        receiver=PartyView(kind=exchange.receiver.kind, id=exchange.receiver.id),
        minutes=exchange.minutes,
        deposit_minutes=exchange.deposit_minutes,
        quantity=exchange.quantity,
        from_on=exchange.from_on,
        until_on=exchange.until_on,
        status=exchange.status,
        message=exchange.message if with_message else None,
        claimed_minutes=exchange.claimed_minutes,
        claim_note=exchange.claim_note,
        settled_minutes=exchange.settled_minutes,
        ruling_note=exchange.ruling_note,
        price_hold_id=exchange.price_hold_id,
        deposit_hold_id=exchange.deposit_hold_id,
        contribution_id=exchange.contribution_id,
        transfer_id=exchange.transfer_id,
        created_at=exchange.created_at,
        ended_at=exchange.ended_at,
        version=exchange.version,
    )


@router.post("/listings/{listing_id}/requests", status_code=201)
async def request_exchange(
    listing_id: UUID,
    body: RequestBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ExchangeView:
    """Ask for an offer, or propose oneself for a need; the listing's owner agrees or declines."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        terms = Terms(
            message=body.message or None,
            minutes=body.minutes,
            quantity=body.quantity,
            from_on=body.from_,
            until_on=body.until,
        )
        return await service.request(
            conn,
            listing_id,
            actor,
            exchange_id=body.exchange_id or new_id(),
            terms=terms,
            now=now,
        )

    def view(exchange: Exchange) -> ExchangeView:
        return view_exchange(exchange, with_message=True)

    return await once(request, actor, key, body, decide, view, as_=ExchangeView, status=201)


async def step(
    request: Request,
    actor: Actor,
    key: str,
    body: BaseModel | None,
    decide: Callable[[Conn, datetime], Awaitable[Exchange | Rejected]],
) -> ExchangeView:
    """One step of an exchange, once."""

    def view(exchange: Exchange) -> ExchangeView:
        return view_exchange(exchange, with_message=is_party(actor, exchange))

    return await once(request, actor, key, body, decide, view, as_=ExchangeView)


@router.post("/exchanges/{exchange_id}/agree")
async def agree(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """The listing's owner says yes. The receiver's minutes for price and deposit are held."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.agree(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/decline")
async def decline(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """The listing's owner says no."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.decline(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/cancel")
async def cancel(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """Who asked takes a request back; either side an agreement, until it is done or handed over."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.cancel(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/done")
async def finish(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """Who received a service or a surplus says that it is done, and gives its price."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.finish(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/handed-over")
async def hand_over(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """Who borrows says that they have the object, and gives the price of the loan."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.hand_over(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/returned")
async def take_back(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """Who lent says that it came back, also after a claim. The deposit is free again."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.take_back(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/damaged")
async def claim(
    exchange_id: UUID,
    body: ClaimBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ExchangeView:
    """Who lent claims a part of the deposit, for a damage or a loss."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.claim(
            conn, exchange_id, actor, minutes=body.minutes, note=body.note or None, now=now
        )

    return await step(request, actor, key, body, decide)


@router.post("/exchanges/{exchange_id}/accept")
async def accept(
    exchange_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ExchangeView:
    """Who borrowed accepts the claim: it is given of the deposit, the rest is free again."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.accept(conn, exchange_id, actor, now)

    return await step(request, actor, key, None, decide)


@router.post("/exchanges/{exchange_id}/rule")
async def rule(
    exchange_id: UUID,
    body: RulingBody,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ExchangeView:
    """A mediator of the city, of neither side, says what of a claim is given."""

    async def decide(conn: Conn, now: datetime) -> Exchange | Rejected:
        return await service.rule(
            conn, exchange_id, actor, minutes=body.minutes, note=body.note or None, now=now
        )

    return await step(request, actor, key, body, decide)


@router.get("/exchanges/{exchange_id}")
async def get_exchange(exchange_id: UUID, actor: CurrentActor, pool: Database) -> ExchangeView:
    """An exchange, for both sides, and for the stewards and mediators of its city."""
    async with pool.acquire() as conn:
        exchange = await store.find_exchange(conn, exchange_id)
    if exchange is None:
        raise not_found("exchange")
    if not may_read(actor, exchange):
        raise hidden("exchange", actor, exchange.city_id)
    return view_exchange(exchange, with_message=is_party(actor, exchange))


@router.get("/exchanges")
async def list_exchanges(
    actor: CurrentActor,
    pool: Database,
    organisation_id: UUID | None = None,
    listing_id: UUID | None = None,
    status: Status | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> ExchangePage:
    """One's own exchanges, or those of an organisation for the stewards of its city, the newest
    first."""
    party_id = organisation_id or member_id_of(actor)
    if party_id is None:
        return ExchangePage(items=[], next=None)
    async with pool.acquire() as conn:
        found = await store.list_exchanges(
            conn,
            party_ids=[party_id],
            listing_id=listing_id,
            status=status,
            before=cursor,
            limit=limit + 1,
        )
    page = [exchange for exchange in found[:limit] if is_party(actor, exchange)]
    return ExchangePage(
        items=[view_exchange(exchange, with_message=True) for exchange in page],
        next=str(page[-1].id) if page and len(found) > limit else None,
    )
