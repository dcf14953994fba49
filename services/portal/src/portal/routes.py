"""The pages: read the address or the form, ask the services, show a template."""

import asyncio
import re
from contextlib import suppress
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.ids import new_id
from portal.i18n import LANGUAGES
from portal.network import Gift, Refused, Unavailable
from portal.views import (
    Account,
    Card,
    Page,
    Place,
    Posting,
    Presence,
    State,
    state_of,
    state_with_change,
    week_of,
)
from portal.visit import CurrentVisit, Visit, local_path

router = APIRouter()

MINUTES_MAX = 2**53 - 1
MEMO_CHARS_MAX = 200
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


def next_link(path: str, cursor: str, **asked: Any) -> str:
    kept = {name: "true" if value is True else value for name, value in asked.items() if value}
    return f"{path}?" + urlencode({**kept, "cursor": cursor})


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


# --- time


@router.get("/time")
async def time_page(visit: CurrentVisit) -> Response:
    return await show_time(visit, empty_gift(), {}, None)


def empty_gift() -> dict[str, str]:
    return {"transfer_id": str(new_id()), "to_account": "", "minutes": "", "memo": ""}


async def show_time(
    visit: Visit, form: dict[str, str], errors: dict[str, str], wrong: Any, status: int = 200
) -> Response:
    """The balance, the last movements and the form; without the time bank, a notice."""
    account: Account | None = None
    postings: list[Posting] | None = None
    available = True
    member = visit.member()
    try:
        account = own_account(await visit.network.accounts(member.access_token, member.member_id))
        if account:
            postings = await visit.network.postings(member.access_token, account.account_id)
    except Unavailable:
        available = account is not None
        status = 503 if account is None and status == 200 else status
    return visit.page(
        "time.html",
        status,
        account=account,
        postings=postings,
        available=available,
        form=form,
        errors={name: errors.get(name) for name in form},
        wrong=wrong,
    )


def own_account(accounts: list[Account]) -> Account | None:
    """A member has one account in the book of their city."""
    return next((a for a in accounts if a.kind == "member" and a.status == "open"), None)


@router.post("/time")
async def give_time(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = {name: fields.get(name, "") for name in empty_gift()}
    gift, errors = read_gift(form, fields.get("from_account", ""))
    if gift is None:
        return await show_time(visit, form, errors, visit.t("time.not_sent"), 422)
    try:
        await visit.network.give(member.access_token, gift)
    except Refused as refused:
        if refused.status == 401:
            raise
        key = f"problem.{refused.code}"
        if refused.status == 404:
            key = "problem.account_not_found"
        wrong = visit.t(key if visit.t.knows(key) else "problem.other")
        # What was refused is not what will be sent next: it gets an id of its own.
        form["transfer_id"] = str(new_id())
        return await show_time(visit, form, {}, wrong, 422)
    except Unavailable:
        # Perhaps it was done. The same id goes back into the form, so that sending again is safe.
        return await show_time(visit, form, {}, visit.t("unavailable.unsure"), 503)
    return visit.redirect(f"/time/given/{gift.transfer_id}")


def read_gift(form: dict[str, str], from_account: str) -> tuple[Gift | None, dict[str, str]]:
    """The form as a gift, or what is wrong with which field, as keys of the catalogue."""
    errors: dict[str, str] = {}
    source = as_uuid(from_account)
    transfer_id = as_uuid(form["transfer_id"])
    target = as_uuid(form["to_account"])
    if target is None:
        errors["to_account"] = "time.bad_account"
    elif target == source:
        errors["to_account"] = "problem.same_account"
    # Plain digits only: int() also takes 1_000, +5 and the digits of other scripts.
    digits = re.fullmatch(r"[0-9]{1,16}", form["minutes"])
    minutes = int(digits.group()) if digits else 0
    if not 1 <= minutes <= MINUTES_MAX:
        errors["minutes"] = "time.bad_minutes"
    if len(form["memo"]) > MEMO_CHARS_MAX:
        errors["memo"] = "time.bad_memo"
    if errors or source is None or transfer_id is None or target is None:
        return None, errors
    return Gift(transfer_id, source, target, minutes, form["memo"]), {}


@router.get("/time/given/{transfer_id}")
async def given(visit: CurrentVisit, transfer_id: UUID) -> Response:
    """What the book says of the transfer, seen from the member's own account."""
    member = visit.member()
    transfer, accounts = await asyncio.gather(
        visit.network.transfer(member.access_token, transfer_id),
        visit.network.accounts(member.access_token, member.member_id),
    )
    own = {account.account_id for account in accounts}
    minutes = sum(leg.minutes for leg in transfer.postings if leg.account_id in own)
    return visit.page("sent.html", minutes=minutes)


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


def as_uuid(text: str) -> UUID | None:
    """A UUID in its usual form, as people paste it: spaces around, any case."""
    text = text.strip().lower()
    return UUID(text) if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) else None
