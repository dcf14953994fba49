"""The time bank over HTTP: parse, call, map the answer."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, model_validator

from common.auth import CurrentPrincipal, Principal
from common.clock import Clock
from common.db import Conn, Pool
from common.fields import Body, LongText, Minutes, Slug
from common.idempotency import Answer, IdempotencyKey, run_once
from common.ids import new_id
from common.pages import Page
from common.problems import Problem, forbidden, invalid, not_found
from common.web import StrictRoute, at_once
from timebank import service, store
from timebank.audit.looks import note_look
from timebank.domain import (
    COMMON_KINDS,
    MINUTES_MAX,
    Account,
    AccountKind,
    Actor,
    Leg,
    Rejected,
    RejectionCode,
    Side,
    Transfer,
    TransferKind,
    TransferRequest,
    take_back,
)
from timebank.service import Ledger

router = APIRouter(prefix="/v1", route_class=StrictRoute)

PAGE_DEFAULT = 50
PAGE_MAX = 200
VERSION_MAX = 2**63 - 1

# What the state of the books refuses is a conflict; what no state would allow is the request's own.
STATUS: dict[RejectionCode, int] = {
    "not_found": 404,
    "forbidden": 403,
    "account_closed": 409,
    "insufficient_time": 409,
    "ceiling_exceeded": 409,
    "balance_out_of_range": 409,
    "limit_passed": 409,
    "account_exists": 409,
    "hold_already_posted": 409,
    "hold_already_voided": 409,
    "hold_expired": 409,
    "already_reversed": 409,
    "no_agreement": 409,
    "limit_reached": 409,
    "agreement_exists": 409,
    "agreement_state": 409,
    "nothing_to_net": 409,
    "netting_state": 409,
    "netting_expired": 409,
    "netting_does_not_fit": 409,
    "not_reversible": 409,
    "pledge_running": 409,
    "pledge_ended": 409,
    "too_many_changes": 409,
    "already_exempt": 409,
    "nothing_short": 409,
    "request_open": 409,
    "request_decided": 409,
    "rent_not_offered": 409,
    "rent_limit_passed": 409,
    "listing_closed": 409,
    "listing_open": 409,
    "too_many_listings": 409,
    "too_many_requests": 409,
    "already_requested": 409,
    "already_given": 409,
    "nothing_left": 409,
    "object_taken": 409,
    "object_out": 409,
    "wrong_step": 409,
    "hold_bound": 409,
    "self_confirmation": 403,
    "contribution_ended": 409,
    "too_many_versions": 409,
    "version_changed": 409,
    "not_disputed": 409,
    "not_confirmed": 409,
}
FIELD: dict[Side, str] = {"payer": "body.from_account", "payee": "body.to_account"}
FIELD_OF_CODE: dict[RejectionCode, str] = {
    "transfer_id_reused": "body.transfer_id",
    "idempotency_key_reused": "header.idempotency-key",
    "wrong_postings": "body.minutes",
    "exceeds_hold": "body.minutes",
    "invalid_expiry": "body.expires_at",
    "hold_id_reused": "body.hold_id",
    "pledge_id_reused": "body.pledge_id",
    "invalid_start": "body.starts_on",
    "invalid_until": "body.until",
    "request_id_reused": "body.request_id",
    "exceeds_request": "body.minutes",
    "gift_id_reused": "body.gift_id",
    "rent_limit_passed": "body.minutes",
    "rent_credit_id_reused": "body.rent_credit_id",
    "listing_id_reused": "body.listing_id",
    "exchange_id_reused": "body.exchange_id",
    "exceeds_deposit": "body.minutes",
}


def get_pool(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


def get_ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


def get_clock(request: Request) -> Clock:
    clock: Clock = request.app.state.clock
    return clock


TheClock = Annotated[Clock, Depends(at_once(get_clock))]
Database = Annotated[Pool, Depends(at_once(get_pool))]
TheLedger = Annotated[Ledger, Depends(at_once(get_ledger))]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]


def to_actor(principal: Principal) -> Actor:
    return Actor(
        id=principal.sub,
        city_id=principal.city,
        steward=principal.has("steward"),
        auditor=principal.has("auditor"),
        resident=principal.has("resident"),
        connector=principal.has("connector"),
        mediator=principal.has("mediator"),
        animator=principal.has("animator"),
        operator=principal.has("operator"),
    )


async def current_actor(request: Request, principal: CurrentPrincipal) -> Actor:
    """Who asks; noted first of whoever may see more than their own.

    Raises Problem 421 when their city's book has moved to another time bank.
    """
    await request.app.state.away.check(principal.city)
    await note_look(request, principal)
    return to_actor(principal)


CurrentActor = Annotated[Actor, Depends(current_actor)]


def problem_of(rejected: Rejected, *, of_body: bool = True) -> Problem:
    """The answer to a refusal. `of_body`: the accounts are fields of the request's body."""
    field = rejected.field or FIELD_OF_CODE.get(rejected.code)
    if of_body and rejected.side:
        field = FIELD[rejected.side]
    return Problem(STATUS.get(rejected.code, 422), rejected.code, rejected.detail, field=field)


View = TypeVar("View", bound=BaseModel)
Decided = TypeVar("Decided")


async def once(
    request: Request,
    actor: Actor,
    key: str,
    body: BaseModel | None,
    decide: Callable[[Conn, datetime], Awaitable[Decided | Rejected]],
    view: Callable[[Decided], View],
    *,
    as_: type[View],
    status: int = 200,
    of_body: bool = False,
) -> View:
    """Do a command in one transaction, once per caller, route and key; raise what refuses it."""
    now = get_clock(request)()

    async def command(conn: Conn) -> Answer:
        decided = await decide(conn, now)
        if isinstance(decided, Rejected):
            raise problem_of(decided, of_body=of_body)
        return Answer(status, view(decided).model_dump(mode="json"))

    answer = await run_once(
        get_pool(request),
        scope=f"{actor.id}:{request.method} {request.url.path}",
        key=key,
        request=body.model_dump(mode="json", exclude_unset=True) if body else {},
        now=now,
        command=command,
    )
    return as_.model_validate(answer.body)


# ── Transfers ───────────────────────────────────────────────────────────────────────────────────


class TransferBody(Body):
    """`minutes` go from one account to another of the same city: to `to_account`, or to that of
    the member `to_member` of the caller's city."""

    transfer_id: UUID | None = None
    from_account: UUID
    to_account: UUID | None = None
    to_member: UUID | None = None
    minutes: Minutes
    memo: LongText | None = None

    @model_validator(mode="after")
    def goes_to_one(self) -> "TransferBody":
        if (self.to_account is None) == (self.to_member is None):
            raise ValueError("name either to_account or to_member")
        return self


class PostingView(BaseModel):
    account_id: UUID
    minutes: int


class WarningView(BaseModel):
    """An account is near its floor: `left_minutes` could still be given when this was posted."""

    code: Literal["near_floor"] = "near_floor"
    account_id: UUID
    left_minutes: int


class TransferView(BaseModel):
    transfer_id: UUID
    city_id: str
    kind: TransferKind
    posted_at: datetime
    # When it happened, of what was imported from elsewhere.
    occurred_at: datetime | None
    memo: str | None
    reverses: UUID | None
    postings: list[PostingView]


class PostedView(TransferView):
    """What who asked is told beyond what everybody concerned may read."""

    warnings: list[WarningView]


def view_posted(transfer: Transfer) -> PostedView:
    return PostedView(
        **fields_of(transfer),
        warnings=[
            WarningView(account_id=posting.account_id, left_minutes=posting.left_minutes)
            for posting in transfer.postings
            if posting.left_minutes is not None
        ],
    )


def view_transfer(transfer: Transfer, *, with_memo: bool = True) -> TransferView:
    return TransferView(**fields_of(transfer, with_memo=with_memo))


def fields_of(transfer: Transfer, *, with_memo: bool = True) -> dict[str, Any]:
    postings = sorted(transfer.postings, key=lambda item: (item.minutes, item.account_id))
    return {
        "transfer_id": transfer.id,
        "city_id": transfer.city_id,
        "kind": transfer.kind,
        "posted_at": transfer.posted_at,
        "occurred_at": transfer.occurred_at,
        "memo": transfer.memo if with_memo else None,
        "reverses": transfer.reverses,
        "postings": [
            PostingView(account_id=posting.account_id, minutes=posting.minutes)
            for posting in postings
        ],
    }


@router.post("/transfers", status_code=201)
async def post_transfer(
    body: TransferBody, key: IdempotencyKey, actor: CurrentActor, ledger: TheLedger, pool: Database
) -> PostedView:
    """Give minutes. Done once per Idempotency-Key, and once per transfer_id."""
    to_account = body.to_account or await account_of_member(pool, body.to_member, actor)
    done = await ledger.post(
        TransferRequest(
            transfer_id=body.transfer_id or new_id(),
            own_id=body.transfer_id is not None,
            key=key,
            actor=actor,
            legs=(Leg(body.from_account, -body.minutes), Leg(to_account, body.minutes)),
            memo=body.memo,
        )
    )
    if isinstance(done, Rejected):
        raise problem_of(done)
    return view_posted(done)


async def account_of_member(pool: Pool, member_id: UUID | None, actor: Actor) -> UUID:
    """The account of a member of the caller's city. Raises Problem 422 when there is none."""
    account: Account | None = None
    if member_id is not None and actor.city_id is not None:
        async with pool.acquire() as conn:
            account = await store.find_member_account(conn, member_id, actor.city_id)
    if account is None:
        raise invalid("body.to_member", "There is no such member here.", "account_not_found")
    return account.id


@router.post("/transfers/{transfer_id}/reverse", status_code=201)
async def reverse_transfer(
    transfer_id: UUID, key: IdempotencyKey, actor: CurrentActor, pool: Database, ledger: TheLedger
) -> PostedView:
    """Take a transfer back, whole and once, by a new transfer that names it."""
    async with pool.acquire() as conn:
        original = await store.find_transfer(conn, transfer_id)
    if original is None:
        raise not_found("transfer")
    legs = take_back(original, actor)
    if isinstance(legs, Rejected):
        raise problem_of(legs, of_body=False)
    done = await ledger.post(
        TransferRequest(
            transfer_id=new_id(),
            own_id=False,
            key=key,
            actor=actor,
            legs=legs,
            reverses=transfer_id,
        )
    )
    if isinstance(done, Rejected):
        raise problem_of(done, of_body=False)
    return view_posted(done)


@router.get("/transfers/{transfer_id}")
async def get_transfer(transfer_id: UUID, actor: CurrentActor, pool: Database) -> TransferView:
    """A transfer, for those whose accounts it touches; an auditor sees it without the memo."""
    async with pool.acquire() as conn:
        transfer = await store.find_transfer(conn, transfer_id)
        if transfer is None:
            raise not_found("transfer")
        accounts = await store.find_accounts(
            conn, [posting.account_id for posting in transfer.postings]
        )
    concerned = actor.is_steward_of(transfer.city_id) or any(
        actor.owns(account) for account in accounts
    )
    # Who gave to the solidarity fund, or was helped by it, is not an auditor's to know.
    if not concerned and (not actor.auditor or transfer.kind == "solidarity"):
        raise hidden("transfer", actor, transfer.city_id)
    return view_transfer(transfer, with_memo=concerned)


def hidden(what: str, actor: Actor, city_id: str) -> Problem:
    """What is not for the caller: forbidden in their own city, absent elsewhere."""
    return forbidden() if actor.may_know_of(city_id) else not_found(what)


# ── Accounts ────────────────────────────────────────────────────────────────────────────────────


class AccountView(BaseModel):
    account_id: UUID
    city_id: str
    kind: AccountKind
    owner_id: UUID | None
    status: Literal["open", "closed"]
    balance_minutes: int
    floor_minutes: int | None
    ceiling_minutes: int | None
    held_minutes: int
    version: int


class AccountPage(Page[AccountView]):
    pass


def view_account(account: Account) -> AccountView:
    return AccountView(
        account_id=account.id,
        city_id=account.city_id,
        kind=account.kind,
        owner_id=account.owner_id,
        status="open" if account.open else "closed",
        balance_minutes=account.balance_minutes,
        floor_minutes=account.floor_minutes,
        ceiling_minutes=account.ceiling_minutes,
        held_minutes=account.held_minutes,
        version=account.version,
    )


# An upper limit of 0 for floors: a balance that may not be used up is no trust in anybody.
Floor = Annotated[int, Field(strict=True, ge=-MINUTES_MAX, le=0)]
Ceiling = Annotated[int, Field(strict=True, ge=0, le=MINUTES_MAX)]


class AccountBody(Body):
    """An organisation's account. `owner_id` is the organisation's id."""

    account_id: UUID | None = None
    city_id: Slug
    kind: Literal["organisation"] = "organisation"
    owner_id: UUID
    floor_minutes: Floor = 0
    ceiling_minutes: Ceiling | None = None


@router.post("/accounts", status_code=201)
async def open_account(
    body: AccountBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> AccountView:
    """Open the account of an organisation. One for each organisation and city."""

    async def decide(conn: Conn, now: datetime) -> Account | Rejected:
        return await service.open_organisation(
            conn,
            actor,
            account_id=body.account_id or new_id(),
            city_id=body.city_id,
            owner_id=body.owner_id,
            floor_minutes=body.floor_minutes,
            ceiling_minutes=body.ceiling_minutes,
            now=now,
        )

    return await once(request, actor, key, body, decide, view_account, as_=AccountView, status=201)


class LimitsBody(Body):
    """What is left out stays; null is no limit."""

    floor_minutes: Floor | None = None
    ceiling_minutes: Ceiling | None = None


@router.patch("/accounts/{account_id}")
async def change_account(
    account_id: UUID, body: LimitsBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> AccountView:
    """Give an account another floor or ceiling; its balance must be within them."""
    changes = body.model_dump(exclude_unset=True)

    async def decide(conn: Conn, now: datetime) -> Account | Rejected:
        return await service.change_limits(conn, actor, account_id, changes, now)

    return await once(request, actor, key, body, decide, view_account, as_=AccountView)


@router.get("/accounts")
async def list_accounts(
    actor: CurrentActor,
    pool: Database,
    owner_id: UUID | None = None,
    city_id: Annotated[Slug | None, Query()] = None,
    kind: AccountKind | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> AccountPage:
    """Accounts of an owner, or of a city. A resident sees their own and those of all in common."""
    if owner_id is None and city_id is None:
        raise invalid("query.owner_id", "Name an owner_id or a city_id.")
    kinds = [kind] if kind else None
    if not actor.auditor and str(owner_id) != actor.id:
        if actor.steward:
            if city_id not in (None, actor.city_id):
                raise not_found("city")
            city_id = actor.city_id
        elif owner_id is not None:
            raise forbidden("These accounts are not yours.")
        elif city_id != actor.city_id:
            raise not_found("city")
        else:
            kinds = sorted(COMMON_KINDS & {kind} if kind else COMMON_KINDS)
    async with pool.acquire() as conn:
        accounts = await store.list_accounts(
            conn, owner_id=owner_id, city_id=city_id, kinds=kinds, after=cursor, limit=limit + 1
        )
    return AccountPage.of(accounts, limit, view_account, lambda account: account.id)


@router.get("/accounts/{account_id}")
async def get_account(account_id: UUID, actor: CurrentActor, pool: Database) -> AccountView:
    """An account with its balance."""
    return view_account(await readable_account(pool, account_id, actor))


async def readable_account(pool: Pool, account_id: UUID, actor: Actor) -> Account:
    async with pool.acquire() as conn:
        account = await store.find_account(conn, account_id)
    if account is None:
        raise not_found("account")
    if not actor.may_read(account):
        raise hidden("account", actor, account.city_id)
    return account


# ── Books and standings ─────────────────────────────────────────────────────────────────────────


class BookView(BaseModel):
    city_id: str
    status: Literal["active", "left"]
    accounts: int
    transfers: int
    sum_minutes: int


@router.get("/books/{city_id}")
async def get_book(
    city_id: Slug, principal: CurrentPrincipal, _: CurrentActor, pool: Database
) -> BookView:
    """A city's book in numbers; its sum is 0."""
    if not principal.has("auditor", "federation_admin") and not principal.in_city(
        city_id, "steward"
    ):
        raise hidden("book", to_actor(principal), city_id)
    async with pool.acquire() as conn:
        book = await store.find_book(conn, city_id)
    if book is None:
        raise not_found("book")
    return BookView(
        city_id=book.city_id,
        status="active" if book.status == "active" else "left",
        accounts=book.accounts,
        transfers=book.transfers,
        sum_minutes=book.sum_minutes,
    )


class StandingView(BaseModel):
    member_id: UUID
    city_id: str
    standing: Literal["good", "grace", "lapsed", "exempt"]
    version: int


@router.get("/standings/{member_id}")
async def get_standing(member_id: UUID, actor: CurrentActor, pool: Database) -> StandingView:
    """A member's standing, for that member and the stewards of their city."""
    async with pool.acquire() as conn:
        known = await store.find_standing(conn, member_id)
    if known is None:
        raise not_found("member")
    if actor.id != str(member_id) and not actor.is_steward_of(known.city_id):
        raise hidden("member", actor, known.city_id)
    return StandingView(
        member_id=known.member_id,
        city_id=known.city_id,
        standing=known.standing,
        version=known.version,
    )
