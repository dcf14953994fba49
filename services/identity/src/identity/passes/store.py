"""The SQL about the passes of phones and guests: one function per question, the connection first.

What they have in common with cards is in cards.store.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from common.db import Conn
from identity.cards.store import CARD, to_card
from identity.domain import Card
from identity.passes.domain import PassType


async def count_phones(conn: Conn, member_id: UUID) -> int:
    """The active ones; the member's row is locked, so that two that come at once are two."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM card WHERE member_id = $1 AND credential_type = 'pass'"
        " AND status = 'active'",
        member_id,
    )
    return count


async def count_made(conn: Conn, member_id: UUID, kind: PassType, since: datetime) -> int:
    """Passes made since then, whatever became of them."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM card WHERE member_id = $1 AND credential_type = $2"
        " AND created_at > $3",
        member_id,
        kind,
        since,
    )
    return count


async def rename(conn: Conn, card_id: UUID, label: str) -> None:
    """Nobody outside sees the name of a phone, so no version counts it."""
    await conn.execute("UPDATE card SET label = $2 WHERE card_id = $1", card_id, label)


async def lock_places(conn: Conn, place_ids: Sequence[UUID]) -> dict[str, str]:
    """place_id → city_id of those that are known. Locked in the order of their ids by whoever
    counts their guests, so that two that come at once are two."""
    rows = await conn.fetch(
        "SELECT place_id, city_id FROM known_place WHERE place_id = ANY ($1::uuid[])"
        " ORDER BY place_id FOR NO KEY UPDATE",
        list(place_ids),
    )
    return {str(row["place_id"]): row["city_id"] for row in rows}


async def count_guests_of_host(conn: Conn, member_id: UUID, now: datetime) -> int:
    """Passes that hold now or will."""
    count: int = await conn.fetchval(
        "SELECT count(*) FROM card WHERE member_id = $1 AND credential_type = 'guest'"
        " AND status = 'active' AND valid_until > $2",
        member_id,
        now,
    )
    return count


async def most_guests_of_a_place(conn: Conn, place_ids: Sequence[UUID], now: datetime) -> int:
    """Passes that hold now or will, at that of the places which has the most."""
    count: int = await conn.fetchval(
        "SELECT coalesce(max((SELECT count(*) FROM card WHERE credential_type = 'guest'"
        " AND places @> ARRAY[place_id] AND status = 'active' AND valid_until > $2)), 0)"
        " FROM unnest($1::uuid[]) AS place_id",
        list(place_ids),
        now,
    )
    return count


async def list_guests(
    conn: Conn,
    *,
    host_id: UUID | None,
    place_id: UUID | None,
    ended_after: datetime,
    after: UUID | None,
    limit: int,
) -> list[Card]:
    """Guest passes that did not end before, of a host or of a place, the last made first."""
    rows = await conn.fetch(
        f"SELECT {CARD} FROM card c JOIN member m USING (member_id)"  # noqa: S608 - a constant
        " WHERE c.credential_type = 'guest' AND c.valid_until > $3"
        " AND ($1::uuid IS NULL OR c.member_id = $1)"
        " AND ($2::uuid IS NULL OR c.places @> ARRAY[$2::uuid])"
        " AND ($4::uuid IS NULL OR c.card_id < $4)"
        " ORDER BY c.card_id DESC LIMIT $5",
        host_id,
        place_id,
        ended_after,
        after,
        limit,
    )
    return [to_card(row) for row in rows]


async def lock_guests_of_host(conn: Conn, member_id: UUID, now: datetime) -> list[Card]:
    """Those that hold now or will, locked in the order of their ids."""
    rows = await conn.fetch(
        f"SELECT {CARD} FROM card c JOIN member m USING (member_id)"  # noqa: S608 - a constant
        " WHERE c.member_id = $1 AND c.credential_type = 'guest' AND c.status = 'active'"
        " AND c.valid_until > $2 ORDER BY c.card_id FOR UPDATE OF c",
        member_id,
        now,
    )
    return [to_card(row) for row in rows]


async def lock_old_guests(conn: Conn, *, ended_before: datetime, rows_max: int) -> list[Card]:
    """Guest passes with a name that ended before; what another transaction holds comes later."""
    rows = await conn.fetch(
        f"SELECT {CARD} FROM card c JOIN member m USING (member_id)"  # noqa: S608 - a constant
        " WHERE c.credential_type = 'guest' AND c.guest_name <> '' AND c.valid_until < $1"
        " ORDER BY c.card_id LIMIT $2 FOR UPDATE OF c SKIP LOCKED",
        ended_before,
        rows_max,
    )
    return [to_card(row) for row in rows]


async def forget_guest(conn: Conn, card: Card) -> None:
    """The row is locked."""
    await conn.execute(
        "UPDATE card SET guest_name = '', version = $2 WHERE card_id = $1",
        card.card_id,
        card.version,
    )
