"""All SQL of netting."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.netting import domain
from timebank.netting.domain import Netting, Plan
from timebank.netting.planning import Move, Side
from timebank.store import HERE

Row = asyncpg.Record


@dataclass(frozen=True, slots=True)
class Kept:
    """A netting as a city of ours keeps it, with what is of no concern to the protocol. `decision`
    is the decider's signed message."""

    netting: Netting
    proposed_by: str
    proposed_at: datetime
    answered_by: str | None = None
    answered_at: datetime | None = None
    decision: dict[str, Any] | None = None
    decided_at: datetime | None = None
    transfer_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What another city said of a plan of ours, as it signed it."""

    from_city: str
    agreed: bool
    message: dict[str, Any]
    heard_at: datetime


SELECT_NETTING = (
    "SELECT city_id, netting_id, decider, moves, expires_at, proposed_by, proposed_at, state,"
    " answered_by, answered_at, asks, asked_at, decision, decided_at, transfer_id FROM netting"
)


def to_kept(row: Row) -> Kept:
    plan = Plan(
        netting_id=row["netting_id"],
        decider=row["decider"],
        moves=tuple(Move(*move) for move in row["moves"]),
        expires_at=row["expires_at"],
    )
    return Kept(
        netting=Netting(plan, row["city_id"], row["state"], row["asks"], row["asked_at"]),
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        answered_by=row["answered_by"],
        answered_at=row["answered_at"],
        decision=row["decision"],
        decided_at=row["decided_at"],
        transfer_id=row["transfer_id"],
    )


def to_row(moves: Sequence[Move]) -> list[list[str | int]]:
    return [[move.debtor, move.creditor, move.minutes, move.owed_minutes] for move in moves]


async def add(conn: Conn, kept: Kept) -> bool:
    """False, and nothing done, when the city knows a netting of this id."""
    netting, plan = kept.netting, kept.netting.plan
    added = await conn.fetchval(
        "INSERT INTO netting (city_id, netting_id, decider, moves, digest, expires_at, proposed_by,"
        " proposed_at, state, due_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT DO NOTHING RETURNING true",
        netting.city_id,
        plan.netting_id,
        plan.decider,
        to_row(plan.moves),
        plan.digest(),
        plan.expires_at,
        kept.proposed_by,
        kept.proposed_at,
        netting.state,
        domain.due_at(netting, kept.proposed_at),
    )
    return added is True


async def find(conn: Conn, city_id: str, netting_id: UUID, *, lock: bool = False) -> Kept | None:
    row = await conn.fetchrow(
        f"{SELECT_NETTING} WHERE city_id = $1 AND netting_id = $2 {'FOR UPDATE' if lock else ''}",
        city_id,
        netting_id,
    )
    return to_kept(row) if row else None


async def save(conn: Conn, kept: Kept) -> None:
    """Write what changed; the caller holds its lock."""
    netting = kept.netting
    await conn.execute(
        "UPDATE netting SET state = $3, answered_by = $4, answered_at = $5, asks = $6,"
        " asked_at = $7, due_at = $8, decision = $9, decided_at = $10, transfer_id = $11"
        " WHERE city_id = $1 AND netting_id = $2",
        netting.city_id,
        netting.plan.netting_id,
        netting.state,
        kept.answered_by,
        kept.answered_at,
        netting.asks,
        netting.asked_at,
        domain.due_at(netting, kept.proposed_at),
        kept.decision,
        kept.decided_at,
        kept.transfer_id,
    )


async def list_kept(
    conn: Conn, *, city_id: str | None, state: str | None, before: UUID | None, limit: int
) -> list[Kept]:
    """The newest first; what is None does not narrow. Each netting once: as the city that decides
    keeps it, if that is one of ours."""
    distinct = SELECT_NETTING.replace("SELECT", "SELECT DISTINCT ON (netting_id)", 1)
    rows = await conn.fetch(
        f"{distinct} WHERE ($1::text IS NULL OR city_id = $1)"
        " AND ($2::text IS NULL OR state = $2) AND ($3::uuid IS NULL OR netting_id < $3)"
        " ORDER BY netting_id DESC, (city_id = decider) DESC, city_id LIMIT $4",
        city_id,
        state,
        before,
        limit,
    )
    return [to_kept(row) for row in rows]


async def list_open_plans(conn: Conn) -> list[Plan]:
    """Each once, whichever of our cities are in it: those that we proposed, and those of others as
    soon as a city of ours agreed. What others merely propose keeps nothing from being netted."""
    rows = await conn.fetch(
        f"{SELECT_NETTING} WHERE (state = 'agreed' OR (state = 'proposed' AND city_id = decider))"
        f" AND {HERE}"
    )
    plans = {row["netting_id"]: to_kept(row).netting.plan for row in rows}
    return list(plans.values())


async def count_open(conn: Conn, city_id: str, decider: str) -> int:
    count: int = await conn.fetchval(
        "SELECT count(*) FROM netting WHERE city_id = $1 AND decider = $2"
        " AND state IN ('proposed', 'agreed')",
        city_id,
        decider,
    )
    return count


async def list_due(conn: Conn, now: datetime, limit: int) -> list[tuple[str, UUID]]:
    """Nettings (city, id) of which something is to be said or ended."""
    rows = await conn.fetch(
        "SELECT city_id, netting_id FROM netting"  # noqa: S608 - a constant
        f" WHERE due_at <= $1 AND {HERE} ORDER BY due_at LIMIT $2",
        now,
        limit,
    )
    return [(row["city_id"], row["netting_id"]) for row in rows]


# ── Answers ─────────────────────────────────────────────────────────────────────────────────────


async def add_answer(
    conn: Conn,
    city_id: str,
    netting_id: UUID,
    from_city: str,
    *,
    agreed: bool,
    message: dict[str, Any],
    now: datetime,
) -> bool:
    """Keep the first answer of a city; a later one changes nothing, and is False."""
    added = await conn.fetchval(
        "INSERT INTO netting_answer (city_id, netting_id, from_city, agreed, message, heard_at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING true",
        city_id,
        netting_id,
        from_city,
        agreed,
        message,
        now,
    )
    return added is True


async def list_answers(conn: Conn, city_id: str, netting_id: UUID) -> list[Answer]:
    rows = await conn.fetch(
        "SELECT from_city, agreed, message, heard_at FROM netting_answer"
        " WHERE city_id = $1 AND netting_id = $2 ORDER BY from_city",
        city_id,
        netting_id,
    )
    return [Answer(**dict(row)) for row in rows]


# ── Positions ───────────────────────────────────────────────────────────────────────────────────


async def list_sides(conn: Conn) -> list[Side]:
    """Every side of a pair of cities that is known here: our accounts, and what others last said.

    Ours are newer than what we said of them.
    """
    rows = await conn.fetch(
        "SELECT a.city_id, a.peer_city_id, a.balance_minutes AS minutes,"  # noqa: S608 - a constant
        " coalesce(g.state IN ('active', 'suspended'), false) AS in_force"
        " FROM account a LEFT JOIN agreement g USING (city_id, peer_city_id)"
        f" WHERE a.kind = 'clearing' AND a.{HERE} UNION ALL"
        " SELECT from_city, to_city, position_minutes, true FROM position_said"
        " WHERE NOT EXISTS (SELECT FROM book WHERE book.city_id = from_city AND place = 'here')"
        " ORDER BY 1, 2"
    )
    return [Side(*row) for row in rows]


async def save_said(
    conn: Conn, from_city: str, to_city: str, *, version: int, minutes: int, now: datetime
) -> None:
    """Keep what a city says its position with another is, unless something newer is known."""
    await conn.execute(
        "INSERT INTO position_said (from_city, to_city, version, position_minutes, heard_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (from_city, to_city) DO UPDATE SET"
        " version = EXCLUDED.version, position_minutes = EXCLUDED.position_minutes,"
        " heard_at = EXCLUDED.heard_at WHERE position_said.version <= EXCLUDED.version",
        from_city,
        to_city,
        version,
        minutes,
        now,
    )


async def books_of(conn: Conn, city_ids: Sequence[str]) -> list[str]:
    """Which of these cities are ours and can sign, by name."""
    rows = await conn.fetch(
        f"SELECT city_id FROM city_key WHERE city_id = ANY($1::text[]) AND {HERE}"  # noqa: S608 - a constant
        " ORDER BY city_id",
        list(city_ids),
    )
    return [row["city_id"] for row in rows]
