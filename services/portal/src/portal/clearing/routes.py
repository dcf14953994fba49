"""What members see of their minutes between cities: one transfer, and the list of all."""

import asyncio
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from portal.clearing import calls
from portal.clearing.calls import Agreement, Received, Sent
from portal.people import Names, names_of
from portal.visit import CurrentVisit, Visit, next_link

router = APIRouter()

PAGE = 20
NEWEST = 5


async def cities_to_give_to(visit: Visit) -> list[Agreement] | None:
    """The agreements in force of the visitor's city; None when the time bank does not tell."""
    member = visit.member()
    if member.city_id is None:
        return []
    found = await visit.part(calls.agreements(visit.network, member.access_token, member.city_id))
    return found and [agreement for agreement in found if agreement.state == "active"]


async def newest(visit: Visit) -> tuple[list[Sent | Received], Names] | None:
    """The visitor's last transfers to and from other cities; None when they cannot be had."""
    network, token = visit.network, visit.member().access_token
    given, taken = await asyncio.gather(
        visit.part(calls.sent(network, token, limit=NEWEST)),
        visit.part(calls.received(network, token, limit=NEWEST)),
    )
    if given is None or taken is None:
        return None
    both: list[Sent | Received] = [*given.items, *taken.items]
    both.sort(key=lambda one: one.at, reverse=True)
    return both[:NEWEST], await names_of(visit, (one.payee for one in given.items))


@router.get("/time/between")
async def between(
    visit: CurrentVisit,
    side: Literal["given", "received"] = "given",
    cursor: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    """All of the visitor's transfers to other cities, or from them."""
    ask = calls.sent if side == "given" else calls.received
    token = visit.member().access_token
    page = await ask(visit.network, token, limit=PAGE, cursor=cursor)
    more = next_link("/time/between", page.next, side=side) if page.next else None
    names = await names_of(visit, (one.payee for one in page.items if one.is_given))
    return visit.page(
        "clearing/between.html", items=page.items, names=names, side=side, next_link=more
    )


@router.get("/time/between/{transfer_id}")
async def one(visit: CurrentVisit, transfer_id: UUID) -> Response:
    """How far a transfer to another city is."""
    found = await calls.sent_one(visit.network, visit.member().access_token, transfer_id)
    names = await names_of(visit, [found.payee])
    return visit.page("clearing/one.html", it=found, names=names)
