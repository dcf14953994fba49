"""A member's export over HTTP."""

from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel

from common import export
from common.auth import CurrentPrincipal, Principal
from common.db import Pool
from common.problems import not_found
from common.web import StrictRoute
from timebank.privacy import service
from timebank.routes import Database, TheClock

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["privacy"])


class ExportAnswer(BaseModel):
    """`tables`: what is kept, by the name of the table; each row as an object."""

    service: Literal["timebank"]
    member_id: UUID
    exported_at: str
    tables: dict[str, list[dict[str, Any]]]


async def tables_of(
    pool: Pool, principal: Principal, member_id: UUID
) -> dict[str, list[dict[str, Any]]]:
    """Raises Problem 404 for everybody but the member."""
    if principal.kind != "member" or principal.sub != str(member_id):
        raise not_found("member")
    async with pool.acquire() as conn:
        return await service.export(conn, member_id)


@router.get("/members/{member_id}/export", response_model=ExportAnswer)
async def export_member(
    member_id: UUID, pool: Database, clock: TheClock, principal: CurrentPrincipal
) -> Response:
    """All that the time bank keeps of a member. For that member alone."""
    tables = await tables_of(pool, principal, member_id)
    return export.json_response("timebank", member_id, tables, clock())


@router.get(
    "/members/{member_id}/export.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
async def export_member_files(
    member_id: UUID, pool: Database, clock: TheClock, principal: CurrentPrincipal
) -> Response:
    """The same as files: one of JSON, and one of CSV for each table. For that member alone."""
    tables = await tables_of(pool, principal, member_id)
    return export.zip_response("timebank", member_id, tables, clock())
