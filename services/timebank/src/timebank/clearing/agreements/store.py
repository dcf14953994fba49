"""The SQL of agreements. What is between two cities changes under the lock of their agreement."""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.clearing.domain import Agreement


@dataclass(frozen=True, slots=True)
class Bond:
    """An agreement as it is kept by `city_id`, one of its two sides."""

    city_id: str
    agreement_id: UUID
    agreement: Agreement
    proposed_by_us: bool
    suspended_by_us: bool
    suspended_by_peer: bool
    peer_key: bytes
    version: int
    changed_at: datetime
    # The key with which `city_id` itself signs: what its stewards read to those of the peer.
    own_key: bytes | None = None
    # By how much nettings that were agreed to will raise and lower the position with the peer.
    netting_up_minutes: int = 0
    netting_down_minutes: int = 0

    @property
    def peer_city_id(self) -> str:
        return self.agreement.peer_city_id


SELECT_BOND = (
    "SELECT city_id, peer_city_id, agreement_id, state, proposed_by_us, suspended_by_us,"
    " suspended_by_peer, limit_out_minutes, limit_in_minutes, soft_percent, levy_out_permille,"
    " levy_in_permille, peer_key, version, changed_at, netting_up_minutes, netting_down_minutes,"
    " (SELECT public_key FROM city_key WHERE city_key.city_id = agreement.city_id) AS own_key"
    " FROM agreement"
)


def to_bond(row: asyncpg.Record) -> Bond:
    return Bond(
        city_id=row["city_id"],
        agreement_id=row["agreement_id"],
        agreement=Agreement(
            peer_city_id=row["peer_city_id"],
            state=row["state"],
            limit_out_minutes=row["limit_out_minutes"],
            limit_in_minutes=row["limit_in_minutes"],
            soft_percent=row["soft_percent"],
            levy_out_permille=row["levy_out_permille"],
            levy_in_permille=row["levy_in_permille"],
        ),
        proposed_by_us=row["proposed_by_us"],
        suspended_by_us=row["suspended_by_us"],
        suspended_by_peer=row["suspended_by_peer"],
        peer_key=row["peer_key"],
        version=row["version"],
        changed_at=row["changed_at"],
        own_key=row["own_key"],
        netting_up_minutes=row["netting_up_minutes"],
        netting_down_minutes=row["netting_down_minutes"],
    )


async def lock_bond(conn: Conn, city_id: str, peer_city_id: str) -> Bond | None:
    """The agreement of a city with another, locked until the transaction ends."""
    row = await conn.fetchrow(
        f"{SELECT_BOND} WHERE city_id = $1 AND peer_city_id = $2 FOR UPDATE",
        city_id,
        peer_city_id,
    )
    return to_bond(row) if row else None


async def find_bond(conn: Conn, city_id: str, peer_city_id: str) -> Bond | None:
    """The agreement of a city with another, for those who change nothing of it."""
    row = await conn.fetchrow(
        f"{SELECT_BOND} WHERE city_id = $1 AND peer_city_id = $2", city_id, peer_city_id
    )
    return to_bond(row) if row else None


async def set_aside(
    conn: Conn, city_id: str, peer_city_id: str, *, up_minutes: int, down_minutes: int
) -> None:
    """Add to what nettings will move (below zero: no longer); the caller holds the lock."""
    await conn.execute(
        "UPDATE agreement SET netting_up_minutes = netting_up_minutes + $3,"
        " netting_down_minutes = netting_down_minutes + $4"
        " WHERE city_id = $1 AND peer_city_id = $2",
        city_id,
        peer_city_id,
        up_minutes,
        down_minutes,
    )


async def list_bonds(conn: Conn, city_id: str | None) -> list[Bond]:
    rows = await conn.fetch(
        f"{SELECT_BOND} WHERE $1::text IS NULL OR city_id = $1 ORDER BY city_id, peer_city_id",
        city_id,
    )
    return [to_bond(row) for row in rows]


async def save_bond(conn: Conn, bond: Bond, *, change: str, by: str, now: datetime) -> Bond:
    """Write an agreement and its history; the caller holds its lock, or it is new."""
    saved = replace(bond, version=bond.version + 1, changed_at=now)
    agreement = saved.agreement
    own_key = await conn.fetchval(
        "INSERT INTO agreement (city_id, peer_city_id, agreement_id, state, proposed_by_us,"
        " suspended_by_us, suspended_by_peer, limit_out_minutes, limit_in_minutes, soft_percent,"
        " levy_out_permille, levy_in_permille, peer_key, version, changed_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)"
        " ON CONFLICT (city_id, peer_city_id) DO UPDATE SET"
        " agreement_id = EXCLUDED.agreement_id, state = EXCLUDED.state,"
        " proposed_by_us = EXCLUDED.proposed_by_us, suspended_by_us = EXCLUDED.suspended_by_us,"
        " suspended_by_peer = EXCLUDED.suspended_by_peer,"
        " limit_out_minutes = EXCLUDED.limit_out_minutes,"
        " limit_in_minutes = EXCLUDED.limit_in_minutes, soft_percent = EXCLUDED.soft_percent,"
        " levy_out_permille = EXCLUDED.levy_out_permille,"
        " levy_in_permille = EXCLUDED.levy_in_permille, peer_key = EXCLUDED.peer_key,"
        " version = EXCLUDED.version, changed_at = EXCLUDED.changed_at"
        " RETURNING (SELECT public_key FROM city_key WHERE city_key.city_id = agreement.city_id)",
        saved.city_id,
        agreement.peer_city_id,
        saved.agreement_id,
        agreement.state,
        saved.proposed_by_us,
        saved.suspended_by_us,
        saved.suspended_by_peer,
        agreement.limit_out_minutes,
        agreement.limit_in_minutes,
        agreement.soft_percent,
        agreement.levy_out_permille,
        agreement.levy_in_permille,
        saved.peer_key,
        saved.version,
        now,
    )
    await conn.execute(
        "INSERT INTO agreement_history (city_id, peer_city_id, version, change, agreement,"
        " changed_by, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        saved.city_id,
        agreement.peer_city_id,
        saved.version,
        change,
        asdict(agreement),
        by,
        now,
    )
    return replace(saved, own_key=own_key)


async def save_key(conn: Conn, bond: Bond, peer_key: bytes, *, change: str, now: datetime) -> Bond:
    """Pin the key that the peer handed over to; the caller holds the agreement's lock."""
    pinned = replace(bond, peer_key=peer_key)
    return await save_bond(conn, pinned, change=change, by=bond.peer_city_id, now=now)


async def list_history(conn: Conn, city_id: str, peer_city_id: str) -> list[dict[str, Any]]:
    rows = await conn.fetch(
        "SELECT version, change, agreement, changed_by, changed_at FROM agreement_history"
        " WHERE city_id = $1 AND peer_city_id = $2 ORDER BY version",
        city_id,
        peer_city_id,
    )
    return [dict(row) for row in rows]
