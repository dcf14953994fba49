"""The SQL about people and machines: one function per question, the connection first.

Functions named `lock_…` take the row's lock, which every change of an aggregate holds before it
adds an event.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from identity.domain import City, Client, Member, Organisation, Reader

FEDERATION_LOCK = 7_203_102

MEMBER = "member_id, city_id, display_name, email, status, roles, places, version, created_at"
READER = "reader_id, city_id, key_sha256, generation, status, version, created_at"
CLIENT = "client_id, name, city_id, roles, audiences, secret_sha256, generation, status, created_at"


def to_city(row: asyncpg.Record) -> City:
    return City(**row)


def to_member(row: Mapping[str, Any]) -> Member:
    return Member(**{**row, "roles": frozenset(row["roles"])})


def to_reader(row: asyncpg.Record) -> Reader:
    return Reader(**row)


def to_client(row: asyncpg.Record) -> Client:
    return Client(**{**row, "roles": frozenset(row["roles"]), "audiences": tuple(row["audiences"])})


# Cities


async def insert_city(conn: Conn, city: City) -> bool:
    """False when there is a city of that id already."""
    inserted = await conn.fetchval(
        "INSERT INTO city (city_id, name, timezone, status, version, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING true",
        city.city_id,
        city.name,
        city.timezone,
        city.status,
        city.version,
        city.created_at,
    )
    return inserted is True


async def get_city(conn: Conn, city_id: str) -> City | None:
    row = await conn.fetchrow(
        "SELECT city_id, name, timezone, status, version, created_at FROM city WHERE city_id = $1",
        city_id,
    )
    return to_city(row) if row else None


async def list_cities(conn: Conn, *, after: str | None, limit: int) -> list[City]:
    rows = await conn.fetch(
        "SELECT city_id, name, timezone, status, version, created_at FROM city"
        " WHERE $1::text IS NULL OR city_id > $1 ORDER BY city_id LIMIT $2",
        after,
        limit,
    )
    return [to_city(row) for row in rows]


# Members


async def insert_member(conn: Conn, member: Member, password_hash: str | None) -> None:
    """Raises asyncpg.UniqueViolationError: `member_pkey` or `member_email_unique`."""
    await conn.execute(
        f"INSERT INTO member ({MEMBER}, password_hash)"  # noqa: S608 - a constant of this module
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        member.member_id,
        member.city_id,
        member.display_name,
        member.email,
        member.status,
        sorted(member.roles),
        dict(member.places),
        member.version,
        member.created_at,
        password_hash,
    )


async def get_member(conn: Conn, member_id: UUID) -> Member | None:
    row = await conn.fetchrow(
        f"SELECT {MEMBER} FROM member WHERE member_id = $1",  # noqa: S608 - a constant
        member_id,
    )
    return to_member(row) if row else None


async def lock_member(conn: Conn, member_id: UUID) -> Member | None:
    row = await conn.fetchrow(
        f"SELECT {MEMBER} FROM member WHERE member_id = $1 FOR UPDATE",  # noqa: S608 - a constant
        member_id,
    )
    return to_member(row) if row else None


async def share_member(conn: Conn, member_id: UUID) -> Member | None:
    """Keep a member as they are until the transaction ends, without shutting out other readers."""
    row = await conn.fetchrow(
        f"SELECT {MEMBER} FROM member WHERE member_id = $1 FOR SHARE",  # noqa: S608 - a constant
        member_id,
    )
    return to_member(row) if row else None


async def list_members(conn: Conn, *, city_id: str, after: UUID | None, limit: int) -> list[Member]:
    rows = await conn.fetch(
        f"SELECT {MEMBER} FROM member WHERE city_id = $1"  # noqa: S608 - a constant
        " AND ($2::uuid IS NULL OR member_id > $2) ORDER BY member_id LIMIT $3",
        city_id,
        after,
        limit,
    )
    return [to_member(row) for row in rows]


async def find_login(conn: Conn, email: str) -> tuple[Member, str | None] | None:
    """The member with this login, and their password's hash."""
    row = await conn.fetchrow(
        f"SELECT {MEMBER}, password_hash FROM member WHERE email = $1",  # noqa: S608 - a constant
        email,
    )
    if row is None:
        return None
    fields = dict(row)
    password_hash = fields.pop("password_hash")
    return to_member(fields), password_hash


async def get_password_hash(conn: Conn, member_id: UUID) -> str | None:
    value: str | None = await conn.fetchval(
        "SELECT password_hash FROM member WHERE member_id = $1", member_id
    )
    return value


async def set_password_hash(conn: Conn, member_id: UUID, *, old: str | None, new: str) -> bool:
    """Replace a hash, unless somebody else did meanwhile: then False."""
    changed = await conn.fetchval(
        "UPDATE member SET password_hash = $3 WHERE member_id = $1"
        " AND password_hash IS NOT DISTINCT FROM $2 RETURNING true",
        member_id,
        old,
        new,
    )
    return changed is True


async def update_member(conn: Conn, member: Member) -> None:
    """Save status, roles, places and version; the row is locked."""
    await conn.execute(
        "UPDATE member SET status = $2, roles = $3, places = $4, version = $5 WHERE member_id = $1",
        member.member_id,
        member.status,
        sorted(member.roles),
        dict(member.places),
        member.version,
    )


async def lock_federation(conn: Conn) -> None:
    """Held until the transaction ends, by whoever takes an admin away from the federation."""
    await conn.execute("SELECT pg_advisory_xact_lock($1)", FEDERATION_LOCK)


async def has_other_federation_admin(conn: Conn, member_id: UUID) -> bool:
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM member WHERE 'federation_admin' = ANY (roles)"
        " AND status = 'active' AND member_id <> $1)",
        member_id,
    )
    return found


# Organisations


async def insert_organisation(conn: Conn, organisation: Organisation) -> bool:
    """False when the id is taken."""
    inserted = await conn.fetchval(
        "INSERT INTO organisation (organisation_id, city_id, name, kind, created_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        organisation.organisation_id,
        organisation.city_id,
        organisation.name,
        organisation.kind,
        organisation.created_at,
    )
    return inserted is True


async def get_organisation(conn: Conn, organisation_id: UUID) -> Organisation | None:
    row = await conn.fetchrow(
        "SELECT organisation_id, city_id, name, kind, created_at FROM organisation"
        " WHERE organisation_id = $1",
        organisation_id,
    )
    return Organisation(**row) if row else None


async def list_organisations(
    conn: Conn, *, city_id: str, after: UUID | None, limit: int
) -> list[Organisation]:
    rows = await conn.fetch(
        "SELECT organisation_id, city_id, name, kind, created_at FROM organisation"
        " WHERE city_id = $1 AND ($2::uuid IS NULL OR organisation_id > $2)"
        " ORDER BY organisation_id LIMIT $3",
        city_id,
        after,
        limit,
    )
    return [Organisation(**row) for row in rows]


# Readers


async def insert_reader(conn: Conn, reader: Reader) -> bool:
    """False when the id is taken."""
    inserted = await conn.fetchval(
        f"INSERT INTO reader ({READER}) VALUES ($1, $2, $3, $4, $5, $6, $7)"  # noqa: S608 - constant
        " ON CONFLICT DO NOTHING RETURNING true",
        reader.reader_id,
        reader.city_id,
        reader.key_sha256,
        reader.generation,
        reader.status,
        reader.version,
        reader.created_at,
    )
    return inserted is True


async def lock_reader(conn: Conn, reader_id: UUID) -> Reader | None:
    row = await conn.fetchrow(
        f"SELECT {READER} FROM reader WHERE reader_id = $1 FOR UPDATE",  # noqa: S608 - a constant
        reader_id,
    )
    return to_reader(row) if row else None


async def update_reader(conn: Conn, reader: Reader) -> None:
    """Save key, generation, status and version; the row is locked."""
    await conn.execute(
        "UPDATE reader SET key_sha256 = $2, generation = $3, status = $4, version = $5"
        " WHERE reader_id = $1",
        reader.reader_id,
        reader.key_sha256,
        reader.generation,
        reader.status,
        reader.version,
    )


async def list_readers(conn: Conn, *, city_id: str, after: UUID | None, limit: int) -> list[Reader]:
    rows = await conn.fetch(
        f"SELECT {READER} FROM reader WHERE city_id = $1"  # noqa: S608 - a constant
        " AND ($2::uuid IS NULL OR reader_id > $2) ORDER BY reader_id LIMIT $3",
        city_id,
        after,
        limit,
    )
    return [to_reader(row) for row in rows]


# Service clients


async def insert_client(conn: Conn, client: Client) -> bool:
    """False when the id is taken."""
    inserted = await conn.fetchval(
        f"INSERT INTO client ({CLIENT})"  # noqa: S608 - a constant of this module
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT DO NOTHING RETURNING true",
        client.client_id,
        client.name,
        client.city_id,
        sorted(client.roles),
        list(client.audiences),
        client.secret_sha256,
        client.generation,
        client.status,
        client.created_at,
    )
    return inserted is True


async def get_client(conn: Conn, client_id: UUID) -> Client | None:
    row = await conn.fetchrow(
        f"SELECT {CLIENT} FROM client WHERE client_id = $1",  # noqa: S608 - a constant
        client_id,
    )
    return to_client(row) if row else None


async def lock_client(conn: Conn, client_id: UUID) -> Client | None:
    row = await conn.fetchrow(
        f"SELECT {CLIENT} FROM client WHERE client_id = $1 FOR UPDATE",  # noqa: S608 - a constant
        client_id,
    )
    return to_client(row) if row else None


async def update_client(conn: Conn, client: Client) -> None:
    """Save secret, generation and status; the row is locked."""
    await conn.execute(
        "UPDATE client SET secret_sha256 = $2, generation = $3, status = $4 WHERE client_id = $1",
        client.client_id,
        client.secret_sha256,
        client.generation,
        client.status,
    )


async def list_clients(conn: Conn, *, after: UUID | None, limit: int) -> list[Client]:
    rows = await conn.fetch(
        f"SELECT {CLIENT} FROM client WHERE $1::uuid IS NULL OR client_id > $1"  # noqa: S608 - constant
        " ORDER BY client_id LIMIT $2",
        after,
        limit,
    )
    return [to_client(row) for row in rows]


# Places, as places tells of them


async def save_known_place(conn: Conn, place_id: UUID, city_id: str, version: int) -> None:
    """An older version than the known one changes nothing."""
    await conn.execute(
        "INSERT INTO known_place (place_id, city_id, version) VALUES ($1, $2, $3)"
        " ON CONFLICT (place_id) DO UPDATE"
        " SET city_id = EXCLUDED.city_id, version = EXCLUDED.version"
        " WHERE known_place.version < EXCLUDED.version",
        place_id,
        city_id,
        version,
    )


async def cities_of_places(conn: Conn, place_ids: Sequence[UUID]) -> dict[str, str]:
    """place_id → city_id of those that are known."""
    rows = await conn.fetch(
        "SELECT place_id, city_id FROM known_place WHERE place_id = ANY ($1::uuid[])",
        list(place_ids),
    )
    return {str(row["place_id"]): row["city_id"] for row in rows}


# Refresh tokens


async def insert_family(
    conn: Conn,
    *,
    family_id: UUID,
    member_id: UUID,
    audiences: Sequence[str],
    now: datetime,
    expires_at: datetime,
) -> None:
    await conn.execute(
        "INSERT INTO refresh_family (family_id, member_id, audiences, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5)",
        family_id,
        member_id,
        list(audiences),
        now,
        expires_at,
    )


async def insert_refresh_token(
    conn: Conn, *, token_sha256: bytes, family_id: UUID, expires_at: datetime
) -> None:
    await conn.execute(
        "INSERT INTO refresh_token (token_sha256, family_id, expires_at) VALUES ($1, $2, $3)",
        token_sha256,
        family_id,
        expires_at,
    )


async def lock_refresh_token(conn: Conn, token_sha256: bytes) -> asyncpg.Record | None:
    """A refresh token with its family, whose row is locked: of two uses at once one is second."""
    family_id = await conn.fetchval(
        "SELECT family_id FROM refresh_token WHERE token_sha256 = $1", token_sha256
    )
    if family_id is None:
        return None
    await conn.execute("SELECT FROM refresh_family WHERE family_id = $1 FOR UPDATE", family_id)
    return await conn.fetchrow(
        "SELECT f.family_id, f.member_id, f.audiences, f.revoked_at, t.used_at, t.expires_at,"
        " f.expires_at AS family_expires_at"
        " FROM refresh_token t JOIN refresh_family f USING (family_id) WHERE t.token_sha256 = $1",
        token_sha256,
    )


async def use_refresh_token(conn: Conn, token_sha256: bytes, now: datetime) -> None:
    await conn.execute(
        "UPDATE refresh_token SET used_at = $2 WHERE token_sha256 = $1", token_sha256, now
    )


async def revoke_family(conn: Conn, family_id: UUID, reason: str, now: datetime) -> None:
    await conn.execute(
        "UPDATE refresh_family SET revoked_at = $3, revoked_reason = $2"
        " WHERE family_id = $1 AND revoked_at IS NULL",
        family_id,
        reason,
        now,
    )


async def revoke_families(conn: Conn, member_id: UUID, reason: str, now: datetime) -> None:
    """End every login of a member."""
    await conn.execute(
        "UPDATE refresh_family SET revoked_at = $3, revoked_reason = $2"
        " WHERE member_id = $1 AND revoked_at IS NULL",
        member_id,
        reason,
        now,
    )


async def delete_expired(conn: Conn, now: datetime, *, rows_max: int) -> None:
    """Forget, a bounded number at a time, what can no longer be used."""
    await conn.execute(
        "DELETE FROM refresh_family WHERE family_id IN"
        " (SELECT family_id FROM refresh_family WHERE expires_at < $1 LIMIT $2)",
        now,
        rows_max,
    )
    await conn.execute(
        "DELETE FROM login_failures WHERE key IN"
        " (SELECT key FROM login_failures WHERE expires_at < $1 LIMIT $2)",
        now,
        rows_max,
    )
