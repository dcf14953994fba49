"""All SQL of standings beside the standing itself, which the ledger's store writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from common.db import Conn
from common.export import read_tables
from timebank.pledges.domain import Exemption
from timebank.store import HERE


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
        "SELECT member_id FROM standing_due JOIN member USING (member_id)"  # noqa: S608 - a constant
        f" WHERE due_at <= $1 AND {HERE} ORDER BY due_at LIMIT $2",
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


@dataclass(frozen=True, slots=True)
class Change:
    """A standing as it became: when, and why."""

    version: int
    city_id: str
    standing: str
    cause: str
    month: date | None
    changed_at: datetime


async def list_history(
    conn: Conn, member_id: UUID, *, before: int | None, limit: int
) -> list[Change]:
    """A member's standings, the newest first, from the one before version `before`."""
    rows = await conn.fetch(
        "SELECT version, city_id, standing, cause, month, changed_at FROM standing_history"
        " WHERE member_id = $1 AND ($2::bigint IS NULL OR version < $2)"
        " ORDER BY version DESC LIMIT $3",
        member_id,
        before,
        limit,
    )
    return [Change(**row) for row in rows]


# ── Exemptions ──────────────────────────────────────────────────────────────────────────────────


async def add_exemption(conn: Conn, exemption: Exemption, reason: str, now: datetime) -> None:
    """Write an exemption, and why; the caller holds the lock of its member."""
    await conn.execute(
        "INSERT INTO exemption (exemption_id, member_id, city_id, from_on, until, granted_by,"
        " granted_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        exemption.id,
        exemption.member_id,
        exemption.city_id,
        exemption.from_on,
        exemption.until,
        exemption.granted_by,
        now,
    )
    await conn.execute(
        "INSERT INTO exemption_reason (exemption_id, reason) VALUES ($1, $2)", exemption.id, reason
    )


async def end_exemption(
    conn: Conn, exemption_id: UUID, *, ended_on: date, ended_by: str, now: datetime
) -> None:
    await conn.execute(
        "UPDATE exemption SET ended_on = $2, ended_by = $3, ended_at = $4 WHERE exemption_id = $1",
        exemption_id,
        ended_on,
        ended_by,
        now,
    )


async def find_reason(conn: Conn, exemption_id: UUID) -> str | None:
    """Why an exemption was granted; None once that was erased."""
    reason: str | None = await conn.fetchval(
        "SELECT reason FROM exemption_reason WHERE exemption_id = $1", exemption_id
    )
    return reason


# ── A member's own, and what is forgotten ───────────────────────────────────────────────────────

EXPORTS = {
    "standings": "SELECT version, city_id, standing, cause, month, exemption_id, changed_at"
    " FROM standing_history WHERE member_id = $1 ORDER BY version",
    "exemptions": "SELECT exemption_id, city_id, from_on, until, ended_on, reason, granted_at"
    " FROM exemption LEFT JOIN exemption_reason USING (exemption_id) WHERE member_id = $1"
    " ORDER BY exemption_id",
}


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of a member's standing, as rows by table, with the reasons."""
    return await read_tables(conn, EXPORTS, member_id)


async def forget(conn: Conn, member_id: UUID) -> None:
    """Erase why a member was exempt. That they were, and when, stays: months follow from it."""
    await conn.execute(
        "UPDATE exemption_reason SET reason = NULL WHERE exemption_id IN"
        " (SELECT exemption_id FROM exemption WHERE member_id = $1)",
        member_id,
    )
