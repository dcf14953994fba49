"""The pages of passes: one to put a pass on this phone, one that shows it, one for guests."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from importlib.resources import files
from typing import Annotated
from uuid import UUID

import segno
from fastapi import APIRouter, Query
from fastapi.responses import Response
from markupsafe import Markup

from common.ids import new_id
from portal.forms import Form, as_day, as_uuid, once_of
from portal.i18n import zone
from portal.network import Refused
from portal.passes import calls
from portal.views import Place
from portal.visit import CurrentVisit, Visit, next_link

router = APIRouter()

# What these pages may do more than all others: run our own scripts, and ask our own server.
SCRIPTED = (
    "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; "
    "worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
LABEL_CHARS_MAX = 80
NAME_CHARS_MAX = 80
DAYS = ("1", "2", "7", "14")
PLACES_SHOWN = 100
# What one is to a place where one invites, and where one sees all guests. A keyholder is a visitor.
TEAM = ("staff", "warden")
HOSTS = ("resident", *TEAM)
AT_ONCE = 8
GUESTS_PAGE = 25


def scripted(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = SCRIPTED
    return response


# --- the phone


@router.get("/pass")
async def to_the_pass(visit: CurrentVisit) -> Response:
    return visit.redirect("/pass/")


@router.get("/pass/")
async def show(visit: CurrentVisit) -> Response:
    """The pass on this phone, whoever is signed in: only the phone knows which it is."""
    return scripted(visit.page("passes/show.html"))


@router.get("/pass/worker.js")
async def worker() -> Response:
    """From here and not /static, so that it answers for /pass/ and for nothing else."""
    content = files("portal").joinpath("static", "pass-worker.js").read_bytes()
    headers = {"Cache-Control": "no-cache"}
    return scripted(Response(content, headers=headers, media_type="text/javascript"))


@router.get("/co-pass/phone")
async def phone_page(visit: CurrentVisit) -> Response:
    visit.member()
    form = Form({"label": "", "password": "", "replaces": "", "once": str(new_id())})
    return await phone_form(visit, form)


async def phone_form(
    visit: Visit, form: Form, wrong: str | None = None, status: int = 200
) -> Response:
    member = visit.member()
    cards = await visit.part(visit.network.cards(member.access_token, member.member_id))
    phones = [
        (str(card.card_id), f"{card.label} …{card.uid_tail}")
        for card in cards or []
        if card.type == "pass" and card.status != "replaced"
    ]
    form.values["password"] = ""
    return scripted(visit.page("passes/phone.html", status, form=form, phones=phones, wrong=wrong))


@router.post("/co-pass/phone")
async def put_on_phone(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ("label", "password", "replaces", "public_key", "once"))
    card_id = UUID(once_of(fields))
    form.text("label", LABEL_CHARS_MAX)
    if not form["label"]:
        form.wrong("label", "phone.no_label")
    if not form["password"]:
        form.wrong("password", "erase.no_password")
    replaces = form.optional("replaces", as_uuid, "form.choose")
    if form.errors:
        form.values["once"] = str(new_id())
        return await phone_form(visit, form, visit.t("error.not_done"), 422)
    try:
        await calls.enrol(
            visit.network,
            member.access_token,
            card_id=card_id,
            public_key=form["public_key"],
            label=form["label"],
            password=form["password"],
            replaces=replaces,
        )
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        status = 429 if refused.status == 429 else 422
        return await phone_form(visit, form, visit.words(refused), status)
    # What follows # stays in the browser: it tells the page which of its keys the city took.
    return visit.redirect(f"/pass/#{card_id}")


# --- guests


@dataclass(frozen=True, slots=True)
class OwnPlaces:
    """Where the member may invite to, and where they may see everybody's guests. `is_all`: whether
    the register could be asked."""

    invites: list[Place]
    looks_after: list[Place]
    is_all: bool


async def own_places(visit: Visit) -> OwnPlaces:
    member = visit.member()
    me = await visit.network.me(member.access_token)
    limit = asyncio.Semaphore(AT_ONCE)

    async def named(place_id: UUID) -> Place | None:
        async with limit:
            return await visit.part(visit.network.place(place_id))

    hosted = [place_id for place_id, relation in me.places.items() if relation in HOSTS]
    noted = await asyncio.gather(*(named(place_id) for place_id in hosted[:PLACES_SHOWN]))
    found = [place for place in noted if place]
    staffed = [place for place in found if me.places.get(place.place_id) in TEAM]
    is_all = len(found) == len(noted)
    if member.has("steward") and member.city_id:
        page = await visit.part(visit.network.places(city=member.city_id, limit=PLACES_SHOWN))
        known = {place.place_id for place in found}
        found += [place for place in page.items if place.place_id not in known] if page else []
        staffed, is_all = found, is_all and page is not None
    return OwnPlaces(found, staffed, is_all)


@router.get("/co-pass/guests")
async def guests_page(
    visit: CurrentVisit,
    place: UUID | None = None,
    cursor: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    today = visit.now.astimezone(zone("Europe/Paris")).date().isoformat()
    form = Form({"name": "", "place": "", "starts_on": today, "days": "1", "once": str(new_id())})
    return await guests_shown(visit, form, place_id=place, cursor=cursor)


async def guests_shown(
    visit: Visit,
    form: Form,
    *,
    place_id: UUID | None = None,
    cursor: str = "",
    wrong: str | None = None,
    status: int = 200,
) -> Response:
    token = visit.member().access_token
    own = await own_places(visit)
    place = next((one for one in own.looks_after if one.place_id == place_id), None)
    if place_id is not None and place is None:
        raise Refused("identity", 404, "not_found", "not a place of theirs")
    page = await visit.part(
        calls.guests(visit.network, token, place_id=place_id, cursor=cursor, limit=GUESTS_PAGE)
    )
    asked = {"place": str(place_id)} if place_id else {}
    shown = place or next(iter(own.invites), None)
    return visit.page(
        "passes/guests.html",
        status,
        form=form,
        place=place,
        places=options(own.invites),
        is_all=own.is_all,
        looked_after=[] if place else options(own.looks_after),
        guests=page.items if page else None,
        next_link=next_link("/co-pass/guests", page.next, **asked) if page and page.next else None,
        once=str(new_id()),
        now=visit.now,
        zone=shown.timezone if shown else "Europe/Paris",
        wrong=wrong,
        said=visit.t("guests.revoked_now") if "revoked" in visit.request.query_params else None,
    )


def options(places: list[Place]) -> list[tuple[str, str]]:
    return [(str(place.place_id), place.name) for place in places]


@router.post("/co-pass/guests")
async def invite(visit: CurrentVisit) -> Response:
    """The paper itself, to be printed or sent: what its QR says is told this once."""
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ("name", "place", "starts_on", "days", "once"))
    form.text("name", NAME_CHARS_MAX)
    if not form["name"]:
        form.wrong("name", "guests.no_name")
    form.choice("days", DAYS)
    place_id = form.read("place", as_uuid, "form.choose")
    starts_on = form.read("starts_on", as_day, "form.bad_day")
    if form.errors or place_id is None or starts_on is None:
        return await guests_shown(visit, form, wrong=visit.t("error.not_done"), status=422)
    try:
        place = await visit.network.place(place_id)
        here = zone(place.timezone)
        # Whole days by the clock of the place, the last to its end: sent twice it is the same.
        today = visit.now.astimezone(here).date()
        ends = datetime.combine(starts_on + timedelta(days=int(form["days"])), time(), here)
        begins = datetime.combine(starts_on, time(), here) if starts_on > today else None
        guest = await calls.invite(
            visit.network,
            member.access_token,
            card_id=UUID(once_of(fields)),
            name=form["name"],
            place_id=place_id,
            valid_from=begins.astimezone(UTC) if begins else None,
            valid_until=ends.astimezone(UTC),
        )
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        return await guests_shown(visit, form, wrong=visit.words(refused), status=422)
    return visit.page("passes/ticket.html", guest=guest, place=place, qr=qr_of(visit, guest.code))


def qr_of(visit: Visit, code: str) -> Markup:
    """A picture of a code: dark on white, whatever the colours of the page."""
    drawn = segno.make(code, error="m", boost_error=False, micro=False).svg_inline(
        border=4, dark="#000", light="#fff", svgclass="qr", lineclass=None, omitsize=True,
        title=str(visit.t("ticket.qr")),
    )  # fmt: skip
    return Markup(drawn)  # noqa: S704 - of a library, and of texts of ours


@router.post("/co-pass/guests/{card_id}/revoke")
async def revoke(visit: CurrentVisit, card_id: UUID) -> Response:
    fields = await visit.form()
    member = visit.member()
    back = as_uuid(fields.get("place", ""))
    try:
        await calls.revoke(visit.network, member.access_token, card_id, once_of(fields))
    except Refused as refused:
        return visit.refused(refused, "/co-pass/guests")
    return visit.redirect(
        f"/co-pass/guests?place={back}&revoked" if back else "/co-pass/guests?revoked"
    )
