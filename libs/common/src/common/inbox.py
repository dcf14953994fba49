"""Which events this consumer has handled. Used inside the transaction that handles them."""

from uuid import UUID

from common.db import Conn


async def first_time(conn: Conn, consumer: str, event_id: UUID) -> bool:
    """Claim an event: True the first time that `consumer` meets it, False afterwards."""
    claimed = await conn.fetchval(
        "INSERT INTO inbox (consumer, event_id) VALUES ($1, $2)"
        " ON CONFLICT DO NOTHING RETURNING true",
        consumer,
        event_id,
    )
    return claimed is True
