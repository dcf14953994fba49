"""The pledge: making it, changing it, ending it, and its months."""

import asyncio
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from common.ids import new_id
from portal.forms import Form, as_minutes_or_none, as_uuid, once_of, typed
from portal.network import Refused, Unavailable
from portal.pledges import calls
from portal.skills import as_skills
from portal.visit import CurrentVisit, Visit

router = APIRouter()

FIELDS = ("once", "minutes", "skills")
MINUTES_PER_MONTH_MAX = 6000
SKILLS_MAX = 30


@router.get("/time/pledge")
async def pledge_page(visit: CurrentVisit) -> Response:
    return await show(visit, None)


async def show(
    visit: Visit, form: Form | None, *, wrong: Any = None, status: int = 200
) -> Response:
    """The pledge that runs with its months and the form to change it, or the form to make one."""
    member = visit.member()
    token = member.access_token
    found, standing, rules = await asyncio.gather(
        calls.running(visit.network, token, member.member_id),
        visit.part(standing_of(visit)),
        visit.part(calls.rules(visit.network, token, member.city_id or "")),
    )
    pledge = found[0] if found else None
    if form is None:
        coming = pledge and pledge.coming
        minutes = coming.minutes_per_month if coming else pledge.minutes_per_month if pledge else 0
        form = Form(
            {
                "once": str(new_id()),
                "minutes": typed(minutes) if pledge else "4h",
                "skills": ", ".join(pledge.skills).replace("-", " ") if pledge else "",
            }
        )
    return visit.page(
        "pledges/pledge.html",
        status,
        running=pledge,
        standing=standing,
        rules=rules,
        form=form,
        wrong=wrong,
    )


async def standing_of(visit: Visit) -> tuple[calls.Standing, calls.Exemption | None]:
    """The visitor's standing, and until when they are exempt."""
    member = visit.member()
    found = await calls.standing(visit.network, member.access_token, member.member_id)
    if found.standing != "exempt":
        return found, None
    return found, await visit.part(
        calls.exemption(visit.network, member.access_token, member.member_id)
    )


@router.post("/time/pledge")
async def save(visit: CurrentVisit) -> Response:
    """Make the first pledge, or change the one that runs."""
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, FIELDS)
    minutes = form.read("minutes", as_minutes_or_none, "form.bad_minutes")
    if minutes is not None and minutes > MINUTES_PER_MONTH_MAX:
        form.wrong("minutes", "pledge.too_much")
    skills = form.read("skills", as_skills, "form.bad_skills")
    if skills is not None and len(skills) > SKILLS_MAX:
        form.wrong("skills", "form.bad_skills")
    if form.errors:
        return await show(visit, form, wrong=visit.t("form.check"), status=422)
    body = {"minutes_per_month": minutes, "skills": skills}
    changed = as_uuid(fields.get("pledge_id", ""))
    once = once_of(fields)
    try:
        if changed:
            await calls.change(visit.network, member.access_token, changed, body, once)
        else:
            await calls.start(visit.network, member.access_token, {"pledge_id": once, **body})
    except Refused as refused:
        if refused.status == 401:
            raise
        form.values["once"] = str(new_id())
        return await show(visit, form, wrong=visit.words(refused), status=422)
    except Unavailable:
        return visit.message(
            503, visit.t("error.unavailable_title"), visit.t("unavailable.saved"), "/time/pledge"
        )
    return visit.redirect("/time/pledge")


@router.post("/time/pledge/{pledge_id}/end")
async def end(visit: CurrentVisit, pledge_id: UUID) -> Response:
    fields = await visit.form()
    member = visit.member()
    try:
        await calls.end(visit.network, member.access_token, pledge_id, once_of(fields))
    except Refused as refused:
        return visit.refused(refused, "/time/pledge")
    return visit.redirect("/time/pledge")
