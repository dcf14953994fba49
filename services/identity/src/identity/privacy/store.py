"""The SQL of export and erasure: of members, logins and cards. Notices have their own."""

from typing import Any
from uuid import UUID

from common.db import Conn
from common.export import read_tables

EXPORTS = {
    "member": "SELECT member_id, city_id, display_name, email, status, roles, places, directory,"
    " version, created_at, password_hash IS NOT NULL AS has_password"
    " FROM member WHERE member_id = $1",
    # Of a card's number only the end is kept, beside a keyed hash that means nothing elsewhere.
    "cards": "SELECT card_id, credential_type, credential_hash, uid_tail, label, status,"
    " block_reason, replaced_by, version, created_at, public_key FROM card WHERE member_id = $1"
    " AND credential_type <> 'guest' ORDER BY card_id",
    # Of the paper nothing is kept but a keyed hash.
    "guest_passes": "SELECT card_id, guest_name, places, valid_from, valid_until, status,"
    " block_reason, version, created_at FROM card WHERE member_id = $1"
    " AND credential_type = 'guest' ORDER BY card_id",
    "card_key_disclosures": "SELECT d.card_id, d.shown_to, d.shown_at FROM card_key_disclosure d"
    " JOIN card USING (card_id) WHERE member_id = $1 ORDER BY d.disclosure_id",
    "names_told_to_wardens": "SELECT place_id, looked_at FROM warden_look"
    " WHERE asked @> ARRAY[$1::uuid] ORDER BY look_id",
    "logins": "SELECT family_id AS login_id, audiences, created_at, expires_at, revoked_at,"
    " revoked_reason FROM refresh_family WHERE member_id = $1 ORDER BY created_at",
}


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of a member, by table, but for what would let another log in."""
    return await read_tables(conn, EXPORTS, member_id)


async def erase_member(conn: Conn, member_id: UUID, version: int) -> None:
    """Leave of a member the id, the city and when they came; the row is locked."""
    await conn.execute(
        "UPDATE member SET display_name = '', email = NULL, password_hash = NULL,"
        " status = 'erased', roles = '{}', places = '{}', directory = 'nobody', version = $2"
        " WHERE member_id = $1",
        member_id,
        version,
    )


async def delete_logins(conn: Conn, member_id: UUID) -> None:
    await conn.execute("DELETE FROM refresh_family WHERE member_id = $1", member_id)


async def lock_city(conn: Conn, city_id: str) -> None:
    """Held until the transaction ends, by whoever takes a steward away from the city."""
    await conn.execute("SELECT FROM city WHERE city_id = $1 FOR NO KEY UPDATE", city_id)


async def has_other_steward(conn: Conn, city_id: str, member_id: UUID) -> bool:
    found: bool = await conn.fetchval(
        "SELECT EXISTS (SELECT FROM member WHERE city_id = $1 AND 'steward' = ANY (roles)"
        " AND status = 'active' AND member_id <> $2)",
        city_id,
        member_id,
    )
    return found
