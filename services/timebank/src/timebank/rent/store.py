"""All SQL of rent credits. They change under the lock of their member, taken first."""

from datetime import date
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.rent.domain import RentCredit

SELECT_CREDIT = (
    "SELECT rent_credit_id, member_id, organisation_id, city_id, month, minutes, cents_per_hour,"
    " credit_cents, transfer_id, made_at, reversed_by, reversed_at FROM rent_credit"
)


def to_credit(row: asyncpg.Record) -> RentCredit:
    values = dict(row)
    return RentCredit(id=values.pop("rent_credit_id"), **values)


async def find_credit(conn: Conn, rent_credit_id: UUID) -> RentCredit | None:
    """A rent credit as it is; to be asked again once its member is locked."""
    row = await conn.fetchrow(f"{SELECT_CREDIT} WHERE rent_credit_id = $1", rent_credit_id)
    return to_credit(row) if row else None


async def used_minutes(conn: Conn, member_id: UUID, city_id: str, month: date) -> int:
    """What a member has given for the rent of a month, without what was taken back."""
    minutes: int = await conn.fetchval(
        "SELECT coalesce(sum(minutes), 0)::bigint FROM rent_credit"
        " WHERE member_id = $1 AND city_id = $2 AND month = $3 AND reversed_by IS NULL",
        member_id,
        city_id,
        month,
    )
    return minutes


async def add_credit(conn: Conn, credit: RentCredit) -> bool:
    """Write a new rent credit, before its transfer. False, and nothing done, when its id is
    taken."""
    added = await conn.fetchval(
        "INSERT INTO rent_credit (rent_credit_id, member_id, organisation_id, city_id, month,"
        " minutes, cents_per_hour, credit_cents, transfer_id, made_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (rent_credit_id) DO NOTHING RETURNING true",
        credit.id,
        credit.member_id,
        credit.organisation_id,
        credit.city_id,
        credit.month,
        credit.minutes,
        credit.cents_per_hour,
        credit.credit_cents,
        credit.transfer_id,
        credit.made_at,
    )
    return added is True


async def save_reversal(conn: Conn, credit: RentCredit) -> None:
    await conn.execute(
        "UPDATE rent_credit SET reversed_by = $2, reversed_at = $3 WHERE rent_credit_id = $1",
        credit.id,
        credit.reversed_by,
        credit.reversed_at,
    )


async def list_credits(
    conn: Conn,
    *,
    member_id: UUID | None,
    organisation_id: UUID | None,
    city_id: str | None,
    month: date | None,
    after: UUID | None,
    limit: int,
) -> list[RentCredit]:
    """Rent credits in id order, from the one after `after`; what is None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_CREDIT}"
        " WHERE ($1::uuid IS NULL OR member_id = $1)"
        " AND ($2::uuid IS NULL OR organisation_id = $2)"
        " AND ($3::text IS NULL OR city_id = $3) AND ($4::date IS NULL OR month = $4)"
        " AND ($5::uuid IS NULL OR rent_credit_id > $5) ORDER BY rent_credit_id LIMIT $6",
        member_id,
        organisation_id,
        city_id,
        month,
        after,
        limit,
    )
    return [to_credit(row) for row in rows]


# ── A member's own, and what is forgotten ───────────────────────────────────────────────────────


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of a member's rent credits, as rows by table."""
    rows = await conn.fetch(f"{SELECT_CREDIT} WHERE member_id = $1 ORDER BY made_at", member_id)
    return {"rent_credits": [dict(row) for row in rows]}


async def forget(conn: Conn, member_id: UUID) -> None:
    """Nothing: a rent credit has no words, and its numbers are the operator's accounts."""
