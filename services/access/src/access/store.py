"""All SQL of access. One function per question; the connection comes first."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.db import Conn


@dataclass(frozen=True, slots=True)
class TapRow:
    """A tap in the history."""

    decision_id: UUID
    tap_id: UUID
    door_id: UUID
    place_id: UUID
    city_id: str
    reader_id: UUID
    card_id: UUID | None
    member_id: UUID | None
    direction: str
    mode: str
    decision: str
    reason: str
    occurred_at: datetime
    decided_at: datetime
    policy_version: int
    stream_id: str
    zone: str | None = None
    flags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Lockdown:
    place_id: UUID
    city_id: str
    version: int
    active: bool
    reason: str
    changed_by: str
    changed_at: datetime


async def insert_taps(conn: Conn, taps: Sequence[TapRow]) -> None:
    """Record taps; a decision that is there already stays as it is."""
    await conn.execute(
        "INSERT INTO tap (decision_id, tap_id, door_id, place_id, city_id, reader_id, card_id,"
        " member_id, direction, mode, decision, reason, occurred_at, decided_at, policy_version,"
        " stream_id, zone, flags)"
        " SELECT decision_id, tap_id, door_id, place_id, city_id, reader_id, card_id, member_id,"
        " direction, mode, decision, reason, occurred_at, decided_at, policy_version, stream_id,"
        " zone, string_to_array(flags, ' ')"
        " FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[],"
        " $6::uuid[], $7::uuid[], $8::uuid[], $9::text[], $10::text[], $11::text[], $12::text[],"
        " $13::timestamptz[], $14::timestamptz[], $15::bigint[], $16::text[], $17::text[],"
        " $18::text[]) AS given (decision_id, tap_id, door_id, place_id, city_id, reader_id,"
        " card_id, member_id, direction, mode, decision, reason, occurred_at, decided_at,"
        " policy_version, stream_id, zone, flags)"
        " ON CONFLICT (decision_id) DO NOTHING",
        *([getattr(tap, column) for tap in taps] for column in TapRow.__slots__[:-1]),
        [" ".join(tap.flags) for tap in taps],  # an array of arrays would be flattened
    )


async def recorded(conn: Conn, decision_ids: Iterable[str]) -> set[str]:
    """Which of these decisions are in the history."""
    rows = await conn.fetch(
        "SELECT decision_id FROM tap WHERE decision_id = ANY($1::uuid[])", list(decision_ids)
    )
    return {str(row["decision_id"]) for row in rows}


async def list_taps(
    conn: Conn,
    *,
    city_id: str | None,
    place_id: UUID | None,
    member_id: UUID | None,
    since: datetime | None,
    before: UUID | None,
    limit: int,
    until: datetime | None = None,
    door_id: UUID | None = None,
    reader_id: UUID | None = None,
    decision: str | None = None,
    reason: str | None = None,
) -> list[TapRow]:
    """Newest first. None: not filtered by that. `before`: only decisions older than this one."""
    rows = await conn.fetch(
        "SELECT decision_id, tap_id, door_id, place_id, city_id, reader_id, card_id, member_id,"
        " direction, mode, decision, reason, occurred_at, decided_at, policy_version, stream_id,"
        " zone, flags FROM tap"
        " WHERE ($1::text IS NULL OR city_id = $1)"
        " AND ($2::uuid IS NULL OR place_id = $2)"
        " AND ($3::uuid IS NULL OR member_id = $3)"
        " AND ($4::timestamptz IS NULL OR decided_at >= $4)"
        " AND ($5::uuid IS NULL OR decision_id < $5)"
        " AND ($7::timestamptz IS NULL OR decided_at < $7)"
        " AND ($8::uuid IS NULL OR door_id = $8)"
        " AND ($9::uuid IS NULL OR reader_id = $9)"
        " AND ($10::text IS NULL OR decision = $10)"
        " AND ($11::text IS NULL OR reason = $11)"
        " ORDER BY decision_id DESC LIMIT $6",
        city_id,
        place_id,
        member_id,
        since,
        before,
        limit,
        until,
        door_id,
        reader_id,
        decision,
        reason,
    )
    return [TapRow(**row) for row in rows]


async def export_of(conn: Conn, member_id: UUID, *, limit: int) -> dict[str, list[dict[str, Any]]]:
    """What is kept of a member, by table: the latest `limit` taps, and the lockdowns they said."""
    taps = await conn.fetch(
        "SELECT decision_id, tap_id, door_id, place_id, city_id, card_id, direction, mode,"
        " decision, reason, occurred_at, decided_at, zone, flags FROM tap WHERE member_id = $1"
        " ORDER BY decision_id DESC LIMIT $2",
        member_id,
        limit,
    )
    lockdowns = await conn.fetch(
        "SELECT place_id, city_id, active, reason, changed_at FROM place_lockdown"
        " WHERE changed_by = $1::uuid::text ORDER BY changed_at",
        member_id,
    )
    return {"taps": [dict(row) for row in taps], "lockdowns": [dict(row) for row in lockdowns]}


@dataclass(frozen=True, slots=True)
class Inside:
    """Somebody in a place; `entered_at` in epoch seconds."""

    place_id: str
    member_id: str
    entered_at: int
    zone: str | None
    in_charge: bool


async def people_inside(conn: Conn, since: datetime) -> list[Inside]:
    """Who is inside, as far as the history knows.

    The last tap that let somebody through says where they are: in by a door, or out into another
    zone, which only who is inside can do. Replayed taps moved nobody, so they do not count here.
    """
    rows = await conn.fetch(
        "WITH moved AS (SELECT place_id, member_id, decision_id, direction, decided_at, zone, flags"
        " FROM tap WHERE occurred_at >= $1::timestamptz - interval '1 hour' AND decided_at > $1"
        " AND mode = 'live' AND decision = 'grant' AND member_id IS NOT NULL"
        "), latest AS ("
        " SELECT DISTINCT ON (place_id, member_id) place_id, member_id, direction, decided_at, zone"
        " FROM moved ORDER BY place_id, member_id, decision_id DESC"
        "), seen AS ("
        " SELECT place_id, member_id, bool_or('in_charge' = ANY(flags)) AS in_charge,"
        " bool_or(direction = 'in') AS entered FROM moved GROUP BY place_id, member_id"
        ") SELECT place_id::text, member_id::text, zone, in_charge,"
        " extract(epoch FROM decided_at)::bigint AS entered_at"
        " FROM latest JOIN seen USING (place_id, member_id)"
        " WHERE direction = 'in' OR (zone IS NOT NULL AND entered)",
        since,
    )
    return [Inside(**row) for row in rows]


async def last_in_charge(conn: Conn, since: datetime) -> list[tuple[str, str, int]]:
    """When somebody in charge last came: place_id, zone or `*` for the place, epoch seconds."""
    rows = await conn.fetch(
        "SELECT place_id::text, field, max(extract(epoch FROM decided_at)::bigint) AS came_at"
        " FROM tap CROSS JOIN LATERAL unnest(ARRAY['*', zone]) AS field"
        " WHERE occurred_at >= $1::timestamptz - interval '1 hour' AND decided_at > $1"
        " AND 'in_charge' = ANY(flags) AND mode = 'live' AND decision = 'grant'"
        " AND direction = 'in' AND field IS NOT NULL GROUP BY place_id, field",
        since,
    )
    return [(row["place_id"], row["field"], row["came_at"]) for row in rows]


async def anonymise_taps(
    conn: Conn, *, occurred_before: datetime, decided_before: datetime, limit: int
) -> int:
    """Turn old taps into daily counts, at most `limit`. Returns how many."""
    count = await conn.fetchval(
        "WITH old AS ("
        " DELETE FROM tap WHERE decision_id IN ("
        "  SELECT decision_id FROM tap WHERE occurred_at < $1 AND decided_at < $2"
        "  ORDER BY occurred_at LIMIT $3)"
        " RETURNING place_id, city_id, occurred_at, direction, decision, reason"
        "), counted AS ("
        " INSERT INTO tap_daily_count AS known"
        " (place_id, city_id, day, direction, decision, reason, taps)"
        " SELECT place_id, min(city_id), (occurred_at AT TIME ZONE 'UTC')::date, direction,"
        " decision, reason, count(*)"
        " FROM old GROUP BY place_id, (occurred_at AT TIME ZONE 'UTC')::date, direction,"
        " decision, reason"
        " ON CONFLICT (place_id, day, direction, decision, reason)"
        " DO UPDATE SET taps = known.taps + EXCLUDED.taps"
        ") SELECT count(*) FROM old",
        occurred_before,
        decided_before,
        limit,
    )
    return int(count)


async def save_lockdown(
    conn: Conn,
    *,
    place_id: UUID,
    city_id: str,
    active: bool,
    reason: str,
    changed_by: str,
    now: datetime,
) -> Lockdown:
    """Set or lift a lockdown; each change is a new version."""
    row = await conn.fetchrow(
        "INSERT INTO place_lockdown AS known"
        " (place_id, city_id, version, active, reason, changed_by, changed_at)"
        " VALUES ($1, $2, 1, $3, $4, $5, $6)"
        " ON CONFLICT (place_id) DO UPDATE SET version = known.version + 1,"
        " city_id = EXCLUDED.city_id, active = EXCLUDED.active, reason = EXCLUDED.reason,"
        " changed_by = EXCLUDED.changed_by, changed_at = EXCLUDED.changed_at"
        " RETURNING place_id, city_id, version, active, reason, changed_by, changed_at",
        place_id,
        city_id,
        active,
        reason,
        changed_by,
        now,
    )
    if row is None:
        raise RuntimeError("an upsert without condition always returns its row")
    return Lockdown(**row)


async def load_lockdown(conn: Conn, place_id: UUID) -> Lockdown | None:
    row = await conn.fetchrow(
        "SELECT place_id, city_id, version, active, reason, changed_by, changed_at"
        " FROM place_lockdown WHERE place_id = $1",
        place_id,
    )
    return Lockdown(**row) if row else None


async def lockdowns_since(conn: Conn, since: datetime | None) -> list[Lockdown]:
    """The active lockdowns, and those changed since then (None: all that ever were)."""
    rows = await conn.fetch(
        "SELECT place_id, city_id, version, active, reason, changed_by, changed_at"
        " FROM place_lockdown WHERE active OR $1::timestamptz IS NULL OR changed_at >= $1",
        since,
    )
    return [Lockdown(**row) for row in rows]


async def remember_documents(conn: Conn, counts: Mapping[str, int]) -> None:
    """Keep how many documents of each kind a complete projection has."""
    await conn.executemany(
        "INSERT INTO projection_memory (kind, documents) VALUES ($1, $2)"
        " ON CONFLICT (kind) DO UPDATE SET documents = EXCLUDED.documents",
        sorted(counts.items()),
    )


async def remembered_documents(conn: Conn) -> dict[str, int]:
    rows = await conn.fetch("SELECT kind, documents FROM projection_memory")
    return {row["kind"]: row["documents"] for row in rows}


def tap_item(tap: TapRow) -> dict[str, Any]:
    """A tap as the API shows it."""
    hidden: Sequence[str] = ("stream_id",)
    return {name: getattr(tap, name) for name in TapRow.__slots__ if name not in hidden}


async def claim_counter(
    conn: Conn, *, credential_hash: str, counter: int, reader_id: UUID, tap_id: UUID
) -> bool:
    """Use a card's message for a tap: once, and only beyond the highest that was used.

    Durable when it returns. True again for the same tap, which may be asked again.
    """
    claimed = await conn.fetchval(
        "INSERT INTO card_counter AS known (credential_hash, counter, reader_id, tap_id)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT (credential_hash) DO UPDATE"
        " SET counter = EXCLUDED.counter, reader_id = EXCLUDED.reader_id, tap_id = EXCLUDED.tap_id"
        " WHERE known.counter < EXCLUDED.counter OR (known.counter = EXCLUDED.counter"
        "  AND known.reader_id = EXCLUDED.reader_id AND known.tap_id = EXCLUDED.tap_id)"
        " RETURNING true",
        credential_hash,
        counter,
        reader_id,
        tap_id,
    )
    return claimed is True


async def used_counter(conn: Conn, credential_hash: str) -> tuple[int, UUID, UUID] | None:
    """The highest counter of a card, and the reader and the tap that used it."""
    row = await conn.fetchrow(
        "SELECT counter, reader_id, tap_id FROM card_counter WHERE credential_hash = $1",
        credential_hash,
    )
    return (row["counter"], row["reader_id"], row["tap_id"]) if row else None


async def use_code(
    conn: Conn,
    *,
    credential_hash: str,
    door_id: UUID,
    window: int,
    reader_id: UUID,
    tap_id: UUID,
) -> int | None:
    """Use a code of a phone for a tap at a door: None when it is this tap's, else the window of
    the one that was used last.

    Durable when it returns. None again for the same tap, which may be asked again. Of two taps at
    once the second waits for the first: the row's lock decides.
    """
    claimed = await conn.fetchval(
        "INSERT INTO pass_use AS known (credential_hash, door_id, window_number, reader_id, tap_id)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (credential_hash, door_id) DO UPDATE"
        " SET window_number = EXCLUDED.window_number, reader_id = EXCLUDED.reader_id,"
        " tap_id = EXCLUDED.tap_id"
        " WHERE known.window_number < EXCLUDED.window_number"
        " OR (known.window_number = EXCLUDED.window_number"
        "  AND known.reader_id = EXCLUDED.reader_id AND known.tap_id = EXCLUDED.tap_id)"
        " RETURNING true",
        credential_hash,
        door_id,
        window,
        reader_id,
        tap_id,
    )
    if claimed:
        return None
    last: int = await conn.fetchval(
        "SELECT window_number FROM pass_use WHERE credential_hash = $1 AND door_id = $2",
        credential_hash,
        door_id,
    )
    return last


async def forget_codes(conn: Conn, *, before_window: int, limit: int) -> int:
    """Forget codes that no tap can show any more, at most `limit`. Returns how many."""
    return int(
        await conn.fetchval(
            "WITH gone AS (DELETE FROM pass_use WHERE (credential_hash, door_id) IN"
            " (SELECT credential_hash, door_id FROM pass_use WHERE window_number < $1 LIMIT $2)"
            " RETURNING 1) SELECT count(*) FROM gone",
            before_window,
            limit,
        )
    )
