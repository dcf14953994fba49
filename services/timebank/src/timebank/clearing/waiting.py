"""Messages under a key that nobody has heard of yet wait for it, some days and not many of them."""

from datetime import datetime, timedelta

from common.db import Conn
from timebank.clearing.messages import Message, read_message

KEPT_FOR = timedelta(days=7)
# Anybody who can write to the topic can claim to be any city.
OF_CITY_MAX = 100
IN_ALL_MAX = 5_000


async def set_aside(conn: Conn, message: Message, now: datetime) -> None:
    """Keep a message until its sender's key is heard of, unless too many wait."""
    await conn.execute("DELETE FROM clearing_unheard WHERE heard_at < $1", now - KEPT_FOR)
    await conn.execute(
        "INSERT INTO clearing_unheard (city_id, message_id, from_city, raw, heard_at)"
        " SELECT $1, $2, $3, $4, $5 WHERE"
        " (SELECT count(*) FROM clearing_unheard WHERE from_city = $3) < $6"
        " AND (SELECT count(*) FROM clearing_unheard) < $7 ON CONFLICT DO NOTHING",
        message.to_city,
        message.envelope.message_id,
        message.from_city,
        message.raw,
        now,
        OF_CITY_MAX,
        IN_ALL_MAX,
    )


async def take_back(conn: Conn, from_city: str) -> list[Message]:
    """What waits for the key of a city, in the order in which it was said; it waits no more."""
    rows = await conn.fetch(
        "DELETE FROM clearing_unheard WHERE from_city = $1 RETURNING message_id, raw", from_city
    )
    return [read_message(row["raw"]) for row in sorted(rows, key=lambda row: row["message_id"])]
