"""Export and erasure over HTTP."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, SecretStr

from common import export
from common.fields import Body
from common.web import StrictRoute
from identity import domain
from identity import store as people
from identity.commands import CurrentActor, CurrentCommand, CurrentContext
from identity.domain import Member
from identity.privacy import service

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["privacy"])


class ExportAnswer(BaseModel):
    """`tables`: what is kept, by the name of the table; each row as an object."""

    service: Literal["identity"]
    member_id: UUID
    exported_at: str
    tables: dict[str, list[dict[str, Any]]]


@router.get("/members/{member_id}/export", response_model=ExportAnswer)
async def export_member(member_id: UUID, context: CurrentContext, actor: CurrentActor) -> Response:
    """All that identity keeps of a member. For that member alone."""
    async with context.pool.acquire() as conn:
        tables = await service.export(conn, actor, member_id)
    return export.json_response("identity", member_id, tables, context.clock())


@router.get(
    "/members/{member_id}/export.zip",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}}},
)
async def export_member_files(
    member_id: UUID, context: CurrentContext, actor: CurrentActor
) -> Response:
    """The same as files: one of JSON, and one of CSV for each table. For that member alone."""
    async with context.pool.acquire() as conn:
        tables = await service.export(conn, actor, member_id)
    return export.zip_response("identity", member_id, tables, context.clock())


class Erase(Body):
    """`password`: one's own, to erase oneself; a federation admin erases another without."""

    password: Annotated[SecretStr, Field(max_length=1000)] | None = None


class ErasedAnswer(BaseModel):
    member_id: UUID
    status: Literal["erased"]

    @classmethod
    def of(cls, member: Member) -> "ErasedAnswer":
        return cls.model_validate({"member_id": member.member_id, "status": member.status})


@router.post("/members/{member_id}/erase", response_model=ErasedAnswer)
async def erase_member(member_id: UUID, body: Erase, command: CurrentCommand) -> Response:
    """Forget a member for ever: name, e-mail, logins, rights and notices go, cards open nothing any
    more, and the other services forget in turn. For the member, with their password, and for
    federation admins.
    """
    context, actor = command.context, command.actor
    proven: str | None = None
    password = body.password.get_secret_value() if body.password else ""
    if actor.id == member_id:
        await context.throttle.admit_own_password(actor.id)
        async with context.pool.acquire() as conn:
            stored = await people.get_password_hash(conn, actor.id)
        if await context.passwords.verify(stored, domain.fold_password(password)):
            proven = stored
    salt = context.vault.password_salt
    fingerprint = await context.passwords.fingerprint(salt, password) if password else None
    answer = await command.run(
        {"password": fingerprint},
        lambda conn: service.erase(conn, actor, member_id, proven_hash=proven, now=context.clock()),
        ErasedAnswer.of,
    )
    if proven is not None:
        await context.throttle.own_password_succeeded(actor.id)
    return answer
