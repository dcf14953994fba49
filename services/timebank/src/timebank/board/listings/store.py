"""The SQL of listings, but for finding them (finding.py)."""

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.board.listings.domain import CATEGORY_WORDS, Listing, Slot
from timebank.board.search import terms

COLUMNS = (
    "listing_id",
    "city_id",
    "owner_kind",
    "owner_id",
    "kind",
    "what",
    "title",
    "text",
    "category",
    "skills",
    "place_id",
    "latitude",
    "longitude",
    "schedule_text",
    "schedule_slots",
    "price_minutes",
    "deposit_minutes",
    "quantity",
    "available_until",
    "visibility",
    "listed_by",
    "created_at",
    "status",
    "closed_because",
    "taken",
    "version",
)
SELECT_COLUMNS = ", ".join(f"l.{column}" for column in COLUMNS)
SELECT_LISTING = f"SELECT {SELECT_COLUMNS} FROM listing l"  # noqa: S608 - constant names
# Title, skills and category, and text, as words of board/search.py, with their weights.
SEARCH = (
    "setweight(to_tsvector('public.board', {title}), 'A')"
    " || setweight(to_tsvector('public.board', {more}), 'B')"
    " || setweight(to_tsvector('public.board', {text}), 'D')"
)


def to_listing(row: asyncpg.Record) -> Listing:
    values: dict[str, Any] = {column: row[column] for column in COLUMNS}
    values["id"] = values.pop("listing_id")
    values["skills"] = tuple(values["skills"])
    values["schedule_slots"] = tuple(Slot(*slot) for slot in values["schedule_slots"])
    return Listing(**values)


def words_of(listing: Listing) -> tuple[str, str, str]:
    """The words to be found by: of the title, of skills and category, of the text."""
    skills = " ".join(listing.skills)
    return (
        " ".join(terms(listing.title or "")),
        " ".join(terms(f"{skills} {CATEGORY_WORDS[listing.category]}")),
        " ".join(terms(listing.text or "")),
    )


async def find_listing(conn: Conn, listing_id: UUID) -> Listing | None:
    row = await conn.fetchrow(f"{SELECT_LISTING} WHERE listing_id = $1", listing_id)
    return to_listing(row) if row else None


async def lock_listing(conn: Conn, listing_id: UUID) -> Listing | None:
    """A listing, locked until the transaction ends: before its exchanges and any account."""
    row = await conn.fetchrow(f"{SELECT_LISTING} WHERE listing_id = $1 FOR UPDATE", listing_id)
    return to_listing(row) if row else None


async def save_listing(conn: Conn, listing: Listing) -> bool:
    """Write a listing, new or changed, and what it is found by. False, and nothing done, when it
    is new and its id is taken."""
    title, more, text = words_of(listing)
    values: dict[str, Any] = {
        column: getattr(listing, "id" if column == "listing_id" else column) for column in COLUMNS
    }
    values["skills"] = list(listing.skills)
    values["schedule_slots"] = [
        [slot.weekday, slot.from_minute, slot.until_minute] for slot in listing.schedule_slots
    ]
    marks = [f"${number}" for number in range(1, len(COLUMNS) + 1)]
    at = len(COLUMNS)
    search = SEARCH.format(title=f"${at + 1}", more=f"${at + 2}", text=f"${at + 3}")
    names = ", ".join((*COLUMNS, "search", "words"))
    places = ", ".join((*marks, search, f"${at + 4}"))
    if listing.version == 1:
        written = f"INSERT INTO listing ({names}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608 - constant names
    else:
        written = f"UPDATE listing SET ({names}) = ROW ({places}) WHERE listing_id = $1"  # noqa: S608 - constant names
    saved = await conn.fetchval(
        f"{written} RETURNING true",
        *values.values(),
        title,
        more,
        text,
        " ".join(dict.fromkeys(f"{title} {more}".split())),
    )
    return saved is True


async def save_taken(conn: Conn, listing: Listing) -> None:
    """Write what is promised or gone of a surplus; the caller holds its lock."""
    await conn.execute(
        "UPDATE listing SET taken = $2, version = $3 WHERE listing_id = $1",
        listing.id,
        listing.taken,
        listing.version,
    )


async def count_open(conn: Conn, owner_id: UUID) -> int:
    count: int = await conn.fetchval(
        "SELECT count(*) FROM listing WHERE owner_id = $1 AND status = 'open'", owner_id
    )
    return count


async def lock_owner(conn: Conn, owner_id: UUID) -> None:
    """Let one transaction at a time list for an owner, so that their listings can be counted."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 7203010))", str(owner_id))


async def list_of_owner(
    conn: Conn, owner_id: UUID, *, status: str | None, before: UUID | None, limit: int
) -> list[Listing]:
    """An owner's listings, open and closed, the newest first."""
    rows = await conn.fetch(
        f"{SELECT_LISTING} WHERE owner_id = $1 AND ($2::text IS NULL OR status = $2)"
        " AND ($3::uuid IS NULL OR listing_id < $3) ORDER BY listing_id DESC LIMIT $4",
        owner_id,
        status,
        before,
        limit,
    )
    return [to_listing(row) for row in rows]


async def lock_for_one_who_leaves(conn: Conn, member_id: UUID) -> list[UUID]:
    """Lock, in id order, a member's open listings and those of their running exchanges."""
    rows = await conn.fetch(
        "SELECT listing_id FROM listing WHERE (owner_id = $1 AND status = 'open')"
        " OR listing_id IN (SELECT listing_id FROM exchange"
        "  WHERE $1 IN (giver_id, receiver_id) AND ended_at IS NULL)"
        " ORDER BY listing_id FOR UPDATE",
        member_id,
    )
    return [row["listing_id"] for row in rows]


async def list_ended(conn: Conn, now: datetime, limit: int) -> list[UUID]:
    """Open listings whose last day is past in their city."""
    rows = await conn.fetch(
        "SELECT l.listing_id FROM listing l JOIN book b USING (city_id)"
        " WHERE l.status = 'open' AND b.place = 'here'"
        " AND l.available_until < ($1::timestamptz AT TIME ZONE b.timezone)::date"
        " ORDER BY l.available_until LIMIT $2",
        now,
        limit,
    )
    return [row["listing_id"] for row in rows]


async def has_place(conn: Conn, place_id: UUID) -> bool:
    found = await conn.fetchval("SELECT true FROM place WHERE place_id = $1", place_id)
    return found is True
