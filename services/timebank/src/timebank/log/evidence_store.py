"""All SQL of excerpts of the log: one function per question, the connection first."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any

from common.db import Conn


async def entries_of(conn: Conn, city_id: str, indexes: Sequence[int]) -> list[bytes]:
    """These entries, in order."""
    rows = await conn.fetch(
        "SELECT entry FROM log_entry WHERE city_id = $1 AND index = ANY ($2::bigint[])"
        " ORDER BY index",
        city_id,
        indexes,
    )
    return [row["entry"] for row in rows]


async def index_range(
    conn: Conn, city_id: str, begin: datetime | None, end: datetime | None, size: int
) -> tuple[int, int]:
    """Where a period begins and ends among the first `size` entries: all from the first that was
    posted in it to the last; (0, 0) when there is none."""
    row = await conn.fetchrow(
        "SELECT min(index) AS first, max(index) AS last FROM log_entry e"
        " JOIN transfer t USING (transfer_id) WHERE e.city_id = $1 AND e.index < $2"
        " AND t.posted_at >= coalesce($3, '-infinity'::timestamptz)"
        " AND t.posted_at < coalesce($4, 'infinity'::timestamptz)",
        city_id,
        size,
        begin,
        end,
    )
    assert row is not None
    return (row["first"], row["last"] + 1) if row["first"] is not None else (0, 0)


async def indexes_between(
    conn: Conn,
    city_id: str,
    peer: str,
    begin: datetime | None,
    end: datetime | None,
    after: int,
    size: int,
    limit: int,
) -> list[int]:
    """The next entries after number `after` that moved minutes between the city and this peer."""
    rows = await conn.fetch(
        "SELECT DISTINCT e.index FROM account a JOIN posting p USING (account_id)"
        " JOIN log_entry e USING (transfer_id)"
        " WHERE a.city_id = $1 AND a.peer_city_id = $2 AND e.index > $3 AND e.index < $4"
        " AND p.posted_at >= coalesce($5, '-infinity'::timestamptz)"
        " AND p.posted_at < coalesce($6, 'infinity'::timestamptz)"
        " ORDER BY e.index LIMIT $7",
        city_id,
        peer,
        after,
        size,
        begin,
        end,
        limit,
    )
    return [row["index"] for row in rows]


async def messages_between(
    conn: Conn,
    city_id: str,
    peer: str | None,
    begin: datetime | None,
    end: datetime | None,
    at_once: int,
) -> AsyncIterator[dict[str, Any]]:
    """The signed messages of a period that a city sent and heard, with one peer or all. Within a
    transaction."""
    rows = conn.cursor(
        "SELECT message FROM clearing_message WHERE city_id = $1"
        " AND ($2::text IS NULL OR peer_city_id = $2)"
        " AND kept_at >= coalesce($3, '-infinity'::timestamptz)"
        " AND kept_at < coalesce($4, 'infinity'::timestamptz)"
        " ORDER BY message_id",
        city_id,
        peer,
        begin,
        end,
        prefetch=at_once,
    )
    async for row in rows:
        yield row["message"]
