"""The SQL of moving a city: where its book is, who still writes, and its rows."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from common import db
from common.db import Conn, Pool
from timebank.cities.tables import LOOKS_AT, Table, in_order, to_table

MOVE_LOCK = 7_203_102
COMMAND_LOCK = 7_203_103


@dataclass(frozen=True, slots=True)
class Step:
    """The last thing that was done to move a city."""

    step: str
    package_id: UUID | None
    sha256: bytes | None


async def moved_cities(pool: Pool) -> frozenset[str]:
    rows = await pool.fetch("SELECT city_id FROM book WHERE place = 'moved'")
    return frozenset(row["city_id"] for row in rows)


async def places_of(conn: Conn) -> dict[str, str]:
    rows = await conn.fetch("SELECT city_id, place FROM book ORDER BY city_id")
    return {row["city_id"]: row["place"] for row in rows}


async def keyed_elsewhere(conn: Conn) -> list[str]:
    """Cities whose book was opened here while another time bank has their key."""
    rows = await conn.fetch(
        "SELECT city_id FROM book JOIN peer_city USING (city_id) WHERE place = 'here'"
        " AND NOT EXISTS (SELECT FROM city_key WHERE city_key.city_id = book.city_id) ORDER BY 1"
    )
    return [row["city_id"] for row in rows]


async def lock_place(conn: Conn, city_id: str) -> str | None:
    """Where a city's book is, locked; None when nobody has heard of it. One moves at a time."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", MOVE_LOCK)
    place: str | None = await conn.fetchval(
        "SELECT place FROM book WHERE city_id = $1 FOR UPDATE", city_id
    )
    return place


async def move_alone(connection: db.Connection) -> bool:
    """Whether this connection is now the one that moves a city, until it is closed."""
    alone: bool = await connection.fetchval("SELECT pg_try_advisory_lock($1)", COMMAND_LOCK)
    return alone


async def save_place(conn: Conn, city_id: str, place: str) -> None:
    await conn.execute("UPDATE book SET place = $2 WHERE city_id = $1", city_id, place)


async def last_step(conn: Conn, city_id: str) -> Step | None:
    row = await conn.fetchrow(
        "SELECT step, package_id, sha256 FROM city_move WHERE city_id = $1"
        " ORDER BY number DESC LIMIT 1",
        city_id,
    )
    return Step(**row) if row else None


async def add_step(
    conn: Conn,
    city_id: str,
    step: str,
    now: datetime,
    *,
    package_id: UUID | None = None,
    sha256: bytes | None = None,
    log_size: int | None = None,
) -> None:
    await conn.execute(
        "INSERT INTO city_move (city_id, number, step, package_id, sha256, log_size, at)"
        " SELECT $1, coalesce(max(number), 0) + 1, $2, $3, $4, $5, $6"
        " FROM city_move WHERE city_id = $1",
        city_id,
        step,
        package_id,
        sha256,
        log_size,
        now,
    )


async def was_imported(conn: Conn, city_id: str, sha256: bytes) -> bool:
    """Whether the package with this manifest was taken in here, and the city has not left since."""
    found = await conn.fetchval(
        "SELECT sha256 FROM city_move WHERE city_id = $1 AND step = 'imported'"
        " ORDER BY number DESC LIMIT 1",
        city_id,
    )
    return bool(found == sha256)


async def writers(conn: Conn) -> set[tuple[int, str]]:
    """Transactions of this database that write, or may yet: (process, virtual transaction)."""
    rows = await conn.fetch(
        "SELECT DISTINCT pid, virtualtransaction FROM pg_locks"
        " WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',"
        "  'AccessExclusiveLock')"
    )
    return {(row["pid"], row["virtualtransaction"]) for row in rows}


async def unsent(conn: Conn) -> int:
    count: int = await conn.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")
    return count


# ── The catalogue ───────────────────────────────────────────────────────────────────────────────


async def list_tables(conn: Conn) -> list[Table]:
    """All tables that cities have rows in, each after those that it refers to.

    Raises UnknownTable.
    """
    rows = await conn.fetch(
        "SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum)"
        "  FILTER (WHERE a.attgenerated = '' AND a.attidentity <> 'a') AS columns"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
        " AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped GROUP BY 1"
    )
    found = {row["name"]: to_table(row["name"], row["columns"]) for row in rows}
    tables = {name: table for name, table in found.items() if table is not None}
    refers = await conn.fetch(
        "SELECT f.relname AS of, t.relname AS to FROM pg_constraint k"
        " JOIN pg_class f ON f.oid = k.conrelid JOIN pg_class t ON t.oid = k.confrelid"
        " WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace"
    )
    known = [(row["of"], row["to"]) for row in refers]
    names = in_order(list(tables), [*known, *LOOKS_AT])
    return [tables[name] for name in names]


async def migrations(conn: Conn) -> list[str]:
    rows = await conn.fetch("SELECT name FROM schema_migration ORDER BY name")
    return [row["name"] for row in rows]


async def cities_named(conn: Conn, city_id: str) -> list[str]:
    """Other cities that rows of this one refer to as cities of the same time bank."""
    rows = await conn.fetch(
        "SELECT DISTINCT m.city_id FROM member m JOIN account a ON a.owner_id = m.member_id"
        "  AND a.kind = 'member' WHERE a.city_id = $1"
        " UNION SELECT city_id FROM member WHERE member_id IN"
        "  (SELECT giver_id FROM contribution WHERE city_id = $1"
        "   UNION SELECT member_id FROM pledge WHERE city_id = $1"
        "   UNION SELECT member_id FROM exemption WHERE city_id = $1"
        "   UNION SELECT member_id FROM standing_history WHERE city_id = $1"
        "   UNION SELECT member_id FROM rent_credit WHERE city_id = $1"
        "   UNION SELECT member_id FROM solidarity_gift WHERE city_id = $1"
        "   UNION SELECT member_id FROM solidarity_request WHERE city_id = $1"
        "   UNION SELECT member_id FROM pledge_credit WHERE city_id = $1)"
        " UNION SELECT requester_city_id FROM exchange WHERE city_id = $1"
        " UNION SELECT e.city_id FROM exemption e JOIN standing_history USING (exemption_id)"
        "  WHERE standing_history.city_id = $1",
        city_id,
    )
    return sorted({row["city_id"] for row in rows if row["city_id"] is not None} - {city_id})


async def add_stub(conn: Conn, city_id: str, now: datetime) -> None:
    """A city that rows refer to and whose book is not here."""
    await conn.execute(
        "INSERT INTO book (city_id, status, city_version, opened_at, place)"
        " VALUES ($1, 'active', 0, $2, 'elsewhere') ON CONFLICT DO NOTHING",
        city_id,
        now,
    )


# ── The key ─────────────────────────────────────────────────────────────────────────────────────


async def find_key(conn: Conn, city_id: str) -> tuple[int, bytes, datetime] | None:
    """Its number, the private half as it is sealed here, and since when it is used."""
    row = await conn.fetchrow(
        "SELECT number, sealed_key, created_at FROM city_key WHERE city_id = $1", city_id
    )
    return (row["number"], row["sealed_key"], row["created_at"]) if row else None


async def add_key(
    conn: Conn, city_id: str, number: int, public_key: bytes, sealed: bytes, since: datetime
) -> None:
    await conn.execute(
        "INSERT INTO city_key (city_id, number, public_key, sealed_key, created_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        city_id,
        number,
        public_key,
        sealed,
        since,
    )


# ── After ───────────────────────────────────────────────────────────────────────────────────────


async def cities_to_catch_up(conn: Conn) -> list[str]:
    """Cities that were imported and have not yet heard what was said while they moved."""
    rows = await conn.fetch(
        "SELECT city_id FROM book WHERE place = 'here' AND 'imported' ="
        " (SELECT step FROM city_move m WHERE m.city_id = book.city_id"
        "  ORDER BY number DESC LIMIT 1) ORDER BY city_id"
    )
    return [row["city_id"] for row in rows]


async def has_heard(conn: Conn, city_id: str, message_id: UUID) -> bool:
    found = await conn.fetchval(
        "SELECT true FROM clearing_message WHERE city_id = $1 AND message_id = $2",
        city_id,
        message_id,
    )
    return found is True
