"""The list of notices, and how to be told of them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import Response

from common.ids import new_id
from portal.forms import Form, as_uuid, once_of
from portal.i18n import LANGUAGES
from portal.network import Refused
from portal.notices import calls
from portal.visit import CurrentVisit, Visit

router = APIRouter()

PAGE = 30
# Where a notice leads, by the beginning of its kind, and what of its subject names the page.
PAGES = (
    ("contribution.", "/time/contributions/", "contribution_id"),
    ("exchange.", "/board/exchanges/", "exchange_id"),
    ("listing.", "/board/", "listing_id"),
    ("clearing.settled", "/time/between/", "transfer_id"),
    ("clearing.returned", "/time/between/", "transfer_id"),
)
OTHER_PAGES = (
    ("pledge.", "/time/pledge"),
    ("standing.", "/time/pledge"),
    ("solidarity.", "/time/solidarity/ask"),
    ("clearing.", "/time/between?side=received"),
)


def page_of(notice: calls.Notice) -> str:
    """Where one reads on."""
    for kind, path, name in PAGES:
        thing = notice.subject.get(name)
        if notice.kind.startswith(kind) and isinstance(thing, str) and as_uuid(thing):
            return path + thing
    return next((path for kind, path in OTHER_PAGES if notice.kind.startswith(kind)), "/time")


@router.get("/notices")
async def notices(
    visit: CurrentVisit, cursor: Annotated[str, Query(max_length=500)] = ""
) -> Response:
    member = visit.member()
    page = await calls.listed(visit.network, member.access_token, PAGE, cursor)
    return visit.page(
        "notices/list.html",
        page=page,
        links={notice.notice_id: page_of(notice) for notice in page.items},
        once=str(new_id()),
        next_link=page.next and f"/notices?cursor={page.next}",
    )


@router.post("/notices/read-all")
async def read_all(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    await calls.read_all(visit.network, member.access_token, once_of(fields))
    return visit.redirect("/notices")


# --- how to be told


@router.get("/notices/preferences")
async def preferences_page(visit: CurrentVisit) -> Response:
    return await show(visit, None)


async def show(visit: Visit, form: Form | None, wrong: Any = None, status: int = 200) -> Response:
    member = visit.member()
    now = await calls.preferences(visit.network, member.access_token)
    if form is None:
        form = Form({"once": str(new_id()), "email": now.email, "language": now.language})
    return visit.page(
        "notices/preferences.html",
        status,
        form=form,
        wrong=wrong,
        now=now,
        choices=calls.EMAIL_CHOICES,
        saved="saved" in visit.request.query_params,
    )


@router.post("/notices/preferences")
async def choose(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ("once", "email", "language"))
    email = form.choice("email", calls.EMAIL_CHOICES)
    language = form.choice("language", LANGUAGES)
    if form.errors:
        return await show(visit, form, visit.t("form.check"), 422)
    # Asked again, so that what this page does not show stays as it is.
    now = await calls.preferences(visit.network, member.access_token)
    body = {"email": email, "push": now.push, "language": language}
    try:
        await calls.choose(visit.network, member.access_token, body, once_of(fields))
    except Refused as refused:
        return visit.refused(refused, "/notices/preferences")
    return visit.redirect("/notices/preferences?saved")


# --- one of them; last, because its path is also that of the others


@router.post("/notices/{notice_id}")
async def read(visit: CurrentVisit, notice_id: UUID) -> Response:
    """Go where a notice leads; it is read from then on."""
    fields = await visit.form()
    member = visit.member()
    notice = await calls.read(visit.network, member.access_token, notice_id, once_of(fields))
    return visit.redirect(page_of(notice))
