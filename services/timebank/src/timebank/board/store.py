"""What the board keeps of one person: to be given to them, and to be forgotten."""

from typing import Any
from uuid import UUID

from common.db import Conn


async def export_of(conn: Conn, member_id: UUID) -> dict[str, list[dict[str, Any]]]:
    """All that is kept of a member's listings and exchanges, the oldest first.

    The words of the other side of an exchange are in it: they were written to the member.
    """
    listings = await conn.fetch(
        "SELECT listing_id, city_id, kind, what, title, text, category, skills, place_id,"
        " latitude, longitude, schedule_text, schedule_slots, price_minutes, deposit_minutes,"
        " quantity, taken, available_until, visibility, status, closed_because, created_at"
        " FROM listing WHERE owner_id = $1 OR listed_by = $1::uuid::text ORDER BY listing_id",
        member_id,
    )
    exchanges = await conn.fetch(
        "SELECT exchange_id, listing_id, city_id, kind, what, category, requester_id, giver_kind,"
        " giver_id, receiver_kind, receiver_id, minutes, deposit_minutes, quantity, from_on,"
        " until_on, message, claim_note, ruling_note, status, claimed_minutes, settled_minutes,"
        " contribution_id, transfer_id, created_at, ended_at FROM exchange"
        " WHERE $1 IN (giver_id, receiver_id) ORDER BY exchange_id",
        member_id,
    )
    return {
        "listings": [dict(row) for row in listings],
        "exchanges": [dict(row) for row in exchanges],
    }


async def forget(conn: Conn, member_id: UUID) -> None:
    """Erase the words of a member's closed listings, where they are, and what was written in
    exchanges with them; the numbers stay.

    What still runs ends by `service.forget`, which calls this.
    """
    await conn.execute(
        "UPDATE listing SET title = NULL, text = NULL, schedule_text = NULL, schedule_slots = '[]',"
        " skills = '{}', latitude = NULL, longitude = NULL, place_id = NULL, search = '',"
        " words = '', closed_because = 'erased' WHERE owner_id = $1 AND status = 'closed'",
        member_id,
    )
    await conn.execute(
        "UPDATE exchange SET message = NULL, claim_note = NULL, ruling_note = NULL"
        " WHERE $1 IN (giver_id, receiver_id)",
        member_id,
    )
