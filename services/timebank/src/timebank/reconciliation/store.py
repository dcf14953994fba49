"""All SQL of the comparison of two cities' books. A pair is compared under its agreement's lock,
under which alone its clearing account moves."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.reconciliation.domain import Alarm, AlarmKind, Key, Known, Movement, Open, Story
from timebank.store import HERE

Row = asyncpg.Record


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of a pair of cities, as `city_id` compares it. `question_id` is the question
    that waits for its answer; `asked_version` our postings when the last answered one was asked,
    `question_version` when this one was."""

    city_id: str
    peer_city_id: str
    story: Story
    asked_version: int
    question_id: UUID | None
    question_version: int
    ask_at: datetime
    began_at: datetime
    checked_at: datetime
    said_at: datetime | None
    said: dict[str, Any] | None
    complete: bool
    went_back: bool
    unanswered_since: datetime | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a city waits for, of a peer."""

    kind: str
    id: UUID
    minutes: int


@dataclass(frozen=True, slots=True)
class Raised:
    """An alarm as it is kept."""

    alarm_id: UUID
    city_id: str
    peer_city_id: str
    kind: AlarmKind
    ids: tuple[UUID, ...]
    count: int
    minutes: int
    version: int
    raised_at: datetime
    closed_at: datetime | None


SELECT_PAIR = (
    "SELECT city_id, peer_city_id, our_version, our_minutes, their_version, their_minutes,"
    " asked_version, question_id, question_version, ask_at, began_at, checked_at, said_at, said,"
    " complete, went_back, unanswered_since FROM reconciliation_pair"
)


def to_pair(row: Row) -> Pair:
    return Pair(
        city_id=row["city_id"],
        peer_city_id=row["peer_city_id"],
        story=Story(
            row["our_version"], row["our_minutes"], row["their_version"], row["their_minutes"]
        ),
        asked_version=row["asked_version"],
        question_id=row["question_id"],
        question_version=row["question_version"],
        ask_at=row["ask_at"],
        began_at=row["began_at"],
        checked_at=row["checked_at"],
        said_at=row["said_at"],
        said=row["said"],
        complete=row["complete"],
        went_back=row["went_back"],
        unanswered_since=row["unanswered_since"],
    )


# ── Pairs ───────────────────────────────────────────────────────────────────────────────────────


async def list_due(conn: Conn, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Pairs (city of ours, peer) to be compared now: those never compared first."""
    rows = await conn.fetch(
        "SELECT a.city_id, a.peer_city_id FROM account a"  # noqa: S608 - a constant
        " LEFT JOIN reconciliation_pair p USING (city_id, peer_city_id)"
        f" WHERE a.kind = 'clearing' AND a.{HERE} AND (p.ask_at IS NULL OR p.ask_at <= $1)"
        " ORDER BY p.ask_at NULLS FIRST, 1, 2 LIMIT $2",
        now,
        limit,
    )
    return [(row["city_id"], row["peer_city_id"]) for row in rows]


async def lock_pair(conn: Conn, city_id: str, peer_city_id: str, now: datetime) -> Pair:
    """A pair, locked; begun if it was never compared."""
    await conn.execute(
        "INSERT INTO reconciliation_pair (city_id, peer_city_id, ask_at, began_at, checked_at)"
        " VALUES ($1, $2, $3, $3, $3) ON CONFLICT DO NOTHING",
        city_id,
        peer_city_id,
        now,
    )
    row = await conn.fetchrow(
        f"{SELECT_PAIR} WHERE city_id = $1 AND peer_city_id = $2 FOR UPDATE", city_id, peer_city_id
    )
    if row is None:
        raise RuntimeError("a pair that was just begun is gone")
    return to_pair(row)


async def list_pairs(conn: Conn, city_id: str | None) -> list[Pair]:
    rows = await conn.fetch(
        f"{SELECT_PAIR} WHERE $1::text IS NULL OR city_id = $1 ORDER BY city_id, peer_city_id",
        city_id,
    )
    return [to_pair(row) for row in rows]


async def save_pair(conn: Conn, pair: Pair) -> None:
    """The caller holds its lock."""
    story = pair.story
    await conn.execute(
        "UPDATE reconciliation_pair SET our_version = $3, our_minutes = $4, their_version = $5,"
        " their_minutes = $6, asked_version = $7, question_id = $8, question_version = $9,"
        " ask_at = $10, checked_at = $11, said_at = $12, said = $13, complete = $14,"
        " went_back = $15, unanswered_since = $16 WHERE city_id = $1 AND peer_city_id = $2",
        pair.city_id,
        pair.peer_city_id,
        story.our_version,
        story.our_minutes,
        story.their_version,
        story.their_minutes,
        pair.asked_version,
        pair.question_id,
        pair.question_version,
        pair.ask_at,
        pair.checked_at,
        pair.said_at,
        pair.said,
        pair.complete,
        pair.went_back,
        pair.unanswered_since,
    )


# ── Our side ────────────────────────────────────────────────────────────────────────────────────


async def list_movements(
    conn: Conn, city_id: str, peer_city_id: str, since: int, limit: int
) -> list[tuple[Movement, datetime]]:
    """The postings of a clearing account after `since`, in their order, and when they were made."""
    rows = await conn.fetch(
        "SELECT p.account_version, p.minutes, p.posted_at,"
        " CASE WHEN o.transfer_id IS NOT NULL THEN 'settlement'"
        "  WHEN i.transfer_id IS NOT NULL THEN 'arrival'"
        "  WHEN n.netting_id IS NOT NULL THEN 'netting' ELSE 'other' END AS kind,"
        " coalesce(o.transfer_id, i.transfer_id, n.netting_id, p.transfer_id) AS id"
        " FROM posting p JOIN transfer t USING (transfer_id)"
        " LEFT JOIN clearing_out o ON t.kind = 'settlement' AND o.conclusion_id = p.transfer_id"
        "  AND o.to_city = $2"
        " LEFT JOIN clearing_in i ON t.kind = 'arrival' AND i.arrival_id = p.transfer_id"
        "  AND i.from_city = $2"
        " LEFT JOIN netting n ON t.kind = 'netting' AND n.transfer_id = p.transfer_id"
        " WHERE p.account_version > $3 AND p.account_id = (SELECT account_id FROM account"
        "  WHERE city_id = $1 AND kind = 'clearing' AND peer_city_id = $2)"
        " ORDER BY p.account_version LIMIT $4",
        city_id,
        peer_city_id,
        since,
        limit,
    )
    return [
        (Movement(row["account_version"], row["kind"], row["id"], row["minutes"]), row["posted_at"])
        for row in rows
    ]


async def list_waiting(conn: Conn, city_id: str, peer_city_id: str, limit: int) -> list[Waiting]:
    """What a city sent to a peer and did not end, and the nettings that it waits for; the oldest
    first."""
    rows = await conn.fetch(
        "(SELECT 'transfer' AS kind, transfer_id AS id, minutes FROM clearing_out"
        " WHERE city_id = $1 AND to_city = $2 AND state = 'sent' ORDER BY sent_at LIMIT $3)"
        " UNION ALL (SELECT 'netting', n.netting_id, CASE WHEN m.value->>0 = $1"
        "  THEN (m.value->>2)::bigint ELSE -(m.value->>2)::bigint END"
        " FROM netting n CROSS JOIN jsonb_array_elements(n.moves) m"
        " WHERE n.city_id = $1 AND n.state = 'agreed'"
        " AND ARRAY[m.value->>0, m.value->>1] <@ ARRAY[$1, $2] LIMIT $3) LIMIT $3",
        city_id,
        peer_city_id,
        limit,
    )
    return [Waiting(**dict(row)) for row in rows]


async def log_size(conn: Conn, city_id: str) -> int:
    size: int | None = await conn.fetchval("SELECT size FROM log_head WHERE city_id = $1", city_id)
    return size or 0


async def what_we_know(conn: Conn, pair: Pair, found: Collection[Open]) -> dict[Key, Known]:
    """Of what the peer posted, what we know of it."""
    ids = [one.id for one in found if one.side == "theirs"]
    rows = await conn.fetch(
        "SELECT 'out' AS direction, transfer_id AS id, CASE state WHEN 'sent' THEN 'waiting'"
        "  WHEN 'settled' THEN 'done' ELSE 'refused' END AS known FROM clearing_out"
        " WHERE city_id = $1 AND to_city = $2 AND transfer_id = ANY($3::uuid[])"
        " UNION ALL SELECT 'in', transfer_id, CASE WHEN accepted THEN 'done' ELSE 'refused' END"
        " FROM clearing_in WHERE city_id = $1 AND from_city = $2 AND transfer_id = ANY($3::uuid[])"
        " UNION ALL SELECT 'netting', netting_id, CASE state WHEN 'agreed' THEN 'waiting'"
        "  WHEN 'posted' THEN 'done' ELSE 'refused' END"
        " FROM netting WHERE city_id = $1 AND netting_id = ANY($3::uuid[])",
        pair.city_id,
        pair.peer_city_id,
        ids,
    )
    return {("theirs", row["direction"], row["id"]): row["known"] for row in rows}


# ── What is open ────────────────────────────────────────────────────────────────────────────────

SELECT_OPEN = (
    "SELECT side, direction, id, minutes, version, since FROM reconciliation_open"
    " WHERE city_id = $1 AND peer_city_id = $2"
)


async def find_open(conn: Conn, pair: Pair, ids: Sequence[UUID]) -> dict[Key, Open]:
    rows = await conn.fetch(
        f"{SELECT_OPEN} AND id = ANY($3::uuid[])", pair.city_id, pair.peer_city_id, ids
    )
    found = [Open(**dict(row)) for row in rows]
    return {one.key: one for one in found}


async def list_open(conn: Conn, city_id: str, peer_city_id: str, limit: int) -> list[Open]:
    """The oldest first."""
    rows = await conn.fetch(
        f"{SELECT_OPEN} ORDER BY since, id LIMIT $3", city_id, peer_city_id, limit
    )
    return [Open(**dict(row)) for row in rows]


async def sum_open(conn: Conn, pair: Pair) -> int:
    minutes: int = await conn.fetchval(
        "SELECT coalesce(sum(minutes), 0)::bigint FROM reconciliation_open"
        " WHERE city_id = $1 AND peer_city_id = $2",
        pair.city_id,
        pair.peer_city_id,
    )
    return minutes


async def save_open(conn: Conn, pair: Pair, added: Sequence[Open], removed: Sequence[Key]) -> None:
    if removed:
        await conn.executemany(
            "DELETE FROM reconciliation_open WHERE city_id = $1 AND peer_city_id = $2"
            " AND side = $3 AND direction = $4 AND id = $5",
            [(pair.city_id, pair.peer_city_id, *key) for key in removed],
        )
    if added:
        await conn.executemany(
            "INSERT INTO reconciliation_open AS o (city_id, peer_city_id, side, direction, id,"
            " minutes, version, since) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
            " ON CONFLICT (city_id, peer_city_id, direction, id, side)"
            " DO UPDATE SET minutes = o.minutes + EXCLUDED.minutes",
            [
                (
                    pair.city_id,
                    pair.peer_city_id,
                    one.side,
                    one.direction,
                    one.id,
                    one.minutes,
                    one.version,
                    one.since,
                )
                for one in added
            ],
        )


# ── Alarms ──────────────────────────────────────────────────────────────────────────────────────

SELECT_ALARM = (
    "SELECT alarm_id, city_id, peer_city_id, kind, ids, count, minutes, version, raised_at,"
    " closed_at FROM reconciliation_alarm"
)


def to_raised(row: Row) -> Raised:
    return Raised(**{**dict(row), "ids": tuple(row["ids"])})


async def lock_alarms(conn: Conn, city_id: str, peer_city_id: str) -> Mapping[AlarmKind, Raised]:
    """The open ones of a pair, locked."""
    rows = await conn.fetch(
        f"{SELECT_ALARM} WHERE city_id = $1 AND peer_city_id = $2 AND closed_at IS NULL FOR UPDATE",
        city_id,
        peer_city_id,
    )
    return {row["kind"]: to_raised(row) for row in rows}


async def raise_alarm(
    conn: Conn, alarm_id: UUID, pair: Pair, alarm: Alarm, now: datetime
) -> Raised:
    await conn.execute(
        "INSERT INTO reconciliation_alarm (alarm_id, city_id, peer_city_id, kind, ids, count,"
        " minutes, version, raised_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8)",
        alarm_id,
        pair.city_id,
        pair.peer_city_id,
        alarm.kind,
        list(alarm.ids),
        alarm.count,
        alarm.minutes,
        now,
    )
    return Raised(
        alarm_id=alarm_id,
        city_id=pair.city_id,
        peer_city_id=pair.peer_city_id,
        kind=alarm.kind,
        ids=alarm.ids,
        count=alarm.count,
        minutes=alarm.minutes,
        version=1,
        raised_at=now,
        closed_at=None,
    )


async def save_alarm(conn: Conn, raised: Raised) -> None:
    await conn.execute(
        "UPDATE reconciliation_alarm SET ids = $2, count = $3, minutes = $4, version = $5,"
        " closed_at = $6 WHERE alarm_id = $1",
        raised.alarm_id,
        list(raised.ids),
        raised.count,
        raised.minutes,
        raised.version,
        raised.closed_at,
    )


async def list_alarms(
    conn: Conn, *, city_id: str | None, open_only: bool, before: UUID | None, limit: int
) -> list[Raised]:
    """The newest first; what is None does not narrow."""
    rows = await conn.fetch(
        f"{SELECT_ALARM} WHERE ($1::text IS NULL OR city_id = $1)"
        " AND (NOT $2 OR closed_at IS NULL) AND ($3::uuid IS NULL OR alarm_id < $3)"
        " ORDER BY alarm_id DESC LIMIT $4",
        city_id,
        open_only,
        before,
        limit,
    )
    return [to_raised(row) for row in rows]
