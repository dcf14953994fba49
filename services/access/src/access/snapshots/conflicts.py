"""One message of a card at two taps: what doors that were alone could not know of each other.

A live tap is refused when its message was used before. Two doors without a network may both open to
one message: a reader that was held between, or a copy. When their logs arrive, people are told.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from common.clock import Clock
from common.db import Conn, Pool
from common.ids import new_id
from common.logging import get_logger
from copass_tap.decision import Tap

KEPT = timedelta(days=30)  # as long as taps
EVERY_S = 3600.0
BATCH = 5000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Conflict:
    conflict_id: UUID
    counter: int
    first_door_id: UUID
    first_reader_id: UUID
    first_tap_id: UUID
    first_occurred_at: datetime
    second_door_id: UUID
    second_reader_id: UUID
    second_tap_id: UUID
    second_occurred_at: datetime
    found_at: datetime


async def note_use(conn: Conn, tap: Tap, reader_id: str, now: datetime) -> None:
    """Note that a tap used a message, and a conflict when another tap had used it.

    Each statement commits by itself, so that of two that come at once at least one sees the other.
    """
    await conn.execute(
        "INSERT INTO message_use (credential_hash, counter, reader_id, tap_id, door_id, mode,"
        " occurred_at, noted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        tap.credential_hash,
        tap.counter,
        UUID(reader_id),
        UUID(tap.tap_id),
        UUID(tap.door_id),
        tap.mode,
        tap.occurred_at,
        now,
    )
    if tap.mode != "replay":
        return
    # Ordered by when they happened, so that both who find it write the same row.
    found = await conn.execute(
        "INSERT INTO message_conflict (conflict_id, credential_hash, counter, city_ids,"
        " first_door_id, first_reader_id, first_tap_id, first_occurred_at,"
        " second_door_id, second_reader_id, second_tap_id, second_occurred_at, found_at)"
        " SELECT $1, a.credential_hash, a.counter,"
        "  ARRAY(SELECT DISTINCT city_id FROM snapshot_reader"
        "   WHERE reader_id IN (a.reader_id, b.reader_id)),"
        "  a.door_id, a.reader_id, a.tap_id, a.occurred_at,"
        "  b.door_id, b.reader_id, b.tap_id, b.occurred_at, $6"
        " FROM message_use AS a JOIN message_use AS b USING (credential_hash, counter)"
        " WHERE credential_hash = $2 AND counter = $3"
        "  AND (a.occurred_at, a.tap_id) < (b.occurred_at, b.tap_id)"
        "  AND ((a.reader_id, a.tap_id) = ($4, $5) OR (b.reader_id, b.tap_id) = ($4, $5))"
        " ORDER BY a.occurred_at, b.occurred_at LIMIT 1"
        " ON CONFLICT DO NOTHING",
        new_id(),
        tap.credential_hash,
        tap.counter,
        UUID(reader_id),
        UUID(tap.tap_id),
        now,
    )
    if found != "INSERT 0 0":
        log.warning("message_used_twice", reader_id=reader_id, tap_id=tap.tap_id)


async def list_conflicts(
    conn: Conn, city_id: str, *, before: UUID | None, limit: int
) -> list[Conflict]:
    """The conflicts at a city's readers, the last found first."""
    rows = await conn.fetch(
        "SELECT conflict_id, counter, first_door_id, first_reader_id, first_tap_id,"
        " first_occurred_at, second_door_id, second_reader_id, second_tap_id, second_occurred_at,"
        " found_at FROM message_conflict WHERE city_ids @> ARRAY[$1::text]"
        " AND ($2::uuid IS NULL OR conflict_id < $2) ORDER BY conflict_id DESC LIMIT $3",
        city_id,
        before,
        limit,
    )
    return [Conflict(**row) for row in rows]


async def forget_for_ever(pool: Pool, clock: Clock) -> None:
    """Once an hour. Raises what failed."""
    while True:
        async with pool.acquire() as conn:
            while await forget(conn, clock() - KEPT) == BATCH:
                pass
        await asyncio.sleep(EVERY_S)


async def forget(conn: Conn, before: datetime) -> int:
    """Let go of what was noted before then, at most BATCH of the uses. Returns how many."""
    await conn.execute("DELETE FROM message_conflict WHERE found_at < $1", before)
    done: Any = await conn.execute(
        "DELETE FROM message_use WHERE (credential_hash, counter, reader_id, tap_id) IN ("
        " SELECT credential_hash, counter, reader_id, tap_id FROM message_use"
        " WHERE noted_at < $1 ORDER BY noted_at LIMIT $2)",
        before,
        BATCH,
    )
    return int(str(done).split()[-1])
