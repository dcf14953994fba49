"""The SQL of export and erasure: of accounts, transfers and holds. The other nouns have theirs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from common.db import Conn

ACCOUNTS = (
    "SELECT account_id, city_id, kind, status, balance_minutes, held_minutes, floor_minutes,"
    " ceiling_minutes, opened_at FROM account WHERE owner_id = $1 ORDER BY account_id"
)
# Their own line of each transfer: who stood on the other side is the other's to tell.
TRANSFERS = (
    "SELECT p.account_id, p.account_version AS line, p.transfer_id, t.kind, p.minutes,"
    " p.balance_minutes, p.posted_at, t.reverses, m.memo, t.requested_by = $2 AS requested_by_me"
    " FROM posting p JOIN transfer t USING (transfer_id) LEFT JOIN transfer_memo m"
    " USING (transfer_id) WHERE p.account_id = ANY ($1::uuid[])"
    " ORDER BY p.account_id, p.account_version LIMIT $3"
)
HOLDS = (
    "SELECT hold_id, city_id, from_account, to_account, minutes, memo, created_at, expires_at,"
    " status, resolved_at, posted_minutes, transfer_id FROM hold"
    " WHERE from_account = ANY ($1::uuid[]) OR to_account = ANY ($1::uuid[]) ORDER BY hold_id"
    " LIMIT $2"
)


async def list_account_ids(conn: Conn, member_id: UUID) -> list[UUID]:
    """The member's own accounts, in whichever city, closed ones too."""
    rows = await conn.fetch(
        "SELECT account_id FROM account WHERE owner_id = $1 AND kind = 'member'"
        " ORDER BY account_id",
        member_id,
    )
    return [row["account_id"] for row in rows]


async def export_of(
    conn: Conn, member_id: UUID, *, rows_max: int
) -> dict[str, list[dict[str, Any]]]:
    """A member's accounts, the lines of their transfers, and their holds; at most `rows_max` of
    each."""
    own = await list_account_ids(conn, member_id)
    found = {
        "accounts": await conn.fetch(ACCOUNTS, member_id),
        "transfers": await conn.fetch(TRANSFERS, own, str(member_id), rows_max),
        "holds": await conn.fetch(HOLDS, own, rows_max),
    }
    return {name: [dict(row) for row in rows] for name, rows in found.items()}


async def allow_forgetting(conn: Conn) -> None:
    """Until the transaction ends, words may go also from the book of a city that has moved."""
    await conn.execute("SELECT set_config('timebank.forgets', 'on', true)")


async def list_open_holds(conn: Conn, account_ids: Sequence[UUID]) -> list[UUID]:
    """The open holds that give or receive there."""
    rows = await conn.fetch(
        "SELECT hold_id FROM hold WHERE status = 'open' AND"
        " (from_account = ANY ($1::uuid[]) OR to_account = ANY ($1::uuid[])) ORDER BY hold_id",
        list(account_ids),
    )
    return [row["hold_id"] for row in rows]


async def forget_memos(conn: Conn, member_id: UUID, account_ids: Sequence[UUID]) -> None:
    """Erase what was written on transfers and holds of these accounts, and what the member wrote on
    those of others. The minutes stay."""
    await conn.execute(
        "UPDATE transfer_memo SET memo = NULL WHERE memo IS NOT NULL AND transfer_id IN ("
        "SELECT transfer_id FROM posting WHERE account_id = ANY ($1::uuid[])"
        " UNION ALL SELECT transfer_id FROM transfer_key WHERE requested_by = $2)",
        list(account_ids),
        str(member_id),
    )
    await conn.execute(
        "UPDATE hold SET memo = NULL WHERE memo IS NOT NULL AND (requested_by = $2"
        " OR from_account = ANY ($1::uuid[]) OR to_account = ANY ($1::uuid[]))",
        list(account_ids),
        str(member_id),
    )


async def list_listings_with_words(conn: Conn, member_id: UUID) -> list[UUID]:
    """The member's listings that still say something."""
    rows = await conn.fetch(
        "SELECT listing_id FROM listing WHERE owner_id = $1 AND title IS NOT NULL"
        " ORDER BY listing_id",
        member_id,
    )
    return [row["listing_id"] for row in rows]


async def raise_listing_versions(conn: Conn, listing_ids: Sequence[UUID]) -> list[UUID]:
    """For a state to be told anew; those among them whose words are gone."""
    rows = await conn.fetch(
        "UPDATE listing SET version = version + 1"
        " WHERE listing_id = ANY ($1::uuid[]) AND title IS NULL RETURNING listing_id",
        list(listing_ids),
    )
    return sorted(row["listing_id"] for row in rows)
