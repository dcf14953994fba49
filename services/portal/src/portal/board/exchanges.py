"""What two agree on, step by step."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.ids import new_id
from portal.board import calls
from portal.board.steps import steps_of, waits_for
from portal.forms import Form, as_minutes_or_none, once_of
from portal.network import Refused
from portal.people import names_of, today
from portal.visit import CurrentVisit, Visit, next_link

router = APIRouter()

PAGE = 20
NOTE_CHARS_MAX = 2000
# The steps that need no words, in the order of their buttons.
BUTTONS = ("agree", "done", "handed-over", "returned", "accept", "decline", "cancel")


@router.get("/board/exchanges")
async def mine(visit: CurrentVisit, cursor: Annotated[str, Query(max_length=500)] = "") -> Response:
    member = visit.member()
    page = await calls.exchanges(visit.network, member.access_token, limit=PAGE, cursor=cursor)
    names = await names_of(visit, [person for item in page.items for person in item.people])
    day = await today(visit)
    return visit.page(
        "board/exchanges.html",
        items=[(item, waits_for(member, item, day)) for item in page.items],
        names=names,
        next_link=page.next and next_link("/board/exchanges", page.next),
    )


@router.get("/board/exchanges/{exchange_id}")
async def one(visit: CurrentVisit, exchange_id: UUID) -> Response:
    return await show(visit, exchange_id, Form({}))


async def show(
    visit: Visit, exchange_id: UUID, form: Form, *, wrong: Any = None, status: int = 200
) -> Response:
    member = visit.member()
    token = member.access_token
    exchange = await calls.exchange(visit.network, token, exchange_id)
    listing = await visit.part(calls.get(visit.network, token, exchange.listing_id))
    may = steps_of(member, exchange)
    return visit.page(
        "board/exchange.html",
        status,
        it=exchange,
        listing=listing,
        names=await names_of(visit, exchange.people),
        may=may,
        buttons=[what for what in BUTTONS if what in may],
        form=form,
        wrong=wrong,
        once=str(new_id()),
    )


Step = Literal[
    "agree",
    "decline",
    "cancel",
    "done",
    "handed-over",
    "returned",
    "damaged",
    "accept",
    "rule",
]


@router.post("/board/exchanges/{exchange_id}/{what}")
async def step(visit: CurrentVisit, exchange_id: UUID, what: Step) -> Response:
    fields = await visit.form()
    member = visit.member()
    body: dict[str, Any] | None = None
    if what in ("damaged", "rule"):
        form = Form.of(fields, ("minutes", "note"))
        minutes = form.read("minutes", as_minutes_or_none, "form.bad_minutes")
        if what == "damaged" and minutes == 0:
            form.wrong("minutes", "form.bad_minutes")
        note = form.text("note", NOTE_CHARS_MAX)
        if form.errors:
            return await show(visit, exchange_id, form, wrong=visit.t("form.check"), status=422)
        body = {"minutes": minutes, **({"note": note} if note else {})}
    try:
        await calls.step(
            visit.network, member.access_token, exchange_id, what, once_of(fields), body
        )
    except Refused as refused:
        return visit.refused(
            refused,
            f"/board/exchanges/{exchange_id}",
            {"insufficient_time": "exchange.short"},
        )
    return visit.redirect(f"/board/exchanges/{exchange_id}")
