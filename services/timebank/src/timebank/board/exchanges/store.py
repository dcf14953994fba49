"""All SQL of exchanges. An exchange changes under the lock of its listing, taken first."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.board.exchanges.domain import Exchange, Party
from timebank.store import HERE

COLUMNS = (
    "listing_id",
    "city_id",
    "kind",
    "what",
    "category",
    "requester_id",
    "requester_city_id",
    "minutes",
    "deposit_minutes",
    "quantity",
    "from_on",
    "until_on",
    "message",
    "created_at",
    "status",
    "price_hold_id",
    "deposit_hold_id",
    "claimed_minutes",
    "settled_minutes",
    "claim_note",
    "ruling_note",
    "contribution_id",
    "transfer_id",
    "ended_at",
    "version",
)
PARTIES = ("exchange_id", "giver_kind", "giver_id", "receiver_kind", "receiver_id")
ALL = (*PARTIES, *COLUMNS)
SELECT_EXCHANGE = f"SELECT {', '.join(ALL)} FROM exchange"  # noqa: S608 - constant names
# What a step may change; the rest is as it was asked for.
CHANGING = (
    "status",
    "price_hold_id",
    "deposit_hold_id",
    "claimed_minutes",
    "settled_minutes",
    "claim_note",
    "ruling_note",
    "contribution_id",
    "transfer_id",
    "ended_at",
    "version",
)


def to_exchange(row: asyncpg.Record) -> Exchange:
    values: dict[str, Any] = {column: row[column] for column in COLUMNS}
    return Exchange(
        id=row["exchange_id"],
        giver=Party(row["giver_kind"], row["giver_id"]),
        receiver=Party(row["receiver_kind"], row["receiver_id"]),
        **values,
    )


async def find_exchange(conn: Conn, exchange_id: UUID) -> Exchange | None:
    row = await conn.fetchrow(f"{SELECT_EXCHANGE} WHERE exchange_id = $1", exchange_id)
    return to_exchange(row) if row else None


async def add_exchange(conn: Conn, exchange: Exchange) -> bool:
    """Write a new exchange. False, and nothing done, when its id is taken."""
    values = {column: getattr(exchange, column) for column in COLUMNS}
    marks = ", ".join(f"${number}" for number in range(1, len(ALL) + 1))
    added = await conn.fetchval(
        f"INSERT INTO exchange ({', '.join(ALL)}) VALUES ({marks})"  # noqa: S608 - constant names
        " ON CONFLICT (exchange_id) DO NOTHING RETURNING true",
        exchange.id,
        exchange.giver.kind,
        exchange.giver.id,
        exchange.receiver.kind,
        exchange.receiver.id,
        *values.values(),
    )
    return added is True


async def save_exchange(conn: Conn, exchange: Exchange) -> None:
    """Write what a step changed; the caller holds the lock of its listing."""
    changes = ", ".join(f"{column} = ${place}" for place, column in enumerate(CHANGING, 2))
    await conn.execute(
        f"UPDATE exchange SET {changes} WHERE exchange_id = $1",  # noqa: S608 - constant names
        exchange.id,
        *(getattr(exchange, column) for column in CHANGING),
    )


async def count_waiting(
    conn: Conn, *, listing_id: UUID, requester_id: UUID
) -> tuple[int, int, int]:
    """Requests without an answer: for the listing, of the requester, and of the one for the
    other."""
    row = await conn.fetchrow(
        "SELECT (SELECT count(*) FROM exchange WHERE listing_id = $1 AND status = 'requested'),"
        " (SELECT count(*) FROM exchange WHERE $2 IN (giver_id, receiver_id)"
        "  AND requester_id = $2 AND status = 'requested'),"
        " (SELECT count(*) FROM exchange WHERE listing_id = $1 AND requester_id = $2"
        "  AND status = 'requested')",
        listing_id,
        requester_id,
    )
    return (row[0], row[1], row[2]) if row else (0, 0, 0)


async def is_promised(conn: Conn, exchange: Exchange) -> bool:
    """Whether the object is agreed for, or out on, some of the same days."""
    promised = await conn.fetchval(
        "SELECT true FROM exchange WHERE listing_id = $1 AND exchange_id <> $2"
        " AND status IN ('agreed', 'handed_over')"
        " AND daterange(from_on, until_on, '[]') && daterange($3, $4, '[]') LIMIT 1",
        exchange.listing_id,
        exchange.id,
        exchange.from_on,
        exchange.until_on,
    )
    return promised is True


async def is_out(conn: Conn, listing_id: UUID) -> bool:
    """Whether the object of a listing is at somebody's."""
    out = await conn.fetchval(
        "SELECT true FROM exchange WHERE listing_id = $1 AND status = 'handed_over' LIMIT 1",
        listing_id,
    )
    return out is True


async def list_waiting(conn: Conn, listing_id: UUID) -> list[Exchange]:
    """Requests for a listing without an answer; there are few (WAITING_PER_LISTING_MAX)."""
    rows = await conn.fetch(
        f"{SELECT_EXCHANGE} WHERE listing_id = $1 AND status = 'requested' ORDER BY exchange_id",
        listing_id,
    )
    return [to_exchange(row) for row in rows]


async def list_exchanges(
    conn: Conn,
    *,
    party_ids: Sequence[UUID],
    listing_id: UUID | None,
    status: str | None,
    before: UUID | None,
    limit: int,
) -> list[Exchange]:
    """Exchanges with one of the parties on either side, the newest first."""
    rows = await conn.fetch(
        f"{SELECT_EXCHANGE} WHERE (giver_id = ANY($1::uuid[]) OR receiver_id = ANY($1::uuid[]))"
        " AND ($2::uuid IS NULL OR listing_id = $2) AND ($3::text IS NULL OR status = $3)"
        " AND ($4::uuid IS NULL OR exchange_id < $4) ORDER BY exchange_id DESC LIMIT $5",
        list(party_ids),
        listing_id,
        status,
        before,
        limit,
    )
    return [to_exchange(row) for row in rows]


async def list_running_of(conn: Conn, member_id: UUID) -> list[Exchange]:
    """A member's exchanges that have not ended, in an order to lock their listings in."""
    rows = await conn.fetch(
        f"{SELECT_EXCHANGE} WHERE $1 IN (giver_id, receiver_id) AND ended_at IS NULL"
        " ORDER BY listing_id, exchange_id",
        member_id,
    )
    return [to_exchange(row) for row in rows]


async def list_unanswered(conn: Conn, before: datetime, limit: int) -> list[Exchange]:
    """Requests that wait since before an instant, the oldest first."""
    rows = await conn.fetch(
        f"{SELECT_EXCHANGE} WHERE status = 'requested' AND created_at <= $1 AND {HERE}"
        " ORDER BY created_at LIMIT $2",
        before,
        limit,
    )
    return [to_exchange(row) for row in rows]


async def tell_late(conn: Conn, now: datetime, limit: int) -> list[Exchange]:
    """Mark loans whose last day is past in their city and that are not back: each once.

    Those that another transaction is busy with come the next time.
    """
    rows = await conn.fetch(
        "UPDATE exchange SET late_told_at = $1 WHERE exchange_id IN ("  # noqa: S608 - constant names
        " SELECT e.exchange_id FROM exchange e JOIN book b USING (city_id)"
        " WHERE e.status = 'handed_over' AND e.late_told_at IS NULL AND b.place = 'here'"
        " AND e.until_on < ($1::timestamptz AT TIME ZONE b.timezone)::date"
        " ORDER BY e.until_on LIMIT $2 FOR NO KEY UPDATE OF e SKIP LOCKED)"
        f" RETURNING {', '.join(ALL)}",
        now,
        limit,
    )
    return [to_exchange(row) for row in rows]


def days_late(exchange: Exchange, today: date) -> int:
    return (today - exchange.until_on).days if exchange.until_on else 0
