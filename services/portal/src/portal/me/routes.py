"""Who finds a member, the export of all that is kept of them, and erasure."""

import asyncio
import io
import zipfile
from typing import Any, cast

import orjson
from fastapi import APIRouter
from fastapi.responses import Response

from common import export
from common.ids import new_id
from portal.forms import Form, once_of
from portal.network import Refused, Service, Unavailable
from portal.notices import calls
from portal.visit import CurrentVisit, Visit

router = APIRouter()

VISIBILITIES = ("nobody", "city", "federation")
KEEPERS: tuple[Service, ...] = ("identity", "timebank", "access")


@router.get("/me")
async def me(visit: CurrentVisit) -> Response:
    member = visit.member()
    seen = await visit.part(calls.visibility(visit.network, member.access_token))
    return visit.page(
        "me/account.html",
        form=Form({"directory": seen.directory if seen else "", "once": str(new_id())}),
        known=seen is not None,
        choices=VISIBILITIES,
        saved="saved" in visit.request.query_params,
    )


@router.post("/me/visibility")
async def show_to(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form.of(fields, ("directory",))
    directory = form.choice("directory", VISIBILITIES)
    if form.errors:
        return visit.message(422, visit.t("error.not_done"), visit.t("form.choose"), back="/me")
    await calls.show_to(visit.network, member.access_token, directory, once_of(fields))
    return visit.redirect("/me?saved")


# --- all that is kept


@router.get("/me/export.zip")
async def export_all(visit: CurrentVisit) -> Response:
    """All that each service keeps of the member, in one file: JSON, and a CSV for each table.

    All or nothing: a part that is missing would look like nothing being kept.
    """
    documents = await asyncio.gather(*(export_of(visit, service) for service in KEEPERS))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for service, document in zip(KEEPERS, documents, strict=True):
            if document is None:
                continue
            file.writestr(f"{service}.json", orjson.dumps(document, option=export.JSON_OPTIONS))
            for table, rows in document["tables"].items():
                file.writestr(f"{service}/{table}.csv", export.to_csv(rows))
    name = f"copass-{visit.now.date().isoformat()}.zip"
    return visit.download(out.getvalue(), name, "application/zip")


async def export_of(visit: Visit, service: Service) -> dict[str, Any]:
    """What one service keeps. Raises Unavailable, also for an answer of another shape."""
    member = visit.member()
    path = f"/v1/members/{member.member_id}/export"
    content = await visit.network.download(service, path, token=member.access_token)
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Unavailable(service) from error
    tables = document.get("tables") if isinstance(document, dict) else None
    named = isinstance(tables, dict) and all(
        name.replace("_", "").isalnum() and isinstance(rows, list) for name, rows in tables.items()
    )
    if not named:
        raise Unavailable(service)
    return cast(dict[str, Any], document)


# --- the end


@router.get("/me/erase")
async def erase_page(visit: CurrentVisit) -> Response:
    visit.member()
    return visit.page("me/erase.html", form=Form({"once": str(new_id())}), wrong=None)


@router.post("/me/erase")
async def erase(visit: CurrentVisit) -> Response:
    fields = await visit.form()
    member = visit.member()
    form = Form({"once": str(new_id())})
    if not fields.get("sure"):
        form.wrong("sure", "erase.not_sure")
    if not fields.get("password"):
        form.wrong("password", "erase.no_password")
    if form.errors:
        return visit.page("me/erase.html", 422, form=form, wrong=visit.t("error.not_done"))
    try:
        await visit.network.call(
            "identity",
            "POST",
            f"/v1/members/{member.member_id}/erase",
            token=member.access_token,
            json={"password": fields["password"]},
            key=once_of(fields),
        )
    except Refused as refused:
        if refused.status == 401:
            raise
        status = 429 if refused.status == 429 else 422
        return visit.page("me/erase.html", status, form=form, wrong=visit.words(refused))
    visit.end()
    return visit.page("me/erased.html")
