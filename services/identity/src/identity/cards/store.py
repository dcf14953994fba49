"""The SQL about cards: one function per question, the connection first."""

from datetime import datetime
from uuid import UUID

import asyncpg

from common.db import Conn
from identity.domain import Card

CARD = (
    "c.card_id, c.member_id, m.city_id, c.credential_type, c.credential_hash, c.uid_tail,"
    " c.label, c.status, c.block_reason, c.replaced_by, c.version, c.created_at, c.public_key,"
    " c.valid_from, c.valid_until, c.places, c.guest_name"
)


def to_card(row: asyncpg.Record) -> Card:
    places = row["places"]
    return Card(**{**row, "places": None if places is None else tuple(places)})


async def insert_card(conn: Conn, card: Card) -> None:
    """Raises asyncpg.UniqueViolationError: `card_pkey` or `card_live_credential`."""
    await conn.execute(
        "INSERT INTO card (card_id, member_id, credential_type, credential_hash, uid_tail, label,"
        " status, block_reason, replaced_by, version, created_at, public_key, valid_from,"
        " valid_until, places, guest_name)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        card.card_id,
        card.member_id,
        card.credential_type,
        card.credential_hash,
        card.uid_tail,
        card.label,
        card.status,
        card.block_reason,
        card.replaced_by,
        card.version,
        card.created_at,
        card.public_key,
        card.valid_from,
        card.valid_until,
        card.places,
        card.guest_name,
    )


async def lock_card(conn: Conn, card_id: UUID) -> Card | None:
    row = await conn.fetchrow(
        f"SELECT {CARD} FROM card c JOIN member m USING (member_id)"  # noqa: S608 - a constant
        " WHERE c.card_id = $1 FOR UPDATE OF c",
        card_id,
    )
    return to_card(row) if row else None


async def update_card(conn: Conn, card: Card) -> None:
    """Save status, reason, successor and version; the row is locked."""
    await conn.execute(
        "UPDATE card SET status = $2, block_reason = $3, replaced_by = $4, version = $5"
        " WHERE card_id = $1",
        card.card_id,
        card.status,
        card.block_reason,
        card.replaced_by,
        card.version,
    )


async def insert_disclosure(
    conn: Conn, disclosure_id: UUID, card_id: UUID, *, shown_to: str, now: datetime
) -> None:
    await conn.execute(
        "INSERT INTO card_key_disclosure (disclosure_id, card_id, shown_to, shown_at)"
        " VALUES ($1, $2, $3, $4)",
        disclosure_id,
        card_id,
        shown_to,
        now,
    )


async def list_cards(conn: Conn, *, member_id: UUID, after: UUID | None, limit: int) -> list[Card]:
    """What a member carries: not what their guests do."""
    rows = await conn.fetch(
        f"SELECT {CARD} FROM card c JOIN member m USING (member_id)"  # noqa: S608 - a constant
        " WHERE c.member_id = $1 AND c.credential_type <> 'guest'"
        " AND ($2::uuid IS NULL OR c.card_id > $2)"
        " ORDER BY c.card_id LIMIT $3",
        member_id,
        after,
        limit,
    )
    return [to_card(row) for row in rows]


async def list_card_ids(conn: Conn, member_id: UUID) -> list[UUID]:
    rows = await conn.fetch(
        "SELECT card_id FROM card WHERE member_id = $1 ORDER BY card_id", member_id
    )
    return [row["card_id"] for row in rows]


async def erase_cards(conn: Conn, member_id: UUID) -> None:
    """What was written on the cards and could be read off them. The hash stays: it is what makes
    the card known as blocked."""
    await conn.execute(
        "UPDATE card SET label = '', uid_tail = '0000',"
        " guest_name = CASE WHEN guest_name IS NOT NULL THEN '' END WHERE member_id = $1",
        member_id,
    )
