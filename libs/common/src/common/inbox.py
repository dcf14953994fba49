"""Which events this consumer has handled. Used inside the transaction that handles them."""

from collections.abc import Collection, Sequence
from uuid import UUID

from common.db import Conn
from common.events import Event


async def claim(conn: Conn, consumer: str, events: Sequence[Event]) -> list[Event]:
    """Those of the events that `consumer` meets for the first time, each once, in their order."""
    by_id = {event.id: event for event in events}
    rows = await conn.fetch(
        # In the order of the ids, so that two members who read the same never wait in a circle.
        "INSERT INTO inbox (consumer, event_id)"
        " SELECT $1, event_id FROM unnest($2::uuid[]) AS event_id ORDER BY event_id"
        " ON CONFLICT DO NOTHING RETURNING event_id",
        consumer,
        list(by_id),
    )
    claimed = {row["event_id"] for row in rows}
    return [event for event in by_id.values() if event.id in claimed]


async def seen(conn: Conn, consumer: str, event_ids: Collection[UUID]) -> set[UUID]:
    """Those of the events that `consumer` has handled. What is not among them may be, a moment
    later: `claim` decides."""
    rows = await conn.fetch(
        "SELECT event_id FROM inbox WHERE consumer = $1 AND event_id = ANY($2)",
        consumer,
        list(event_ids),
    )
    return {row["event_id"] for row in rows}
