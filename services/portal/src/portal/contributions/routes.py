"""Logging hours, and what becomes of them until they are minutes on an account."""

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.ids import new_id
from portal.contributions import calls
from portal.contributions.log_form import (
    LOG_FIELDS,
    claim_of,
    empty_log,
    form_of,
    last_activity,
    places_here,
    read_log,
)
from portal.contributions.seen import seen_by
from portal.forms import Form, as_minutes_or_none, once_of
from portal.network import Refused, Unavailable
from portal.people import Person, names_of, suggested_names, today
from portal.visit import CurrentVisit, Visit, next_link

router = APIRouter()

DAY_MINUTES = 1440
NOTE_CHARS_MAX = 2000
PAGE = 20

Cursor = Annotated[str, Query(max_length=500)]


# --- logging


@router.get("/time/log")
async def log_page(visit: CurrentVisit) -> Response:
    visit.member()
    return await show_log(visit, empty_log(await today(visit), await last_activity(visit)))


async def show_log(
    visit: Visit,
    form: Form,
    *,
    wrong: Any = None,
    choices: list[Person] | None = None,
    status: int = 200,
) -> Response:
    suggested, places = await asyncio.gather(suggested_names(visit), places_here(visit))
    return visit.page(
        "contributions/log.html",
        status,
        form=form,
        wrong=wrong,
        choices=choices,
        suggested=suggested,
        places=places,
        activities=calls.ACTIVITIES,
        today=await today(visit),
    )


@router.post("/time/log")
async def log(visit: CurrentVisit) -> Response:
    form = Form.of(await visit.form(), LOG_FIELDS)
    member = visit.member()
    try:
        body, choices = await read_log(visit, form, await today(visit))
    except Unavailable:
        return await show_log(visit, form, wrong=visit.t("unavailable.identity"), status=503)
    if body is None:
        wrong = visit.t("log.choose_person" if choices else "form.check")
        return await show_log(visit, form, wrong=wrong, choices=choices, status=422)
    try:
        await calls.log(visit.network, member.access_token, body)
    except Refused as refused:
        if refused.status == 401:
            raise
        # What was refused is not what will be sent next: it gets an id of its own.
        form.values["contribution_id"] = str(new_id())
        return await show_log(visit, form, wrong=visit.words(refused), status=422)
    except Unavailable:
        # Perhaps it was logged. The same id goes back into the form: sent again, it is one.
        return await show_log(visit, form, wrong=visit.t("log.unsure"), status=503)
    return visit.redirect(f"/time/contributions/{body['contribution_id']}")


# --- one contribution


async def show(
    visit: Visit,
    contribution_id: UUID,
    *,
    form: Form | None = None,
    wrong: Any = None,
    status: int = 200,
) -> Response:
    """A contribution, what each side said of it, and what the visitor can do."""
    member = visit.member()
    found = await calls.get(visit.network, member.access_token, contribution_id)
    place = visit.part(visit.network.place(found.place_id)) if found.place_id else nothing()
    names, named_place = await asyncio.gather(names_of(visit, found.everybody), place)
    return visit.page(
        "contributions/one.html",
        status,
        it=found,
        names=names,
        place=named_place,
        may=seen_by(member, found),
        form=form or Form({"minutes": "", "note": ""}),
        wrong=wrong,
        once=str(new_id()),
    )


async def nothing() -> None:
    return None


@router.get("/time/contributions/{contribution_id}")
async def one(visit: CurrentVisit, contribution_id: UUID) -> Response:
    visit.member()
    return await show(visit, contribution_id)


@router.get("/time/contributions/{contribution_id}/edit")
async def edit_page(visit: CurrentVisit, contribution_id: UUID) -> Response:
    member = visit.member()
    found = await calls.get(visit.network, member.access_token, contribution_id)
    if not seen_by(member, found).edit:
        return visit.redirect(f"/time/contributions/{contribution_id}")
    return await show_edit(visit, contribution_id, form_of(found))


async def show_edit(
    visit: Visit, contribution_id: UUID, form: Form, *, wrong: Any = None, status: int = 200
) -> Response:
    return visit.page(
        "contributions/edit.html",
        status,
        contribution_id=contribution_id,
        form=form,
        wrong=wrong,
        places=await places_here(visit),
        activities=calls.ACTIVITIES,
        today=await today(visit),
        once=form["once"] or str(new_id()),
    )


@router.post("/time/contributions/{contribution_id}/edit")
async def edit(visit: CurrentVisit, contribution_id: UUID) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, (*LOG_FIELDS, "once"))
    claim = claim_of(form, await today(visit))
    if claim is None:
        wrong = visit.t("form.check")
        return await show_edit(visit, contribution_id, form, wrong=wrong, status=422)
    try:
        # What is left empty is emptied.
        changed = {"place_id": None, "note": None, **claim}
        await calls.edit(
            visit.network, member.access_token, contribution_id, changed, once_of(fields)
        )
    except Refused as refused:
        if refused.status in (401, 404):
            raise
        form.values["once"] = ""
        return await show_edit(visit, contribution_id, form, wrong=visit.words(refused), status=422)
    return visit.redirect(f"/time/contributions/{contribution_id}")


@router.post("/time/contributions/{contribution_id}/{what}")
async def act(
    visit: CurrentVisit,
    contribution_id: UUID,
    what: Literal["confirm", "accept", "withdraw", "reverse", "dispute", "rule"],
) -> Response:
    """What one side or the other does. Whoever agrees names the version that they read."""
    fields = await visit.form()
    member = visit.member()
    body: dict[str, Any] | None = None
    here = f"/time/contributions/{contribution_id}"
    if what in ("confirm", "accept"):
        version = fields.get("version", "")
        body = {"version": int(version) if version.isascii() and version.isdigit() else 0}
    if what in ("dispute", "rule"):
        form = Form.of(fields, ("minutes", "note"))
        minutes = form.read("minutes", as_minutes_or_none, "form.bad_minutes")
        if minutes is not None and minutes > DAY_MINUTES:
            form.wrong("minutes", "log.a_day")
        note = form.text("note", NOTE_CHARS_MAX)
        if form.errors:
            return await show(
                visit, contribution_id, form=form, wrong=visit.t("form.check"), status=422
            )
        body = {"minutes": minutes, **({"note": note} if note else {})}
    try:
        await calls.act(
            visit.network, member.access_token, contribution_id, what, once_of(fields), body
        )
    except Refused as refused:
        return visit.refused(refused, here, {"insufficient_time": "contribution.short"})
    if fields.get("from") == "list":
        return visit.redirect(f"/time/to-confirm?done={contribution_id}")
    return visit.redirect(here)


# --- lists


@router.get("/time/to-confirm")
async def to_confirm(visit: CurrentVisit, cursor: Cursor = "", done: str = "") -> Response:
    """What waits for the visitor's word, and what came of the one before."""
    member = visit.member()
    page = await calls.to_confirm(visit.network, member.access_token, PAGE, cursor)
    before = await visit.part(confirmed_before(visit, done)) if done else None
    people = [person for item in page.items for person in item.everybody]
    names = await names_of(visit, [*people, *(before.everybody if before else [])])
    return visit.page(
        "contributions/to_confirm.html",
        items=[(item, str(new_id())) for item in page.items],
        before=before,
        names=names,
        next_link=page.next and next_link("/time/to-confirm", page.next),
    )


async def confirmed_before(visit: Visit, contribution_id: str) -> calls.Contribution | None:
    """The contribution of which the list says that it is confirmed: as it is now."""
    try:
        wanted = UUID(contribution_id)
    except ValueError:
        return None
    found = await calls.get(visit.network, visit.member().access_token, wanted)
    return found if found.status == "confirmed" else None


@router.get("/time/contributions")
async def mine(
    visit: CurrentVisit,
    role: Literal["giver", "beneficiary"] = "giver",
    status: Literal["", "disputed"] = "",
    cursor: Cursor = "",
) -> Response:
    """The visitor's contributions of one side; only those in dispute, if it is asked so."""
    member = visit.member()
    page = await calls.listed(
        visit.network,
        member.access_token,
        member_id=member.member_id,
        role=role,
        status=status,
        limit=PAGE,
        cursor=cursor,
    )
    names = await names_of(visit, [person for item in page.items for person in item.people])
    return visit.page(
        "contributions/mine.html",
        items=page.items,
        role=role,
        names=names,
        next_link=page.next
        and next_link("/time/contributions", page.next, role=role, status=status),
    )


@router.get("/time/disputes")
async def disputes(visit: CurrentVisit, cursor: Cursor = "") -> Response:
    """For mediators: where two sides do not agree, with what each says."""
    member = visit.member()
    if not member.has("mediator", "steward"):
        raise Refused("timebank", 403, "forbidden", "not a mediator")
    page = await calls.listed(
        visit.network,
        member.access_token,
        city_id=member.city_id,
        status="disputed",
        limit=PAGE,
        cursor=cursor,
    )
    names = await names_of(visit, [person for item in page.items for person in item.everybody])
    return visit.page(
        "contributions/disputes.html",
        items=page.items,
        names=names,
        next_link=page.next and next_link("/time/disputes", page.next),
    )


@router.get("/time/rings")
async def rings(visit: CurrentVisit) -> Response:
    """For stewards: people who confirm one another in turn, to look at; nothing is blocked."""
    member = visit.member()
    if not member.has("steward") or member.city_id is None:
        raise Refused("timebank", 403, "forbidden", "not a steward")
    found = await calls.flags(visit.network, member.access_token, member.city_id)
    people = [person for flag in found.items for step in flag.steps for person in pair(step)]
    return visit.page("contributions/rings.html", found=found, names=await names_of(visit, people))


def pair(step: calls.Step) -> tuple[UUID, UUID]:
    return step.giver_id, step.confirmer_id
