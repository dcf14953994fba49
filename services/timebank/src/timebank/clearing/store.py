"""All SQL of clearing. What is between two cities changes under the lock of their agreement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.clearing.domain import Decision, Outgoing, Prepare, RefusalReason
from timebank.clearing.messages import Message
from timebank.store import HERE

Row = asyncpg.Record


@dataclass(frozen=True, slots=True)
class Departure:
    """A transfer as its source keeps it, with what is of no concern to the protocol."""

    outgoing: Outgoing
    reason: RefusalReason | None
    answered_at: datetime | None
    requested_by: str
    memo: str | None
    departure_id: UUID
    conclusion_id: UUID | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A transfer as its destination keeps it."""

    prepare: Prepare
    decision: Decision
    levy_minutes: int
    arrival_id: UUID | None


@dataclass(frozen=True, slots=True)
class Reversal:
    city_id: str
    transfer_id: UUID
    peer_city_id: str
    agreed_by: str | None
    agreed_at: datetime | None
    peer_agreed_at: datetime | None
    reversal_id: UUID | None
    problem: str | None


# ── Keys ────────────────────────────────────────────────────────────────────────────────────────


async def cities_without_key(conn: Conn) -> list[str]:
    rows = await conn.fetch(
        "SELECT city_id FROM book WHERE place = 'here' AND NOT EXISTS"
        " (SELECT FROM city_key WHERE city_key.city_id = book.city_id) AND NOT EXISTS"
        # One with a key has a book: in another time bank.
        " (SELECT FROM peer_city WHERE peer_city.city_id = book.city_id) ORDER BY city_id"
    )
    return [row["city_id"] for row in rows]


async def add_city_key(
    conn: Conn, city_id: str, public_key: bytes, sealed_key: bytes, now: datetime
) -> bool:
    """False, and nothing done, when the city has one."""
    added = await conn.fetchval(
        "INSERT INTO city_key (city_id, public_key, sealed_key, created_at)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING true",
        city_id,
        public_key,
        sealed_key,
        now,
    )
    return added is True


async def find_sealed_key(conn: Conn, city_id: str) -> bytes | None:
    """None before the city has a key, and once it has moved: it signs there."""
    sealed: bytes | None = await conn.fetchval(
        "SELECT sealed_key FROM city_key JOIN book USING (city_id)"
        " WHERE city_id = $1 AND place = 'here'",
        city_id,
    )
    return sealed


async def save_peer(conn: Conn, city_id: str, public_key: bytes, version: int) -> None:
    """Keep what a city says its key is, unless something newer is known."""
    await conn.execute(
        "INSERT INTO peer_city (city_id, public_key, version) VALUES ($1, $2, $3)"
        " ON CONFLICT (city_id) DO UPDATE SET public_key = EXCLUDED.public_key,"
        " version = EXCLUDED.version WHERE peer_city.version < EXCLUDED.version",
        city_id,
        public_key,
        version,
    )


async def find_peer_key(conn: Conn, city_id: str) -> bytes | None:
    key: bytes | None = await conn.fetchval(
        "SELECT public_key FROM peer_city WHERE city_id = $1", city_id
    )
    return key


# ── Transfers that leave ────────────────────────────────────────────────────────────────────────

SELECT_OUT = (
    "SELECT transfer_id, city_id, to_city, minutes, payee, deadline, reverses, payer_account,"
    " levy_minutes, requested_by, memo, sent_at, state, reason, answered_at, queries, queried_at,"
    " departure_id, conclusion_id FROM clearing_out"
)


def to_departure(row: Row) -> Departure:
    return Departure(
        outgoing=Outgoing(
            prepare=Prepare(
                transfer_id=row["transfer_id"],
                from_city=row["city_id"],
                to_city=row["to_city"],
                minutes=row["minutes"],
                payee=row["payee"],
                deadline=row["deadline"],
                reverses=row["reverses"],
            ),
            payer_account=row["payer_account"],
            levy_minutes=row["levy_minutes"],
            state=row["state"],
            sent_at=row["sent_at"],
            queries=row["queries"],
            queried_at=row["queried_at"],
        ),
        reason=row["reason"],
        answered_at=row["answered_at"],
        requested_by=row["requested_by"],
        memo=row["memo"],
        departure_id=row["departure_id"],
        conclusion_id=row["conclusion_id"],
    )


async def add_departure(conn: Conn, departure: Departure, query_at: datetime) -> bool:
    """False, and nothing done, when the transfer is known."""
    outgoing, prepare = departure.outgoing, departure.outgoing.prepare
    added = await conn.fetchval(
        "INSERT INTO clearing_out (transfer_id, city_id, to_city, minutes, payee, deadline,"
        " reverses, payer_account, levy_minutes, requested_by, memo, sent_at, query_at,"
        " departure_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
        " ON CONFLICT DO NOTHING RETURNING true",
        prepare.transfer_id,
        prepare.from_city,
        prepare.to_city,
        prepare.minutes,
        prepare.payee,
        prepare.deadline,
        prepare.reverses,
        outgoing.payer_account,
        outgoing.levy_minutes,
        departure.requested_by,
        departure.memo,
        outgoing.sent_at,
        query_at,
        departure.departure_id,
    )
    return added is True


async def find_departure(
    conn: Conn, city_id: str, transfer_id: UUID, *, lock: bool = False
) -> Departure | None:
    row = await conn.fetchrow(
        f"{SELECT_OUT} WHERE city_id = $1 AND transfer_id = $2 {'FOR UPDATE' if lock else ''}",
        city_id,
        transfer_id,
    )
    return to_departure(row) if row else None


async def find_departures(conn: Conn, transfer_id: UUID) -> list[Departure]:
    """A transfer as the cities of ours that sent it keep it: one, as an id is used once."""
    rows = await conn.fetch(f"{SELECT_OUT} WHERE transfer_id = $1", transfer_id)
    return [to_departure(row) for row in rows]


async def save_answer(
    conn: Conn, city_id: str, decision: Decision, conclusion_id: UUID, now: datetime
) -> None:
    """Write what was heard of a transfer; the caller holds its lock."""
    await conn.execute(
        "UPDATE clearing_out SET state = $3, reason = $4, answered_at = $5, conclusion_id = $6"
        " WHERE city_id = $1 AND transfer_id = $2",
        city_id,
        decision.transfer_id,
        "settled" if decision.accepted else "returned",
        decision.reason,
        now,
        conclusion_id,
    )


async def lock_due(conn: Conn, now: datetime, limit: int) -> list[Departure]:
    """Transfers to be asked about, locked; those that another process looks at are its own."""
    rows = await conn.fetch(
        f"{SELECT_OUT} WHERE state = 'sent' AND query_at <= $1 AND {HERE}"
        " ORDER BY query_at LIMIT $2 FOR UPDATE SKIP LOCKED",
        now,
        limit,
    )
    return [to_departure(row) for row in rows]


async def save_query(conn: Conn, outgoing: Outgoing, query_at: datetime) -> None:
    await conn.execute(
        "UPDATE clearing_out SET queries = $3, queried_at = $4, query_at = $5"
        " WHERE city_id = $1 AND transfer_id = $2",
        outgoing.prepare.from_city,
        outgoing.prepare.transfer_id,
        outgoing.queries,
        outgoing.queried_at,
        query_at,
    )


async def list_departures(
    conn: Conn,
    *,
    city_id: str | None,
    owner_id: UUID | None,
    peer: str | None,
    state: str | None,
    before: UUID | None,
    limit: int,
) -> list[Departure]:
    """The newest first; what is None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_OUT} WHERE ($1::text IS NULL OR city_id = $1)"  # noqa: S608 - constant
        " AND ($2::uuid IS NULL OR payer_account IN"
        "  (SELECT account_id FROM account WHERE owner_id = $2))"
        " AND ($3::text IS NULL OR to_city = $3) AND ($4::text IS NULL OR state = $4)"
        " AND ($5::uuid IS NULL OR transfer_id < $5) ORDER BY transfer_id DESC LIMIT $6",
        city_id,
        owner_id,
        peer,
        state,
        before,
        limit,
    )
    return [to_departure(row) for row in rows]


# ── Transfers that come ─────────────────────────────────────────────────────────────────────────

SELECT_IN = (
    "SELECT transfer_id, city_id, from_city, minutes, payee, deadline, reverses, reason,"
    " levy_minutes, decided_at, arrival_id FROM clearing_in"
)


def to_arrival(row: Row) -> Arrival:
    return Arrival(
        prepare=Prepare(
            transfer_id=row["transfer_id"],
            from_city=row["from_city"],
            to_city=row["city_id"],
            minutes=row["minutes"],
            payee=row["payee"],
            deadline=row["deadline"],
            reverses=row["reverses"],
        ),
        decision=Decision(row["transfer_id"], row["reason"], row["decided_at"]),
        levy_minutes=row["levy_minutes"],
        arrival_id=row["arrival_id"],
    )


async def find_arrival(conn: Conn, city_id: str, transfer_id: UUID) -> Arrival | None:
    row = await conn.fetchrow(
        f"{SELECT_IN} WHERE city_id = $1 AND transfer_id = $2", city_id, transfer_id
    )
    return to_arrival(row) if row else None


async def find_arrivals(conn: Conn, transfer_id: UUID) -> list[Arrival]:
    """A transfer as the cities of ours that it came to keep it."""
    rows = await conn.fetch(f"{SELECT_IN} WHERE transfer_id = $1", transfer_id)
    return [to_arrival(row) for row in rows]


async def is_taken_back(conn: Conn, city_id: str, transfer_id: UUID) -> bool:
    found = await conn.fetchval(
        "SELECT true FROM clearing_in WHERE city_id = $1 AND reverses = $2 AND accepted",
        city_id,
        transfer_id,
    )
    return found is True


async def add_arrival(conn: Conn, arrival: Arrival) -> None:
    """Raises asyncpg.UniqueViolationError when it was decided meanwhile."""
    prepare, decision = arrival.prepare, arrival.decision
    await conn.execute(
        "INSERT INTO clearing_in (transfer_id, city_id, from_city, minutes, payee, deadline,"
        " reverses, accepted, reason, levy_minutes, decided_at, arrival_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        prepare.transfer_id,
        prepare.to_city,
        prepare.from_city,
        prepare.minutes,
        prepare.payee,
        prepare.deadline,
        prepare.reverses,
        decision.accepted,
        decision.reason,
        arrival.levy_minutes,
        decision.decided_at,
        arrival.arrival_id,
    )


async def list_arrivals(
    conn: Conn,
    *,
    city_id: str | None,
    payee: UUID | None,
    peer: str | None,
    before: UUID | None,
    limit: int,
) -> list[Arrival]:
    """The newest first; what is None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_IN} WHERE ($1::text IS NULL OR city_id = $1)"
        " AND ($2::uuid IS NULL OR payee = $2) AND ($3::text IS NULL OR from_city = $3)"
        " AND ($4::uuid IS NULL OR transfer_id < $4) ORDER BY transfer_id DESC LIMIT $5",
        city_id,
        payee,
        peer,
        before,
        limit,
    )
    return [to_arrival(row) for row in rows]


# ── Taking back ─────────────────────────────────────────────────────────────────────────────────

SELECT_REVERSAL = (
    "SELECT city_id, transfer_id, peer_city_id, agreed_by, agreed_at, peer_agreed_at, reversal_id,"
    " problem FROM clearing_reversal"
)


async def lock_reversal(conn: Conn, city_id: str, transfer_id: UUID, peer: str) -> Reversal:
    """The reversal of a transfer, locked; begun if nobody has asked for it before."""
    await conn.execute(
        "INSERT INTO clearing_reversal (city_id, transfer_id, peer_city_id) VALUES ($1, $2, $3)"
        " ON CONFLICT DO NOTHING",
        city_id,
        transfer_id,
        peer,
    )
    row = await conn.fetchrow(
        f"{SELECT_REVERSAL} WHERE city_id = $1 AND transfer_id = $2 FOR UPDATE",
        city_id,
        transfer_id,
    )
    return Reversal(**dict(row or {}))


async def find_reversal(conn: Conn, city_id: str, transfer_id: UUID) -> Reversal | None:
    row = await conn.fetchrow(
        f"{SELECT_REVERSAL} WHERE city_id = $1 AND transfer_id = $2", city_id, transfer_id
    )
    return Reversal(**dict(row)) if row else None


async def find_arrival_back(conn: Conn, city_id: str, transfer_id: UUID) -> Arrival | None:
    """What came to take a transfer of this city back: what was accepted, else what came last."""
    row = await conn.fetchrow(
        f"{SELECT_IN} WHERE city_id = $1 AND reverses = $2 ORDER BY accepted DESC, transfer_id DESC"
        " LIMIT 1",
        city_id,
        transfer_id,
    )
    return to_arrival(row) if row else None


async def save_reversal(conn: Conn, reversal: Reversal) -> None:
    await conn.execute(
        "UPDATE clearing_reversal SET agreed_by = $3, agreed_at = $4, peer_agreed_at = $5,"
        " reversal_id = $6, problem = $7 WHERE city_id = $1 AND transfer_id = $2",
        reversal.city_id,
        reversal.transfer_id,
        reversal.agreed_by,
        reversal.agreed_at,
        reversal.peer_agreed_at,
        reversal.reversal_id,
        reversal.problem,
    )


# ── A member's own ──────────────────────────────────────────────────────────────────────────────


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """What a member sent to other cities, and what came for them."""
    sent = await conn.fetch(
        "SELECT transfer_id, city_id, to_city, minutes, levy_minutes, payee, memo, state, reason,"
        " sent_at, deadline, answered_at, reverses FROM clearing_out WHERE payer_account IN"
        " (SELECT account_id FROM account WHERE owner_id = $1) ORDER BY transfer_id",
        member_id,
    )
    received = await conn.fetch(
        "SELECT transfer_id, city_id, from_city, minutes, levy_minutes, accepted, reason,"
        " decided_at, reverses FROM clearing_in WHERE payee = $1 ORDER BY transfer_id",
        member_id,
    )
    return {
        "clearing_sent": [dict(row) for row in sent],
        "clearing_received": [dict(row) for row in received],
    }


async def forget(conn: Conn, member_id: UUID) -> None:
    """Take the words away from what a member sent; the minutes stay, and so does the evidence,
    which never had any."""
    await conn.execute(
        "UPDATE clearing_out SET memo = NULL WHERE memo IS NOT NULL AND payer_account IN"
        " (SELECT account_id FROM account WHERE owner_id = $1)",
        member_id,
    )


# ── Evidence, positions ─────────────────────────────────────────────────────────────────────────


async def keep_message(
    conn: Conn, city_id: str, message: Message, *, sent: bool, now: datetime
) -> bool:
    """Keep a signed message as evidence. False when it was kept before."""
    kept = await conn.fetchval(
        "INSERT INTO clearing_message (city_id, message_id, peer_city_id, sent, kind, transfer_id,"
        " message, kept_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        " ON CONFLICT DO NOTHING RETURNING true",
        city_id,
        message.envelope.message_id,
        message.to_city if sent else message.from_city,
        sent,
        message.body.kind,
        message.transfer_id,
        message.raw,
        now,
    )
    return kept is True


async def list_messages(conn: Conn, city_id: str | None, transfer_id: UUID) -> list[dict[str, Any]]:
    """What a city of ours (None: any) said and heard of a transfer, in the order of the ids."""
    rows = await conn.fetch(
        "SELECT message FROM clearing_message WHERE transfer_id = $1"
        " AND ($2::text IS NULL OR city_id = $2)"
        " ORDER BY message_id",
        transfer_id,
        city_id,
    )
    return [row["message"] for row in rows]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a city stands with a peer, in minutes. `oldest_sent_at`: of what is on its way."""

    city_id: str
    peer_city_id: str
    clearing_minutes: int
    in_transit_minutes: int
    in_transit: int
    overdue: int
    oldest_sent_at: datetime | None
    returned: int


async def list_positions(
    conn: Conn, city_ids: Sequence[str] | None, now: datetime
) -> list[Position]:
    """Of these cities (None: all) with every peer, by city and peer."""
    rows = await conn.fetch(
        "SELECT a.city_id, a.peer_city_id,"  # noqa: S608 - a constant
        " sum(a.balance_minutes) FILTER (WHERE a.kind = 'clearing')::bigint AS clearing_minutes,"
        " sum(a.balance_minutes) FILTER (WHERE a.kind = 'in_transit')::bigint"
        "  AS in_transit_minutes,"
        " coalesce(min(o.waiting), 0) AS in_transit, coalesce(min(o.overdue), 0) AS overdue,"
        " min(o.oldest) AS oldest_sent_at, coalesce(min(o.returned), 0) AS returned"
        " FROM account a LEFT JOIN (SELECT city_id, to_city,"
        "  count(*) FILTER (WHERE state = 'sent') AS waiting,"
        "  count(*) FILTER (WHERE state = 'sent' AND deadline <= $2) AS overdue,"
        "  min(sent_at) FILTER (WHERE state = 'sent') AS oldest,"
        "  count(*) FILTER (WHERE state = 'returned') AS returned"
        "  FROM clearing_out GROUP BY city_id, to_city) o"
        " ON o.city_id = a.city_id AND o.to_city = a.peer_city_id"
        f" WHERE a.kind IN ('clearing', 'in_transit') AND a.{HERE}"
        " AND ($1::text[] IS NULL OR a.city_id = ANY($1))"
        " GROUP BY a.city_id, a.peer_city_id ORDER BY a.city_id, a.peer_city_id",
        list(city_ids) if city_ids is not None else None,
        now,
    )
    return [Position(**dict(row)) for row in rows]
