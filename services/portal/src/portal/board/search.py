"""Looking for something on the board, and what answers one's own listings."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from portal.board import calls
from portal.board.where import Where, find_where
from portal.contributions.log_form import places_here
from portal.forms import Form
from portal.network import Refused, Unavailable
from portal.people import names_of
from portal.visit import CurrentVisit, next_link

router = APIRouter()

PAGE = 20
RADII_M = ("1000", "5000", "20000", "50000")
FIELDS = ("q", "kind", "what", "category", "near", "radius", "free")

Short = Annotated[str, Query(max_length=200)]


@router.get("/board")
async def search(
    visit: CurrentVisit,
    q: Short = "",
    kind: Literal["", "offer", "need"] = "",
    what: Literal["", "service", "lend", "surplus"] = "",
    category: Short = "",
    near: Short = "",
    radius: Short = "",
    free: Literal["", "true"] = "",
    cursor: Annotated[str, Query(max_length=500)] = "",
) -> Response:
    """What people offer and need, with a form to narrow it."""
    member = visit.member()
    asked = {
        "q": q.replace("\x00", "").strip(),
        "kind": kind,
        "what": what,
        "category": category if category in calls.CATEGORIES else "",
        "near": near.replace("\x00", "").strip(),
        "radius": radius if radius in RADII_M else "",
        "free": free,
    }
    form = Form.of(asked, FIELDS)
    where: Where | None = None
    wrong = None
    if form["near"]:
        try:
            where = await find_where(visit, form["near"])
        except Unavailable:
            wrong = visit.t("unavailable.places")
        if where is None and wrong is None:
            form.wrong("near", "board.nowhere")
    params = {name: asked[name] for name in ("q", "kind", "what", "category", "free")}
    if where is not None:
        params |= {
            "lat": f"{where.latitude:.5f}",
            "lon": f"{where.longitude:.5f}",
            "radius_m": form["radius"],
        }
    try:
        page = await calls.search(
            visit.network,
            member.access_token,
            {**params, "limit": str(PAGE), "cursor": cursor},
        )
    except Refused as refused:
        if refused.status != 422:
            raise
        page = calls.HitPage(items=[])  # a cursor of another search
    except Unavailable:
        return visit.page("board/search.html", 503, **empty_page(form))
    names = await names_of(visit, [hit.listing.owner for hit in page.items])
    return visit.page(
        "board/search.html",
        page=page,
        names=names,
        form=form,
        wrong=wrong,
        categories=calls.CATEGORIES,
        radii=RADII_M,
        places=await places_here(visit),
        filtered=any(asked[name] for name in FIELDS if name != "q"),
        next_link=page.next and next_link("/board", page.next, **asked),
    )


def empty_page(form: Form) -> dict[str, object]:
    return {
        "page": None,
        "form": form,
        "wrong": None,
        "categories": calls.CATEGORIES,
        "radii": RADII_M,
        "places": [],
        "filtered": False,
        "next_link": None,
        "names": None,
    }


@router.get("/board/matches")
async def matches(visit: CurrentVisit) -> Response:
    """What answers one's own listings, each with all its reasons."""
    member = visit.member()
    found = await calls.matches(visit.network, member.access_token)
    mine = await visit.part(calls.own(visit.network, member.access_token))
    titles = {listing.listing_id: listing.title for listing in mine.items} if mine else {}
    names = await names_of(visit, [match.listing.owner for match in found])
    return visit.page("board/matches.html", matches=found, names=names, titles=titles)
