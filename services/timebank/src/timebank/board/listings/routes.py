"""Listings over HTTP."""

import base64
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from common.db import Conn
from common.fields import Body, LongText, ShortText, Slug
from common.idempotency import IdempotencyKey
from common.ids import new_id
from common.problems import invalid, not_found
from common.web import StrictRoute
from timebank.board.listings import finding, service, store
from timebank.board.listings.domain import (
    COORDINATE_DIGITS,
    DEPOSIT_MINUTES_MAX,
    PRICE_MINUTES_MAX,
    QUANTITY_MAX,
    SKILLS_MAX,
    SLOTS_MAX,
    Category,
    ClosedBecause,
    Kind,
    Listing,
    ListingStatus,
    OwnerKind,
    Slot,
    Visibility,
    What,
    acts_for_owner,
    may_see,
)
from timebank.board.matching import Match, ReasonCode, strongest
from timebank.board.search import QUERY_MAX, query_terms
from timebank.domain import Actor, Rejected
from timebank.routes import PAGE_DEFAULT, CurrentActor, Database, Limit, TheClock, once

router = APIRouter(prefix="/v1", route_class=StrictRoute)

# Matches for somebody are sought for the newest of their own listings.
OWN_LISTINGS_MATCHED_MAX = 20
RADIUS_M_MAX = 200_000

Cursor = Annotated[str | None, Query(max_length=400)]


def each_once(skills: list[str]) -> list[str]:
    if len(set(skills)) != len(skills):
        raise ValueError("must not name a skill twice")
    return skills


Skill = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
Skills = Annotated[list[Skill], Field(max_length=SKILLS_MAX), AfterValidator(each_once)]
Price = Annotated[int, Field(strict=True, ge=0, le=PRICE_MINUTES_MAX)]
Deposit = Annotated[int, Field(strict=True, ge=0, le=DEPOSIT_MINUTES_MAX)]
Quantity = Annotated[int, Field(strict=True, ge=1, le=QUANTITY_MAX)]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Longitude = Annotated[float, Field(ge=-180, le=180)]
Clock = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]


class SlotBody(Body):
    """Every week: 0 is Monday; hours of the city's clock, `until` after `from`."""

    weekday: Annotated[int, Field(strict=True, ge=0, le=6)]
    from_: Annotated[Clock, Field(alias="from")]
    until: Clock


def in_order(slots: list[SlotBody]) -> list[SlotBody]:
    taken: dict[int, list[tuple[str, str]]] = {}
    for slot in slots:
        if slot.from_ >= slot.until:
            raise ValueError("a slot ends after it begins")
        for from_, until in taken.setdefault(slot.weekday, []):
            if slot.from_ < until and from_ < slot.until:
                raise ValueError("slots of a day must not overlap")
        taken[slot.weekday].append((slot.from_, slot.until))
    return slots


class ScheduleBody(Body):
    """When: in words, as weekly slots, or both."""

    text: ShortText | None = None
    slots: Annotated[list[SlotBody], Field(max_length=SLOTS_MAX), AfterValidator(in_order)] = Field(
        []
    )


class ListingBody(Body):
    """An offer or a need. `price_minutes` are for the whole of it, 0 is free; a deposit is of what
    is lent, a quantity of a surplus (default 1). The point is kept to about a hundred metres."""

    listing_id: UUID | None = None
    # An organisation that the caller lists for, as a steward of its city.
    organisation_id: UUID | None = None
    kind: Kind
    what: What
    title: ShortText
    text: LongText | None = None
    category: Category
    skills: Skills = Field([])
    place_id: UUID | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    schedule: ScheduleBody | None = None
    price_minutes: Price = 0
    deposit_minutes: Deposit = 0
    quantity: Quantity | None = None
    available_until: date | None = None
    visibility: Visibility = "city"


class ListingChanges(Body):
    """What is left out stays; null empties. Title, category, price and visibility have no null."""

    title: ShortText = "-"
    text: LongText | None = None
    category: Category = "other"
    skills: Skills = Field([])
    place_id: UUID | None = None
    latitude: Latitude | None = None
    longitude: Longitude | None = None
    schedule: ScheduleBody | None = None
    price_minutes: Price = 0
    deposit_minutes: Deposit = 0
    quantity: Quantity | None = None
    available_until: date | None = None
    visibility: Visibility = "city"


class SlotView(BaseModel):
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    weekday: int
    from_: Annotated[str, Field(alias="from")]
    until: str


class ScheduleView(BaseModel):
    text: str | None
    slots: list[SlotView]


class ListingView(BaseModel):
    listing_id: UUID
    city_id: str
    owner_kind: OwnerKind
    owner_id: UUID
    kind: Kind
    what: What
    title: str | None
    text: str | None
    category: Category
    skills: list[str]
    place_id: UUID | None
    latitude: float | None
    longitude: float | None
    schedule: ScheduleView
    price_minutes: int
    deposit_minutes: int
    quantity: int | None
    quantity_left: int | None
    available_until: date | None
    visibility: Visibility
    status: ListingStatus
    closed_because: ClosedBecause | None
    created_at: datetime
    version: int


class ListingPage(BaseModel):
    items: list[ListingView]
    next: str | None


class HitReason(BaseModel):
    """Why a listing was found: a word (in its title, skills, text, or spelled nearly so)."""

    word: str
    found_in: finding.How


class HitView(BaseModel):
    listing: ListingView
    distance_m: int | None
    reasons: list[HitReason]


class HitPage(BaseModel):
    """`words`: what was looked for of the query, as it was understood; null: there was none."""

    words: list[str] | None
    items: list[HitView]
    next: str | None


class ReasonView(BaseModel):
    """A reason of a match, what it counts, and what it is about: skills, words, metres, minutes."""

    code: ReasonCode
    points: int
    value: str


class MatchView(BaseModel):
    """`points` is the sum of those of the reasons; nothing else orders matches."""

    your_listing_id: UUID
    listing: ListingView
    points: int
    reasons: list[ReasonView]


class MatchList(BaseModel):
    items: list[MatchView]


def minute_of(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def clock_of(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def view_listing(listing: Listing) -> ListingView:
    return ListingView(
        listing_id=listing.id,
        city_id=listing.city_id,
        owner_kind=listing.owner_kind,
        owner_id=listing.owner_id,
        kind=listing.kind,
        what=listing.what,
        title=listing.title,
        text=listing.text,
        category=listing.category,
        skills=list(listing.skills),
        place_id=listing.place_id,
        latitude=listing.latitude,
        longitude=listing.longitude,
        schedule=ScheduleView(
            text=listing.schedule_text,
            slots=[
                SlotView(
                    weekday=slot.weekday,
                    from_=clock_of(slot.from_minute),
                    until=clock_of(slot.until_minute),
                )
                for slot in listing.schedule_slots
            ],
        ),
        price_minutes=listing.price_minutes,
        deposit_minutes=listing.deposit_minutes,
        quantity=listing.quantity,
        quantity_left=listing.left,
        available_until=listing.available_until,
        visibility=listing.visibility,
        status=listing.status,
        closed_because=listing.closed_because,
        created_at=listing.created_at,
        version=listing.version,
    )


def view_match(ours: UUID, match: Match) -> MatchView:
    return MatchView(
        your_listing_id=ours,
        listing=view_listing(match.listing),
        points=match.points,
        reasons=[
            ReasonView(code=reason.code, points=reason.points, value=reason.value)
            for reason in match.reasons
        ],
    )


def read_schedule(schedule: ScheduleBody | None) -> dict[str, Any]:
    """The two attributes of a listing that a schedule is kept as."""
    slots = schedule.slots if schedule else []
    return {
        "schedule_text": schedule.text if schedule else None,
        "schedule_slots": tuple(
            Slot(slot.weekday, minute_of(slot.from_), minute_of(slot.until)) for slot in slots
        ),
    }


def round_point(degrees: float | None) -> float | None:
    return None if degrees is None else round(degrees, COORDINATE_DIGITS)


@router.post("/listings", status_code=201)
async def publish_listing(
    body: ListingBody, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ListingView:
    """List an offer or a need, of one's own or, as a steward, of an organisation of the city."""

    async def decide(conn: Conn, now: datetime) -> Listing | Rejected:
        draft = Listing(
            id=body.listing_id or new_id(),
            city_id="",
            owner_kind="member",
            owner_id=body.organisation_id or UUID(int=0),
            kind=body.kind,
            what=body.what,
            title=body.title,
            text=body.text or None,
            category=body.category,
            skills=tuple(body.skills),
            place_id=body.place_id,
            latitude=round_point(body.latitude),
            longitude=round_point(body.longitude),
            **read_schedule(body.schedule),
            price_minutes=body.price_minutes,
            deposit_minutes=body.deposit_minutes,
            quantity=1 if body.what == "surplus" and body.quantity is None else body.quantity,
            available_until=body.available_until,
            visibility=body.visibility,
            listed_by=actor.id,
            created_at=now,
        )
        return await service.publish(
            conn, draft, actor, now, organisation=body.organisation_id is not None
        )

    return await once(request, actor, key, body, decide, view_listing, as_=ListingView, status=201)


@router.patch("/listings/{listing_id}")
async def change_listing(
    listing_id: UUID,
    body: ListingChanges,
    request: Request,
    key: IdempotencyKey,
    actor: CurrentActor,
) -> ListingView:
    """Give a listing other words or terms. What was asked for stays at the terms of before."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    if "schedule" in changes:
        changes |= read_schedule(changes.pop("schedule"))
    if "skills" in changes:
        changes["skills"] = tuple(changes["skills"])
    if "text" in changes:
        changes["text"] = changes["text"] or None
    for name in ("latitude", "longitude"):
        if name in changes:
            changes[name] = round_point(changes[name])

    async def decide(conn: Conn, now: datetime) -> Listing | Rejected:
        return await service.change(conn, listing_id, changes, actor, now)

    return await once(request, actor, key, body, decide, view_listing, as_=ListingView)


@router.post("/listings/{listing_id}/close")
async def close_listing(
    listing_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ListingView:
    """Close a listing: its owner, or a steward of its city. Who waits for an answer is declined."""

    async def decide(conn: Conn, now: datetime) -> Listing | Rejected:
        return await service.close(conn, listing_id, actor, now)

    return await once(request, actor, key, None, decide, view_listing, as_=ListingView)


@router.post("/listings/{listing_id}/reopen")
async def reopen_listing(
    listing_id: UUID, request: Request, key: IdempotencyKey, actor: CurrentActor
) -> ListingView:
    """Open a closed listing again."""

    async def decide(conn: Conn, now: datetime) -> Listing | Rejected:
        return await service.reopen(conn, listing_id, actor, now)

    return await once(request, actor, key, None, decide, view_listing, as_=ListingView)


@router.get("/listings")
async def search_listings(
    actor: CurrentActor,
    pool: Database,
    clock: TheClock,
    q: Annotated[str | None, Query(max_length=QUERY_MAX)] = None,
    kind: Kind | None = None,
    what: What | None = None,
    category: Category | None = None,
    skill: Annotated[Skill | None, Query()] = None,
    city_id: Annotated[Slug | None, Query()] = None,
    lat: Annotated[Latitude | None, Query()] = None,
    lon: Annotated[Longitude | None, Query()] = None,
    radius_m: Annotated[int | None, Query(ge=1, le=RADIUS_M_MAX)] = None,
    free: bool | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> HitPage:
    """Open listings of one's city, and those of other cities that are for the federation.

    In the order: more of the words of `q`; then where they are (title, then skills and category,
    then text, then those spelled nearly so); then the nearer to (`lat`, `lon`); then the newest.
    Words are compared by their French stems, without accents; a hit has all of one or two words,
    two thirds of more. A query of stop words or signs alone finds nothing.
    """
    if (lat is None) != (lon is None):
        raise invalid("query.lat", "lat and lon go together.")
    if radius_m is not None and lat is None:
        raise invalid("query.radius_m", "A radius needs lat and lon.")
    words = query_terms(q) if q is not None and q.strip() else None
    if words is not None and not words:
        return HitPage(words=[], items=[], next=None)
    search = finding.Search(
        viewer=finding.Viewer(actor.id, actor.city_id),
        now=clock(),
        words=tuple(words) if words is not None else None,
        kind=kind,
        what=what,
        category=category,
        skill=skill,
        city_id=city_id,
        near=(lat, lon) if lat is not None and lon is not None else None,
        radius_m=radius_m,
        free=free,
        after=read_cursor(cursor) if cursor else None,
        limit=limit + 1,
    )
    async with pool.acquire() as conn:
        found = await finding.find(conn, search)
    page = found[:limit]
    return HitPage(
        words=words,
        items=[
            HitView(
                listing=view_listing(hit.listing),
                distance_m=hit.distance_m,
                reasons=[HitReason(word=word, found_in=how) for word, how in hit.words],
            )
            for hit in page
        ],
        next=write_cursor(page[-1].place) if len(found) > limit else None,
    )


def write_cursor(place: finding.After) -> str:
    values = [place.rank, place.distance_m, str(place.listing_id)]
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode()


def read_cursor(cursor: str) -> finding.After:
    try:
        rank, distance_m, listing_id = orjson.loads(base64.urlsafe_b64decode(cursor))
        place = finding.After(rank, distance_m, UUID(listing_id))
        if not all(
            type(value) is int and 0 <= value <= finding.FAR_M for value in (rank, distance_m)
        ):
            raise ValueError("out of range")
    except (ValueError, TypeError, AttributeError) as error:
        raise invalid("query.cursor", "This is no cursor of this list.") from error
    return place


@router.get("/listings/mine")
async def list_own(
    actor: CurrentActor,
    pool: Database,
    organisation_id: UUID | None = None,
    status: ListingStatus | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: UUID | None = None,
) -> ListingPage:
    """One's own listings, open and closed, the newest first; an organisation's for a steward."""
    owner_id = organisation_id or service.member_id_of(actor)
    if owner_id is None:
        return ListingPage(items=[], next=None)
    async with pool.acquire() as conn:
        listings = await store.list_of_owner(
            conn, owner_id, status=status, before=cursor, limit=limit + 1
        )
    page = [listing for listing in listings[:limit] if acts_for_owner(actor, listing)]
    return ListingPage(
        items=[view_listing(listing) for listing in page],
        next=str(page[-1].id) if page and len(listings) > limit else None,
    )


@router.get("/listings/{listing_id}")
async def get_listing(listing_id: UUID, actor: CurrentActor, pool: Database) -> ListingView:
    """A listing, for those who may see it; for all others there is none."""
    async with pool.acquire() as conn:
        return view_listing(await visible_listing(conn, listing_id, actor))


async def visible_listing(conn: Conn, listing_id: UUID, actor: Actor) -> Listing:
    listing = await store.find_listing(conn, listing_id)
    if listing is None or not may_see(actor, listing):
        raise not_found("listing")
    return listing


@router.get("/listings/{listing_id}/matches")
async def list_matches_of(
    listing_id: UUID, actor: CurrentActor, pool: Database, clock: TheClock
) -> MatchList:
    """What answers one's own listing, the best first, each with all its reasons."""
    async with pool.acquire() as conn:
        listing = await visible_listing(conn, listing_id, actor)
        if not acts_for_owner(actor, listing):
            raise not_found("listing")
        viewer = finding.Viewer(actor.id, listing.city_id)
        matches = await service.matches_of(conn, listing_id, viewer, clock())
    return MatchList(items=[view_match(listing_id, found) for found in matches])


@router.get("/matches")
async def list_matches(actor: CurrentActor, pool: Database, clock: TheClock) -> MatchList:
    """What answers one's own open listings (the newest of them), the best first."""
    member_id = service.member_id_of(actor)
    if member_id is None:
        return MatchList(items=[])
    now = clock()
    async with pool.acquire() as conn:
        own = await store.list_of_owner(
            conn, member_id, status="open", before=None, limit=OWN_LISTINGS_MATCHED_MAX
        )
        by_listing = {
            listing.id: await service.matches_of(
                conn, listing.id, finding.Viewer(actor.id, listing.city_id), now
            )
            for listing in own
        }
    return MatchList(items=[view_match(ours, found) for ours, found in strongest(by_listing)])
