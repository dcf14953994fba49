"""What stewards decide about netting, and whether two cities tell one story."""

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import AwareDatetime

from common.fields import Slug
from common.ids import new_id
from portal.clearing.cities import steward_of
from portal.forms import once_of
from portal.network import Network, Refused, fit, fit_all
from portal.session import Session
from portal.views import View, one_of
from portal.visit import CurrentVisit, Visit, next_link

router = APIRouter()

PAGE = 10
STATES = ("proposed", "agreed", "posted", "refused", "abandoned", "expired")
PAIR_STATES = ("agrees", "in_flight", "differs", "unheard")
ALARMS = (
    "late",
    "unknown_here",
    "unknown_there",
    "contradicted",
    "amount_differs",
    "unexplained",
    "position_differs",
    "went_back",
    "silent",
)


class Move(View):
    """`debtor` owed `creditor` `owed_minutes`, and will owe `left_minutes`."""

    debtor: str
    creditor: str
    owed_minutes: int
    left_minutes: int


class Cycle(View):
    cities: list[str]
    minutes: int


class Netting(View):
    """`waiting_for`: known where it is decided, else None."""

    netting_id: UUID
    city_id: str
    decider: str
    state: Annotated[str, one_of(STATES, "unknown")]
    minutes: int
    cycles: list[Cycle]
    moves: list[Move]
    expires_at: AwareDatetime
    proposed_at: AwareDatetime
    waiting_for: list[str] | None = None


class NettingPage(View):
    items: list[Netting]
    next: str | None = None


class Alarm(View):
    kind: Annotated[str, one_of(ALARMS, "other")]
    ids: list[UUID]
    count: int


class Pair(View):
    """Two cities as one of them last compared their books."""

    city_id: str
    peer_city_id: str
    state: Annotated[str, one_of(PAIR_STATES, "unheard")]
    in_flight_minutes: int | None = None
    unexplained_minutes: int | None = None
    peer_said_at: AwareDatetime | None = None
    alarms: list[Alarm]


async def nettings(network: Network, token: str, params: dict[str, str]) -> NettingPage:
    path = "/v1/nettings"
    answer = await network.call("timebank", "GET", path, token=token, params=params)
    return fit("timebank", NettingPage, answer)


async def pairs(network: Network, token: str, params: dict[str, str]) -> list[Pair]:
    path = "/v1/reconciliation"
    answer = await network.call("timebank", "GET", path, token=token, params=params)
    return fit_all("timebank", Pair, answer)


def looker(visit: Visit) -> tuple[Session, dict[str, str]]:
    """The visitor, and what narrows what they see: a steward's city, or nothing for those who
    watch over all. Raises Refused for anybody else."""
    if visit.member().has("auditor", "federation_admin"):
        return visit.member(), {}
    member, city = steward_of(visit)
    return member, {"city_id": city}


@router.get("/cities/netting")
async def show_nettings(
    visit: CurrentVisit, cursor: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """Nettings, the newest first, and how the books of each pair of cities compare."""
    member, narrow = looker(visit)
    network, token = visit.network, member.access_token
    params = narrow | {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
    page, compared = await asyncio.gather(
        nettings(network, token, params), visit.part(pairs(network, token, narrow))
    )
    if compared is not None:
        compared.sort(key=lambda pair: (pair.state != "differs", not pair.alarms))
    return visit.page(
        "clearing/netting.html",
        items=[(one, str(new_id())) for one in page.items],
        pairs=compared,
        city=member.city_id if member.has("steward") else None,
        next_link=next_link("/cities/netting", page.next) if page.next else None,
    )


@router.post("/cities/netting/{city}/{netting_id}/{what}")
async def answer(
    visit: CurrentVisit, city: Slug, netting_id: UUID, what: Literal["agree", "refuse"]
) -> Response:
    """Agree to a netting for the steward's city, or refuse it."""
    fields: Any = await visit.form()
    member, own = steward_of(visit)
    if own != city:
        raise Refused("timebank", 404, "not_found", "another city")
    path = f"/v1/nettings/{city}/{netting_id}/{what}"
    try:
        await visit.network.call(
            "timebank", "POST", path, token=member.access_token, key=once_of(fields)
        )
    except Refused as refused:
        return visit.refused(refused, "/cities/netting")
    return visit.redirect("/cities/netting")
