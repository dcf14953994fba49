"""All SQL of holds. A hold changes under the lock of its payer's account, taken first."""

from datetime import datetime
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.domain import Account
from timebank.holds.domain import Hold
from timebank.store import HERE

SELECT_HOLD = (
    "SELECT hold_id, city_id, from_account, to_account, minutes, memo, requested_by, created_at,"
    " expires_at, status, resolved_at, posted_minutes, transfer_id, purpose FROM hold"
)


def to_hold(row: asyncpg.Record) -> Hold:
    values = dict(row)
    return Hold(id=values.pop("hold_id"), **values)


async def find_hold(conn: Conn, hold_id: UUID) -> Hold | None:
    """A hold as it is; to be asked again once its payer's account is locked."""
    row = await conn.fetchrow(f"{SELECT_HOLD} WHERE hold_id = $1", hold_id)
    return to_hold(row) if row else None


async def add_hold(conn: Conn, hold: Hold) -> bool:
    """Write a new hold. False, and nothing done, when its id is taken."""
    added = await conn.fetchval(
        "INSERT INTO hold (hold_id, city_id, from_account, to_account, minutes, memo,"
        " requested_by, created_at, expires_at, purpose)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT DO NOTHING RETURNING true",
        hold.id,
        hold.city_id,
        hold.from_account,
        hold.to_account,
        hold.minutes,
        hold.memo,
        hold.requested_by,
        hold.created_at,
        hold.expires_at,
        hold.purpose,
    )
    return added is True


async def end_hold(conn: Conn, hold: Hold) -> None:
    """Write how a hold ended. Raises asyncpg.RestrictViolationError if it had ended before."""
    await conn.execute(
        "UPDATE hold SET status = $2, resolved_at = $3, posted_minutes = $4, transfer_id = $5"
        " WHERE hold_id = $1",
        hold.id,
        hold.status,
        hold.resolved_at,
        hold.posted_minutes,
        hold.transfer_id,
    )


async def save_held(conn: Conn, payer: Account) -> None:
    await conn.execute(
        "UPDATE account SET held_minutes = $2 WHERE account_id = $1", payer.id, payer.held_minutes
    )


async def list_holds(
    conn: Conn, account_id: UUID, *, status: str | None, before: UUID | None, limit: int
) -> list[Hold]:
    """The holds from or to an account, the newest ids first, from the one before `before`."""
    rows = await conn.fetch(
        f"{SELECT_HOLD} WHERE (from_account = $1 OR to_account = $1)"
        " AND ($2::text IS NULL OR status = $2) AND ($3::uuid IS NULL OR hold_id < $3)"
        " ORDER BY hold_id DESC LIMIT $4",
        account_id,
        status,
        before,
        limit,
    )
    return [to_hold(row) for row in rows]


async def list_due(conn: Conn, now: datetime, limit: int) -> list[Hold]:
    """Open holds whose time has come, the longest due first."""
    rows = await conn.fetch(
        f"{SELECT_HOLD} WHERE status = 'open' AND expires_at <= $1 AND {HERE}"
        " ORDER BY expires_at LIMIT $2",
        now,
        limit,
    )
    return [to_hold(row) for row in rows]
