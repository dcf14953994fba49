"""The directory over HTTP."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, StringConstraints

from common.db import Conn
from common.fields import Body, Slug
from common.ids import new_id
from common.pages import Page
from common.problems import forbidden, invalid
from common.web import StrictRoute
from identity.commands import CurrentActor, CurrentCommand, CurrentContext, Limit
from identity.directory import store
from identity.directory.domain import (
    NAMES_MAX,
    Entry,
    UnknownCursor,
    Visibility,
    read_cursor,
    to_cursor,
    viewer,
)
from identity.domain import Actor

INSIDE_MAX = 1000

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["directory"])


class VisibilityAnswer(BaseModel):
    """Who finds the member by name."""

    directory: Visibility


class SetVisibility(Body):
    directory: Visibility


class NameAnswer(BaseModel):
    """A member's name; `city_id` null: of the federation's own staff."""

    member_id: UUID
    city_id: str | None
    display_name: str

    @classmethod
    def of(cls, entry: Entry) -> "NameAnswer":
        return cls.model_validate(entry, from_attributes=True)


class NamesAnswer(BaseModel):
    items: list[NameAnswer]


class AskNames(Body):
    member_ids: Annotated[list[UUID], Field(max_length=NAMES_MAX)]


def require_member(actor: Actor) -> None:
    """Raises Problem 403 for a service."""
    if actor.kind != "member":
        raise forbidden("A service is no member.")


@router.get("/me/visibility")
async def read_visibility(context: CurrentContext, actor: CurrentActor) -> VisibilityAnswer:
    """Who finds the caller by name. For whoever has a member's token."""
    require_member(actor)
    async with context.pool.acquire() as conn:
        visibility = await store.get_visibility(conn, actor.id)
    return VisibilityAnswer.model_validate({"directory": visibility})


@router.put("/me/visibility", response_model=VisibilityAnswer)
async def set_visibility(body: SetVisibility, command: CurrentCommand) -> Response:
    """Choose who finds the caller by name: nobody, their own city, or every city. The stewards of
    the city and the federation's admins see their members in any case.
    """
    require_member(command.actor)

    async def save(conn: Conn) -> VisibilityAnswer:
        await store.set_visibility(conn, command.actor.id, body.directory)
        return VisibilityAnswer(directory=body.directory)

    return await command.run(body.model_dump(), save, lambda answer: answer)


Words = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), Query()
]


@router.get("/directory")
async def search_directory(
    context: CurrentContext,
    actor: CurrentActor,
    city_id: Slug | None = None,
    q: Annotated[Words | None, Query(description="beginnings of words, in any order")] = None,
    limit: Limit = 50,
    cursor: Annotated[
        str | None, Query(max_length=2000, description="`next` of the page before")
    ] = None,
) -> Page[NameAnswer]:
    """Active members who let the caller find them, in the order of names. `q` finds words by how
    they begin, without case and accents. For whoever has a token.
    """
    try:
        after = read_cursor(cursor) if cursor is not None else None
    except UnknownCursor as error:
        raise invalid("query.cursor", f"This is {error}.") from error
    async with context.pool.acquire() as conn:
        found = await store.find(
            conn, viewer(actor), city_id=city_id, words=q, after=after, limit=limit + 1
        )
    return Page[NameAnswer].of(found, limit, NameAnswer.of, to_cursor)


@router.post("/names")
async def ask_names(body: AskNames, context: CurrentContext, actor: CurrentActor) -> NamesAnswer:
    """The names of those of these members whom the caller may see; of the others nothing, also not
    that they exist. It changes nothing and needs no Idempotency-Key. For whoever has a token.
    """
    async with context.pool.acquire() as conn:
        found = await store.names(conn, viewer(actor), body.member_ids)
    return NamesAnswer(items=[NameAnswer.of(entry) for entry in found])


class InsideName(BaseModel):
    """`id`: of the member, or of a guest's card."""

    id: UUID
    name: str


class InsideAnswer(BaseModel):
    items: list[InsideName]


class AskInside(Body):
    ids: Annotated[list[UUID], Field(min_length=1, max_length=INSIDE_MAX)]


@router.post("/places/{place_id}/names-inside")
async def ask_names_inside(
    place_id: UUID, body: AskInside, context: CurrentContext, actor: CurrentActor
) -> InsideAnswer:
    """Who the people are that the evacuation list of a place names by pseudonym: members and
    guests. For the warden of the place alone, and it is kept for ever who asked for whom. It
    changes nothing else and needs no Idempotency-Key.
    """
    async with context.pool.acquire() as conn, conn.transaction():
        if await store.relation_to(conn, actor.id, place_id) != "warden":
            raise forbidden("Only the warden of the place is told who is inside.")
        await store.add_warden_look(
            conn,
            look_id=new_id(),
            place_id=place_id,
            looked_by=actor.id,
            looked_at=context.clock(),
            asked=body.ids,
        )
        found = await store.names_inside(conn, place_id, body.ids)
    return InsideAnswer(items=[InsideName(id=id_, name=name) for id_, name in found])
