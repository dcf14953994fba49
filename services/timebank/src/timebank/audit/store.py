"""All SQL of audits: one function per question, the connection first."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from common.db import Conn
from timebank.audit.domain import Crossing
from timebank.store import HERE

Role = Literal["auditor", "federation_admin"]


@dataclass(frozen=True, slots=True)
class Look:
    """A question of somebody who may see every city. `city_id`: the one asked for, if it was."""

    looked_at: datetime
    actor_id: str
    role: Role
    city_id: str | None
    path: str
    query: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class InTransit:
    """Minutes that left a city and of which it has not heard."""

    transfer_id: UUID
    city_id: str
    peer_city_id: str
    minutes: int
    levy_minutes: int
    sent_at: datetime
    deadline: datetime
    queries: int


@dataclass(frozen=True, slots=True)
class PairLine:
    """A posting on the clearing account of a city with a peer; `clearing_id` names what crossed.

    `log_index`: its entry in the city's log; None until it is sequenced.
    """

    version: int
    posted_at: datetime
    ledger_transfer_id: UUID
    kind: str
    minutes: int
    balance_minutes: int
    clearing_id: UUID | None
    log_index: int | None


# ── Who looked ──────────────────────────────────────────────────────────────────────────────────


async def add_look(conn: Conn, look: Look) -> None:
    await conn.execute(
        "INSERT INTO audit_look (looked_at, actor_id, role, city_id, path, query)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        look.looked_at,
        look.actor_id,
        look.role,
        look.city_id,
        look.path,
        look.query,
    )


async def list_looks(
    conn: Conn, *, concerning: str | None, before: int | None, limit: int
) -> list[Look]:
    """The newest first: all, or those that concern one city, which those of no one city do."""
    rows = await conn.fetch(
        "SELECT looked_at, actor_id, role, city_id, path, query, number FROM audit_look"
        " WHERE ($1::text IS NULL OR city_id = $1 OR city_id IS NULL)"
        " AND ($2::bigint IS NULL OR number < $2) ORDER BY number DESC LIMIT $3",
        concerning,
        before,
        limit,
    )
    return [Look(**dict(row)) for row in rows]


# ── Between cities ──────────────────────────────────────────────────────────────────────────────


async def list_crossings(
    conn: Conn, *, city_id: str | None, since: datetime, until: datetime, limit: int
) -> list[tuple[Crossing, int | None]]:
    """What crossed from `since` until before `until`, the newest first, each with its entry in the
    log of the city that tells of it.

    Of one city as its own book has it; of all (None), each transfer once: as its source keeps it,
    or, of a city that keeps its book elsewhere, as it came here.
    """
    rows = await conn.fetch(
        "SELECT c.*, e.index AS log_index FROM ("
        " SELECT o.transfer_id, o.city_id AS from_city, o.to_city, o.minutes, o.sent_at AS at,"
        "  o.state, a.owner_id AS payer, o.payee, o.deadline,"
        "  extract(hour FROM o.sent_at AT TIME ZONE b.timezone)::int AS hour,"
        "  coalesce(o.conclusion_id, o.departure_id) AS told_by"
        " FROM clearing_out o JOIN account a ON a.account_id = o.payer_account"
        " JOIN book b ON b.city_id = o.city_id"
        " WHERE (o.city_id = $1 OR ($1::text IS NULL AND b.place = 'here'))"
        " AND o.sent_at >= $2 AND o.sent_at < $3"
        " UNION ALL"
        " SELECT i.transfer_id, i.from_city, i.city_id, i.minutes, i.decided_at,"
        "  CASE WHEN i.accepted THEN 'settled' ELSE 'returned' END, NULL, i.payee, i.deadline,"
        "  NULL, i.arrival_id"
        " FROM clearing_in i"
        " JOIN book b ON b.city_id = i.city_id"
        " WHERE (i.city_id = $1 OR ($1::text IS NULL AND b.place = 'here' AND NOT EXISTS"
        "  (SELECT FROM book WHERE book.city_id = i.from_city AND book.place = 'here')))"
        " AND i.decided_at >= $2 AND i.decided_at < $3"
        ") c LEFT JOIN log_entry e ON e.transfer_id = c.told_by"
        " ORDER BY c.at DESC, c.transfer_id LIMIT $4",
        city_id,
        since,
        until,
        limit,
    )
    found = []
    for row in rows:
        fields = dict(row)
        fields.pop("told_by")
        log_index = fields.pop("log_index")
        found.append((Crossing(**fields), log_index))
    return found


async def list_in_transit(
    conn: Conn, *, city_id: str | None, after: UUID | None, limit: int
) -> list[InTransit]:
    """What is on its way, the oldest first."""
    rows = await conn.fetch(
        "SELECT transfer_id, city_id, to_city AS peer_city_id, minutes, levy_minutes, sent_at,"  # noqa: S608 - a constant
        f" deadline, queries FROM clearing_out WHERE state = 'sent' AND {HERE}"
        " AND ($1::text IS NULL OR city_id = $1)"
        " AND ($2::uuid IS NULL OR (sent_at, transfer_id) >"
        "  (SELECT sent_at, transfer_id FROM clearing_out WHERE transfer_id = $2 LIMIT 1))"
        " ORDER BY sent_at, transfer_id LIMIT $3",
        city_id,
        after,
        limit,
    )
    return [InTransit(**dict(row)) for row in rows]


async def find_pair_account(conn: Conn, city_id: str, peer_city_id: str) -> UUID | None:
    """The account on which a city's book keeps where it stands with a peer."""
    found: UUID | None = await conn.fetchval(
        "SELECT account_id FROM account"
        " WHERE city_id = $1 AND peer_city_id = $2 AND kind = 'clearing'",
        city_id,
        peer_city_id,
    )
    return found


async def list_pair_lines(
    conn: Conn, account_id: UUID, *, after: int, up_to: int, limit: int
) -> list[PairLine]:
    """The postings of a clearing account with numbers after `after` up to `up_to`, oldest first."""
    rows = await conn.fetch(
        "SELECT p.account_version AS version, p.posted_at, p.transfer_id AS ledger_transfer_id,"
        " t.kind, p.minutes, p.balance_minutes,"
        " coalesce(o.transfer_id, i.transfer_id) AS clearing_id, e.index AS log_index"
        " FROM posting p JOIN transfer t USING (transfer_id)"
        " LEFT JOIN clearing_out o ON o.conclusion_id = p.transfer_id"
        " LEFT JOIN clearing_in i ON i.arrival_id = p.transfer_id"
        " LEFT JOIN log_entry e ON e.transfer_id = p.transfer_id"
        " WHERE p.account_id = $1 AND p.account_version > $2 AND p.account_version <= $3"
        " ORDER BY p.account_version LIMIT $4",
        account_id,
        after,
        up_to,
        limit,
    )
    return [PairLine(**dict(row)) for row in rows]


async def minutes_in_transit(conn: Conn, city_id: str, peer_city_id: str, at: datetime) -> int:
    """What was on its way from a city to a peer at an instant."""
    minutes: int = await conn.fetchval(
        "SELECT coalesce(sum(minutes), 0)::bigint FROM clearing_out WHERE city_id = $1"
        " AND to_city = $2 AND sent_at <= $3 AND (answered_at IS NULL OR answered_at > $3)",
        city_id,
        peer_city_id,
        at,
    )
    return minutes


async def last_checkpoints(conn: Conn, city_id: str | None) -> dict[str, str]:
    """The newest signed note of a city's log; of each city, without one."""
    rows = await conn.fetch(
        "SELECT DISTINCT ON (city_id) city_id, note FROM log_checkpoint"
        " WHERE $1::text IS NULL OR city_id = $1 ORDER BY city_id, size DESC",
        city_id,
    )
    return {row["city_id"]: row["note"] for row in rows}
