"""The pages: read the address or the form, ask the services, show a template."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.ids import new_id
from portal.forms import as_uuid
from portal.i18n import LANGUAGES
from portal.network import Refused, Unavailable
from portal.views import (
    Card,
    Page,
    Place,
    Presence,
    State,
    state_of,
    state_with_change,
    week_of,
)
from portal.visit import CurrentVisit, Visit, local_path, next_link

router = APIRouter()

INSIDE_PAGE = 25
AT_ONCE = 8
BLOCK_REASONS = ("lost", "stolen", "damaged", "other")

ShortQuery = Annotated[str, Query(max_length=200)]


@router.get("/")
async def home(visit: CurrentVisit) -> Response:
    return visit.page("home.html", overview=await visit.portal.overview.get())


@router.get("/language")
async def language(visit: CurrentVisit, to: str = "", next: str = "/") -> Response:
    if to not in LANGUAGES:
        return visit.redirect("/")
    return visit.choose_language(to, local_path(next))


# --- places


@router.get("/places")
async def places(
    visit: CurrentVisit,
    q: ShortQuery = "",
    city: Annotated[str, Query(max_length=60)] = "",
    open_now: bool = False,
    cursor: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    text = q.replace("\x00", "").strip()
    overview, found = await asyncio.gather(
        visit.portal.overview.get(), find_places(visit, text, city, open_now, cursor)
    )
    page, states = found
    asked = {"text": text, "city": city, "open_now": open_now}
    return visit.page(
        "places.html",
        page=page,
        states=states,
        asked=asked,
        cities=overview.cities if overview else (),
        next_link=page
        and page.next
        and next_link("/places", page.next, q=text, city=city, open_now=open_now),
        status=200 if page else 503,
    )


async def find_places(
    visit: Visit, text: str, city: str, open_now: bool, cursor: str
) -> tuple[Page | None, dict[UUID, State]]:
    """A page of places with how open each is; None for the page when it cannot be had.

    The register lists places without saying which are open, so the open ones of the same search,
    in the same order, are asked for beside them.
    """
    search = partial(visit.network.places, text=text, city=city, cursor=cursor)
    try:
        if open_now:
            page = open_ones = await search(open_now=True)
        else:
            page, open_ones = await asyncio.gather(search(), search(open_now=True))
    except Unavailable:
        return None, {}
    except Refused:  # a cursor, or a city, that does not exist
        return Page(items=[]), {}
    ids = {place.place_id for place in open_ones.items}
    return page, {p.place_id: state_of(visit.t, p, p.place_id in ids) for p in page.items}


@router.get("/places/{place_id}")
async def place_page(visit: CurrentVisit, place_id: UUID) -> Response:
    place, openness = await asyncio.gather(
        visit.network.place(place_id), visit.network.openness(place_id)
    )
    return visit.page(
        "place.html",
        place=place,
        state=state_with_change(visit.t, place, openness, visit.now),
        week=week_of(visit.t, place, visit.now),
    )


# --- in and out


@router.get("/sign-in")
async def sign_in_page(visit: CurrentVisit, next: ShortQuery = "") -> Response:
    if visit.session:
        return visit.redirect(local_path(next, "/co-pass"))
    said = visit.t("sign_in.needed") if next else None
    return visit.page("sign_in.html", next=next, email="", wrong=None, said=said)


@router.post("/sign-in")
async def sign_in(visit: CurrentVisit) -> Response:
    form = await visit.form()
    email, to = form.get("email", ""), form.get("next", "")
    try:
        tokens = await visit.network.sign_in(email, form.get("password", ""), visit.address)
        await visit.start(tokens)
    except Refused as refused:
        too_many = refused.status == 429 or refused.code == "too_many_attempts"
        wrong = visit.t("sign_in.too_many" if too_many else "sign_in.wrong")
        status = 429 if too_many else 422
        return visit.page("sign_in.html", status, next=to, email=email, wrong=wrong, said=None)
    return visit.redirect(local_path(to, "/co-pass"))


@router.post("/sign-out")
async def sign_out(visit: CurrentVisit) -> Response:
    await visit.form()
    if visit.session:
        # Signed out here in any case; there, the refresh token ends by its age.
        with suppress(Unavailable, Refused):
            await visit.network.sign_out(visit.session.refresh_token)
        visit.end()
    return visit.redirect("/")


# --- the co-pass


@router.get("/co-pass")
async def co_pass(visit: CurrentVisit) -> Response:
    member = visit.member()
    cards = await visit.network.cards(member.access_token, member.member_id)
    order = {"active": 0, "blocked": 1, "replaced": 2}
    return visit.page("co_pass.html", cards=sorted(cards, key=lambda card: order[card.status]))


async def own_card(visit: Visit, card_id: UUID) -> Card:
    """The card of the member, or Refused 404."""
    member = visit.member()
    for card in await visit.network.cards(member.access_token, member.member_id):
        if card.card_id == card_id:
            return card
    raise Refused("identity", 404, "not_found", "no such card")


@router.get("/co-pass/{card_id}/block")
async def ask_to_block(visit: CurrentVisit, card_id: UUID) -> Response:
    card = await own_card(visit, card_id)
    if card.status != "active":
        return visit.redirect(f"/co-pass/{card_id}/blocked")
    return visit.page("block.html", card=card, once=str(new_id()))


@router.post("/co-pass/{card_id}/block")
async def block(visit: CurrentVisit, card_id: UUID) -> Response:
    form = await visit.form()
    member = visit.member()
    reason = form.get("reason", "")
    if reason not in BLOCK_REASONS:
        reason = "lost"  # whatever happened, the card must stop
    once = as_uuid(form.get("once", "")) or new_id()
    try:
        await visit.network.block(member.access_token, card_id, reason, str(once))
    except Refused as refused:
        if refused.status != 409:  # blocked or replaced already: the next page says so
            raise
    return visit.redirect(f"/co-pass/{card_id}/blocked")


@router.get("/co-pass/{card_id}/blocked")
async def blocked(visit: CurrentVisit, card_id: UUID) -> Response:
    """What identity says of the card now, not what we hope."""
    return visit.page("blocked.html", card=await own_card(visit, card_id))


# --- for operators


@router.get("/inside")
async def inside(
    visit: CurrentVisit, cursor: Annotated[str, Query(max_length=500)] = ""
) -> Response:
    member = visit.member()
    if not member.may_see_presence() or member.city_id is None:
        raise Refused("access", 403, "forbidden", "not an operator")
    try:
        page = await visit.network.places(city=member.city_id, limit=INSIDE_PAGE, cursor=cursor)
    except Unavailable:
        return visit.page("inside.html", 503, rows=None, available=True, next_link=None)
    limit = asyncio.Semaphore(AT_ONCE)

    async def count(place: Place) -> Presence | None:
        async with limit:
            try:
                return await visit.network.presence(member.access_token, place.place_id)
            except Unavailable:
                return None
            except Refused as refused:
                if refused.status == 401:
                    raise
                return None

    counts = await asyncio.gather(*(count(place) for place in page.items))
    return visit.page(
        "inside.html",
        rows=list(zip(page.items, counts, strict=True)),
        available=not page.items or any(count is not None for count in counts),
        next_link=next_link("/inside", page.next) if page.next else None,
    )
