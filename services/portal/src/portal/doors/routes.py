"""A place by the hour and as it happens, and how readers are."""

import asyncio
from collections import Counter
from datetime import datetime, time, timedelta
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from common.streaming import HoldingResponse
from portal.doors import calls
from portal.i18n import zone
from portal.network import Refused, Unavailable, parts_of
from portal.passes.routes import scripted
from portal.session import Session
from portal.visit import CurrentVisit, Visit

router = APIRouter()

DAYS_COUNTED = 7
HOURS = 24
# Each holds a connection to access for as long as the page is open.
WATCHERS_MAX = 30
WATCHERS_OF_ONE_MAX = 6
watching: Counter[str] = Counter()  # by who
# Longer than access tells: only who takes nothing more, without going away, is cut here.
WATCH_S = 660.0


def operator(visit: Visit) -> Session:
    """Raises Refused for everybody else."""
    member = visit.member()
    if not member.has("operator", "steward") or member.city_id is None:
        raise Refused("access", 403, "forbidden", "not an operator")
    return member


@router.get("/inside/readers")
async def readers(visit: CurrentVisit) -> Response:
    """Those that need a look first."""
    member = operator(visit)
    found = await calls.readers(visit.network, member.access_token)
    found.sort(key=lambda reader: not reader.trouble)
    return visit.page("doors/readers.html", readers=found)


@router.get("/inside/{place_id}")
async def one_place(visit: CurrentVisit, place_id: UUID) -> Response:
    """How full it is today, what was refused and why, and the last taps: numbers, never names."""
    member = operator(visit)
    place = await visit.network.place(place_id)
    if place.city_id != member.city_id:
        raise Refused("places", 404, "not_found", "a place of another city")
    token, network = member.access_token, visit.network
    local = visit.now.astimezone(zone(place.timezone))
    midnight = datetime.combine(local.date(), time.min, local.tzinfo)
    last = visit.now.date()
    now, today, counted, taps = await asyncio.gather(
        visit.part(network.presence(token, place_id)),
        visit.part(calls.occupancy(network, token, place_id, midnight, HOURS)),
        visit.part(
            calls.counts(network, token, place_id, last - timedelta(days=DAYS_COUNTED - 1), last)
        ),
        visit.part(calls.taps(network, token, place_id)),
    )
    denials: Counter[str] = Counter()
    for one in counted.items if counted else ():
        if one.decision == "deny":
            denials[one.reason] += one.taps
    names = {str(door.door_id): door.name for door in place.doors}
    texts = {
        key.removeprefix("door.reason_"): str(visit.t(key))
        for key in (f"door.reason_{reason}" for reason in (*calls.REASONS, "other"))
    }
    return scripted(
        visit.page(
            "doors/place.html",
            place=place,
            now=now,
            today=today,
            denials=denials.most_common() if counted else None,
            taps=taps,
            names=names,
            words={"doors": names, "reasons": texts},
        )
    )


@router.get("/inside/{place_id}/evacuation")
async def evacuation(visit: CurrentVisit, place_id: UUID) -> Response:
    """How many are inside, zone by zone: for the team of the place and the city's operators."""
    return await show_inside(visit, place_id, with_names=False)


@router.post("/inside/{place_id}/evacuation")
async def evacuation_by_name(visit: CurrentVisit, place_id: UUID) -> Response:
    """And who: for the warden, which is kept. A post, so that no link or preview looks."""
    await visit.form()
    return await show_inside(visit, place_id, with_names=True)


async def show_inside(visit: Visit, place_id: UUID, *, with_names: bool) -> Response:
    token, network = visit.member().access_token, visit.network
    place, found = await asyncio.gather(
        network.place(place_id), calls.inside(network, token, place_id, with_names=with_names)
    )
    people = found.people or []
    ids = [one.member_id for one in people]
    names = await calls.names_inside(network, token, place_id, ids) if ids else {}
    return visit.page("doors/evacuation.html", place=place, it=found, people=people, names=names)


@router.get("/inside/{place_id}/live")
async def live(visit: CurrentVisit, place_id: UUID) -> Response:
    """Taps as they happen, passed on from access: server-sent events for the page's script."""
    member = operator(visit)
    who = member.member_id
    if watching.total() >= WATCHERS_MAX or watching[who] >= WATCHERS_OF_ONE_MAX:
        raise Unavailable("access")
    watching[who] += 1
    try:
        answer = await visit.network.stream(
            "access", "/v1/live", token=member.access_token, params={"place_id": str(place_id)}
        )
    except BaseException:
        leave(who)
        raise

    async def let_go() -> None:
        leave(who)
        await answer.aclose()

    return HoldingResponse(
        parts_of(answer),
        let_go=let_go,
        seconds_max=WATCH_S,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def leave(who: str) -> None:
    watching[who] -= 1
    if not watching[who]:
        del watching[who]
