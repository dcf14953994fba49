"""All SQL of the log: one function per question, the connection first."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from common.db import Conn
from timebank.log.domain import Crossing, Line, Waiting
from timebank.store import HERE

# From this level on, nodes are kept; below, they are computed from the leaves' hashes.
LEVEL_KEPT = 8


@dataclass(frozen=True, slots=True)
class Head:
    """How far a log has come. `halted`: why it signs nothing any more."""

    size: int
    roots: tuple[bytes, ...]
    halted: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    transfer_id: UUID
    entry: bytes
    leaf_hash: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that was signed, as it stands in its note."""

    size: int
    root: bytes
    note: str
    signed_at: datetime


# ── Sequencing ──────────────────────────────────────────────────────────────────────────────────


async def cities_behind(conn: Conn) -> list[str]:
    """Cities with postings that no entry tells of. Reads every account, and no posting."""
    rows = await conn.fetch(
        "SELECT DISTINCT a.city_id FROM account a LEFT JOIN log_account l USING (account_id)"  # noqa: S608 - a constant
        f" WHERE a.version > coalesce(l.version, 0) AND {HERE} ORDER BY 1"
    )
    return [row["city_id"] for row in rows]


async def lock_head(conn: Conn, city_id: str) -> Head:
    """The head of a city's log, locked: one at a time gives out its indexes."""
    await conn.execute("INSERT INTO log_head (city_id) VALUES ($1) ON CONFLICT DO NOTHING", city_id)
    row = await conn.fetchrow(
        "SELECT size, roots, halted FROM log_head WHERE city_id = $1 FOR UPDATE", city_id
    )
    assert row is not None
    return Head(row["size"], tuple(row["roots"]), row["halted"])


async def find_head(conn: Conn, city_id: str) -> Head | None:
    """The head of a city's log as it is; None before it has one."""
    row = await conn.fetchrow(
        "SELECT size, roots, halted FROM log_head WHERE city_id = $1", city_id
    )
    return Head(row["size"], tuple(row["roots"]), row["halted"]) if row else None


async def list_lines(conn: Conn, city_id: str, limit: int) -> list[Line]:
    """The earliest postings that no entry tells of, about `limit`, in one snapshot.

    Time never runs backwards along an account, so all that an early posting follows is among those
    of its time and before: what is returned is closed under "comes before", but for the last of an
    account with more than `limit` postings of one instant.
    """
    rows = await conn.fetch(
        "WITH lag AS MATERIALIZED ("
        "  SELECT a.account_id, a.version, coalesce(l.version, 0) AS done, a.kind,"
        "  a.peer_city_id, a.floor_minutes"
        "  FROM account a LEFT JOIN log_account l USING (account_id)"
        "  WHERE a.city_id = $1 AND a.version > coalesce(l.version, 0)"
        "), line AS MATERIALIZED ("
        "  SELECT lag.*, p.account_version, p.transfer_id, p.minutes, p.posted_at"
        "  FROM lag CROSS JOIN LATERAL ("
        "   SELECT account_version, transfer_id, minutes, posted_at FROM posting"
        "   WHERE posting.account_id = lag.account_id AND account_version > lag.done"
        "   AND account_version <= lag.version ORDER BY account_version LIMIT $2) p)"
        " SELECT line.*,"
        # The floor of then: the last one set by that time; the account's own if none was ever set.
        " CASE WHEN known.account_id IS NULL THEN line.floor_minutes"
        "  ELSE (SELECT s.floor_minutes FROM account_limit s WHERE s.account_id = line.account_id"
        "   AND s.set_at <= line.posted_at ORDER BY s.number DESC LIMIT 1) END AS floor_then"
        " FROM line LEFT JOIN LATERAL (SELECT account_id FROM account_limit s"
        "  WHERE s.account_id = line.account_id LIMIT 1) known ON true"
        " WHERE line.posted_at <= coalesce("
        "  (SELECT posted_at FROM line ORDER BY posted_at OFFSET $2 - 1 LIMIT 1), 'infinity')",
        city_id,
        limit,
    )
    return [
        Line(
            account_id=row["account_id"],
            account_version=row["account_version"],
            transfer_id=row["transfer_id"],
            minutes=row["minutes"],
            kind=row["kind"],
            peer_city_id=row["peer_city_id"],
            floor_minutes=row["floor_then"],
        )
        for row in rows
    ]


async def list_waiting(conn: Conn, city_id: str, ids: Collection[UUID]) -> list[Waiting]:
    """These transfers of the city's book, with the part they have in clearing."""
    rows = await conn.fetch(
        "SELECT t.transfer_id, t.kind, t.posted_at, t.reverses,"
        " (SELECT count(*) FROM posting p WHERE p.transfer_id = t.transfer_id) AS lines,"
        " coalesce(o.transfer_id, c.transfer_id, i.transfer_id, n.netting_id) AS crossing,"
        " coalesce(o.to_city, c.to_city, i.from_city) AS peer_city_id,"
        " coalesce(o.minutes, c.minutes, i.minutes) AS minutes"
        " FROM transfer t"
        " LEFT JOIN clearing_out o ON t.kind = 'departure' AND o.departure_id = t.transfer_id"
        " LEFT JOIN clearing_out c ON t.kind IN ('settlement', 'return')"
        "  AND c.conclusion_id = t.transfer_id"
        " LEFT JOIN clearing_in i ON t.kind = 'arrival' AND i.arrival_id = t.transfer_id"
        " LEFT JOIN netting n ON t.kind = 'netting' AND n.transfer_id = t.transfer_id"
        " WHERE t.transfer_id = ANY ($2::uuid[]) AND t.city_id = $1",
        city_id,
        list(ids),
    )
    return [
        Waiting(
            id=row["transfer_id"],
            kind=row["kind"],
            posted_at=row["posted_at"],
            reverses=row["reverses"],
            lines=row["lines"],
            crossing=Crossing(row["crossing"], row["kind"], row["peer_city_id"], row["minutes"])
            if row["crossing"] is not None
            else None,
        )
        for row in rows
    ]


async def names_of(conn: Conn, account_ids: Collection[UUID]) -> dict[UUID, str]:
    """What accounts are called in the log; one that never was there has no name."""
    rows = await conn.fetch(
        "SELECT account_id, name FROM log_account WHERE account_id = ANY ($1::uuid[])",
        list(account_ids),
    )
    return {row["account_id"]: row["name"] for row in rows}


async def add_names(conn: Conn, names: Mapping[UUID, tuple[str, bytes]]) -> None:
    """Give accounts their names, each with the salt that it was made with; the salt of one whose
    owner was erased meanwhile is not kept."""
    await conn.execute(
        "INSERT INTO log_account (account_id, name, salt, version)"
        " SELECT a, n, CASE WHEN m.status = 'erased' THEN NULL ELSE s END, 0"
        " FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS t (a, n, s)"
        " JOIN account ON account.account_id = a LEFT JOIN member m ON m.member_id = owner_id",
        list(names),
        [name for name, _ in names.values()],
        [salt for _, salt in names.values()],
    )


async def forget(conn: Conn, member_id: UUID) -> None:
    """Without their salts, the names that a member's accounts have in the log are nobody's."""
    await conn.execute(
        "UPDATE log_account SET salt = NULL WHERE salt IS NOT NULL AND account_id IN"
        " (SELECT account_id FROM account WHERE owner_id = $1 AND kind = 'member')",
        member_id,
    )


async def save_versions(conn: Conn, versions: Mapping[UUID, int]) -> None:
    """How many postings of each account are in entries now."""
    await conn.execute(
        "UPDATE log_account SET version = v FROM unnest($1::uuid[], $2::bigint[]) AS t (a, v)"
        " WHERE account_id = a",
        list(versions),
        list(versions.values()),
    )


async def add_entries(
    conn: Conn,
    city_id: str,
    entries: Sequence[Entry],
    nodes: Sequence[tuple[int, int, bytes]],
    size: int,
    roots: Sequence[bytes],
) -> None:
    """Write entries, the nodes (level, index, hash) that they complete, and the new head."""
    await conn.execute(
        "INSERT INTO log_entry (city_id, index, transfer_id, entry, leaf_hash)"
        " SELECT $1, i, t, e, h"
        " FROM unnest($2::bigint[], $3::uuid[], $4::bytea[], $5::bytea[]) AS n (i, t, e, h)",
        city_id,
        [entry.index for entry in entries],
        [entry.transfer_id for entry in entries],
        [entry.entry for entry in entries],
        [entry.leaf_hash for entry in entries],
    )
    await conn.execute(
        "INSERT INTO log_node (city_id, level, index, hash)"
        " SELECT $1, l, i, h FROM unnest($2::int[], $3::bigint[], $4::bytea[]) AS n (l, i, h)",
        city_id,
        [level for level, _, _ in nodes],
        [index for _, index, _ in nodes],
        [node for _, _, node in nodes],
    )
    await conn.execute(
        "UPDATE log_head SET size = $2, roots = $3 WHERE city_id = $1",
        city_id,
        size,
        list(roots),
    )


# ── Checkpoints ─────────────────────────────────────────────────────────────────────────────────


async def cities_unsigned(conn: Conn, signed_before: datetime) -> list[str]:
    """Cities whose log has grown since the last checkpoint, if that is from before then; with a
    key, and not halted."""
    rows = await conn.fetch(
        "SELECT h.city_id FROM log_head h JOIN city_key k USING (city_id)"  # noqa: S608 - a constant
        " LEFT JOIN LATERAL (SELECT size, signed_at FROM log_checkpoint c"
        "  WHERE c.city_id = h.city_id ORDER BY size DESC LIMIT 1) last ON true"
        f" WHERE h.halted IS NULL AND h.{HERE} AND h.size > coalesce(last.size, 0)"
        " AND (last.signed_at IS NULL OR last.signed_at <= $1) ORDER BY 1",
        signed_before,
    )
    return [row["city_id"] for row in rows]


async def add_checkpoint(conn: Conn, city_id: str, signed: Signed) -> None:
    await conn.execute(
        "INSERT INTO log_checkpoint (city_id, size, root, note, signed_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        city_id,
        signed.size,
        signed.root,
        signed.note,
        signed.signed_at,
    )


# With the cosignatures that came since: a signature is one more line of a note.
SELECT_SIGNED = (
    "SELECT size, root, signed_at, note || coalesce((SELECT string_agg(line, '' ORDER BY cosigner)"
    " FROM log_cosignature s WHERE s.city_id = c.city_id AND s.size = c.size), '') AS note"
    " FROM log_checkpoint c WHERE city_id = $1"
)


async def last_checkpoint(conn: Conn, city_id: str) -> Signed | None:
    row = await conn.fetchrow(
        f"{SELECT_SIGNED} ORDER BY size DESC LIMIT 1",
        city_id,
    )
    return Signed(**row) if row else None


async def list_checkpoints(conn: Conn, city_id: str, after: int, limit: int) -> list[Signed]:
    """Checkpoints of more than `after` entries, the smallest first."""
    rows = await conn.fetch(
        f"{SELECT_SIGNED} AND size > $2 ORDER BY size LIMIT $3",
        city_id,
        after,
        limit,
    )
    return [Signed(**row) for row in rows]


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


async def find_index(conn: Conn, city_id: str, transfer_id: UUID) -> int | None:
    index: int | None = await conn.fetchval(
        "SELECT index FROM log_entry WHERE transfer_id = $2 AND city_id = $1", city_id, transfer_id
    )
    return index


async def list_entries(conn: Conn, city_id: str, begin: int, end: int) -> list[Entry]:
    """Entries begin…end-1."""
    rows = await conn.fetch(
        "SELECT index, transfer_id, entry, leaf_hash FROM log_entry"
        " WHERE city_id = $1 AND index >= $2 AND index < $3 ORDER BY index",
        city_id,
        begin,
        end,
    )
    return [Entry(**row) for row in rows]


async def leaf_hashes(
    conn: Conn, city_id: str, ranges: Sequence[tuple[int, int]]
) -> dict[int, bytes]:
    """The hashes of the leaves in these ranges (begin, end), and of some beside them, by index.

    One query per block of 256 that any range touches: a proof touches two or three. Joined to the
    ranges in one query, the whole log may be read.
    """
    blocks = sorted({b for begin, end in ranges for b in range(begin >> 8, (end + 255) >> 8)})
    found: dict[int, bytes] = {}
    for block in blocks:
        rows = await conn.fetch(
            "SELECT index, leaf_hash FROM log_entry"
            " WHERE city_id = $1 AND index >= $2 AND index < $3",
            city_id,
            block << 8,
            (block + 1) << 8,
        )
        found |= {row["index"]: row["leaf_hash"] for row in rows}
    return found


async def node_hashes(
    conn: Conn, city_id: str, nodes: Collection[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """The hashes of kept nodes (level, index)."""
    rows = await conn.fetch(
        "SELECT n.level, n.index, n.hash FROM unnest($2::int[], $3::bigint[]) AS w (l, i)"
        " JOIN log_node n ON n.city_id = $1 AND n.level = w.l AND n.index = w.i",
        city_id,
        [level for level, _ in nodes],
        [index for _, index in nodes],
    )
    return {(row["level"], row["index"]): row["hash"] for row in rows}


# ── Evidence ────────────────────────────────────────────────────────────────────────────────────


async def signed_sizes(conn: Conn) -> dict[str, int]:
    """Of each city that signed a checkpoint, the size of the last."""
    rows = await conn.fetch(
        "SELECT city_id, max(size) AS size FROM log_checkpoint GROUP BY city_id"
    )
    return {row["city_id"]: row["size"] for row in rows}


async def all_messages(conn: Conn, city_id: str, at_once: int) -> AsyncIterator[dict[str, Any]]:
    """The signed messages that a city sent and heard. Within a transaction."""
    rows = conn.cursor(
        "SELECT message FROM clearing_message WHERE city_id = $1 ORDER BY message_id",
        city_id,
        prefetch=at_once,
    )
    async for row in rows:
        yield row["message"]
