"""Giving time, and the statement."""

import asyncio
import re
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.ids import new_id
from portal.clearing import calls as clearing
from portal.clearing.routes import cities_to_give_to
from portal.forms import Form, as_day, as_minutes, as_uuid
from portal.network import Gift, Refused, Unavailable
from portal.people import Person, find_person, suggested_names, today
from portal.views import Account
from portal.visit import CurrentVisit, Visit, city_name

router = APIRouter()

MEMO_CHARS_MAX = 200
SLUG = r"[a-z][a-z0-9-]{1,39}"
GIFT_FIELDS = ("transfer_id", "city", "person", "person_id", "to_account", "minutes", "memo")


def own_account(accounts: list[Account]) -> Account | None:
    """A member has one account in the book of their city."""
    return next((a for a in accounts if a.kind == "member" and a.status == "open"), None)


async def account_of(visit: Visit) -> Account | None:
    """The visitor's account. Raises as calls do."""
    member = visit.member()
    return own_account(await visit.network.accounts(member.access_token, member.member_id))


@router.get("/time/give")
async def give_page(visit: CurrentVisit) -> Response:
    visit.member()
    return await show_gift(visit, Form({"transfer_id": str(new_id())}))


async def show_gift(
    visit: Visit,
    form: Form,
    *,
    wrong: Any = None,
    choices: list[Person] | None = None,
    status: int = 200,
) -> Response:
    """The form; without the time bank, a notice."""
    try:
        account, suggested, agreed = await asyncio.gather(
            account_of(visit), suggested_names(visit), cities_to_give_to(visit)
        )
    except Unavailable:
        return visit.page("time/give.html", 503, account=None, available=False)
    return visit.page(
        "time/give.html",
        status,
        account=account,
        available=True,
        suggested=suggested,
        cities=cities_shown(visit, agreed, form["city"]),
        form=form,
        choices=choices,
        wrong=wrong,
    )


def cities_shown(
    visit: Visit, agreed: list[clearing.Agreement] | None, chosen: str
) -> list[tuple[str, Any]]:
    """The visitor's own city first, then those that agreed, with what the crossing adds.

    One that was chosen stays, or the name would be looked for in the visitor's own city.
    """
    found: dict[str, Any] = {chosen: city_name(chosen)} if chosen else {}
    for one in agreed or []:
        name = city_name(one.peer_city_id)
        if one.levy_out_permille:
            percent = visit.t.percent(one.levy_out_permille)
            found[one.peer_city_id] = visit.t("crossing.with_levy", city=name, percent=percent)
        else:
            found[one.peer_city_id] = name
    return [("", city_name(visit.member().city_id)), *sorted(found.items())]


@router.post("/time/give")
async def give_time(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, GIFT_FIELDS)
    try:
        gift, choices = await read_gift(visit, form, fields.get("from_account", ""))
    except Unavailable:
        return await show_gift(visit, form, wrong=visit.t("unavailable.identity"), status=503)
    if gift is None:
        wrong = visit.t("time.choose_person" if choices else "time.not_sent")
        return await show_gift(visit, form, wrong=wrong, choices=choices, status=422)
    try:
        if gift.to_city:
            await clearing.send(visit.network, member.access_token, gift)
        else:
            await visit.network.give(member.access_token, gift)
    except Refused as refused:
        if refused.status == 401:
            raise
        unknown = visit.t("problem.account_not_found") if refused.status == 404 else None
        # What was refused is not what will be sent next: it gets an id of its own.
        form.values["transfer_id"] = str(new_id())
        return await show_gift(visit, form, wrong=unknown or visit.words(refused), status=422)
    except Unavailable:
        # Perhaps it was done. The same id goes back into the form, so that sending again is safe.
        return await show_gift(visit, form, wrong=visit.t("unavailable.unsure"), status=503)
    sent = "between" if gift.to_city else "given"
    return visit.redirect(f"/time/{sent}/{gift.transfer_id}")


async def read_gift(
    visit: Visit, form: Form, from_account: str
) -> tuple[Gift | None, list[Person] | None]:
    """The form as a gift, or None; and whom the name may mean, where that must be asked."""
    source = as_uuid(from_account)
    transfer_id = as_uuid(form["transfer_id"])
    minutes = form.read("minutes", as_minutes, "form.bad_minutes")
    memo = form.text("memo", MEMO_CHARS_MAX)
    choices: list[Person] | None = None
    person: UUID | None = None
    account: UUID | None = None
    own_city = visit.member().city_id
    city = form["city"] if form["city"] != own_city else ""
    if city and not re.fullmatch(SLUG, city):
        form.wrong("city", "form.choose")
    elif city and form["to_account"]:
        form.wrong("to_account", "crossing.by_name_only")
    elif form["to_account"]:
        account = form.read("to_account", as_uuid, "time.bad_account")
        if account is not None and account == source:
            form.wrong("to_account", "problem.same_account")
    elif form["person"]:
        match = await find_person(visit, form["person"], as_uuid(form["person_id"]), city or None)
        person = match.person.member_id if match.person else None
        if match.person is None:
            choices = match.choices
            nobody = "crossing.nobody" if city else "person.nobody"
            form.wrong("person", "person.several" if choices else nobody)
    else:
        form.wrong("person", "time.to_whom")
    if form.errors or source is None or transfer_id is None or minutes is None:
        return None, choices
    return Gift(transfer_id, source, account, person, minutes, memo, city or None), None


@router.get("/time/given/{transfer_id}")
async def given(visit: CurrentVisit, transfer_id: UUID) -> Response:
    """What the book says of the transfer, seen from the member's own account."""
    member = visit.member()
    transfer, accounts = await asyncio.gather(
        visit.network.transfer(member.access_token, transfer_id),
        visit.network.accounts(member.access_token, member.member_id),
    )
    own = {account.account_id for account in accounts}
    minutes = sum(leg.minutes for leg in transfer.postings if leg.account_id in own)
    return visit.page("time/sent.html", minutes=minutes)


# --- the statement


@router.get("/time/statement")
async def statement_page(visit: CurrentVisit) -> Response:
    visit.member()
    now = await today(visit)
    form = Form({"start": now.replace(month=1, day=1).isoformat(), "end": now.isoformat()})
    return visit.page("time/statement.html", form=form)


FILES = {"csv": "text/csv; charset=utf-8", "pdf": "application/pdf"}
Day = Annotated[str, Query(max_length=20)]


@router.get("/time/statement.{ending}")
async def statement(visit: CurrentVisit, ending: str, start: Day = "", end: Day = "") -> Response:
    """The statement as a file: from the first day to the last, both included."""
    member = visit.member()
    if ending not in FILES:
        raise Refused("timebank", 404, "not_found", "no such kind of file")
    form = Form({"start": start, "end": end})
    first = form.optional("start", as_day, "form.bad_day")
    last = form.optional("end", as_day, "form.bad_day")
    now = await today(visit)
    if first and first > min(last or now, now):
        form.wrong("start", "time.bad_period")
    if form.errors:
        return visit.page("time/statement.html", 422, form=form)
    account = await account_of(visit)
    if account is None:
        raise Refused("timebank", 404, "not_found", "no account")
    params = {}
    if first:
        params["from"] = (await midnight(visit, first)).isoformat()
    if last and last < now:
        params["until"] = (await midnight(visit, last + timedelta(days=1))).isoformat()
    path = f"/v1/accounts/{account.account_id}/statement.{ending}"
    try:
        content = await visit.network.download(
            "timebank", path, token=member.access_token, params=params
        )
    except Refused as refused:
        return visit.refused(refused, "/time/statement")
    name = "-".join(str(part) for part in ("copass", first, last or now) if part)
    return visit.download(content, f"{name}.{ending}", FILES[ending])


async def midnight(visit: Visit, day: date) -> datetime:
    """The instant at which a day begins in the visitor's city."""
    member = visit.member()
    zone = await visit.portal.zones.of(member.access_token, member.city_id)
    return datetime.combine(day, time(), zone)
