"""What happens to holds: one transaction each; lock the accounts, decide, save."""

import asyncio
from datetime import datetime
from uuid import UUID

from common import outbox, telemetry
from common.clock import Clock
from common.db import Conn, Pool
from common.logging import get_logger
from timebank import events, service
from timebank import store as ledger_store
from timebank.domain import Account, Actor, Rejected, Transfer, TransferRequest
from timebank.holds import store
from timebank.holds.domain import (
    Hold,
    HoldPurpose,
    expire_hold,
    place_hold,
    post_hold,
    void_hold,
)

EXPIRE_EVERY_S = 5.0
EXPIRE_BATCH = 100

log = get_logger(__name__)

NOT_FOUND = Rejected("not_found", "There is no such hold.")


async def place(
    conn: Conn,
    request: TransferRequest,
    *,
    expires_at: datetime,
    now: datetime,
    purpose: HoldPurpose | None = None,
) -> Hold | Rejected:
    """Set minutes aside; `request.transfer_id` becomes the hold's id."""
    accounts = await ledger_store.lock_accounts(conn, {leg.account_id for leg in request.legs})
    decided = place_hold(request, accounts, expires_at=expires_at, now=now, purpose=purpose)
    if isinstance(decided, Rejected):
        return decided
    hold, payer = decided
    if not await store.add_hold(conn, hold):
        return Rejected("hold_id_reused", "Another hold has this hold_id.")
    await store.save_held(conn, payer)
    await tell(conn, hold, now)
    return hold


async def lock(conn: Conn, hold_id: UUID) -> tuple[Hold, dict[UUID, Account]] | None:
    """A hold and its accounts, locked in id order until the transaction ends."""
    hold = await store.find_hold(conn, hold_id)
    if hold is None:
        return None
    accounts = await ledger_store.lock_accounts(conn, [hold.from_account, hold.to_account])
    # Again, now that nobody else can end it.
    hold = await store.find_hold(conn, hold_id)
    return (hold, accounts) if hold else None


async def post(
    conn: Conn,
    hold_id: UUID,
    actor: Actor,
    *,
    minutes: int | None,
    transfer_id: UUID,
    key: str | None,
    now: datetime,
    purpose: HoldPurpose | None = None,
) -> tuple[Hold, Transfer] | Rejected:
    """Give what is held, in full or in part."""
    found = await lock(conn, hold_id)
    if found is None:
        return NOT_FOUND
    hold, accounts = found
    decided = post_hold(
        hold,
        accounts,
        actor,
        minutes=minutes,
        transfer_id=transfer_id,
        key=key,
        now=now,
        purpose=purpose,
    )
    if isinstance(decided, Rejected):
        return decided
    (payer,) = (item for item in decided.posted.accounts if item.id == hold.from_account)
    # First free, then give: the floor holds after each statement.
    await store.save_held(conn, payer)
    await service.write_posted(
        conn, [decided.posted], keys=[], traceparents=[telemetry.current_traceparent()], now=now
    )
    await store.end_hold(conn, decided.hold)
    await tell(conn, decided.hold, now)
    return decided.hold, decided.posted.transfer


async def void(
    conn: Conn,
    hold_id: UUID,
    actor: Actor,
    now: datetime,
    purpose: HoldPurpose | None = None,
) -> Hold | Rejected:
    """Release what is held."""
    found = await lock(conn, hold_id)
    if found is None:
        return NOT_FOUND
    decided = void_hold(*found, actor, now, purpose)
    if isinstance(decided, Rejected):
        return decided
    hold, payer = decided
    await store.end_hold(conn, hold)
    await store.save_held(conn, payer)
    await tell(conn, hold, now)
    return hold


async def tell(conn: Conn, hold: Hold, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=events.HOLDS,
        key=str(hold.id),
        type=events.HOLD_CHANGED,
        data=events.hold_changed(hold),
        now=now,
    )


async def expire_due(pool: Pool, now: datetime) -> int:
    """End the holds whose time has come, at most EXPIRE_BATCH; how many were ended.

    One transaction each: a payer who is busy holds nobody else up.
    """
    async with pool.acquire() as conn:
        due = await store.list_due(conn, now, EXPIRE_BATCH)
    expired = 0
    for one in due:
        async with pool.acquire() as conn, conn.transaction():
            expired += await expire(conn, one.id, now)
    return expired


async def expire(conn: Conn, hold_id: UUID, now: datetime) -> bool:
    """End a hold whose time has come; False, and nothing done, when it has not, or had ended."""
    found = await lock(conn, hold_id)
    if found is None:
        return False
    hold, accounts = found
    ended = expire_hold(hold, accounts[hold.from_account], now)
    if ended is None:
        return False
    await store.end_hold(conn, ended[0])
    await store.save_held(conn, ended[1])
    await tell(conn, ended[0], now)
    return True


async def keep_expiring(pool: Pool, clock: Clock) -> None:
    """The worker's task: end what is due, every EXPIRE_EVERY_S seconds."""
    while True:
        expired = await expire_due(pool, clock())
        if expired:
            log.info("holds_expired", count=expired)
        if expired < EXPIRE_BATCH:
            await asyncio.sleep(EXPIRE_EVERY_S)
