"""The SQL of cosigning: what others hold of our logs, and ours of theirs."""

from dataclasses import dataclass
from datetime import datetime

from common.db import Conn
from timebank.store import HERE

COSIGNERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """The last checkpoint that was cosigned; `note` with both signatures."""

    size: int
    root: bytes
    note: str
    seen_at: datetime


async def cosigned_sizes(conn: Conn, city_id: str) -> list[int]:
    """The size that each cosigner last saw."""
    rows = await conn.fetch(
        "SELECT cosigner, max(size) AS size FROM log_cosignature WHERE city_id = $1"
        " GROUP BY cosigner ORDER BY 2 DESC LIMIT $2",
        city_id,
        COSIGNERS_MAX,
    )
    return [row["size"] for row in rows]


async def cosigners_for(conn: Conn, city_id: str) -> list[tuple[str, bytes]]:
    """Our cities that cosign another's log, each with the key that its agreement pins."""
    rows = await conn.fetch(
        "SELECT city_id, peer_key FROM agreement"  # noqa: S608 - a constant
        " WHERE peer_city_id = $1 AND state <> 'proposed'"
        f" AND {HERE} ORDER BY city_id",
        city_id,
    )
    return [(row["city_id"], row["peer_key"]) for row in rows]


async def key_of_peer(conn: Conn, city_id: str, cosigner: str) -> bytes | None:
    """The key that a city's agreement with a cosigner pins."""
    key: bytes | None = await conn.fetchval(
        "SELECT peer_key FROM agreement WHERE city_id = $1 AND peer_city_id = $2"
        " AND state <> 'proposed'",
        city_id,
        cosigner,
    )
    return key


async def lock_seen(conn: Conn, cosigner: str, city_id: str) -> Seen | None:
    row = await conn.fetchrow(
        "SELECT size, root, note, seen_at FROM log_seen WHERE cosigner = $1 AND city_id = $2"
        " FOR UPDATE",
        cosigner,
        city_id,
    )
    return Seen(**row) if row else None


async def save_seen(conn: Conn, cosigner: str, city_id: str, seen: Seen) -> None:
    await conn.execute(
        "INSERT INTO log_seen (cosigner, city_id, size, root, note, seen_at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (cosigner, city_id) DO UPDATE"
        " SET size = EXCLUDED.size, root = EXCLUDED.root, note = EXCLUDED.note,"
        " seen_at = EXCLUDED.seen_at",
        cosigner,
        city_id,
        seen.size,
        seen.root,
        seen.note,
        seen.seen_at,
    )


async def add_cosignature(
    conn: Conn, city_id: str, size: int, cosigner: str, line: str, signed_at: datetime
) -> None:
    await conn.execute(
        "INSERT INTO log_cosignature (city_id, size, cosigner, line, signed_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        city_id,
        size,
        cosigner,
        line,
        signed_at,
    )


async def halt(conn: Conn, city_id: str, why: str) -> None:
    """Let a log sign nothing more; its head is locked."""
    await conn.execute("UPDATE log_head SET halted = $2 WHERE city_id = $1", city_id, why)


async def lift_halt(conn: Conn, city_id: str) -> None:
    """Let a log go on; its head is locked."""
    await conn.execute("UPDATE log_head SET halted = NULL WHERE city_id = $1", city_id)


async def add_halt(
    conn: Conn, city_id: str, what: str, why: str, note: str | None, now: datetime
) -> None:
    """Keep that a log was `halted` or `lifted`; its head is locked."""
    await conn.execute(
        "INSERT INTO log_halt (city_id, number, what, why, note, at)"
        " SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5 FROM log_halt WHERE city_id = $1",
        city_id,
        what,
        why,
        note,
        now,
    )


async def list_halts(conn: Conn, city_id: str) -> list[tuple[str, str, datetime]]:
    """What happened (`halted`, `lifted`), why, when; the oldest first."""
    rows = await conn.fetch(
        "SELECT what, why, at FROM log_halt WHERE city_id = $1 ORDER BY number", city_id
    )
    return [(row["what"], row["why"], row["at"]) for row in rows]


async def notes_of(conn: Conn, city_id: str) -> list[str]:
    """The newest checkpoints of a log of ours that this database knows: signed here, and held
    against it from outside."""
    rows = await conn.fetch(
        "(SELECT note FROM log_checkpoint WHERE city_id = $1 ORDER BY size DESC LIMIT 1)"
        " UNION ALL SELECT note FROM log_halt WHERE city_id = $1 AND note IS NOT NULL"
        " UNION ALL SELECT note FROM log_checkpoint WHERE city_id = $1 AND size ="
        " (SELECT max(size) FROM log_cosignature WHERE city_id = $1)",
        city_id,
    )
    return [row["note"] for row in rows]


async def cosigners_of(conn: Conn, city_id: str, size: int) -> list[str]:
    rows = await conn.fetch(
        "SELECT cosigner FROM log_cosignature WHERE city_id = $1 AND size = $2", city_id, size
    )
    return [row["cosigner"] for row in rows]


async def halted_cities(conn: Conn) -> dict[str, bool]:
    """Of each log, whether it is halted."""
    rows = await conn.fetch("SELECT city_id, halted IS NOT NULL AS halted FROM log_head")
    return {row["city_id"]: row["halted"] for row in rows}
