"""All SQL of operators' questions: one function per question, the connection first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from access.operators.domain import Movement, ReaderReport
from common.db import Conn


@dataclass(frozen=True, slots=True)
class Count:
    """How many taps of one kind a place had on a day in UTC."""

    day: date
    direction: str
    decision: str
    reason: str
    taps: int


@dataclass(frozen=True, slots=True)
class Look:
    """Somebody asked the history for more than their own taps. `taps`: how many they were shown."""

    look_id: UUID
    looked_at: datetime
    looked_by: str
    city_id: str
    place_id: UUID | None
    member_id: UUID | None
    filters: Mapping[str, Any]
    taps: int


@dataclass(frozen=True, slots=True)
class Health:
    """What a reader says of itself."""

    reader_id: UUID
    city_id: str
    reported_at: datetime
    program: str
    snapshot_issued_at: datetime | None
    clock_offset_ms: int | None
    backlog: int
    oldest_waiting_at: datetime | None
    problems: Sequence[str]


# A decision is made, and its id with it, within the tap: an hour is more than clocks differ.
IDS_DIFFER = timedelta(hours=1)


async def movements(
    conn: Conn, place_id: UUID, *, since: datetime, until: datetime, limit: int
) -> list[Movement]:
    """Who went through the doors of a place and when, the first first, at most `limit`.

    Into another zone of it, outward, is still in it for who was: as in `people_inside`.
    """
    rows = await conn.fetch(
        "SELECT member_id, direction = 'in' AS enters, decided_at AS at,"
        " direction = 'out' AND zone IS NOT NULL AS stays"
        " FROM tap WHERE place_id = $1 AND decided_at >= $2 AND decided_at < $3"
        " AND occurred_at >= $2::timestamptz - $5::interval"
        " AND mode = 'live' AND decision = 'grant' AND member_id IS NOT NULL"
        " ORDER BY decision_id LIMIT $4",
        place_id,
        since,
        until,
        limit,
        IDS_DIFFER,
    )
    return [Movement(**dict(row)) for row in rows]


async def counts(conn: Conn, place_id: UUID, *, first: date, last: date) -> list[Count]:
    """Taps of a place by day in UTC, direction and reason: of the history, and of what was
    forgotten of it."""
    rows = await conn.fetch(
        "SELECT day, direction, decision, reason, sum(taps)::bigint AS taps FROM ("
        " SELECT day, direction, decision, reason, taps FROM tap_daily_count"
        "  WHERE place_id = $1 AND day BETWEEN $2 AND $3"
        " UNION ALL SELECT (occurred_at AT TIME ZONE 'UTC')::date, direction, decision, reason,"
        "  count(*) FROM tap WHERE place_id = $1"
        "  AND occurred_at >= $2::date::timestamp AT TIME ZONE 'UTC'"
        "  AND occurred_at < ($3::date + 1)::timestamp AT TIME ZONE 'UTC' GROUP BY 1, 2, 3, 4"
        ") AS all_taps GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4",
        place_id,
        first,
        last,
    )
    return [Count(**dict(row)) for row in rows]


# ── Readers ─────────────────────────────────────────────────────────────────────────────────────


async def save_health(conn: Conn, health: Health) -> None:
    await conn.execute(
        "INSERT INTO reader_health (reader_id, city_id, reported_at, program, snapshot_issued_at,"
        " clock_offset_ms, backlog, oldest_waiting_at, problems)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT (reader_id) DO UPDATE SET city_id = EXCLUDED.city_id,"
        " reported_at = EXCLUDED.reported_at, program = EXCLUDED.program,"
        " snapshot_issued_at = EXCLUDED.snapshot_issued_at,"
        " clock_offset_ms = EXCLUDED.clock_offset_ms, backlog = EXCLUDED.backlog,"
        " oldest_waiting_at = EXCLUDED.oldest_waiting_at, problems = EXCLUDED.problems",
        health.reader_id,
        health.city_id,
        health.reported_at,
        health.program,
        health.snapshot_issued_at,
        health.clock_offset_ms,
        health.backlog,
        health.oldest_waiting_at,
        list(health.problems),
    )


async def list_readers(
    conn: Conn, city_id: str, *, after: UUID | None, limit: int
) -> list[ReaderReport]:
    """The readers in service of a city, by id."""
    rows = await conn.fetch(
        "SELECT r.reader_id, r.city_id,"
        " ARRAY(SELECT door_id FROM snapshot_door d WHERE r.reader_id::text = ANY(d.readers)"
        "  AND d.city_id = r.city_id ORDER BY door_id) AS doors,"
        " (SELECT decided_at FROM tap WHERE tap.reader_id = r.reader_id"
        "  ORDER BY decision_id DESC LIMIT 1) AS last_tap_at,"
        " h.reported_at, h.program, h.snapshot_issued_at, h.clock_offset_ms, h.backlog,"
        " h.oldest_waiting_at, coalesce(h.problems, '{}') AS problems"
        " FROM snapshot_reader r LEFT JOIN reader_health h USING (reader_id)"
        " WHERE r.city_id = $1 AND r.status = 'active' AND ($2::uuid IS NULL OR r.reader_id > $2)"
        " ORDER BY r.reader_id LIMIT $3",
        city_id,
        after,
        limit,
    )
    return [ReaderReport(**dict(row)) for row in rows]


# ── Who looked ──────────────────────────────────────────────────────────────────────────────────


async def add_look(conn: Conn, look: Look) -> None:
    await conn.execute(
        "INSERT INTO history_look (look_id, looked_at, looked_by, city_id, place_id, member_id,"
        " filters, taps) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        look.look_id,
        look.looked_at,
        look.looked_by,
        look.city_id,
        look.place_id,
        look.member_id,
        dict(look.filters),
        look.taps,
    )


async def list_looks(
    conn: Conn,
    *,
    city_id: str | None,
    member_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[Look]:
    """The newest first: those of a city, or those that asked for one member by name."""
    rows = await conn.fetch(
        "SELECT look_id, looked_at, looked_by, city_id, place_id, member_id, filters, taps"
        " FROM history_look WHERE ($1::text IS NULL OR city_id = $1)"
        " AND ($2::uuid IS NULL OR member_id = $2) AND ($3::uuid IS NULL OR look_id < $3)"
        " ORDER BY look_id DESC LIMIT $4",
        city_id,
        member_id,
        before,
        limit,
    )
    return [Look(**dict(row)) for row in rows]
