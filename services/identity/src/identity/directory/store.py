"""The SQL about who finds whom."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from common.db import Conn
from identity.directory.domain import Entry, Place, Viewer, Visibility

ENTRY = "member_id, city_id, display_name, name_sort"
# $1 the viewer, $2 the city that they are a member of, $3 that they are a steward of, $4 sees all.
# `federation` is for members of the federation's cities, whichever.
SEEN = (
    "status <> 'erased' AND (member_id = $1 OR $4 OR city_id = $3"
    " OR (city_id = $2 AND directory <> 'nobody')"
    " OR ($2::text IS NOT NULL AND directory = 'federation'))"
)


def seen_by(viewer: Viewer) -> tuple[Any, ...]:
    """The arguments of SEEN."""
    return viewer.id, viewer.member_of, viewer.steward_of, viewer.sees_everybody


async def find(
    conn: Conn,
    viewer: Viewer,
    *,
    city_id: str | None,
    words: str | None,
    after: Place | None,
    limit: int,
) -> list[Entry]:
    """Active members whom the viewer sees, in the order of names; the next page begins `after`.

    `words`: each of them, without case and accents, begins a word of the name.
    """
    rows = await conn.fetch(
        f"SELECT {ENTRY} FROM member"  # noqa: S608 - constants of this module
        f" WHERE {SEEN} AND status = 'active'"
        " AND ($5::text IS NULL OR city_id = $5)"
        " AND ($6::text IS NULL OR name_search @@ ("
        "SELECT string_agg(quote_literal(word) || ':*', ' & ')"
        " FROM unnest(string_to_array(fold_name($6), ' ')) word)::tsquery)"
        " AND ($7::text IS NULL OR (name_sort, member_id) > ($7, $8))"
        " ORDER BY name_sort, member_id LIMIT $9",
        *seen_by(viewer),
        city_id,
        words,
        after.name_sort if after else None,
        after.member_id if after else None,
        limit,
    )
    return [Entry(**row) for row in rows]


async def names(conn: Conn, viewer: Viewer, member_ids: Sequence[UUID]) -> list[Entry]:
    """Those of these members whom the viewer sees, suspended ones too."""
    rows = await conn.fetch(
        f"SELECT {ENTRY} FROM member"  # noqa: S608 - constants of this module
        f" WHERE {SEEN} AND member_id = ANY ($5::uuid[]) ORDER BY name_sort, member_id",
        *seen_by(viewer),
        list(member_ids),
    )
    return [Entry(**row) for row in rows]


async def relation_to(conn: Conn, member_id: UUID, place_id: UUID) -> str | None:
    """What a member is to a place now."""
    relation: str | None = await conn.fetchval(
        "SELECT places ->> $2 FROM member WHERE member_id = $1 AND status = 'active'",
        member_id,
        str(place_id),
    )
    return relation


async def names_inside(conn: Conn, place_id: UUID, ids: Sequence[UUID]) -> list[tuple[UUID, str]]:
    """The names of these members, and of these cards' guests of this place."""
    rows = await conn.fetch(
        "SELECT member_id AS id, display_name AS name FROM member"
        " WHERE member_id = ANY ($1::uuid[]) AND status <> 'erased'"
        " UNION ALL SELECT card_id, guest_name FROM card"
        " WHERE card_id = ANY ($1::uuid[]) AND credential_type = 'guest' AND $2 = ANY (places)"
        " AND guest_name <> '' ORDER BY name, id",
        list(ids),
        place_id,
    )
    return [(row["id"], row["name"]) for row in rows]


async def add_warden_look(
    conn: Conn,
    *,
    look_id: UUID,
    place_id: UUID,
    looked_by: UUID,
    looked_at: datetime,
    asked: Sequence[UUID],
) -> None:
    await conn.execute(
        "INSERT INTO warden_look (look_id, place_id, looked_by, looked_at, asked)"
        " VALUES ($1, $2, $3, $4, $5)",
        look_id,
        place_id,
        looked_by,
        looked_at,
        list(asked),
    )


async def get_visibility(conn: Conn, member_id: UUID) -> Visibility | None:
    value: Visibility | None = await conn.fetchval(
        "SELECT directory FROM member WHERE member_id = $1", member_id
    )
    return value


async def set_visibility(conn: Conn, member_id: UUID, visibility: Visibility) -> None:
    await conn.execute(
        "UPDATE member SET directory = $2 WHERE member_id = $1 AND status <> 'erased'",
        member_id,
        visibility,
    )
