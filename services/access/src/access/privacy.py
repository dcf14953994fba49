"""What access keeps of a member, for that member: their taps of the last 30 days."""

from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from access import store
from access.presence import store as presence_store
from common import export
from common.auth import CurrentPrincipal, Principal
from common.problems import not_found
from common.web import StrictRoute

# A tap every minute for a month.
TAPS_MAX = 50_000

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["privacy"])


class ExportAnswer(BaseModel):
    """`tables`: what is kept, by the name of the table; each row as an object."""

    service: Literal["access"]
    member_id: UUID
    exported_at: str
    tables: dict[str, list[dict[str, Any]]]


async def tables_of(
    request: Request, principal: Principal, member_id: UUID
) -> dict[str, list[dict[str, Any]]]:
    """Raises Problem 404 for everybody but the member."""
    if principal.kind != "member" or principal.sub != str(member_id):
        raise not_found("member")
    async with request.app.state.pool.acquire() as conn:
        return {
            **await store.export_of(conn, member_id, limit=TAPS_MAX),
            **await presence_store.looks_and_resets_of(conn, member_id),
        }


@router.get("/members/{member_id}/export", response_model=ExportAnswer)
async def export_member(member_id: UUID, request: Request, principal: CurrentPrincipal) -> Response:
    """All that access keeps of a member: their taps of the last 30 days. For that member alone."""
    tables = await tables_of(request, principal, member_id)
    return export.json_response("access", member_id, tables, request.app.state.clock())


@router.get(
    "/members/{member_id}/export.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
async def export_member_files(
    member_id: UUID, request: Request, principal: CurrentPrincipal
) -> Response:
    """The same as files: one of JSON, and one of CSV for each table. For that member alone."""
    tables = await tables_of(request, principal, member_id)
    return export.zip_response("access", member_id, tables, request.app.state.clock())
