"""The SQL of presence. Both tables are only ever added to; the database sees to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.db import Conn


@dataclass(frozen=True, slots=True)
class Reset:
    """A pardon of double entries. `member_id` None: of everybody's at that place."""

    reset_id: UUID
    place_id: UUID
    city_id: str
    member_id: UUID | None
    reason: str
    reset_by: str
    reset_at: datetime


async def insert_look(
    conn: Conn,
    *,
    look_id: UUID,
    place_id: UUID,
    city_id: str,
    looked_by: str,
    looked_at: datetime,
    people: int,
) -> None:
    await conn.execute(
        "INSERT INTO evacuation_look (look_id, place_id, city_id, looked_by, looked_at, people)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        look_id,
        place_id,
        city_id,
        looked_by,
        looked_at,
        people,
    )


async def insert_reset(conn: Conn, reset: Reset) -> None:
    await conn.execute(
        "INSERT INTO passback_reset"
        " (reset_id, place_id, city_id, member_id, reason, reset_by, reset_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        reset.reset_id,
        reset.place_id,
        reset.city_id,
        reset.member_id,
        reset.reason,
        reset.reset_by,
        reset.reset_at,
    )


async def pardons(conn: Conn, since: datetime) -> Sequence[Reset]:
    """The latest reset since then of each member, and of everybody, by place."""
    rows = await conn.fetch(
        "SELECT DISTINCT ON (place_id, member_id) reset_id, place_id, city_id, member_id, reason,"
        " reset_by, reset_at FROM passback_reset WHERE reset_at > $1"
        " ORDER BY place_id, member_id, reset_at DESC",
        since,
    )
    return [Reset(**row) for row in rows]


async def looks_and_resets_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """For a member: where they looked at who is inside, the resets they gave and were given."""
    looks = await conn.fetch(
        "SELECT place_id, city_id, looked_at, people FROM evacuation_look"
        " WHERE looked_by = $1::uuid::text ORDER BY look_id",
        member_id,
    )
    resets = await conn.fetch(
        "SELECT place_id, city_id, member_id = $1 AS own, reason, reset_at FROM passback_reset"
        " WHERE reset_by = $1::uuid::text OR member_id = $1 ORDER BY reset_at",
        member_id,
    )
    return {
        "evacuation_looks": [dict(row) for row in looks],
        "passback_resets": [dict(row) for row in resets],
    }
