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
