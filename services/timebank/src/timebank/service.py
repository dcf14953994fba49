"""What the time bank does: one transaction each; load and lock, decide, save, tell the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from common import outbox, telemetry
from common.clock import Clock
from common.db import Conn, Pool
from common.logging import get_logger
from timebank import events, store
from timebank.batcher import Batcher
from timebank.cities import away
from timebank.domain import (
    COMMON_FLOORS,
    Account,
    AccountKind,
    Actor,
    Books,
    Outcome,
    Posted,
    Rejected,
    Transfer,
    TransferRequest,
    decide_all,
    reversed_legs,
    set_limits,
)
from timebank.standings import service as standings
from timebank.store import KeyUsed, Standing

NewId = Callable[[], UUID]

ATTEMPTS_MAX = 4
# The transaction did nothing, or nobody knows whether it did: both are settled by asking again,
# because the second attempt finds what the first may have posted (its id and key are the same).
WORTH_ANOTHER_TRY: tuple[type[Exception], ...] = (
    asyncpg.UniqueViolationError,
    asyncpg.TransactionRollbackError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # cut between two steps of the transaction
    ConnectionError,
)

# For the sessions that post. Each statement of theirs finds its rows by a key, but a session keeps
# a plan for as long as it takes the server to notice that a table has grown: one made for an empty
# book reads every transfer of a full one.
LEDGER_SESSION = {"enable_seqscan": "off"}

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """A request on its way into a batch, and the trace that it belongs to."""

    request: TransferRequest
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What requests come to, if their accounts are what `accounts` says when they are locked.

    `left`: all accounts that whoever foresaw this knows of, as they are then.
    """

    accounts: dict[UUID, Account]
    outcomes: tuple[Outcome, ...]
    left: dict[UUID, Account]


class Ledger:
    """Posts transfers. Concurrent requests share a database transaction."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self.pool = pool
        self.clock = clock
        self._batcher: Batcher[Submission, Outcome] = Batcher(self.post_batch)

    async def post(self, request: TransferRequest) -> Transfer | Rejected:
        """Post a transfer, or find that it was posted before, or say why not.

        When it returns a transfer, that transfer is committed. Raises asyncpg or connection errors
        when the database is away: the same request may then be sent again. Raises Problem when the
        city's book moves, or has moved, to another time bank.
        """
        try:
            outcome = await self._batcher.submit(
                Submission(request, telemetry.current_traceparent())
            )
        except asyncpg.ObjectNotInPrerequisiteStateError as error:
            raise away.problem_of(error) or error from error
        return outcome if isinstance(outcome, Rejected) else outcome.transfer

    async def close(self) -> None:
        await self._batcher.close()

    async def post_batch(
        self, batch: Sequence[Submission], foreseen: Foreseen | None = None
    ) -> Sequence[Outcome]:
        """Post requests in their order, in one transaction. Raises as `post` does."""
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                async with self.pool.acquire() as conn, conn.transaction():
                    return await post_transfers(conn, batch, self.clock(), foreseen)
            except WORTH_ANOTHER_TRY as error:
                if attempt == ATTEMPTS_MAX:
                    raise
                log.info("batch_again", size=len(batch), error=type(error).__name__)
        raise AssertionError("unreachable")


async def post_transfers(
    conn: Conn, batch: Sequence[Submission], now: datetime, foreseen: Foreseen | None = None
) -> tuple[Outcome, ...]:
    """Decide and write requests in their order, within the transaction of `conn`.

    A refused one leaves nothing and its neighbours alone. What was `foreseen` of these requests
    counts if nothing was done before and their accounts are, now locked, what it was decided over.
    """
    requests = [submission.request for submission in batch]
    accounts = await store.lock_accounts(
        conn, {leg.account_id for request in requests for leg in request.legs}
    )
    known, by_key = await store.find_done_before(
        conn,
        ids=[request.transfer_id for request in requests],
        keys=[(request.actor.id, request.key) for request in requests if request.key],
        reverses=[request.reverses for request in requests if request.reverses],
    )
    if foreseen is not None and not known and foreseen.accounts == accounts:
        outcomes = foreseen.outcomes
    else:
        by_id = {transfer.id: transfer for transfer in known}
        outcomes = decide_all(
            requests,
            Books(
                accounts=dict(accounts),
                by_id=by_id,
                by_key={key: by_id[transfer_id] for key, transfer_id in by_key.items()},
                reversed={transfer.reverses for transfer in known if transfer.reverses},
            ),
            now,
        )
    await save_outcomes(conn, batch, outcomes, known_keys=set(by_key), now=now)
    return outcomes


async def post_now(conn: Conn, request: TransferRequest, now: datetime) -> Transfer | Rejected:
    """Post one transfer within the transaction of `conn`, beside what it follows from.

    Locks its accounts in id order: whoever calls this locks their own rows first, and posts all
    transfers of one transaction together or in one order. Raises asyncpg errors.
    """
    submission = Submission(request, telemetry.current_traceparent())
    (outcome,) = await post_transfers(conn, [submission], now)
    return outcome if isinstance(outcome, Rejected) else outcome.transfer


async def take_back_now(
    conn: Conn, transfer: Transfer, actor: Actor, *, reversal_id: UUID, now: datetime
) -> Transfer | Rejected:
    """Post the reverse of a transfer, in the name of its city, within the transaction of `conn`.

    For what a command of its own takes back: who may is decided there. Locks as `post_now` does.
    """
    request = TransferRequest(
        transfer_id=reversal_id,
        own_id=False,
        key=None,
        actor=actor.for_the_city(transfer.city_id),
        legs=reversed_legs(transfer),
        reverses=transfer.id,
    )
    return await post_now(conn, request, now)


async def save_outcomes(
    conn: Conn,
    batch: Sequence[Submission],
    outcomes: Sequence[Outcome],
    *,
    known_keys: set[tuple[str, str]],
    now: datetime,
) -> None:
    """Write what was decided: transfers, final balances, new keys, events."""
    keys: dict[tuple[str, str], UUID] = {}
    posted: list[Posted] = []
    traceparents: list[str | None] = []
    for submission, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Rejected):
            continue
        if submission.request.key is not None:
            keys[submission.request.actor.id, submission.request.key] = outcome.transfer.id
        if isinstance(outcome, Posted):
            posted.append(outcome)
            traceparents.append(submission.traceparent)
    new_keys = [
        KeyUsed(requested_by, key, transfer_id)
        for (requested_by, key), transfer_id in keys.items()
        if (requested_by, key) not in known_keys
    ]
    if new_keys or posted:
        await write_posted(conn, posted, keys=new_keys, traceparents=traceparents, now=now)


async def write_posted(
    conn: Conn,
    posted: Sequence[Posted],
    *,
    keys: Sequence[KeyUsed],
    traceparents: Sequence[str | None],
    now: datetime,
) -> None:
    """Write transfers in their order, and tell of them."""
    transfers = [item.transfer for item in posted]
    # Only the last state of each account stays; the ones before it are in the postings.
    accounts = {account.id: account for item in posted for account in item.accounts}
    await store.save_transfers(
        conn, transfers=transfers, accounts=list(accounts.values()), keys=keys, now=now
    )
    if transfers:
        await outbox.add_many(
            conn,
            topic=events.TRANSFERS,
            type=events.TRANSFER_POSTED,
            items=[
                outbox.Item(str(transfer.id), events.transfer_posted(transfer), traceparent)
                for transfer, traceparent in zip(transfers, traceparents, strict=True)
            ],
            now=now,
        )


# ── Accounts ────────────────────────────────────────────────────────────────────────────────────


async def open_organisation(
    conn: Conn,
    actor: Actor,
    *,
    account_id: UUID,
    city_id: str,
    owner_id: UUID,
    floor_minutes: int,
    ceiling_minutes: int | None,
    now: datetime,
) -> Account | Rejected:
    """Open the account of an organisation in the steward's city."""
    if not actor.is_steward_of(city_id):
        if actor.may_know_of(city_id):
            return Rejected("forbidden", "Only a steward of the city opens accounts.")
        return Rejected("not_found", "There is no such city.")
    if not await store.has_book(conn, city_id):
        return Rejected("not_found", "There is no such city.")
    opened = await store.open_account(
        conn,
        account_id=account_id,
        city_id=city_id,
        kind="organisation",
        owner_id=owner_id,
        floor_minutes=floor_minutes,
        ceiling_minutes=ceiling_minutes,
        now=now,
    )
    if not opened:
        return Rejected("account_exists", "This organisation, or this id, has an account already.")
    account = (await store.lock_accounts(conn, [account_id]))[account_id]
    version = await store.save_limits(conn, account, set_by=actor.id, now=now)
    await tell_of(conn, account, version, now)
    return account


async def change_limits(
    conn: Conn,
    actor: Actor,
    account_id: UUID,
    changes: Mapping[str, int | None],
    now: datetime,
) -> Account | Rejected:
    """Give an account other limits: `floor_minutes`, `ceiling_minutes`; one not named stays."""
    account = (await store.lock_accounts(conn, [account_id])).get(account_id)
    if account is None:
        return Rejected("not_found", "There is no such account.")
    changed = set_limits(
        account,
        actor,
        floor_minutes=changes.get("floor_minutes", account.floor_minutes),
        ceiling_minutes=changes.get("ceiling_minutes", account.ceiling_minutes),
    )
    if isinstance(changed, Account):
        version = await store.save_limits(conn, changed, set_by=actor.id, now=now)
        await tell_of(conn, changed, version, now)
    return changed


async def open_account(
    conn: Conn,
    *,
    account_id: UUID,
    city_id: str,
    kind: AccountKind,
    owner_id: UUID | None,
    floor_minutes: int | None,
    peer_city_id: str | None = None,
    now: datetime,
) -> None:
    """Open an account and tell of it, unless the owner has one of this kind in the city."""
    opened = await store.open_account(
        conn,
        account_id=account_id,
        city_id=city_id,
        kind=kind,
        owner_id=owner_id,
        floor_minutes=floor_minutes,
        peer_city_id=peer_city_id,
        now=now,
    )
    if opened:
        account = Account(account_id, city_id, kind, owner_id, True, floor_minutes, 0, 0)
        await tell_of(conn, account, 1, now)


async def close_accounts_of(conn: Conn, owner_id: UUID, now: datetime) -> None:
    """Close all accounts of an owner and tell of it; their balances stay."""
    for account, version in await store.close_accounts_of(conn, owner_id):
        await tell_of(conn, account, version, now)


async def tell_of(conn: Conn, account: Account, version: int, now: datetime) -> None:
    """Publish what an account is; not its balance, so that a transfer costs nothing here."""
    await outbox.add(
        conn,
        topic=events.ACCOUNTS,
        key=str(account.id),
        type=events.ACCOUNT_CHANGED,
        data=events.account_changed(account, version),
        now=now,
    )


# ── What identity tells ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class CityState:
    city_id: str
    status: str
    timezone: str
    version: int


@dataclass(frozen=True, slots=True)
class MemberState:
    member_id: UUID
    city_id: str
    status: str
    version: int


async def apply_city(conn: Conn, city: CityState, now: datetime, new_id: NewId) -> None:
    """Open the book of a city that is new, and keep the city's state."""
    await open_book(conn, city.city_id, now, new_id)
    await store.save_city(
        conn,
        city_id=city.city_id,
        status=city.status,
        timezone=city.timezone,
        version=city.version,
    )


async def apply_member(conn: Conn, member: MemberState, now: datetime, new_id: NewId) -> None:
    """Open a member's account in the city where they are, and publish their standing.

    One who moved keeps the account of before: its minutes are that city's. The accounts of one who
    was erased are closed.
    """
    # The city's own message may come later: the two topics are read independently.
    await open_book(conn, member.city_id, now, new_id)
    fresh = await store.save_member(
        conn,
        member_id=member.member_id,
        city_id=member.city_id,
        status=member.status,
        version=member.version,
    )
    if not fresh:
        return
    if member.status == "erased":
        await close_accounts_of(conn, member.member_id, now)
        return
    await open_account(
        conn,
        account_id=new_id(),
        city_id=member.city_id,
        kind="member",
        owner_id=member.member_id,
        floor_minutes=await store.member_floor(conn, member.city_id),
        now=now,
    )
    await keep_standing(conn, member, now)


async def keep_standing(conn: Conn, member: MemberState, now: datetime) -> None:
    """Give a new member good standing; carry the standing of one who moved to the new city."""
    known = await store.find_standing(conn, member.member_id)
    if known and known.city_id == member.city_id:
        return
    standing = Standing(
        member_id=member.member_id,
        city_id=member.city_id,
        standing=known.standing if known else "good",
        version=known.version + 1 if known else 1,
    )
    await standings.write(conn, standing, cause="moved" if known else "joined", now=now)


async def open_book(conn: Conn, city_id: str, now: datetime, new_id: NewId) -> None:
    """Open a city's book with its commons and its solidarity fund, unless it is open."""
    if not await store.open_book(conn, city_id, now):
        return
    for kind, floor_minutes in COMMON_FLOORS.items():
        await open_account(
            conn,
            account_id=new_id(),
            city_id=city_id,
            kind=kind,
            owner_id=None,
            floor_minutes=floor_minutes,
            now=now,
        )
