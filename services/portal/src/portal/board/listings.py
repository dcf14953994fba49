"""A listing: reading it, making it, changing it, closing it, and asking for it."""

import asyncio
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from common.ids import new_id
from portal.board import calls
from portal.board.listing_form import ASK_FIELDS, FIELDS, form_of, read_ask, read_listing
from portal.contributions.log_form import places_here
from portal.forms import Form, once_of
from portal.network import Refused, Unavailable
from portal.people import names_of, today
from portal.views import Place
from portal.visit import CurrentVisit, Visit, next_link

router = APIRouter()

PAGE = 20


@router.get("/board/mine")
async def mine(visit: CurrentVisit, cursor: str = "") -> Response:
    member = visit.member()
    page = await calls.own(visit.network, member.access_token, PAGE, cursor[:500])
    return visit.page(
        "board/mine.html",
        items=page.items,
        next_link=page.next and next_link("/board/mine", page.next),
    )


# --- making and changing


@router.get("/board/new")
async def new(
    visit: CurrentVisit,
    kind: Literal["offer", "need"] = "offer",
    what: Literal["service", "lend", "surplus"] = "service",
) -> Response:
    visit.member()
    values = {
        "once": str(new_id()),
        "kind": kind,
        "what": what,
        "category": "other",
        "price": "0",
        "visibility": "city",
    }
    return await show_form(visit, Form(values), None)


async def show_form(
    visit: Visit,
    form: Form,
    listing: calls.Listing | None,
    *,
    wrong: Any = None,
    status: int = 200,
) -> Response:
    return visit.page(
        "board/form.html",
        status,
        form=form,
        listing=listing,
        wrong=wrong,
        categories=calls.CATEGORIES,
        places=await places_here(visit),
        today=await today(visit),
        weekdays=weekdays(visit),
        one_a_day=listing is None or has_one_slot_a_day(listing),
    )


def weekdays(visit: Visit) -> list[str]:
    return [visit.t.hours_word(day) for day in ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")]


def has_one_slot_a_day(listing: calls.Listing) -> bool:
    """Whether the form can show all of its weekly hours; else it leaves them as they are."""
    days = [slot.weekday for slot in listing.schedule.slots]
    return len(set(days)) == len(days)


@router.post("/board/new")
async def publish(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, FIELDS)
    try:
        body = await read_listing(visit, form, None)
    except Unavailable:
        wrong = visit.t("unavailable.places")
        return await show_form(visit, form, None, wrong=wrong, status=503)
    if body is None:
        return await show_form(visit, form, None, wrong=visit.t("form.check"), status=422)
    listing_id = once_of(fields)
    try:
        await calls.publish(visit.network, member.access_token, {"listing_id": listing_id, **body})
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        return await show_form(visit, form, None, wrong=visit.words(refused), status=422)
    except Unavailable:
        wrong = visit.t("unavailable.saved")
        return await show_form(visit, form, None, wrong=wrong, status=503)
    return visit.redirect(f"/board/{listing_id}")


@router.get("/board/{listing_id}/edit")
async def edit_page(visit: CurrentVisit, listing_id: UUID) -> Response:
    member = visit.member()
    listing = await calls.get(visit.network, member.access_token, listing_id)
    place: Place | None = None
    if listing.place_id:
        place = await visit.part(visit.network.place(listing.place_id))
    return await show_form(visit, form_of(listing, place.name if place else ""), listing)


@router.post("/board/{listing_id}/edit")
async def edit(visit: CurrentVisit, listing_id: UUID) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, FIELDS)
    listing = await calls.get(visit.network, member.access_token, listing_id)
    # These two stay what they were.
    form.values |= {"kind": listing.kind, "what": listing.what}
    try:
        body = await read_listing(visit, form, listing)
    except Unavailable:
        wrong = visit.t("unavailable.places")
        return await show_form(visit, form, listing, wrong=wrong, status=503)
    if body is None:
        return await show_form(visit, form, listing, wrong=visit.t("form.check"), status=422)
    try:
        await calls.change(visit.network, member.access_token, listing_id, body, once_of(fields))
    except Refused as refused:
        if refused.status in (401, 404):
            raise
        form.values["once"] = str(new_id())
        return await show_form(visit, form, listing, wrong=visit.words(refused), status=422)
    return visit.redirect(f"/board/{listing_id}")


@router.post("/board/{listing_id}/{what}")
async def open_or_close(
    visit: CurrentVisit, listing_id: UUID, what: Literal["close", "reopen"]
) -> Response:
    fields = await visit.form()
    member = visit.member()
    try:
        await calls.open_or_close(
            visit.network, member.access_token, listing_id, what, once_of(fields)
        )
    except Refused as refused:
        return visit.refused(refused, f"/board/{listing_id}")
    return visit.redirect(f"/board/{listing_id}")


# --- reading and asking


@router.get("/board/{listing_id}")
async def one(visit: CurrentVisit, listing_id: UUID) -> Response:
    return await show(visit, listing_id, Form({"once": str(new_id()), "quantity": "1"}))


async def show(
    visit: Visit, listing_id: UUID, form: Form, *, wrong: Any = None, status: int = 200
) -> Response:
    """The listing; for its owner what was asked and what answers it, else the form to ask."""
    member = visit.member()
    token = member.access_token
    listing = await calls.get(visit.network, token, listing_id)
    own = str(listing.owner_id) == member.member_id or (
        listing.owner_kind == "organisation"
        and member.has("steward")
        and member.city_id == listing.city_id
    )
    asked, found, place = await asyncio.gather(
        visit.part(calls.exchanges(visit.network, token, listing_id=listing_id, limit=PAGE)),
        visit.part(calls.matches_of(visit.network, token, listing_id) if own else nothing()),
        visit.part(visit.network.place(listing.place_id) if listing.place_id else nothing()),
    )
    people = [person for item in (asked.items if asked else []) for person in item.people]
    people += [match.listing.owner_id for match in found or []]
    return visit.page(
        "board/listing.html",
        status,
        it=listing,
        own=own,
        may_close=own or (member.has("steward") and member.city_id == listing.city_id),
        asked=asked,
        matches=found,
        place=place,
        names=await names_of(visit, [listing.owner, *people]),
        form=form,
        wrong=wrong,
        today=await today(visit),
        weekdays=weekdays(visit),
        once=str(new_id()),
    )


async def nothing() -> Any:
    return None


@router.post("/board/{listing_id}")
async def ask(visit: CurrentVisit, listing_id: UUID) -> Response:
    """Ask for an offer, or propose oneself for a need."""
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ASK_FIELDS)
    listing = await calls.get(visit.network, member.access_token, listing_id)
    body = read_ask(form, listing, await today(visit))
    if body is None:
        return await show(visit, listing_id, form, wrong=visit.t("form.check"), status=422)
    exchange_id = once_of(fields)
    try:
        await calls.ask(
            visit.network,
            member.access_token,
            listing_id,
            {"exchange_id": exchange_id, **body},
        )
    except Refused as refused:
        if refused.status in (401, 404):
            raise
        form.values["once"] = str(new_id())
        return await show(visit, listing_id, form, wrong=visit.words(refused), status=422)
    except Unavailable:
        wrong = visit.t("unavailable.saved")
        return visit.message(503, visit.t("error.unavailable_title"), wrong, f"/board/{listing_id}")
    return visit.redirect(f"/board/exchanges/{exchange_id}")
