"""All SQL of the solidarity fund. A request changes under the lock of its member, taken first."""

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from common.export import read_tables
from timebank.solidarity.domain import Gift, HelpRequest

SELECT_GIFT = (
    "SELECT gift_id, member_id, city_id, minutes, anonymous, transfer_id, given_at"
    " FROM solidarity_gift"
)
SELECT_REQUEST = (
    "SELECT request_id, member_id, city_id, minutes, purpose, asked_at, status, decided_by,"
    " decided_at, granted_minutes, transfer_id FROM solidarity_request"
)


def to_gift(row: asyncpg.Record) -> Gift:
    values = dict(row)
    return Gift(id=values.pop("gift_id"), **values)


def to_request(row: asyncpg.Record) -> HelpRequest:
    values = dict(row)
    return HelpRequest(id=values.pop("request_id"), **values)


async def add_gift(conn: Conn, gift: Gift) -> bool:
    """Write a new gift, before its transfer. False, and nothing done, when its id is taken."""
    added = await conn.fetchval(
        "INSERT INTO solidarity_gift (gift_id, member_id, city_id, minutes, anonymous,"
        " transfer_id, given_at) VALUES ($1, $2, $3, $4, $5, $6, $7)"
        " ON CONFLICT (gift_id) DO NOTHING RETURNING true",
        gift.id,
        gift.member_id,
        gift.city_id,
        gift.minutes,
        gift.anonymous,
        gift.transfer_id,
        gift.given_at,
    )
    return added is True


async def list_gifts(conn: Conn, city_id: str, *, before: UUID | None, limit: int) -> list[Gift]:
    """The gifts to a city's fund, the newest ids first, from the one before `before`."""
    rows = await conn.fetch(
        f"{SELECT_GIFT} WHERE city_id = $1 AND ($2::uuid IS NULL OR gift_id < $2)"
        " ORDER BY gift_id DESC LIMIT $3",
        city_id,
        before,
        limit,
    )
    return [to_gift(row) for row in rows]


async def find_request(conn: Conn, request_id: UUID) -> HelpRequest | None:
    """A request as it is; to be asked again once its member is locked."""
    row = await conn.fetchrow(f"{SELECT_REQUEST} WHERE request_id = $1", request_id)
    return to_request(row) if row else None


async def find_open(conn: Conn, member_id: UUID, purpose: str) -> UUID | None:
    """The request of a member that waits for an answer."""
    request_id: UUID | None = await conn.fetchval(
        "SELECT request_id FROM solidarity_request"
        " WHERE member_id = $1 AND purpose = $2 AND status = 'asked'",
        member_id,
        purpose,
    )
    return request_id


async def add_request(conn: Conn, request: HelpRequest, reason: str | None) -> bool:
    """Write a new request, and why. False, and nothing done, when its id is taken."""
    added = await conn.fetchval(
        "INSERT INTO solidarity_request (request_id, member_id, city_id, minutes, purpose,"
        " asked_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (request_id) DO NOTHING"
        " RETURNING true",
        request.id,
        request.member_id,
        request.city_id,
        request.minutes,
        request.purpose,
        request.asked_at,
    )
    if added and reason:
        await conn.execute(
            "INSERT INTO solidarity_reason (request_id, reason) VALUES ($1, $2)",
            request.id,
            reason,
        )
    return added is True


async def save_request(conn: Conn, request: HelpRequest) -> None:
    """Write what was decided."""
    await conn.execute(
        "UPDATE solidarity_request SET status = $2, decided_by = $3, decided_at = $4,"
        " granted_minutes = $5, transfer_id = $6 WHERE request_id = $1",
        request.id,
        request.status,
        request.decided_by,
        request.decided_at,
        request.granted_minutes,
        request.transfer_id,
    )


async def find_reason(conn: Conn, request_id: UUID) -> str | None:
    reason: str | None = await conn.fetchval(
        "SELECT reason FROM solidarity_reason WHERE request_id = $1", request_id
    )
    return reason


async def list_requests(
    conn: Conn,
    *,
    member_id: UUID | None,
    city_id: str | None,
    status: str | None,
    before: UUID | None,
    limit: int,
) -> list[HelpRequest]:
    """Requests, the newest ids first, from the one before `before`; None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_REQUEST}"
        " WHERE ($1::uuid IS NULL OR member_id = $1) AND ($2::text IS NULL OR city_id = $2)"
        " AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR request_id < $4)"
        " ORDER BY request_id DESC LIMIT $5",
        member_id,
        city_id,
        status,
        before,
        limit,
    )
    return [to_request(row) for row in rows]


# ── A member's own, and what is forgotten ───────────────────────────────────────────────────────

EXPORTS = {
    "solidarity_gifts": "SELECT gift_id, city_id, minutes, anonymous, transfer_id, given_at"
    " FROM solidarity_gift WHERE member_id = $1 ORDER BY gift_id",
    "solidarity_requests": "SELECT request_id, city_id, minutes, purpose, status, asked_at,"
    " decided_at, granted_minutes, transfer_id, reason"
    " FROM solidarity_request LEFT JOIN solidarity_reason USING (request_id)"
    " WHERE member_id = $1 ORDER BY request_id",
}


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of what a member gave to the fund and asked of it, as rows by table."""
    return await read_tables(conn, EXPORTS, member_id)


async def forget(conn: Conn, member_id: UUID) -> None:
    """Erase why a member asked for help. Numbers stay."""
    await conn.execute(
        "UPDATE solidarity_reason SET reason = NULL WHERE request_id IN"
        " (SELECT request_id FROM solidarity_request WHERE member_id = $1)",
        member_id,
    )


async def withdraw_all(conn: Conn, member_id: UUID, now: datetime) -> None:
    """End what a member who was erased still asks for."""
    await conn.execute(
        "UPDATE solidarity_request SET status = 'withdrawn', decided_by = 'identity',"
        " decided_at = $2 WHERE member_id = $1 AND status = 'asked'",
        member_id,
        now,
    )
