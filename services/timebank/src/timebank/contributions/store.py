"""All SQL of contributions. A contribution changes under the lock of its own row, taken first."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.contributions.domain import Beneficiary, Claim, Contribution, Version
from timebank.contributions.rings import Edge

Row = asyncpg.Record


# ── What the city knows ─────────────────────────────────────────────────────────────────────────


async def save_place(
    conn: Conn, *, place_id: UUID, city_id: str, status: str, version: int
) -> None:
    """Keep a place's state, unless this version or a newer one is known."""
    await conn.execute(
        "INSERT INTO place (place_id, city_id, status, version) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (place_id) DO UPDATE"
        " SET city_id = EXCLUDED.city_id, status = EXCLUDED.status, version = EXCLUDED.version"
        " WHERE place.version < EXCLUDED.version",
        place_id,
        city_id,
        status,
        version,
    )


async def find_members(conn: Conn, city_id: str, ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of `ids` who are members of the city and not erased."""
    rows = await conn.fetch(
        "SELECT member_id FROM member WHERE member_id = ANY($2::uuid[]) AND city_id = $1"
        " AND status <> 'erased'",
        city_id,
        list(ids),
    )
    return frozenset(row["member_id"] for row in rows)


async def keep_members(conn: Conn, ids: Collection[UUID]) -> None:
    """Let members stay what they are until the transaction ends; locked in id order."""
    await conn.execute(
        "SELECT FROM member WHERE member_id = ANY($1::uuid[]) ORDER BY member_id FOR SHARE",
        list(ids),
    )


async def lock_members(conn: Conn, ids: Collection[UUID]) -> None:
    """Lock members until the transaction ends, in id order: they come before accounts."""
    await conn.execute(
        "SELECT FROM member WHERE member_id = ANY($1::uuid[]) ORDER BY member_id FOR NO KEY UPDATE",
        list(ids),
    )


async def find_organisations(conn: Conn, city_id: str, ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of `ids` that are organisations with an open account in the city."""
    rows = await conn.fetch(
        "SELECT owner_id FROM account WHERE city_id = $1 AND kind = 'organisation'"
        " AND owner_id = ANY($2::uuid[]) AND status = 'open'",
        city_id,
        list(ids),
    )
    return frozenset(row["owner_id"] for row in rows)


async def find_places(conn: Conn, city_id: str, ids: Collection[UUID]) -> frozenset[UUID]:
    """Those of `ids` that are places of the city, also closed ones: work was done there before."""
    rows = await conn.fetch(
        "SELECT place_id FROM place WHERE city_id = $1 AND place_id = ANY($2::uuid[])",
        city_id,
        list(ids),
    )
    return frozenset(row["place_id"] for row in rows)


async def is_group(conn: Conn, group_id: UUID) -> bool:
    found = await conn.fetchval(
        "SELECT true FROM contribution WHERE group_id = $1 LIMIT 1", group_id
    )
    return found is True


# ── Contributions ───────────────────────────────────────────────────────────────────────────────

SELECT_CONTRIBUTION = """
    SELECT c.contribution_id, c.city_id, c.giver_id, c.beneficiary_kind, c.beneficiary_id,
        c.group_id, c.logged_by, c.logged_at, c.status, c.state_version, c.version,
        c.confirmed_minutes, c.confirmed_by, c.decided_at, c.transfer_id, c.reversal_id,
        c.reversed_at, last.versions
    FROM contribution c
    CROSS JOIN LATERAL (
        SELECT array_agg((v.version, v.side, v.minutes, v.performed_on, v.activity, v.place_id,
            v.note, v.written_by, v.written_at)) AS versions
        FROM (
            SELECT DISTINCT ON (side) * FROM contribution_version
            WHERE contribution_id = c.contribution_id ORDER BY side, version DESC
        ) v
    ) last
"""


def to_version(item: Sequence[Any]) -> Version:
    number, side, minutes, performed_on, activity, place_id, note, written_by, written_at = item
    claim = Claim(minutes, performed_on, activity, place_id, note)
    return Version(number, side, claim, written_by, written_at)


def to_contribution(row: Row) -> Contribution:
    sides = {version.side: version for version in map(to_version, row["versions"])}
    return Contribution(
        id=row["contribution_id"],
        city_id=row["city_id"],
        giver_id=row["giver_id"],
        beneficiary=Beneficiary(row["beneficiary_kind"], row["beneficiary_id"]),
        logged_by=row["logged_by"],
        logged_at=row["logged_at"],
        status=row["status"],
        state_version=row["state_version"],
        version=row["version"],
        given=sides["giver"],
        counter=sides.get("beneficiary"),
        ruling=sides.get("mediator"),
        group_id=row["group_id"],
        confirmed_minutes=row["confirmed_minutes"],
        confirmed_by=row["confirmed_by"],
        decided_at=row["decided_at"],
        transfer_id=row["transfer_id"],
        reversal_id=row["reversal_id"],
        reversed_at=row["reversed_at"],
    )


async def find_contribution(conn: Conn, contribution_id: UUID) -> Contribution | None:
    row = await conn.fetchrow(
        f"{SELECT_CONTRIBUTION} WHERE c.contribution_id = $1", contribution_id
    )
    return to_contribution(row) if row else None


async def lock_contribution(conn: Conn, contribution_id: UUID) -> Contribution | None:
    """A contribution, locked until the transaction ends."""
    # Alone, and read after: a statement that waited would see the versions of before.
    await conn.execute(
        "SELECT FROM contribution WHERE contribution_id = $1 FOR NO KEY UPDATE", contribution_id
    )
    return await find_contribution(conn, contribution_id)


async def add_contribution(conn: Conn, contribution: Contribution) -> bool:
    """Write a new contribution with its first version. False when its id is taken."""
    added = await conn.fetchval(
        "INSERT INTO contribution (contribution_id, city_id, giver_id, beneficiary_kind,"
        " beneficiary_id, group_id, logged_by, logged_at, status, state_version, version,"
        " confirmed_minutes, confirmed_by, decided_at, transfer_id)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
        " ON CONFLICT DO NOTHING RETURNING true",
        contribution.id,
        contribution.city_id,
        contribution.giver_id,
        contribution.beneficiary.kind,
        contribution.beneficiary.id,
        contribution.group_id,
        contribution.logged_by,
        contribution.logged_at,
        contribution.status,
        contribution.state_version,
        contribution.version,
        contribution.confirmed_minutes,
        contribution.confirmed_by,
        contribution.decided_at,
        contribution.transfer_id,
    )
    if added is not True:
        return False
    await add_version(conn, contribution.id, contribution.given)
    return True


async def add_version(conn: Conn, contribution_id: UUID, version: Version) -> None:
    await conn.execute(
        "INSERT INTO contribution_version (contribution_id, version, side, minutes, performed_on,"
        " activity, place_id, note, written_by, written_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        contribution_id,
        version.number,
        version.side,
        version.claim.minutes,
        version.claim.performed_on,
        version.claim.activity,
        version.claim.place_id,
        version.claim.note,
        version.written_by,
        version.written_at,
    )


async def save_contribution(conn: Conn, before: Contribution, after: Contribution) -> None:
    """Write what changed, with the version that was said, if one was; the caller holds its lock.

    Raises asyncpg.RestrictViolationError when it had ended.
    """
    if after.version > before.version:
        for version in (after.given, after.counter, after.ruling):
            if version is not None and version.number == after.version:
                await add_version(conn, after.id, version)
    await conn.execute(
        "UPDATE contribution SET status = $2, state_version = $3, version = $4,"
        " confirmed_minutes = $5, confirmed_by = $6, decided_at = $7, transfer_id = $8,"
        " reversal_id = $9, reversed_at = $10 WHERE contribution_id = $1",
        after.id,
        after.status,
        after.state_version,
        after.version,
        after.confirmed_minutes,
        after.confirmed_by,
        after.decided_at,
        after.transfer_id,
        after.reversal_id,
        after.reversed_at,
    )


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────


async def list_versions(conn: Conn, contribution_id: UUID) -> list[Version]:
    """All that was said of a contribution, in order."""
    rows = await conn.fetch(
        "SELECT version, side, minutes, performed_on, activity, place_id, note, written_by,"
        " written_at FROM contribution_version WHERE contribution_id = $1 ORDER BY version",
        contribution_id,
    )
    return [to_version(tuple(row)) for row in rows]


@dataclass(frozen=True, slots=True)
class Filter:
    """What narrows a list; what is None does not."""

    giver_id: UUID | None = None
    beneficiary_id: UUID | None = None
    # Either side of it.
    party_id: UUID | None = None
    city_id: str | None = None
    status: str | None = None
    # Only what was ever in dispute.
    disputed: bool = False


AFTER_SEEN = "(c.logged_at, c.contribution_id) < (seen.logged_at, seen.contribution_id)"
NEWEST_FIRST = "ORDER BY c.logged_at DESC, c.contribution_id DESC"


async def list_contributions(
    conn: Conn, narrow: Filter, *, before: UUID | None, limit: int
) -> list[Contribution]:
    """Contributions, the last logged first, from the one before `before`."""
    rows = await conn.fetch(
        f"{SELECT_CONTRIBUTION}"
        " LEFT JOIN contribution seen ON seen.contribution_id = $7"
        " WHERE ($1::uuid IS NULL OR c.giver_id = $1)"
        " AND ($2::uuid IS NULL OR c.beneficiary_id = $2)"
        " AND ($3::uuid IS NULL OR c.giver_id = $3 OR c.beneficiary_id = $3)"
        " AND ($4::text IS NULL OR c.city_id = $4)"
        " AND ($5::text IS NULL OR c.status = $5)"
        " AND (NOT $6 OR EXISTS (SELECT FROM contribution_version v"
        "  WHERE v.contribution_id = c.contribution_id AND v.side = 'beneficiary'))"
        f" AND ($7::uuid IS NULL OR {AFTER_SEEN}) {NEWEST_FIRST} LIMIT $8",
        narrow.giver_id,
        narrow.beneficiary_id,
        narrow.party_id,
        narrow.city_id,
        narrow.status,
        narrow.disputed,
        before,
        limit,
    )
    return [to_contribution(row) for row in rows]


async def list_to_confirm(
    conn: Conn,
    *,
    actor_id: str,
    city_id: str | None,
    kinds: Collection[str],
    before: UUID | None,
    limit: int,
) -> list[Contribution]:
    """What waits for somebody's word, the last logged first: for themself, or of these kinds of
    beneficiaries of the city. Not what they gave or logged, nor what waits for the giver's word."""
    rows = await conn.fetch(
        f"{SELECT_CONTRIBUTION}"
        " LEFT JOIN contribution seen ON seen.contribution_id = $4"
        " WHERE c.status IN ('logged', 'disputed')"
        " AND (c.beneficiary_kind = 'member' AND c.beneficiary_id::text = $1"
        "  OR c.city_id = $2 AND c.beneficiary_kind = ANY($3::text[]))"
        " AND c.giver_id::text <> $1 AND c.logged_by <> $1"
        " AND (c.status = 'logged' OR EXISTS (SELECT FROM contribution_version v"
        "  WHERE (v.contribution_id, v.version, v.side) ="
        "  (c.contribution_id, c.version, 'giver')))"
        f" AND ($4::uuid IS NULL OR {AFTER_SEEN}) {NEWEST_FIRST} LIMIT $5",
        actor_id,
        city_id,
        list(kinds),
        before,
        limit,
    )
    return [to_contribution(row) for row in rows]


async def list_edges(conn: Conn, city_id: str, *, since: date, limit: int) -> list[Edge]:
    """Who confirmed whose minutes in the city since a day of it, the newest first."""
    rows = await conn.fetch(
        "SELECT c.giver_id::text AS giver, c.confirmed_by AS confirmer,"
        " c.confirmed_minutes AS minutes, (c.decided_at AT TIME ZONE b.timezone)::date AS day"
        " FROM contribution c JOIN book b USING (city_id)"
        " WHERE c.city_id = $1 AND c.status = 'confirmed'"
        " AND c.decided_at >= $2::date::timestamp AT TIME ZONE b.timezone"
        " ORDER BY c.decided_at DESC LIMIT $3",
        city_id,
        since,
        limit,
    )
    return [Edge(**row) for row in rows]


# ── Verifying ───────────────────────────────────────────────────────────────────────────────────


async def verify_contributions(conn: Conn) -> dict[str, list[str]]:
    """By city: confirmed contributions whose transfers do not give, or take back, what they say;
    those whose versions do not follow one another; transfers of contributions that are not there.
    """
    rows = await conn.fetch(
        "SELECT c.city_id, 'contribution ' || c.contribution_id || ': ' || c.confirmed_minutes"
        "  || ' minutes are not what its transfer gave' AS difference FROM contribution c"
        " WHERE c.transfer_id IS NOT NULL AND NOT EXISTS (SELECT FROM posting p"
        "  JOIN account a USING (account_id) WHERE p.transfer_id = c.transfer_id"
        "  AND a.owner_id = c.giver_id AND p.minutes = c.confirmed_minutes)"
        " UNION ALL SELECT c.city_id, 'contribution ' || c.contribution_id"
        "  || ': reversed, but its transfer stands' FROM contribution c"
        " WHERE c.status = 'reversed' AND NOT EXISTS (SELECT FROM transfer t"
        "  WHERE t.transfer_id = c.reversal_id AND t.reverses = c.transfer_id)"
        " UNION ALL SELECT c.city_id, 'contribution ' || c.contribution_id || ': '"
        "  || count(v.version) || ' versions, not ' || c.version"
        " FROM contribution c LEFT JOIN contribution_version v USING (contribution_id)"
        " GROUP BY c.contribution_id"
        " HAVING count(v.version) <> c.version OR max(v.version) <> c.version"
        " UNION ALL SELECT t.city_id, 'transfer ' || t.transfer_id"
        "  || ': for a contribution that is not there' FROM transfer t"
        " WHERE t.kind = 'contribution' AND NOT EXISTS (SELECT FROM contribution c"
        "  WHERE c.transfer_id = t.transfer_id)"
        " ORDER BY 1, 2"
    )
    found = defaultdict(list)
    for row in rows:
        found[row["city_id"]].append(row["difference"])
    return dict(found)


# ── A person's own ──────────────────────────────────────────────────────────────────────────────


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of a member's contributions, given and received, the oldest first."""
    contributions = await conn.fetch(
        "SELECT contribution_id, city_id, giver_id, beneficiary_kind, beneficiary_id, group_id,"
        " status, version, confirmed_minutes, logged_at, decided_at, transfer_id, reversal_id,"
        " reversed_at FROM contribution WHERE giver_id = $1 OR beneficiary_id = $1"
        " ORDER BY logged_at, contribution_id",
        member_id,
    )
    versions = await conn.fetch(
        "SELECT v.contribution_id, v.version, v.side, v.minutes, v.performed_on, v.activity,"
        " v.place_id, v.note, v.written_by = $1::uuid::text AS written_by_me, v.written_at"
        " FROM contribution_version v WHERE v.contribution_id IN"
        " (SELECT contribution_id FROM contribution WHERE giver_id = $1 OR beneficiary_id = $1)"
        " OR v.written_by = $1::uuid::text ORDER BY v.written_at, v.contribution_id, v.version",
        member_id,
    )
    return {
        "contributions": [dict(row) for row in contributions],
        "contribution_versions": [dict(row) for row in versions],
    }


async def list_open_of(conn: Conn, member_id: UUID) -> list[UUID]:
    """A member's contributions, given and received, that have not ended yet."""
    rows = await conn.fetch(
        "SELECT contribution_id FROM contribution"
        " WHERE status IN ('logged', 'disputed') AND (giver_id = $1 OR beneficiary_id = $1)"
        " ORDER BY contribution_id",
        member_id,
    )
    return [row["contribution_id"] for row in rows]


async def forget(conn: Conn, member_id: UUID) -> None:
    """Erase the words of a member, and those said of their contributions; the numbers stay.

    What is still open ends before, by `service.withdraw_member`.
    """
    await conn.execute(
        "UPDATE contribution_version SET note = NULL WHERE note IS NOT NULL"
        " AND (written_by = $1::uuid::text OR contribution_id IN"
        " (SELECT contribution_id FROM contribution WHERE giver_id = $1 OR beneficiary_id = $1))",
        member_id,
    )
