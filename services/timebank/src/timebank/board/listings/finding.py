"""The SQL that finds listings: for a person's words, and those that a matching compares.

Words are looked for by their French stems in an index of stems; those that few listings have also
by their letters (trigrams), in titles, skills and categories, so that a slip of the pen still
finds. Distances are on a sphere.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import asyncpg

from common.db import Conn
from timebank.board.listings.domain import Listing
from timebank.board.listings.store import SELECT_COLUMNS, to_listing
from timebank.board.search import SIMILAR_FROM, needed
from timebank.store import HERE

EARTH_RADIUS_M = 6_371_000.0
METRES_PER_DEGREE = 111_320.0
# Of what is nowhere: behind all that is somewhere, within what JSON readers can hold.
FAR_M = 10**9

# Where a word was found, the best place for each word; the numbers are the points of a word.
How = Literal["similar", "text", "skill", "title"]
HOW: dict[int, How] = {1: "similar", 2: "text", 3: "skill", 4: "title"}
# A word that so many listings have is spelled as it should be: nothing like it is looked for.
RARE = 20
# One word more is worth more than any places of the others.
WORD_POINTS = 100


@dataclass(frozen=True, slots=True)
class Viewer:
    """For whom: their city's listings, and those of others that are for the federation."""

    id: str
    city_id: str | None


@dataclass(frozen=True, slots=True)
class After:
    """Where the page before ended."""

    rank: int
    distance_m: int
    listing_id: UUID


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for; None does not narrow. `near` is (latitude, longitude)."""

    viewer: Viewer
    now: datetime
    words: tuple[str, ...] | None = None
    kind: str | None = None
    what: str | None = None
    category: str | None = None
    skill: str | None = None
    city_id: str | None = None
    near: tuple[float, float] | None = None
    radius_m: int | None = None
    free: bool | None = None
    after: After | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Found:
    """A hit: why (word by word), how far, and its place in the order."""

    listing: Listing
    words: tuple[tuple[str, How], ...]
    distance_m: int | None
    place: After


@dataclass(slots=True)
class Query:
    """Values of a statement as they are bound, and the marks that stand for them."""

    values: list[Any] = field(default_factory=list)

    def mark(self, value: Any) -> str:
        self.values.append(value)
        return f"${len(self.values)}"


def visible_to(query: Query, viewer: Viewer, now: datetime) -> list[str]:
    """Open, not past its last day, not all given, and for this viewer to see."""
    today = (
        f"(SELECT ({query.mark(now)}::timestamptz AT TIME ZONE b.timezone)::date"  # noqa: S608 - the value is bound
        " FROM book b WHERE b.city_id = l.city_id)"
    )
    return [
        "l.status = 'open'",
        f"l.{HERE}",
        f"(l.visibility = 'federation' OR l.city_id = {query.mark(viewer.city_id)})",
        "(l.quantity IS NULL OR l.taken < l.quantity)",
        f"(l.available_until IS NULL OR l.available_until >= {today})",
    ]


def words_found(query: Query, words: tuple[str, ...]) -> str:
    """The WITH part: for each listing with enough of the words, how many and where."""
    return (
        "WITH asked AS MATERIALIZED (SELECT number, word,"  # noqa: S608 - values are bound
        " to_tsquery('public.board', word) AS stem,"
        " to_tsquery('public.board', word || ':A') AS in_title,"
        " to_tsquery('public.board', word || ':AB') AS in_skills,"
        f" length(word) >= {SIMILAR_FROM} AND (SELECT count(*) FROM (SELECT FROM listing"
        " WHERE search @@ to_tsquery('public.board', word) AND status = 'open'"
        f" LIMIT {RARE}) found) < {RARE} AS is_rare"
        f" FROM unnest({query.mark(list(words))}::text[]) WITH ORDINALITY AS a (word, number)),"
        " hit AS (SELECT l.listing_id, a.number,"
        " CASE WHEN l.search @@ a.in_title THEN 4 WHEN l.search @@ a.in_skills THEN 3 ELSE 2 END"
        " AS how FROM asked a JOIN listing l ON l.search @@ a.stem AND l.status = 'open'"
        " UNION ALL SELECT l.listing_id, a.number, 1"
        " FROM asked a JOIN listing l ON l.words %> a.word AND l.status = 'open'"
        " WHERE a.is_rare),"
        " best AS (SELECT listing_id, number, max(how) AS how FROM hit GROUP BY 1, 2),"
        f" scored AS (SELECT listing_id, count(*) * {WORD_POINTS} + sum(how) AS rank,"
        " array_agg(number ORDER BY number) AS numbers, array_agg(how ORDER BY number) AS hows"
        f" FROM best GROUP BY 1 HAVING count(*) >= {query.mark(needed(len(words)))}) "
    )


def distance_to(query: Query, near: tuple[float, float]) -> str:
    """Whole metres from a point (haversine); NULL for what is nowhere, which least() would not
    pass on."""
    lat, lon = query.mark(near[0]), query.mark(near[1])
    return (
        f"(CASE WHEN l.latitude IS NOT NULL THEN round(2 * {EARTH_RADIUS_M} * asin(least(1, sqrt("
        f"sin(radians(l.latitude - {lat}) / 2) ^ 2 + cos(radians({lat}))"
        f" * cos(radians(l.latitude)) * sin(radians(l.longitude - {lon}) / 2) ^ 2))))::bigint END)"
    )


async def find(conn: Conn, search: Search) -> list[Found]:
    """One page of what a search finds.

    In the order: more of the words; then where they are (in the title before skills and category,
    there before the text, there before those only spelled nearly so); then the nearer, if a point
    is given; then the newest. Nothing else counts: not who lists it, nor what they ever did.
    """
    query = Query()
    with_words, source, rank = "", "listing l", "0::bigint"
    columns = f"{SELECT_COLUMNS}, NULL::bigint[] AS numbers, NULL::int[] AS hows"
    if search.words is not None:
        with_words = words_found(query, search.words)
        source, rank = "scored JOIN listing l USING (listing_id)", "scored.rank::bigint"
        columns = f"{SELECT_COLUMNS}, scored.numbers, scored.hows"
    conditions = visible_to(query, search.viewer, search.now)
    for column in ("kind", "what", "category", "city_id"):
        value = getattr(search, column)
        if value is not None:
            conditions.append(f"l.{column} = {query.mark(value)}")
    if search.skill is not None:
        conditions.append(f"l.skills @> ARRAY[{query.mark(search.skill)}::text]")
    if search.free is not None:
        conditions.append("l.price_minutes = 0" if search.free else "l.price_minutes > 0")
    distance = "NULL::bigint"
    if search.near is not None:
        distance = distance_to(query, search.near)
        if search.radius_m is not None:
            margin = search.radius_m / METRES_PER_DEGREE
            south, north = search.near[0] - margin, search.near[0] + margin
            conditions.append(f"l.latitude BETWEEN {query.mark(south)} AND {query.mark(north)}")
            conditions.append(f"{distance} <= {query.mark(search.radius_m)}")
    # What is the same for all is left out, so that an index gives the order of the rest.
    orders = []
    if search.words is not None:
        orders.append((rank, "DESC", "rank"))
    if search.near is not None:
        orders.append((f"coalesce({distance}, {FAR_M})", "ASC", "distance_m"))
    orders.append(("l.listing_id", "DESC", "listing_id"))
    if search.after is not None:
        conditions.append(comes_after(query, orders, search.after))
    rows = await conn.fetch(
        f"{with_words}SELECT {columns}, {rank} AS rank, {distance} AS distance_m"  # noqa: S608 - constant names, values are bound
        f" FROM {source} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {', '.join(f'{sort} {way}' for sort, way, _ in orders)}"
        f" LIMIT {query.mark(search.limit)}",
        *query.values,
    )
    return [to_found(row, search.words or ()) for row in rows]


def comes_after(query: Query, orders: list[tuple[str, str, str]], after: After) -> str:
    """Whether a row comes after another in an order of several columns, each with its way."""
    condition = ""
    for sort, way, name in reversed(orders):
        mark = query.mark(getattr(after, name))
        beyond = f"{sort} {'>' if way == 'ASC' else '<'} {mark}"
        condition = f"({beyond} OR ({sort} = {mark} AND {condition}))" if condition else beyond
    return condition


def to_found(row: asyncpg.Record, words: tuple[str, ...]) -> Found:
    listing = to_listing(row)
    hits = zip(row["numbers"] or (), row["hows"] or (), strict=True)
    distance_m = row["distance_m"]
    return Found(
        listing=listing,
        words=tuple((words[number - 1], HOW[how]) for number, how in hits),
        distance_m=distance_m,
        place=After(row["rank"], FAR_M if distance_m is None else distance_m, listing.id),
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A listing, and the stems of its title."""

    listing: Listing
    stems: frozenset[str]


SELECT_CANDIDATE = (
    f"SELECT {SELECT_COLUMNS}, tsvector_to_array(ts_filter(l.search, '{{a}}')) AS stems"  # noqa: S608 - constant names
    " FROM listing l"
)


def to_candidate(row: asyncpg.Record) -> Candidate:
    return Candidate(to_listing(row), frozenset(row["stems"]))


async def find_candidate(conn: Conn, listing_id: UUID) -> Candidate | None:
    row = await conn.fetchrow(f"{SELECT_CANDIDATE} WHERE listing_id = $1", listing_id)
    return to_candidate(row) if row else None


async def list_candidates(
    conn: Conn, of: Candidate, viewer: Viewer, now: datetime, limit: int
) -> list[Candidate]:
    """What could answer a listing: the other kind of the same thing, seen by both sides, with a
    skill, the category or a word of the title in common. Those with a skill first, then those with
    the category, then the newest.
    """
    query = Query()
    listing = of.listing
    conditions = visible_to(query, viewer, now)
    city, skills = query.mark(listing.city_id), query.mark(list(listing.skills))
    category = query.mark(listing.category)
    conditions += [
        f"l.kind = {query.mark('need' if listing.kind == 'offer' else 'offer')}",
        f"l.what = {query.mark(listing.what)}",
        f"l.owner_id <> {query.mark(listing.owner_id)}",
        # Seen from the other side as well.
        f"({query.mark(listing.visibility == 'federation')} OR l.city_id = {city})",
    ]
    common = [f"l.skills && {skills}::text[]", f"l.category = {category}"]
    if of.stems:
        stems = " | ".join(quoted(stem) for stem in sorted(of.stems))
        common.append(f"l.search @@ {query.mark(stems)}::text::tsquery")
    rows = await conn.fetch(
        f"{SELECT_CANDIDATE} WHERE {' AND '.join(conditions)} AND ({' OR '.join(common)})"
        f" ORDER BY (l.skills && {skills}::text[]) DESC, (l.category = {category}) DESC,"
        f" l.listing_id DESC LIMIT {query.mark(limit)}",
        *query.values,
    )
    return [to_candidate(row) for row in rows]


def quoted(stem: str) -> str:
    """A stem as a tsquery takes it literally. Stems are letters and digits; this holds anyway."""
    doubled = stem.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
