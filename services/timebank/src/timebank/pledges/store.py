"""All SQL of pledges. What a member owes changes under the lock of the member, taken first."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

from common.db import Conn
from common.export import read_tables
from timebank.pledges.domain import Dues, Exemption, Pledge, Term
from timebank.rules import store as rules_store
from timebank.store import Member

CreditSource = Literal["contribution", "help"]


@dataclass(frozen=True, slots=True)
class Credit:
    """Minutes that count, and the transfers that gave them, and gave them back."""

    id: UUID
    source: CreditSource
    member_id: UUID
    city_id: str
    month: date
    minutes: int
    transfer_id: UUID
    undone_by: UUID | None = None


async def lock_members(conn: Conn, ids: Collection[UUID]) -> dict[UUID, Member]:
    """The members that exist among `ids`, locked in id order until the transaction ends."""
    # NO KEY: what refers to a member may be written meanwhile.
    rows = await conn.fetch(
        "SELECT member_id, city_id, status FROM member WHERE member_id = ANY($1::uuid[])"
        " ORDER BY member_id FOR NO KEY UPDATE",
        list(ids),
    )
    return {row["member_id"]: Member(**row) for row in rows}


SELECT_PLEDGE = """
    SELECT p.pledge_id, p.member_id, p.city_id, p.starts_on, p.ends_before, p.skills, p.version,
        p.made_by, p.made_at, t.terms
    FROM pledge p
    CROSS JOIN LATERAL (
        SELECT array_agg((t.from_month, t.minutes_per_month) ORDER BY t.number) AS terms
        FROM pledge_term t WHERE t.pledge_id = p.pledge_id
    ) t
"""


def to_pledge(row: asyncpg.Record) -> Pledge:
    values = dict(row)
    return Pledge(
        id=values.pop("pledge_id"),
        skills=tuple(values.pop("skills")),
        terms=tuple(Term(*term) for term in values.pop("terms")),
        **values,
    )


async def find_pledge(conn: Conn, pledge_id: UUID) -> Pledge | None:
    row = await conn.fetchrow(f"{SELECT_PLEDGE} WHERE p.pledge_id = $1", pledge_id)
    return to_pledge(row) if row else None


async def pledges_of(conn: Conn, member_id: UUID, *, owing: bool = False) -> list[Pledge]:
    """All pledges of a member, in whatever city, in the order of their starts.

    `owing`: without those that ended before they began, of which there may be any number.
    """
    rows = await conn.fetch(
        f"{SELECT_PLEDGE} WHERE p.member_id = $1"
        " AND (NOT $2 OR p.ends_before IS NULL OR p.ends_before > p.starts_on)"
        " ORDER BY p.starts_on, p.pledge_id",
        member_id,
        owing,
    )
    return [to_pledge(row) for row in rows]


def to_exemption(row: asyncpg.Record) -> Exemption:
    values = dict(row)
    return Exemption(id=values.pop("exemption_id"), **values)


SELECT_EXEMPTION = (
    "SELECT exemption_id, member_id, city_id, from_on, until, ended_on, granted_by, granted_at"
    " FROM exemption"
)


async def exemptions_of(conn: Conn, member_id: UUID) -> tuple[Exemption, ...]:
    """All exemptions of a member that held for a day or more, the oldest first, without their
    reasons."""
    rows = await conn.fetch(
        f"{SELECT_EXEMPTION} WHERE member_id = $1 AND (ended_on IS NULL OR ended_on > from_on)"
        " ORDER BY from_on, exemption_id",
        member_id,
    )
    return tuple(to_exemption(row) for row in rows)


async def find_dues(conn: Conn, member_id: UUID, now: datetime) -> tuple[Dues, ...]:
    """What a member owes, and has given, in each city where they pledged something."""
    pledges = defaultdict(list)
    for pledge in await pledges_of(conn, member_id, owing=True):
        pledges[pledge.city_id].append(pledge)
    if not pledges:
        return ()
    counted: dict[str, dict[date, int]] = defaultdict(dict)
    for row in await conn.fetch(
        "SELECT city_id, month, sum(minutes)::bigint AS minutes FROM pledge_credit"
        " WHERE member_id = $1 AND undone_by IS NULL GROUP BY city_id, month",
        member_id,
    ):
        counted[row["city_id"]][row["month"]] = row["minutes"]
    exemptions = await exemptions_of(conn, member_id)
    today = await today_in(conn, pledges, now)
    dues = []
    for city_id, made in sorted(pledges.items()):
        rules = await rules_store.find_rules(conn, city_id)
        dues.append(
            Dues(
                city_id=city_id,
                today=today[city_id],
                pledges=tuple(made),
                counted=counted[city_id],
                exemptions=exemptions,
                grace_days=rules.grace_days,
                carry_minutes_max=rules.carry_minutes_max,
            )
        )
    return tuple(dues)


async def today_in(conn: Conn, city_ids: Collection[str], now: datetime) -> dict[str, date]:
    """The day that it is in each of the cities."""
    rows = await conn.fetch(
        "SELECT city_id, ($2::timestamptz AT TIME ZONE timezone)::date AS today FROM book"
        " WHERE city_id = ANY($1::text[])",
        list(city_ids),
        now,
    )
    return {row["city_id"]: row["today"] for row in rows}


async def list_pledges(
    conn: Conn,
    *,
    member_id: UUID | None,
    city_id: str | None,
    running: bool | None,
    after: UUID | None,
    limit: int,
) -> list[Pledge]:
    """Pledges in id order, from the one after `after`; what is None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_PLEDGE}"
        " WHERE ($1::uuid IS NULL OR p.member_id = $1) AND ($2::text IS NULL OR p.city_id = $2)"
        " AND ($3::boolean IS NULL OR (p.ends_before IS NULL) = $3)"
        " AND ($4::uuid IS NULL OR p.pledge_id > $4) ORDER BY p.pledge_id LIMIT $5",
        member_id,
        city_id,
        running,
        after,
        limit,
    )
    return [to_pledge(row) for row in rows]


async def add_pledge(conn: Conn, pledge: Pledge) -> bool:
    """Write a new pledge with its first term. False, and nothing done, when its id is taken."""
    added = await conn.fetchval(
        "INSERT INTO pledge (pledge_id, member_id, city_id, starts_on, skills, version, made_by,"
        " made_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        " ON CONFLICT (pledge_id) DO NOTHING RETURNING true",
        pledge.id,
        pledge.member_id,
        pledge.city_id,
        pledge.starts_on,
        list(pledge.skills),
        pledge.version,
        pledge.made_by,
        pledge.made_at,
    )
    if added:
        await add_term(conn, pledge, set_by=pledge.made_by, now=pledge.made_at)
    return added is True


async def add_term(conn: Conn, pledge: Pledge, *, set_by: str, now: datetime | None) -> None:
    """Write the last term of a pledge."""
    term = pledge.terms[-1]
    await conn.execute(
        "INSERT INTO pledge_term (pledge_id, number, from_month, minutes_per_month, set_by,"
        " set_at) VALUES ($1, $2, $3, $4, $5, $6)",
        pledge.id,
        len(pledge.terms),
        term.from_month,
        term.minutes_per_month,
        set_by,
        now,
    )


async def save_pledge(conn: Conn, pledge: Pledge, *, ended_by: str | None, now: datetime) -> None:
    """Write a pledge as it is now, but its terms. `ended_by`: who ended it, if somebody did."""
    await conn.execute(
        "UPDATE pledge SET skills = $2, ends_before = $3, version = $4,"
        " ended_by = coalesce(ended_by, $5),"
        " ended_at = coalesce(ended_at, CASE WHEN $5::text IS NOT NULL THEN $6::timestamptz END)"
        " WHERE pledge_id = $1",
        pledge.id,
        list(pledge.skills),
        pledge.ends_before,
        pledge.version,
        ended_by,
        now,
    )


# ── A member's own, and what is forgotten ───────────────────────────────────────────────────────


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of what a member pledged, as rows by table."""
    return await read_tables(conn, EXPORTS, member_id)


EXPORTS = {
    "pledges": "SELECT pledge_id, city_id, starts_on, ends_before, skills, made_at, ended_at"
    " FROM pledge WHERE member_id = $1 ORDER BY pledge_id",
    "pledge_terms": "SELECT pledge_id, number, from_month, minutes_per_month, set_at"
    " FROM pledge_term JOIN pledge USING (pledge_id) WHERE member_id = $1"
    " ORDER BY pledge_id, number",
    "pledge_credits": "SELECT credit_id, source, city_id, month, minutes, transfer_id, counted_at,"
    " undone_by, undone_at FROM pledge_credit WHERE member_id = $1 ORDER BY credit_id",
}


async def forget(conn: Conn, member_id: UUID) -> None:
    """Take the words from a member's pledges: what they said they can do. Numbers stay."""
    await conn.execute("UPDATE pledge SET skills = '{}' WHERE member_id = $1", member_id)


# ── Credits ─────────────────────────────────────────────────────────────────────────────────────


async def find_credit(conn: Conn, source: CreditSource, credit_id: UUID) -> Credit | None:
    row = await conn.fetchrow(
        "SELECT credit_id, source, member_id, city_id, month, minutes, transfer_id, undone_by"
        " FROM pledge_credit WHERE source = $1 AND credit_id = $2",
        source,
        credit_id,
    )
    if row is None:
        return None
    values = dict(row)
    return Credit(id=values.pop("credit_id"), **values)


async def add_credit(conn: Conn, credit: Credit, now: datetime) -> None:
    """Write minutes that count; the transfer that gives them is written before."""
    await conn.execute(
        "INSERT INTO pledge_credit (credit_id, source, member_id, city_id, month, minutes,"
        " transfer_id, counted_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        credit.id,
        credit.source,
        credit.member_id,
        credit.city_id,
        credit.month,
        credit.minutes,
        credit.transfer_id,
        now,
    )


async def undo_credit(conn: Conn, credit: Credit, *, transfer_id: UUID, now: datetime) -> None:
    """Write that a credit was given back, by the transfer written before."""
    await conn.execute(
        "UPDATE pledge_credit SET undone_by = $3, undone_at = $4"
        " WHERE source = $1 AND credit_id = $2",
        credit.source,
        credit.id,
        transfer_id,
        now,
    )
