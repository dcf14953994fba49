"""All SQL of the cities' rules."""

import asyncpg

from common.db import Conn
from timebank.rules.domain import Rules

SELECT_RULES = (
    "SELECT city_id, number, carry_minutes_max, grace_days, rent_cents_per_hour,"
    " rent_minutes_max_per_month, member_floor_minutes, set_by, set_at FROM city_rules"
)


def to_rules(row: asyncpg.Record) -> Rules:
    return Rules(**dict(row))


async def find_rules(conn: Conn, city_id: str) -> Rules:
    """The rules in force in a city that has a book; the defaults where nobody set any."""
    row = await conn.fetchrow(
        f"{SELECT_RULES} WHERE city_id = $1 ORDER BY number DESC LIMIT 1", city_id
    )
    if row:
        return to_rules(row)
    floor: int = await conn.fetchval(
        "SELECT member_floor_minutes FROM book WHERE city_id = $1", city_id
    )
    return Rules(city_id, member_floor_minutes=floor)


async def lock_book(conn: Conn, city_id: str) -> bool:
    """Lock a city's book until the transaction ends. False: there is none."""
    found = await conn.fetchval(
        "SELECT true FROM book WHERE city_id = $1 FOR NO KEY UPDATE", city_id
    )
    return found is True


async def add_rules(conn: Conn, rules: Rules) -> None:
    """Write a city's new rules; the caller holds the lock of its book."""
    await conn.execute(
        "WITH floor AS (UPDATE book SET member_floor_minutes = $7 WHERE city_id = $1)"
        " INSERT INTO city_rules (city_id, number, carry_minutes_max, grace_days,"
        " rent_cents_per_hour, rent_minutes_max_per_month, member_floor_minutes, set_by, set_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        rules.city_id,
        rules.number,
        rules.carry_minutes_max,
        rules.grace_days,
        rules.rent_cents_per_hour,
        rules.rent_minutes_max_per_month,
        rules.member_floor_minutes,
        rules.set_by,
        rules.set_at,
    )


async def list_rules(conn: Conn, city_id: str, *, before: int | None, limit: int) -> list[Rules]:
    """The rules that a city ever set, the newest first, from the one before number `before`."""
    rows = await conn.fetch(
        f"{SELECT_RULES} WHERE city_id = $1 AND ($2::bigint IS NULL OR number < $2)"
        " ORDER BY number DESC LIMIT $3",
        city_id,
        before,
        limit,
    )
    return [to_rules(row) for row in rows]
