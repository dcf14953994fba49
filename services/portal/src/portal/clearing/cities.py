"""What stewards agree with other cities: the agreements, their limits, and taking back."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.fields import Slug
from common.ids import new_id
from portal.clearing import calls
from portal.clearing.calls import Agreement, Position, Use
from portal.forms import Form, as_minutes_or_none, as_uuid, once_of
from portal.network import Refused, Unavailable
from portal.people import names_of
from portal.session import Session
from portal.visit import CurrentVisit, Visit, city_name, next_link

router = APIRouter()

PAGE = 20
PERMILLE_MAX = 500
SOFT_PERCENT = "80"
TERMS = ("once", "peer", "limit_out", "limit_in", "soft", "levy_out", "levy_in")
ACCEPTANCE = ("once", "agreement_id", "peer_key", "levy_out", "levy_in", "compared")


@dataclass(frozen=True, slots=True)
class Bond:
    """An agreement, and where the two cities stand, as far as that is known."""

    agreement: Agreement
    position: Position | None

    @property
    def uses(self) -> list[tuple[str, Use]]:
        """How much of each limit is used: the key of its text, and the bar."""
        agreement, position = self.agreement, self.position
        if position is None:
            return []
        given = agreement.used(position.out_minutes, agreement.limit_out_minutes)
        received = agreement.used(position.in_minutes, agreement.limit_in_minutes)
        return [("agreement.used_out", given), ("agreement.used_in", received)]


def steward_of(visit: Visit) -> tuple[Session, str]:
    """The visitor, and the city that they are a steward of. Raises Refused for anybody else."""
    member = visit.member()
    if not member.has("steward") or member.city_id is None:
        raise Refused("timebank", 403, "forbidden", "not a steward")
    return member, member.city_id


def as_permille(text: str) -> int | None:
    """`2`, `2,5 %`: a share in percent, with one decimal; nothing typed is none."""
    if not text:
        return 0
    found = re.fullmatch(r"([0-9]{1,2})(?:[.,]([0-9]))?\s?%?", text, re.ASCII)
    permille = int(found.group(1)) * 10 + int(found.group(2) or 0) if found else None
    return permille if permille is not None and permille <= PERMILLE_MAX else None


def as_percent(text: str) -> int | None:
    """`80` or `80 %`, from 1 to 100."""
    found = re.fullmatch(r"([0-9]{1,3})\s?%?", text, re.ASCII)
    return int(found.group(1)) if found and 1 <= int(found.group(1)) <= 100 else None


# --- all agreements


@router.get("/cities")
async def all_agreements(visit: CurrentVisit) -> Response:
    """The agreements of the steward's city. Who watches over all cities goes to those."""
    if visit.member().has("auditor", "federation_admin") and not visit.member().has("steward"):
        return visit.redirect("/cities/positions")
    member, city = steward_of(visit)
    network, token = visit.network, member.access_token
    agreements, positions = await asyncio.gather(
        calls.agreements(network, token, city), visit.part(calls.positions(network, token, city))
    )
    return visit.page("clearing/cities.html", bonds=bonds(agreements, positions), known=positions)


def bonds(agreements: Iterable[Agreement], positions: list[Position] | None) -> list[Bond]:
    """What waits for the stewards first, what has ended last."""
    by_peer = {position.peer_city_id: position for position in positions or []}
    found = [Bond(one, by_peer.get(one.peer_city_id)) for one in agreements]
    return sorted(found, key=lambda b: (not b.agreement.to_accept, b.agreement.state == "ended"))


# --- proposing


@router.get("/cities/propose")
async def propose_page(visit: CurrentVisit) -> Response:
    steward_of(visit)
    return await show_terms(visit, Form({"once": str(new_id()), "soft": SOFT_PERCENT}))


async def show_terms(visit: Visit, form: Form, wrong: Any = None, status: int = 200) -> Response:
    """The form. Without identity the other city's name is typed."""
    member, city = steward_of(visit)
    found = await visit.part(calls.cities(visit.network, member.access_token))
    others = [(one.city_id, one.name) for one in found or [] if one.city_id != city]
    return visit.page("clearing/propose.html", status, form=form, cities=others, wrong=wrong)


@router.post("/cities/propose")
async def propose(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member, city = steward_of(visit)
    form = Form.of(fields, TERMS)
    peer = form.read("peer", as_slug, "agreement.which_city")
    limit_out = form.read("limit_out", as_minutes_or_none, "form.bad_minutes")
    limit_in = form.read("limit_in", as_minutes_or_none, "form.bad_minutes")
    soft = form.read("soft", as_percent, "agreement.bad_percent")
    levy_out = form.read("levy_out", as_permille, "agreement.bad_levy")
    levy_in = form.read("levy_in", as_permille, "agreement.bad_levy")
    if peer == city:
        form.wrong("peer", "agreement.own_city")
    if form.errors:
        return await show_terms(visit, form, visit.t("form.check"), 422)
    body = {
        "agreement_id": once_of(fields),
        "city_id": city,
        "peer_city_id": peer,
        "limit_out_minutes": limit_out,
        "limit_in_minutes": limit_in,
        "soft_percent": soft,
        "levy_out_permille": levy_out,
        "levy_in_permille": levy_in,
    }
    try:
        await calls.propose(visit.network, member.access_token, body)
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        return await show_terms(visit, form, visit.words(refused), 422)
    except Unavailable:
        return await show_terms(visit, form, visit.t("unavailable.unsure_agreement"), 503)
    return visit.redirect(f"/cities/with/{peer}")


def as_slug(text: str) -> str | None:
    """A city's name in addresses, as in `saint-denis`; typed with capitals it is the same."""
    text = text.lower()
    return text if re.fullmatch(r"[a-z][a-z0-9-]{1,39}", text) else None


# --- one agreement


@router.get("/cities/with/{peer}")
async def one_agreement(visit: CurrentVisit, peer: Slug) -> Response:
    return await show_one(visit, peer, Form({"once": str(new_id())}))


async def show_one(
    visit: Visit, peer: str, form: Form, wrong: Any = None, status: int = 200
) -> Response:
    member, city = steward_of(visit)
    network, token = visit.network, member.access_token
    agreement, positions, changes = await asyncio.gather(
        agreement_with(visit, peer),
        visit.part(calls.positions(network, token, city)),
        visit.part(calls.history(network, token, city, peer)),
    )
    (bond,) = bonds([agreement], positions)
    authors = (as_uuid(change.changed_by) for change in changes or [])
    names = await names_of(visit, authors)

    def author(changed_by: str) -> Any:
        return names.of(changed_by) if as_uuid(changed_by) else city_name(changed_by)

    return visit.page(
        "clearing/city.html",
        status,
        bond=bond,
        known=positions,
        changes=None if changes is None else changes[::-1],
        author=author,
        form=form,
        wrong=wrong,
        once=str(new_id()),
    )


async def agreement_with(visit: Visit, peer: str) -> Agreement:
    """Raises as calls do, and Refused when there is none."""
    member, city = steward_of(visit)
    found = await calls.agreements(visit.network, member.access_token, city)
    for agreement in found:
        if agreement.peer_city_id == peer:
            return agreement
    raise Refused("timebank", 404, "not_found", "no agreement")


@router.post("/cities/with/{peer}/accept")
async def accept(visit: CurrentVisit, peer: Slug) -> Response:
    """Accept what was on the page, and nothing that was proposed since."""
    fields = await visit.form()
    member, city = steward_of(visit)
    form = Form.of(fields, ACCEPTANCE)
    levy_out = form.read("levy_out", as_permille, "agreement.bad_levy")
    levy_in = form.read("levy_in", as_permille, "agreement.bad_levy")
    if not form["compared"]:
        form.wrong("compared", "agreement.not_compared")
    if form.errors:
        return await show_one(visit, peer, form, visit.t("form.check"), 422)
    agreement = await agreement_with(visit, peer)
    if (str(agreement.agreement_id), agreement.peer_key) != (
        form["agreement_id"],
        form["peer_key"],
    ):
        form.values["compared"] = ""
        return await show_one(visit, peer, form, visit.t("agreement.changed_since"), 422)
    body = {"levy_out_permille": levy_out, "levy_in_permille": levy_in}
    return await step(visit, member, city, peer, "accept", once_of(fields), body)


@router.post("/cities/with/{peer}/{what}")
async def change(
    visit: CurrentVisit, peer: Slug, what: Literal["suspend", "resume", "end"]
) -> Response:
    fields = await visit.form()
    member, city = steward_of(visit)
    return await step(visit, member, city, peer, what, once_of(fields))


async def step(
    visit: Visit,
    member: Session,
    city: str,
    peer: str,
    what: Literal["accept", "suspend", "resume", "end"],
    key: str,
    body: dict[str, Any] | None = None,
) -> Response:
    back = f"/cities/with/{peer}"
    try:
        await calls.step(visit.network, member.access_token, city, peer, what, key, body)
    except Refused as refused:
        return visit.refused(refused, back)
    return visit.redirect(back)


# --- what crossed, and taking it back


@router.get("/cities/with/{peer}/transfers")
async def transfers(
    visit: CurrentVisit,
    peer: Slug,
    side: Literal["given", "received"] = "given",
    cursor: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """What the members of the city gave to another, or received from it."""
    member, city = steward_of(visit)
    ask = calls.sent if side == "given" else calls.received
    page = await ask(
        visit.network, member.access_token, city=city, peer=peer, limit=PAGE, cursor=cursor
    )
    path = f"/cities/with/{peer}/transfers"
    return visit.page(
        "clearing/transfers.html",
        peer=peer,
        items=[(one, str(new_id())) for one in page.items],
        names=await names_of(visit, (one.payee for one in page.items)),
        side=side,
        next_link=next_link(path, page.next, side=side) if page.next else None,
    )


@router.post("/cities/with/{peer}/transfers/{transfer_id}/take-back")
async def take_back(visit: CurrentVisit, peer: Slug, transfer_id: UUID) -> Response:
    """Agree that a transfer be taken back, and tell what that has led to."""
    fields = await visit.form()
    member, _ = steward_of(visit)
    back = f"/cities/with/{peer}/transfers"
    try:
        reversal = await calls.take_back(
            visit.network, member.access_token, transfer_id, once_of(fields)
        )
    except Refused as refused:
        return visit.refused(refused, back)
    return visit.page("clearing/taken_back.html", peer=peer, reversal=reversal)
