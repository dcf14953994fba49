"""All SQL of snapshots. One function per question; the connection comes first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from access.snapshots.domain import Door
from common.db import Conn
from copass_tap.snapshots import ENTRY_BYTES, member_name

CHANNEL = "access_snapshots"


@dataclass(frozen=True, slots=True)
class Reader:
    reader_id: str
    city_id: str
    key_sha256: str
    is_active: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """How far the tables are. `caught_up_at`: all that was told before is here; None: not yet."""

    sequence: int
    caught_up_at: datetime | None


# ── What the other services told ────────────────────────────────────────────────────────────────


async def next_sequence(conn: Conn) -> int:
    """Lock the clock until the end of the transaction, and take the next number.

    Whoever waits for changes hears of it when the transaction commits.
    """
    number = await conn.fetchval(
        "UPDATE snapshot_clock SET sequence = sequence + 1 RETURNING sequence"
    )
    await conn.execute("SELECT pg_notify($1, '')", CHANNEL)
    return int(number)


async def save_cards(conn: Conn, cards: Sequence[Mapping[str, Any]], sequence: int) -> None:
    """Keep the newest state of each card. `cards` have card_id, version, credential_hash,
    member_id, status, more; each card once."""
    await conn.execute(
        "INSERT INTO snapshot_card AS known"
        " (card_id, version, credential, member_id, status, more, sequence)"
        " SELECT card_id, version, decode(hash, 'hex'), member_id, status, more, $7"
        " FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::text[], $6::jsonb[])"
        "  AS told (card_id, version, hash, member_id, status, more)"
        " ON CONFLICT (card_id) DO UPDATE SET version = EXCLUDED.version,"
        " credential = EXCLUDED.credential, member_id = EXCLUDED.member_id,"
        " status = EXCLUDED.status, more = EXCLUDED.more, sequence = EXCLUDED.sequence"
        " WHERE known.version < EXCLUDED.version",
        [card["card_id"] for card in cards],
        [card["version"] for card in cards],
        [card["credential_hash"] for card in cards],
        [card["member_id"] for card in cards],
        [card["status"] for card in cards],
        [card["more"] or None for card in cards],
        sequence,
    )


async def save_members(conn: Conn, members: Sequence[Mapping[str, Any]], sequence: int) -> None:
    """Keep the newest state of each member: member_id, version, status, places; each once."""
    await conn.execute(
        "INSERT INTO snapshot_member AS known (member_id, version, name, status, places, sequence)"
        " SELECT member_id, version, name, status, places, $6 FROM"
        " unnest($1::uuid[], $2::bigint[], $3::bytea[], $4::text[], $5::jsonb[])"
        "  AS told (member_id, version, name, status, places)"
        " ON CONFLICT (member_id) DO UPDATE SET version = EXCLUDED.version,"
        " status = EXCLUDED.status, places = EXCLUDED.places, sequence = EXCLUDED.sequence,"
        " lost_places = known.lost_places || known.places"
        " WHERE known.version < EXCLUDED.version",
        [member["member_id"] for member in members],
        [member["version"] for member in members],
        [member_name(str(member["member_id"])) for member in members],
        [member["status"] for member in members],
        [member["places"] for member in members],
        sequence,
    )


async def save_standings(conn: Conn, standings: Sequence[Mapping[str, Any]], sequence: int) -> None:
    """Keep the newest standing of each member: member_id, version, standing; each once."""
    await conn.execute(
        "INSERT INTO snapshot_standing AS known (member_id, version, standing, sequence)"
        " SELECT member_id, version, standing, $4"
        " FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS told (member_id, version, standing)"
        " ON CONFLICT (member_id) DO UPDATE SET version = EXCLUDED.version,"
        " standing = EXCLUDED.standing, sequence = EXCLUDED.sequence"
        " WHERE known.version < EXCLUDED.version",
        [one["member_id"] for one in standings],
        [one["version"] for one in standings],
        [one["standing"] for one in standings],
        sequence,
    )


async def save_reader(conn: Conn, reader: Mapping[str, Any]) -> None:
    await conn.execute(
        "INSERT INTO snapshot_reader AS known (reader_id, version, city_id, key_sha256, status)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (reader_id) DO UPDATE"
        " SET version = EXCLUDED.version, city_id = EXCLUDED.city_id,"
        " key_sha256 = EXCLUDED.key_sha256, status = EXCLUDED.status"
        " WHERE known.version < EXCLUDED.version",
        reader["reader_id"],
        reader["version"],
        reader["city_id"],
        reader["key_sha256"],
        reader["status"],
    )


async def save_place(
    conn: Conn,
    place_id: str,
    version: int,
    doors: Mapping[str, Mapping[str, Any]],
    sequence: int,
) -> None:
    """Keep the policies of a place's doors, by door; those that it no longer has are gone."""
    newer = await conn.fetchval(
        "INSERT INTO snapshot_place AS known (place_id, version) VALUES ($1, $2)"
        " ON CONFLICT (place_id) DO UPDATE SET version = EXCLUDED.version"
        " WHERE known.version < EXCLUDED.version RETURNING true",
        place_id,
        version,
    )
    if not newer:
        return
    await conn.execute(
        "DELETE FROM snapshot_door WHERE place_id = $1 OR door_id = ANY($2::uuid[])",
        place_id,
        list(doors),
    )
    await conn.executemany(
        "INSERT INTO snapshot_door"
        " (door_id, place_id, city_id, version, readers, policy, sequence)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            (door_id, place_id, policy["city_id"], version, policy["readers"], policy, sequence)
            for door_id, policy in doors.items()
        ],
    )


async def stamp_lockdown(conn: Conn, place_id: UUID) -> None:
    """Tell the readers of a place that its lockdown was set or lifted."""
    sequence = await next_sequence(conn)
    await conn.execute(
        "UPDATE place_lockdown SET sequence = $2 WHERE place_id = $1", place_id, sequence
    )


async def save_progress(
    conn: Conn, partitions: Sequence[tuple[str, int]], caught_up_at: datetime
) -> None:
    """These partitions, by topic and number, had been read to their end at this instant."""
    await conn.execute(
        "INSERT INTO snapshot_progress AS known (topic, partition, caught_up_at)"
        " SELECT topic, partition, $3 FROM unnest($1::text[], $2::int[]) AS told (topic, partition)"
        " ORDER BY topic, partition"
        " ON CONFLICT (topic, partition) DO UPDATE SET caught_up_at = EXCLUDED.caught_up_at"
        " WHERE known.caught_up_at < EXCLUDED.caught_up_at",
        [topic for topic, _ in partitions],
        [number for _, number in partitions],
        caught_up_at,
    )


# ── What a reader asks ──────────────────────────────────────────────────────────────────────────


async def load_moment(conn: Conn, topics: Sequence[str]) -> Moment:
    """How far the tables are with these topics; all of them count."""
    row = await conn.fetchrow(
        "SELECT (SELECT sequence FROM snapshot_clock) AS sequence, min(caught_up_at) AS since,"
        " count(DISTINCT topic) AS topics FROM snapshot_progress WHERE topic = ANY($1::text[])",
        list(topics),
    )
    if row is None:
        raise RuntimeError("an aggregate always returns its row")
    return Moment(row["sequence"], row["since"] if row["topics"] == len(topics) else None)


async def load_reader(conn: Conn, reader_id: UUID) -> Reader | None:
    row = await conn.fetchrow(
        "SELECT reader_id, city_id, key_sha256, status FROM snapshot_reader WHERE reader_id = $1",
        reader_id,
    )
    if row is None:
        return None
    return Reader(
        str(row["reader_id"]), row["city_id"], row["key_sha256"], row["status"] == "active"
    )


DOORS = (
    "SELECT door.door_id, door.place_id, door.city_id, door.version, door.readers, door.policy,"
    " door.sequence, coalesce(down.active, false) AS active,"
    " coalesce(down.sequence, 0) AS lockdown_sequence"
    " FROM snapshot_door AS door LEFT JOIN place_lockdown AS down USING (place_id)"
)


async def load_door(conn: Conn, door_id: UUID) -> Door | None:
    row = await conn.fetchrow(f"{DOORS} WHERE door.door_id = $1", door_id)
    return read_door(row) if row else None


async def doors_of(conn: Conn, reader_id: UUID) -> list[Door]:
    """The doors that a reader stands at."""
    rows = await conn.fetch(
        f"{DOORS} WHERE door.readers @> ARRAY[$1::text] ORDER BY door.door_id LIMIT 100",
        str(reader_id),
    )
    return [read_door(row) for row in rows]


def read_door(row: Mapping[str, Any]) -> Door:
    return Door(
        door_id=str(row["door_id"]),
        place_id=str(row["place_id"]),
        city_id=row["city_id"],
        version=row["version"],
        readers=frozenset(row["readers"]),
        policy=row["policy"],
        sequence=row["sequence"],
        is_locked_down=row["active"],
        lockdown_sequence=row["lockdown_sequence"],
    )


# Whom a door's snapshot is about; $1 is the place, $2 whether it is for visitors too.
MEMBERS = "($2 OR member.places ? $1::text)"


async def has_changed(conn: Conn, door: Door, since: int) -> bool:
    """Whether a card or a member changed since that sequence, for this door."""
    return bool(
        await conn.fetchval(
            "SELECT EXISTS (SELECT FROM snapshot_member AS member WHERE sequence > $3"  # noqa: S608 - constants of this module
            f"  AND ({MEMBERS} OR member.lost_places ? $1::text))"
            " OR EXISTS (SELECT FROM snapshot_card AS card JOIN snapshot_member AS member"
            f"  USING (member_id) WHERE card.sequence > $3 AND {MEMBERS})"
            " OR ($2 AND EXISTS (SELECT FROM snapshot_standing WHERE sequence > $3))"
            " OR EXISTS (SELECT FROM snapshot_card WHERE sequence > $3 AND more IS NOT NULL"
            "  AND more->'places' ? $1::text)",
            door.place_id,
            door.is_for_visitors,
            since,
        )
    )


# The code of a card at a door, as copass_tap.snapshots.read_entry reads it.
CODE = (
    "CASE card.status WHEN 'active' THEN 0 ELSE 1 END"
    " + 4 * CASE member.status WHEN 'active' THEN 0 ELSE 1 END"
    " + 16 * CASE member.places->>$1::text WHEN 'resident' THEN 1 WHEN 'staff' THEN 2"
    "   WHEN 'warden' THEN 3 WHEN 'keyholder' THEN 4 ELSE 0 END"
    " + 128 * CASE coalesce(standing.standing, '') WHEN '' THEN 0 WHEN 'good' THEN 1"
    "   WHEN 'grace' THEN 2 WHEN 'exempt' THEN 4 ELSE 3 END"
)
# Of several cards with one credential the active one counts, else the newest.
CHOSEN = (
    "SELECT card.credential, member.name, used.counter,"  # noqa: S608 - constants of this module
    f" {CODE} AS code FROM snapshot_card AS card JOIN snapshot_member AS member USING (member_id)"
    " LEFT JOIN snapshot_standing AS standing USING (member_id)"
    " LEFT JOIN card_counter AS used ON used.credential_hash = encode(card.credential, 'hex')"
    f" WHERE card.status <> 'replaced' AND member.status <> 'erased' AND {MEMBERS}"
    " AND NOT EXISTS (SELECT FROM snapshot_card AS other WHERE other.credential = card.credential"
    "  AND (other.status = 'active', other.card_id) > (card.status = 'active', card.card_id))"
)
# Of what is above the limit, residents and staff stay, and then whoever was told of last.
BEST = " ORDER BY (member.places ? $1::text) DESC, card.sequence DESC LIMIT $3"
# A million cards take seconds; a process makes few at once (service.MAKING_MAX).
MAKING_S = 60
MAKING_MEMORY = "128MB"


async def load_entries(conn: Conn, door: Door, limit: int) -> tuple[bytes, bool]:
    """The entries of a snapshot, sorted, and whether they are all there are. In a transaction.

    PostgreSQL puts them together: a million cards are one value of 30 MB, and no Python runs for
    each. Raises asyncpg.QueryCanceledError when that takes longer than MAKING_S.
    """
    await conn.execute(f"SET LOCAL statement_timeout = '{MAKING_S}s'")
    await conn.execute(f"SET LOCAL work_mem = '{MAKING_MEMORY}'")
    total = await conn.fetchval("SELECT count(*) FROM snapshot_card", timeout=MAKING_S)
    is_all = total <= limit
    row = await conn.fetchrow(
        "SELECT coalesce(string_agg("  # noqa: S608 - constants of this module
        "   substr(credential, 1, 16) || name || int2send(code::int2)"
        "   || int4send(coalesce(counter, -1)), ''::bytea ORDER BY credential), ''::bytea) AS lines"
        f" FROM ({CHOSEN}{'' if is_all else BEST}) AS entry",
        door.place_id,
        door.is_for_visitors,
        *(() if is_all else (limit,)),
        timeout=MAKING_S,
    )
    if row is None:
        raise RuntimeError("an aggregate always returns its row")
    lines: bytes = row["lines"]
    return lines, is_all or len(lines) < limit * ENTRY_BYTES


async def load_extras(
    conn: Conn, door: Door, now: datetime, limit: int
) -> tuple[dict[str, dict[str, Any]], bool]:
    """What the passes of phones, and of this place's guests, have besides, by the name of their
    credential; whether that is all."""
    rows = await conn.fetch(
        "SELECT encode(substr(card.credential, 1, 16), 'hex') AS name,"  # noqa: S608 - a constant
        " card.card_id, card.more FROM snapshot_card AS card"
        " LEFT JOIN snapshot_member AS member USING (member_id)"
        " WHERE card.more IS NOT NULL AND card.status = 'active'"
        f" AND (card.more ? 'public_key' AND member.status <> 'erased' AND {MEMBERS}"
        "  OR card.more->'places' ? $1::text AND (card.more->>'valid_until')::bigint > $3)"
        " ORDER BY coalesce(member.places ? $1::text, false) DESC, card.sequence DESC LIMIT $4",
        door.place_id,
        door.is_for_visitors,
        int(now.timestamp()),
        limit + 1,
    )
    found = {row["name"]: {"card_id": str(row["card_id"]), **row["more"]} for row in rows[:limit]}
    return found, len(rows) <= limit


async def withdrawn_cards(conn: Conn, since: int, limit: int) -> list[tuple[int, str, str]]:
    """The cards that open nothing any more since then: sequence, name in hex, status."""
    rows = await conn.fetch(
        "SELECT sequence, encode(substr(credential, 1, 16), 'hex') AS name, status"
        " FROM snapshot_card AS card WHERE status <> 'active' AND sequence > $1"
        # Another card may have taken over the same credential.
        " AND NOT EXISTS (SELECT FROM snapshot_card AS other"
        "  WHERE other.credential = card.credential AND other.status = 'active')"
        " ORDER BY sequence LIMIT $2",
        since,
        limit,
    )
    return [(row["sequence"], row["name"], row["status"]) for row in rows]


async def restricted_members(
    conn: Conn, door: Door, since: int, limit: int
) -> list[tuple[int, str, str, str | None, str | None]]:
    """The members who may do less at this door since then: sequence, name in hex, status,
    relation, standing. All of it as it is now."""
    rows = await conn.fetch(
        "WITH told AS ("  # noqa: S608 - constants of this module
        "  SELECT member_id FROM snapshot_member WHERE sequence > $3"
        "   AND (status <> 'active' OR lost_places ? $1::text)"
        "  UNION SELECT member_id FROM snapshot_standing"
        "   WHERE $2 AND sequence > $3 AND standing = 'lapsed')"
        " SELECT greatest(member.sequence, coalesce(standing.sequence, 0)) AS sequence,"
        " encode(member.name, 'hex') AS name, member.status, member.places->>$1::text AS relation,"
        " standing.standing FROM told JOIN snapshot_member AS member USING (member_id)"
        " LEFT JOIN snapshot_standing AS standing USING (member_id)"
        f" WHERE {MEMBERS} OR member.lost_places ? $1::text"
        " ORDER BY 1 LIMIT $4",
        door.place_id,
        door.is_for_visitors,
        since,
        limit,
    )
    return [tuple(row) for row in rows]


async def stored_decisions(conn: Conn, reader_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
    """Which of a reader's decisions are in the history."""
    rows = await conn.fetch(
        "SELECT decision_id FROM tap WHERE decision_id = ANY($1::uuid[]) AND reader_id = $2",
        list(ids),
        reader_id,
    )
    return {row["decision_id"] for row in rows}


async def card_relation(
    conn: Conn, credential_hash: str, place_id: str
) -> tuple[str, str | None] | None:
    """Status of the card of a credential, and what its member is to a place; None: no such card."""
    row = await conn.fetchrow(
        "SELECT card.status, member.places->>$2::text AS relation FROM snapshot_card AS card"
        " JOIN snapshot_member AS member USING (member_id)"
        " WHERE card.credential = decode($1, 'hex') AND member.status <> 'erased'"
        " ORDER BY (card.status = 'active') DESC, card.card_id DESC LIMIT 1",
        credential_hash,
        place_id,
    )
    return (row["status"], row["relation"]) if row else None
