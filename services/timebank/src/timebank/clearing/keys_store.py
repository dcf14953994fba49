"""The SQL of cities' keys: the newest of ours, what others say theirs are, and how each was handed
over."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from common.db import Conn
from timebank.clearing.handover import Chain, Handover
from timebank.store import HERE


@dataclass(frozen=True, slots=True)
class OwnKey:
    """The newest key of a city of ours, the private half sealed."""

    public_key: bytes
    sealed_key: bytes
    number: int


async def lock_own_key(conn: Conn, city_id: str) -> OwnKey | None:
    row = await conn.fetchrow(
        "SELECT public_key, sealed_key, number FROM city_key WHERE city_id = $1 FOR UPDATE", city_id
    )
    return OwnKey(**row) if row else None


async def replace_own_key(
    conn: Conn, city_id: str, public_key: bytes, sealed_key: bytes, number: int, now: datetime
) -> None:
    """Raises asyncpg.RestrictViolationError unless the key before handed over to it."""
    await conn.execute(
        "UPDATE city_key SET public_key = $2, sealed_key = $3, number = $4, created_at = $5"
        " WHERE city_id = $1",
        city_id,
        public_key,
        sealed_key,
        number,
        now,
    )


async def own_chain(conn: Conn, city_id: str) -> Chain | None:
    """All keys of a city of ours; None before it has one."""
    newest = await conn.fetchval("SELECT public_key FROM city_key WHERE city_id = $1", city_id)
    return await with_handovers(conn, city_id, newest) if newest is not None else None


async def peer_chain(conn: Conn, city_id: str) -> Chain | None:
    """All keys of a city as they were heard; None when nobody has heard of it."""
    newest = await conn.fetchval("SELECT public_key FROM peer_city WHERE city_id = $1", city_id)
    return await with_handovers(conn, city_id, newest) if newest is not None else None


async def with_handovers(conn: Conn, city_id: str, newest: bytes) -> Chain:
    """The keys that lead to `newest`; it alone when none does."""
    rows = await conn.fetch(
        "SELECT number, old_key, new_key, from_size, believed_until AS until, statement"
        " FROM key_handover WHERE city_id = $1 ORDER BY number",
        city_id,
    )
    handovers = tuple(Handover(**row) for row in rows)
    return Chain(handovers[0].old_key, handovers).up_to(newest) if handovers else Chain(newest)


async def lock_peer(conn: Conn, city_id: str) -> bool:
    """Whether the city is known; its row is locked then."""
    found = await conn.fetchval("SELECT true FROM peer_city WHERE city_id = $1 FOR UPDATE", city_id)
    return found is True


async def add_handover(conn: Conn, city_id: str, handover: Handover, now: datetime) -> None:
    """Keep a statement; one that is kept already is the same. Raises
    asyncpg.UniqueViolationError when the same key hands over to another."""
    await conn.execute(
        "INSERT INTO key_handover (city_id, number, old_key, new_key, from_size, believed_until,"
        " statement, kept_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        " ON CONFLICT (city_id, number) DO NOTHING",
        city_id,
        handover.number,
        handover.old_key,
        handover.new_key,
        handover.from_size,
        handover.until,
        handover.statement,
        now,
    )


async def add_alarm(
    conn: Conn, city_id: str, told: list[dict[str, Any]], why: str, now: datetime
) -> bool:
    """Keep what was told of a city and is not believed. False when that was kept before."""
    added = await conn.fetchval(
        "INSERT INTO key_alarm (city_id, told_sha256, told, why, heard_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        city_id,
        hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).digest(),
        told,
        why,
        now,
    )
    return added is True


async def cities_bound_to(conn: Conn, peer_city_id: str) -> list[str]:
    """Our cities with an agreement with this one, in the order in which they are to be locked."""
    rows = await conn.fetch(
        f"SELECT city_id FROM agreement WHERE peer_city_id = $1 AND {HERE} ORDER BY city_id",  # noqa: S608 - a constant
        peer_city_id,
    )
    return [row["city_id"] for row in rows]


async def known_cities(conn: Conn) -> list[str]:
    """All cities whose key is known here, ours and others'."""
    rows = await conn.fetch("SELECT city_id FROM city_key UNION SELECT city_id FROM peer_city")
    return sorted(row["city_id"] for row in rows)
