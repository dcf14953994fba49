"""Giving to the fund, asking it for help, and deciding as a steward."""

import asyncio
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from common.ids import new_id
from portal.forms import Form, as_minutes, as_uuid, once_of, typed
from portal.network import Refused, Unavailable
from portal.people import names_of
from portal.solidarity import calls
from portal.visit import CurrentVisit, Visit

router = APIRouter()

REASON_CHARS_MAX = 2000
PURPOSES = ("pledge", "balance")


# --- giving


@router.get("/time/solidarity/give")
async def give_page(visit: CurrentVisit) -> Response:
    visit.member()
    return show_give(visit, Form({"once": str(new_id())}))


def show_give(visit: Visit, form: Form, wrong: Any = None, status: int = 200) -> Response:
    return visit.page("solidarity/give.html", status, form=form, wrong=wrong, given=None)


@router.post("/time/solidarity/give")
async def give(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ("once", "minutes", "anonymous"))
    minutes = form.read("minutes", as_minutes, "form.bad_minutes")
    if minutes is None:
        return show_give(visit, form, visit.t("form.check"), 422)
    try:
        await calls.give(
            visit.network, member.access_token, once_of(fields), minutes, bool(form["anonymous"])
        )
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        return show_give(visit, form, visit.words(refused), 422)
    except Unavailable:
        return show_give(visit, form, visit.t("unavailable.unsure"), 503)
    return visit.redirect("/time/solidarity/thanks")


@router.get("/time/solidarity/thanks")
async def thanks(visit: CurrentVisit) -> Response:
    visit.member()
    return visit.page("solidarity/thanks.html")


# --- asking


@router.get("/time/solidarity/ask")
async def ask_page(visit: CurrentVisit) -> Response:
    return await show_ask(visit, Form({"once": str(new_id()), "purpose": "pledge"}))


async def show_ask(visit: Visit, form: Form, wrong: Any = None, status: int = 200) -> Response:
    member = visit.member()
    requests = await visit.part(calls.own(visit.network, member.access_token))
    return visit.page(
        "solidarity/ask.html",
        status,
        form=form,
        wrong=wrong,
        requests=requests,
        purposes=PURPOSES,
        once=str(new_id()),
    )


@router.post("/time/solidarity/ask")
async def ask(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ("once", "minutes", "purpose", "reason"))
    minutes = form.read("minutes", as_minutes, "form.bad_minutes")
    purpose = form.choice("purpose", PURPOSES)
    reason = form.text("reason", REASON_CHARS_MAX)
    if form.errors:
        return await show_ask(visit, form, visit.t("form.check"), 422)
    body = {"request_id": once_of(fields), "minutes": minutes, "for": purpose}
    if reason:
        body["reason"] = reason
    try:
        await calls.ask(visit.network, member.access_token, body)
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        return await show_ask(visit, form, visit.words(refused), 422)
    except Unavailable:
        return await show_ask(visit, form, visit.t("unavailable.saved"), 503)
    return visit.redirect("/time/solidarity/ask")


# --- deciding


@router.get("/time/solidarity/requests")
async def requests_page(visit: CurrentVisit) -> Response:
    """For stewards: who asks, for what and why."""
    member = visit.member()
    if not member.has("steward") or member.city_id is None:
        raise Refused("timebank", 403, "forbidden", "not a steward")
    token = member.access_token
    waiting = await calls.asked_in(visit.network, token, member.city_id)
    whole = await asyncio.gather(
        *(visit.part(calls.get(visit.network, token, one.request_id)) for one in waiting)
    )
    asked = [one for one in whole if one is not None]
    names = await names_of(visit, [one.member_id for one in asked])
    return visit.page(
        "solidarity/requests.html",
        items=[(one, str(new_id())) for one in asked],
        names=names,
        typed=typed,
        own_id=as_uuid(member.member_id),
    )


@router.post("/time/solidarity/requests/{request_id}/{what}")
async def act(
    visit: CurrentVisit, request_id: UUID, what: Literal["grant", "decline", "withdraw"]
) -> Response:
    fields = await visit.form()
    member = visit.member()
    back = "/time/solidarity/ask" if what == "withdraw" else "/time/solidarity/requests"
    body: dict[str, Any] | None = None
    if what == "grant":
        minutes = as_minutes(fields.get("minutes", ""))
        if fields.get("minutes") and minutes is None:
            t = visit.t
            return visit.message(422, t("error.not_done"), t("form.bad_minutes"), back)
        body = {"minutes": minutes} if minutes else {}
    try:
        await calls.act(visit.network, member.access_token, request_id, what, once_of(fields), body)
    except Refused as refused:
        return visit.refused(refused, back, {"insufficient_time": "solidarity.fund_short"})
    return visit.redirect(back)
