"""What happens to listings: lock, decide, save, tell."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from common import outbox
from common.db import Conn
from timebank import events, notices
from timebank import store as ledger_store
from timebank.board.exchanges import endings
from timebank.board.listings import domain, finding, store
from timebank.board.listings.domain import OPEN_MAX, Listing
from timebank.board.matching import (
    CANDIDATES_MAX,
    TELL_POINTS_MIN,
    TOLD_MAX,
    Match,
    match,
    rank,
)
from timebank.domain import Actor, Rejected

NOT_FOUND = Rejected("not_found", "There is no such listing.")


def member_id_of(actor: Actor) -> UUID | None:
    """The member that an actor is; None: not a person (a service)."""
    try:
        return UUID(actor.id)
    except ValueError:
        return None


async def active_member(conn: Conn, actor: Actor) -> ledger_store.Member | Rejected:
    """The member who asks, as the time bank knows them."""
    member_id = member_id_of(actor)
    member = await ledger_store.find_member(conn, member_id) if member_id else None
    if member is None or member.status != "active":
        return Rejected("forbidden", "Only an active member of a city takes part in exchanges.")
    return member


async def publish(
    conn: Conn, draft: Listing, actor: Actor, now: datetime, *, organisation: bool
) -> Listing | Rejected:
    """Open a listing; its owner is who asks, or the organisation that a steward names.

    `draft.owner_id` and `draft.city_id` are read for an organisation only.
    """
    if organisation:
        if not actor.steward or actor.city_id is None:
            return Rejected("forbidden", "Only a steward of the city lists for an organisation.")
        account = await ledger_store.find_organisation_account(conn, draft.owner_id, actor.city_id)
        if account is None:
            return Rejected(
                "unknown_organisation",
                "This organisation has no account in the city.",
                field="body.organisation_id",
            )
        listing = replace(draft, owner_kind="organisation", city_id=actor.city_id)
    else:
        member = await active_member(conn, actor)
        if isinstance(member, Rejected):
            return member
        listing = replace(
            draft, owner_kind="member", owner_id=member.member_id, city_id=member.city_id
        )
    today = await ledger_store.city_today(conn, listing.city_id, now)
    refused = domain.check_terms(listing, today) or await check_place(conn, listing)
    if refused:
        return refused
    if (full := await check_count(conn, listing)) is not None:
        return full
    if not await store.save_listing(conn, listing):
        return Rejected("listing_id_reused", "Another listing has this listing_id.")
    await tell(conn, listing, now)
    await tell_matches(conn, listing, now)
    return listing


async def check_count(conn: Conn, listing: Listing) -> Rejected | None:
    await store.lock_owner(conn, listing.owner_id)
    if await store.count_open(conn, listing.owner_id) >= OPEN_MAX:
        return Rejected("too_many_listings", f"At most {OPEN_MAX} listings are open at a time.")
    return None


async def check_place(conn: Conn, listing: Listing) -> Rejected | None:
    if listing.place_id is not None and not await store.has_place(conn, listing.place_id):
        return Rejected("unknown_place", "There is no such place.", field="body.place_id")
    return None


async def change(
    conn: Conn, listing_id: UUID, changes: Mapping[str, Any], actor: Actor, now: datetime
) -> Listing | Rejected:
    """Give a listing other words or terms, by the names of its attributes."""
    listing = await store.lock_listing(conn, listing_id)
    if listing is None:
        return NOT_FOUND
    today = await ledger_store.city_today(conn, listing.city_id, now)
    changed = domain.change(listing, changes, actor, today)
    if isinstance(changed, Rejected) or changed == listing:
        return changed
    return await check_place(conn, changed) or await save(conn, changed, now)


async def close(conn: Conn, listing_id: UUID, actor: Actor, now: datetime) -> Listing | Rejected:
    """Close a listing; who waits for an answer is declined. What was agreed stays agreed."""
    listing = await store.lock_listing(conn, listing_id)
    if listing is None:
        return NOT_FOUND
    closed = domain.close(listing, actor)
    if isinstance(closed, Rejected):
        return closed
    await endings.decline_waiting(conn, closed.id, now)
    return await save(conn, closed, now)


async def reopen(conn: Conn, listing_id: UUID, actor: Actor, now: datetime) -> Listing | Rejected:
    found = await store.find_listing(conn, listing_id)
    if found is None:
        return NOT_FOUND
    # The owner's lock comes before the listing's, as when somebody asks for one.
    await store.lock_owner(conn, found.owner_id)
    listing = await store.lock_listing(conn, listing_id)
    if listing is None:
        return NOT_FOUND
    today = await ledger_store.city_today(conn, listing.city_id, now)
    opened = domain.reopen(listing, actor, today)
    if isinstance(opened, Rejected):
        return opened
    return await check_count(conn, opened) or await save(conn, opened, now)


async def save(conn: Conn, listing: Listing, now: datetime) -> Listing:
    await store.save_listing(conn, listing)
    await tell(conn, listing, now)
    return listing


async def tell(conn: Conn, listing: Listing, now: datetime) -> None:
    await outbox.add(
        conn,
        topic=events.LISTINGS,
        key=str(listing.id),
        type=events.LISTING_CHANGED,
        data=events.listing_changed(listing),
        now=now,
    )


async def expire(conn: Conn, listing_id: UUID, now: datetime) -> bool:
    """Close a listing whose last day is past. False when it is not, or is closed."""
    listing = await store.lock_listing(conn, listing_id)
    if listing is None or listing.status != "open" or listing.available_until is None:
        return False
    if listing.available_until >= await ledger_store.city_today(conn, listing.city_id, now):
        return False
    await endings.decline_waiting(conn, listing.id, now)
    await save(conn, domain.closed(listing, "expired"), now)
    return True


# ── Matching ────────────────────────────────────────────────────────────────────────────────────


async def matches_of(
    conn: Conn, listing_id: UUID, viewer: finding.Viewer, now: datetime
) -> list[Match]:
    """What answers an open listing, the best first, among the first CANDIDATES_MAX compared."""
    ours = await finding.find_candidate(conn, listing_id)
    if ours is None or ours.listing.status != "open":
        return []
    candidates = await finding.list_candidates(conn, ours, viewer, now, CANDIDATES_MAX)
    found = (match(ours.listing, ours.stems, item.listing, item.stems) for item in candidates)
    return rank(item for item in found if item is not None)


async def tell_matches(conn: Conn, listing: Listing, now: datetime) -> None:
    """Tell the members whose own listings a new one answers best, at most TOLD_MAX of them."""
    viewer = finding.Viewer(str(listing.owner_id), listing.city_id)
    matches = await matches_of(conn, listing.id, viewer, now)
    told: set[UUID] = set()
    for found in matches:
        theirs = found.listing
        if len(told) == TOLD_MAX or found.points < TELL_POINTS_MIN:
            return
        if theirs.owner_kind != "member" or theirs.owner_id in told:
            continue
        told.add(theirs.owner_id)
        await notices.tell(
            conn,
            member_id=theirs.owner_id,
            kind="listing.match",
            subject={"listing_id": listing.id, "your_listing_id": theirs.id},
            now=now,
        )
