"""Clearing over HTTP: transfers to other cities, positions."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel

from common.auth import CurrentPrincipal
from common.db import Conn
from common.fields import Body, LongText, Minutes, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.pages import Page
from common.problems import Problem, forbidden, not_found
from common.web import StrictRoute
from timebank import store as ledger_store
from timebank.clearing import domain, service, store
from timebank.clearing.agreements import store as agreements_store
from timebank.clearing.domain import Agreement, Prepare
from timebank.clearing.keys import Vault
from timebank.clearing.store import Arrival, Departure, Position, Reversal
from timebank.domain import Rejected
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, TheClock, once

router = APIRouter(prefix="/v1", route_class=StrictRoute)


def the_vault(request: Request) -> Vault:
    vault: Vault | None = request.app.state.vault
    if vault is None:
        raise Problem(409, "clearing_off", "The cities of this time bank do not clear with others.")
    return vault


TheVault = Annotated[Vault, Depends(the_vault)]


Result = TypeVar("Result")


def signing(
    command: Callable[[Conn, datetime], Awaitable[Result]],
) -> Callable[[Conn, datetime], Awaitable[Result]]:
    """A command of a city that may have no key in its first seconds."""

    async def run(conn: Conn, now: datetime) -> Result:
        try:
            return await command(conn, now)
        except LookupError as error:
            raise Problem(
                503,
                "no_key_yet",
                "The city's key is being made. Try again in a moment.",
                headers={"Retry-After": "2"},
            ) from error

    return run


# ── Transfers ───────────────────────────────────────────────────────────────────────────────────


class PayeeBody(Body):
    """A member of another city."""

    city_id: Slug
    member_id: UUID


class SendBody(Body):
    """`deadline`: until when the other city may accept, 10 seconds to 7 days ahead; a day if left
    out."""

    transfer_id: UUID | None = None
    from_account: UUID
    to: PayeeBody
    minutes: Minutes
    memo: LongText | None = None
    deadline: AwareDatetime | None = None


class OutView(BaseModel):
    """A transfer as the city that sends it sees it. `state`: sent (the minutes are set aside, the
    other city has not answered), settled, returned (with the `reason`). `overdue`: the answer
    should have come; it is asked for until it does."""

    transfer_id: UUID
    direction: Literal["out"] = "out"
    city_id: str
    peer_city_id: str
    minutes: int
    levy_minutes: int
    payee: UUID
    memo: str | None
    state: Literal["sent", "settled", "returned"]
    reason: str | None
    overdue: bool
    sent_at: datetime
    deadline: datetime
    answered_at: datetime | None
    reverses: UUID | None


class InView(BaseModel):
    """A transfer as the city that received it sees it; what was refused was never here."""

    transfer_id: UUID
    direction: Literal["in"] = "in"
    city_id: str
    peer_city_id: str
    minutes: int
    levy_minutes: int
    payee: UUID
    state: Literal["accepted", "refused"]
    reason: str | None
    decided_at: datetime
    deadline: datetime
    reverses: UUID | None


class OutPage(Page[OutView]):
    pass


class InPage(Page[InView]):
    pass


def view_out(departure: Departure, now: datetime, *, with_memo: bool = True) -> OutView:
    outgoing, prepare = departure.outgoing, departure.outgoing.prepare
    return OutView(
        transfer_id=prepare.transfer_id,
        city_id=prepare.from_city,
        peer_city_id=prepare.to_city,
        minutes=prepare.minutes,
        levy_minutes=outgoing.levy_minutes,
        payee=prepare.payee,
        memo=departure.memo if with_memo else None,
        state=outgoing.state,
        reason=departure.reason,
        overdue=outgoing.is_overdue(now),
        sent_at=outgoing.sent_at,
        deadline=prepare.deadline,
        answered_at=departure.answered_at,
        reverses=prepare.reverses,
    )


def view_in(arrival: Arrival) -> InView:
    prepare, decision = arrival.prepare, arrival.decision
    return InView(
        transfer_id=prepare.transfer_id,
        city_id=prepare.to_city,
        peer_city_id=prepare.from_city,
        minutes=prepare.minutes,
        levy_minutes=arrival.levy_minutes,
        payee=prepare.payee,
        state="accepted" if decision.accepted else "refused",
        reason=decision.reason,
        decided_at=decision.decided_at,
        deadline=prepare.deadline,
        reverses=prepare.reverses,
    )


@router.post("/clearing/transfers", status_code=201)
async def send(
    body: SendBody, key: IdempotencyKey, actor: CurrentActor, vault: TheVault, request: Request
) -> OutView:
    """Give minutes to a member of another city. For the payer, and stewards of the payer's city.

    The answer says `sent`: the minutes are set aside, and that city decides, usually within a
    second. Ask again, or wait for the notice.
    """
    transfer_id = body.transfer_id or new_id()

    async def decide(conn: Conn, now: datetime) -> Departure | Rejected:
        payer = await ledger_store.find_account(conn, body.from_account)
        # One who may not know of the account does not learn its city either.
        if payer is None or not (actor.owns(payer) or actor.may_know_of(payer.city_id)):
            return Rejected("not_found", "There is no such account.", "payer")
        if payer.city_id == body.to.city_id:
            return Rejected(
                "same_city", "Within a city, transfer directly.", field="body.to.city_id"
            )
        prepare = Prepare(
            transfer_id=transfer_id,
            from_city=payer.city_id,
            to_city=body.to.city_id,
            minutes=body.minutes,
            payee=body.to.member_id,
            deadline=body.deadline or now + domain.DEADLINE_DEFAULT,
        )
        return await service.depart(conn, vault, actor, payer.id, prepare, body.memo or None, now)

    return await once(
        request,
        actor,
        key,
        body,
        signing(decide),
        lambda departure: view_out(departure, departure.outgoing.sent_at),
        as_=OutView,
        status=201,
        of_body=True,
    )


@router.get("/clearing/transfers")
async def list_sent(
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    city_id: Slug | None = None,
    peer_city_id: Slug | None = None,
    state: Literal["sent", "settled", "returned"] | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> OutPage:
    """Transfers to other cities, the newest first: one's own; with `city_id`, a whole city's, for
    its stewards and for auditors (without memos)."""
    if city_id is not None and not (actor.is_steward_of(city_id) or actor.auditor):
        raise forbidden() if actor.may_know_of(city_id) else not_found("city")
    async with pool.acquire() as conn:
        found = await store.list_departures(
            conn,
            city_id=city_id,
            owner_id=None if city_id else owner_of(actor.id),
            peer=peer_city_id,
            state=state,
            before=cursor,
            limit=limit + 1,
        )
    now, with_memo = clock(), city_id is None or actor.is_steward_of(city_id)
    return OutPage.of(
        found,
        limit,
        lambda one: view_out(one, now, with_memo=with_memo),
        lambda one: one.outgoing.prepare.transfer_id,
    )


@router.get("/clearing/arrivals")
async def list_received(
    actor: CurrentActor,
    pool: Database,
    city_id: Slug | None = None,
    peer_city_id: Slug | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> InPage:
    """Transfers from other cities, the newest first: those to oneself; with `city_id`, a whole
    city's, for its stewards and for auditors."""
    if city_id is not None and not (actor.is_steward_of(city_id) or actor.auditor):
        raise forbidden() if actor.may_know_of(city_id) else not_found("city")
    async with pool.acquire() as conn:
        found = await store.list_arrivals(
            conn,
            city_id=city_id,
            payee=None if city_id else owner_of(actor.id),
            peer=peer_city_id,
            before=cursor,
            limit=limit + 1,
        )
    return InPage.of(found, limit, view_in, lambda one: one.prepare.transfer_id)


def owner_of(actor_id: str) -> UUID:
    """Raises Problem 403 for what is no person."""
    try:
        return UUID(actor_id)
    except ValueError:
        raise forbidden() from None


@router.get("/clearing/transfers/{transfer_id}")
async def get_sent(
    transfer_id: UUID, actor: CurrentActor, pool: Database, clock: TheClock
) -> OutView:
    """A transfer that the caller sent, or their city; an auditor sees any, without its memo."""
    async with pool.acquire() as conn:
        found = await store.find_departures(conn, transfer_id)
        for departure in found:
            payer = await ledger_store.find_account(conn, departure.outgoing.payer_account)
            concerned = payer is not None and actor.may_pay_from(payer)
            if concerned or actor.auditor:
                return view_out(departure, clock(), with_memo=concerned)
    raise not_found("transfer")


class ReversalView(BaseModel):
    """`agreed`, `peer_agreed`: which cities' stewards agree. `reversal_id`: the transfer that gives
    back, in the city that received; `problem`: why it could not be sent."""

    transfer_id: UUID
    city_id: str
    peer_city_id: str
    agreed: bool
    peer_agreed: bool
    reversal_id: UUID | None
    problem: str | None


def view_reversal(reversal: Reversal) -> ReversalView:
    return ReversalView(
        transfer_id=reversal.transfer_id,
        city_id=reversal.city_id,
        peer_city_id=reversal.peer_city_id,
        agreed=reversal.agreed_at is not None,
        peer_agreed=reversal.peer_agreed_at is not None,
        reversal_id=reversal.reversal_id,
        problem=reversal.problem,
    )


@router.post("/clearing/transfers/{transfer_id}/reversal")
async def agree_to_reverse(
    transfer_id: UUID,
    key: IdempotencyKey,
    actor: CurrentActor,
    vault: TheVault,
    request: Request,
) -> ReversalView:
    """Agree that a settled transfer be taken back. For stewards of either city; it is, with its
    levies, as soon as both have agreed."""
    return await once(
        request,
        actor,
        key,
        None,
        signing(lambda conn, now: service.agree_to_reverse(conn, vault, actor, transfer_id, now)),
        view_reversal,
        as_=ReversalView,
    )


class ReversalStateView(ReversalView):
    """How far taking a transfer back has come, as `city_id` knows it. `state`: not_asked, asked
    (one city agrees), agreed (both do; the city that received is to give back), sent, taken_back,
    failed (see `problem`; agreeing again tries again). `waiting_for`: whose stewards have not
    agreed."""

    state: Literal["not_asked", "asked", "agreed", "sent", "taken_back", "failed"]
    waiting_for: list[str]
    agreed_at: datetime | None
    peer_agreed_at: datetime | None


@router.get("/clearing/transfers/{transfer_id}/reversal")
async def get_reversal(transfer_id: UUID, actor: CurrentActor, pool: Database) -> ReversalStateView:
    """Who has agreed that a transfer be taken back, who has not, and what became of it. For the
    payer, the payee, stewards of either city, and auditors."""
    async with pool.acquire() as conn:
        for departure in await store.find_departures(conn, transfer_id):
            prepare = departure.outgoing.prepare
            payer = await ledger_store.find_account(conn, departure.outgoing.payer_account)
            if actor.auditor or (payer is not None and actor.may_pay_from(payer)):
                came = await store.find_arrival_back(conn, prepare.from_city, transfer_id)
                known = await store.find_reversal(conn, prepare.from_city, transfer_id)
                return view_reversal_state(
                    known or no_reversal(prepare.from_city, transfer_id, prepare.to_city),
                    back=came.decision.accepted if came else None,
                    reason=came.decision.reason if came else None,
                    reversal_id=came.prepare.transfer_id if came else None,
                )
        for arrival in await store.find_arrivals(conn, transfer_id):
            prepare = arrival.prepare
            concerned = actor.is_steward_of(prepare.to_city) or actor.id == str(prepare.payee)
            if arrival.decision.accepted and (actor.auditor or concerned):
                known = await store.find_reversal(conn, prepare.to_city, transfer_id)
                sent = (
                    await store.find_departure(conn, prepare.to_city, known.reversal_id)
                    if known and known.reversal_id
                    else None
                )
                ended = sent is not None and sent.outgoing.state != "sent"
                return view_reversal_state(
                    known or no_reversal(prepare.to_city, transfer_id, prepare.from_city),
                    back=sent.outgoing.state == "settled" if sent and ended else None,
                    reason=sent.reason if sent else None,
                    reversal_id=known.reversal_id if known else None,
                )
    raise not_found("transfer")


def no_reversal(city_id: str, transfer_id: UUID, peer_city_id: str) -> Reversal:
    return Reversal(city_id, transfer_id, peer_city_id, None, None, None, None, None)


def view_reversal_state(
    reversal: Reversal, *, back: bool | None, reason: str | None, reversal_id: UUID | None
) -> ReversalStateView:
    """`back`: whether what gives back has arrived; None when nobody here has heard so."""
    agreed = {
        reversal.city_id: reversal.agreed_at is not None,
        reversal.peer_city_id: reversal.peer_agreed_at is not None,
    }
    state: Literal["not_asked", "asked", "agreed", "sent", "taken_back", "failed"]
    if back is not None:
        state = "taken_back" if back else "failed"
    elif reversal.problem is not None:
        state = "failed"
    elif reversal_id is not None:
        state = "sent"
    elif all(agreed.values()):
        state = "agreed"
    else:
        state = "asked" if any(agreed.values()) else "not_asked"
    view = view_reversal(reversal).model_dump()
    view |= {"reversal_id": reversal_id, "problem": reversal.problem or reason}
    return ReversalStateView(
        **view,
        state=state,
        waiting_for=[city for city, yes in agreed.items() if not yes],
        agreed_at=reversal.agreed_at,
        peer_agreed_at=reversal.peer_agreed_at,
    )


@router.get("/clearing/transfers/{transfer_id}/messages")
async def list_messages(
    transfer_id: UUID, actor: CurrentActor, pool: Database
) -> list[dict[str, Any]]:
    """The signed messages about a transfer that the caller's city kept, as evidence. For its
    stewards, and for auditors."""
    async with pool.acquire() as conn:
        if actor.auditor:
            return await store.list_messages(conn, None, transfer_id)
        if not actor.steward or actor.city_id is None:
            raise forbidden()
        return await store.list_messages(conn, actor.city_id, transfer_id)


# ── Positions ───────────────────────────────────────────────────────────────────────────────────


class PositionView(BaseModel):
    """Where a city stands with a peer, in minutes. `clearing_minutes` above zero: its members gave
    more than they received. `used_…_percent` of the agreed limits, `soft` when people are
    warned."""

    city_id: str
    peer_city_id: str
    clearing_minutes: int
    in_transit_minutes: int
    in_transit: int
    overdue: int
    oldest_sent_at: datetime | None
    returned: int
    state: str | None
    limit_out_minutes: int | None
    limit_in_minutes: int | None
    soft: bool


class PositionPage(BaseModel):
    items: list[PositionView]


def view_position(position: Position, agreement: Agreement | None) -> PositionView:
    out_minutes = position.clearing_minutes + position.in_transit_minutes
    soft = agreement is not None and (
        domain.is_soft(out_minutes, agreement.limit_out_minutes, agreement.soft_percent)
        or domain.is_soft(
            -position.clearing_minutes, agreement.limit_in_minutes, agreement.soft_percent
        )
    )
    return PositionView(
        city_id=position.city_id,
        peer_city_id=position.peer_city_id,
        clearing_minutes=position.clearing_minutes,
        in_transit_minutes=position.in_transit_minutes,
        in_transit=position.in_transit,
        overdue=position.overdue,
        oldest_sent_at=position.oldest_sent_at,
        returned=position.returned,
        state=agreement.state if agreement else None,
        limit_out_minutes=agreement.limit_out_minutes if agreement else None,
        limit_in_minutes=agreement.limit_in_minutes if agreement else None,
        soft=soft,
    )


@router.get("/clearing/positions")
async def positions(
    actor: CurrentActor,
    principal: CurrentPrincipal,
    pool: Database,
    clock: TheClock,
    city_id: Annotated[Slug | None, Query()] = None,
) -> PositionPage:
    """The positions of a city with every other, for its stewards; of all, for auditors and
    federation admins."""
    federal = actor.auditor or principal.has("federation_admin")
    wanted = city_id or (None if federal else actor.city_id)
    if not federal and not (wanted and actor.is_steward_of(wanted)):
        raise forbidden() if wanted and actor.may_know_of(wanted) else not_found("city")
    async with pool.acquire() as conn:
        found = await store.list_positions(conn, [wanted] if wanted else None, clock())
        bonds = {
            (bond.city_id, bond.peer_city_id): bond.agreement
            for bond in await agreements_store.list_bonds(conn, wanted)
        }
    return PositionPage(
        items=[view_position(one, bonds.get((one.city_id, one.peer_city_id))) for one in found]
    )
