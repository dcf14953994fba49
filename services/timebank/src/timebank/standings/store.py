"""All SQL of standings beside the standing itself, which the ledger's store writes."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

from common.db import Conn


async def add_history(
    conn: Conn,
    *,
    member_id: UUID,
    version: int,
    city_id: str,
    standing: str,
    cause: str,
    month: date | None = None,
    exemption_id: UUID | None = None,
    now: datetime,
) -> None:
    """Keep when and why a standing became what it is."""
    await conn.execute(
        "INSERT INTO standing_history (member_id, version, city_id, standing, cause, month,"
        " exemption_id, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        member_id,
        version,
        city_id,
        standing,
        cause,
        month,
        exemption_id,
        now,
    )


async def save_due(conn: Conn, member_id: UUID, days: Sequence[tuple[str, date]]) -> None:
    """When to look at a member again: as the first of these days begins in its city.

    Without any, time changes nothing for them.
    """
    if not days:
        await conn.execute("DELETE FROM standing_due WHERE member_id = $1", member_id)
        return
    await conn.execute(
        "INSERT INTO standing_due (member_id, due_at)"
        " SELECT $1, min(day::timestamp AT TIME ZONE timezone)"
        " FROM unnest($2::text[], $3::date[]) AS next (city_id, day) JOIN book USING (city_id)"
        " ON CONFLICT (member_id) DO UPDATE SET due_at = EXCLUDED.due_at",
        member_id,
        [city_id for city_id, _ in days],
        [day for _, day in days],
    )


async def list_due(conn: Conn, now: datetime, limit: int) -> list[UUID]:
    """Members to look at, the longest due first."""
    rows = await conn.fetch(
        "SELECT member_id FROM standing_due WHERE due_at <= $1 ORDER BY due_at LIMIT $2",
        now,
        limit,
    )
    return [row["member_id"] for row in rows]


async def expect_all_of(conn: Conn, city_id: str, now: datetime) -> None:
    """Look again, now, at all who pledged something to a city: its rules or its clock changed."""
    await conn.execute(
        "INSERT INTO standing_due (member_id, due_at)"
        " SELECT DISTINCT member_id, $2::timestamptz FROM pledge WHERE city_id = $1"
        " ON CONFLICT (member_id) DO UPDATE SET due_at = EXCLUDED.due_at",
        city_id,
        now,
    )
