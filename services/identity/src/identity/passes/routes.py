"""Passes over HTTP. The key of a phone stays in the phone; the secret of a guest is told once."""

import base64
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, BaseModel, Field, SecretStr

from common.fields import Body, ShortText
from common.ids import new_id
from common.pages import Page
from common.web import StrictRoute
from identity.cards.routes import CardAnswer
from identity.commands import CurrentActor, CurrentCommand, CurrentContext, Cursor, Limit
from identity.domain import Card, fold_password
from identity.passes import domain, service
from identity.store import get_password_hash

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["passes"])

GUEST_PREFIX = "CG1."

Label = Annotated[ShortText, Field(max_length=80)]


class Enrol(Body):
    card_id: UUID | None = None
    public_key: Annotated[
        str,
        Field(max_length=200, description="P-256: the uncompressed point in base64url"),
    ]
    password: Annotated[SecretStr, Field(max_length=1000, description="one's own, once more")]
    label: Label
    replaces: Annotated[
        UUID | None, Field(description="a phone of one's own that opens nothing any more")
    ] = None


@router.post("/passes", status_code=201, response_model=CardAnswer)
async def enrol_phone(body: Enrol, command: CurrentCommand) -> Response:
    """Put a pass on a phone. For the member alone, with their password: who found a phone signed
    in does not make another one open doors.
    """
    context, actor = command.context, command.actor
    password = body.password.get_secret_value()
    await context.throttle.admit_own_password(actor.id)
    async with context.pool.acquire() as conn:
        stored = await get_password_hash(conn, actor.id)
    proven = stored if await context.passwords.verify(stored, fold_password(password)) else None
    fingerprint = await context.passwords.fingerprint(context.vault.password_salt, password)
    card_id = body.card_id or new_id()
    answer = await command.run(
        {**body.model_dump(mode="json", exclude={"password"}), "password": fingerprint},
        lambda conn: service.enrol(
            conn,
            actor,
            card_id=card_id,
            public_key=body.public_key,
            label=body.label,
            replaces=body.replaces,
            proven_hash=proven,
            pepper=context.settings.card_pepper.get_secret_value(),
            now=context.clock(),
        ),
        CardAnswer.of,
        status=201,
    )
    if proven is not None:
        await context.throttle.own_password_succeeded(actor.id)
    return answer


class Rename(Body):
    label: Label


@router.patch("/passes/{card_id}", response_model=CardAnswer)
async def rename_phone(card_id: UUID, body: Rename, command: CurrentCommand) -> Response:
    """Give a phone another name. For the member alone; it is blocked like any other card."""
    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.rename(conn, command.actor, card_id, body.label),
        CardAnswer.of,
    )


class GuestAnswer(BaseModel):
    """`mark`: four digits that the paper also bears. `name`: empty a month after the end."""

    card_id: UUID
    version: int
    host_member_id: UUID
    name: str
    places: list[UUID]
    valid_from: datetime
    valid_until: datetime
    mark: str
    status: Literal["active", "revoked"]
    created_at: datetime

    @classmethod
    def of(cls, card: Card) -> "GuestAnswer":
        return cls.model_validate(
            {
                "card_id": card.card_id,
                "version": card.version,
                "host_member_id": card.member_id,
                "name": card.guest_name,
                "places": card.places,
                "valid_from": card.valid_from,
                "valid_until": card.valid_until,
                "mark": card.uid_tail,
                "status": "active" if card.status == "active" else "revoked",
                "created_at": card.created_at,
            }
        )


class GuestWithCode(GuestAnswer):
    code: str = Field(description="what the QR on the paper says; told in this answer alone")


class Invite(Body):
    card_id: UUID | None = None
    name: Annotated[ShortText, Field(max_length=domain.GUEST_NAME_LENGTH_MAX)]
    places: Annotated[list[UUID], Field(min_length=1, max_length=domain.GUEST_PLACES_MAX)]
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None


@router.post("/guest-passes", status_code=201, response_model=GuestWithCode)
async def invite_guest(body: Invite, command: CurrentCommand) -> Response:
    """Make a pass for one guest. For who lives or works at all of the places, and the stewards of
    their city. Without times it holds for a day from now.
    """
    context = command.context
    card_id = body.card_id or new_id()

    def secret_of(of_card: UUID) -> str:
        return base64.b32encode(context.vault.guest_secret(of_card)).rstrip(b"=").decode()

    def reveal(answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "code": GUEST_PREFIX + secret_of(UUID(answer["card_id"]))}

    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.invite(
            conn,
            command.actor,
            card_id=card_id,
            name=body.name,
            places=body.places,
            valid_from=body.valid_from,
            valid_until=body.valid_until,
            secret=secret_of(card_id),
            pepper=context.settings.card_pepper.get_secret_value(),
            now=context.clock(),
        ),
        GuestAnswer.of,
        status=201,
        reveal=reveal,
    )


@router.get("/guest-passes")
async def list_guests(
    context: CurrentContext,
    actor: CurrentActor,
    place_id: Annotated[UUID | None, Query(description="one's own guests without it")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[GuestAnswer]:
    """The guests that one invited; those of a place for its staff and the stewards of its city.
    The last made first, until a month after their end.
    """
    async with context.pool.acquire() as conn:
        guests = await service.list_guests(
            conn, actor, place_id=place_id, after=cursor, limit=limit + 1, now=context.clock()
        )
    return Page[GuestAnswer].of(guests, limit, GuestAnswer.of, lambda card: card.card_id)


@router.post("/guest-passes/{card_id}/revoke", response_model=GuestAnswer)
async def revoke_guest(card_id: UUID, command: CurrentCommand) -> Response:
    """Send a guest away: the pass opens nothing any more. For the host, the staff of its places
    and the stewards of their city.
    """
    return await command.run(
        {},
        lambda conn: service.revoke(conn, command.actor, card_id, command.context.clock()),
        GuestAnswer.of,
    )
