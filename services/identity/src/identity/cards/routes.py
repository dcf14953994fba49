"""Cards over HTTP. Of a UID nothing is logged, and none is ever answered but on a card's sheet."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, SecretStr

from common.fields import Body, ShortText
from common.ids import new_id
from common.pages import Page
from common.problems import conflict
from common.web import StrictRoute
from identity.cards import service, store
from identity.cards.personalisation import NDEF_FILE, PURPOSES, Sheet, make_sheet
from identity.commands import CurrentActor, CurrentCommand, CurrentContext, Cursor, Limit
from identity.domain import Card, CredentialType
from identity.service import read_member

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["cards"])

Uid = Annotated[SecretStr, Field(max_length=64, description="4, 7 or 10 bytes in hexadecimal")]


class CardAnswer(BaseModel):
    """`uid_tail`: the last 2 bytes of the UID, all that is kept of it in clear."""

    card_id: UUID
    version: int
    member_id: UUID
    type: str
    uid_tail: str
    label: str
    status: Literal["active", "blocked", "replaced"]
    block_reason: str | None
    replaced_by: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, card: Card) -> "CardAnswer":
        return cls.model_validate(
            {
                "card_id": card.card_id,
                "version": card.version,
                "member_id": card.member_id,
                "type": card.credential_type,
                "uid_tail": card.uid_tail,
                "label": card.label,
                "status": card.status,
                "block_reason": card.block_reason,
                "replaced_by": card.replaced_by,
                "created_at": card.created_at,
            }
        )


class CardKey(BaseModel):
    """`number`: the slot on the card. `key`: 16 bytes of AES-128; a blank card's are zeros."""

    number: int
    purpose: str
    key: str


class CardSheet(BaseModel):
    """What is written to a card (NXP AN12196); bytes in upper-case hexadecimal."""

    card_id: UUID
    uid: str
    keys: list[CardKey]
    url: str = Field(description="the zeros are where the card writes its message")
    file_number: int
    file_data: str
    file_settings: str = Field(description="the data of ChangeFileSettings, after the file number")

    @classmethod
    def of(cls, card_id: UUID, sheet: Sheet) -> "CardSheet":
        return cls(
            card_id=card_id,
            uid=sheet.uid,
            keys=[
                CardKey(number=number, purpose=PURPOSES[number], key=key)
                for number, key in sheet.keys.items()
            ],
            url=sheet.url,
            file_number=NDEF_FILE,
            file_data=sheet.ndef_file,
            file_settings=sheet.file_settings,
        )


class IssueCard(Body):
    card_id: UUID | None = None
    member_id: UUID
    type: CredentialType
    uid: Uid
    label: Annotated[ShortText, Field(max_length=80)] | None = None


@router.post("/cards", status_code=201, response_model=CardAnswer)
async def issue_card(body: IssueCard, command: CurrentCommand) -> Response:
    """Give a member a card. Of its UID only a keyed hash and the last 2 bytes are kept."""
    context = command.context
    uid = service.read_uid(body.uid.get_secret_value(), body.type)
    card_id = body.card_id or new_id()
    return await command.run(
        {
            **body.model_dump(mode="json", exclude={"uid"}),
            "uid": context.vault.fingerprint("uid", uid),
        },
        lambda conn: service.issue_card(
            conn,
            command.actor,
            card_id=card_id,
            member_id=body.member_id,
            credential_type=body.type,
            uid=uid,
            label=body.label or "",
            pepper=context.settings.card_pepper.get_secret_value(),
            now=context.clock(),
        ),
        CardAnswer.of,
        status=201,
    )


@router.get("/cards")
async def list_cards(
    context: CurrentContext,
    actor: CurrentActor,
    member_id: Annotated[UUID | None, Query(description="one's own without it")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[CardAnswer]:
    """The cards of a member. For the holder, and the stewards of the city."""
    async with context.pool.acquire() as conn:
        member = await read_member(conn, actor, member_id or actor.id)
        cards = await store.list_cards(
            conn, member_id=member.member_id, after=cursor, limit=limit + 1
        )
    return Page[CardAnswer].of(cards, limit, CardAnswer.of, lambda card: card.card_id)


class BlockCard(Body):
    reason: Literal["lost", "stolen", "damaged", "other"]


@router.post("/cards/{card_id}/block", response_model=CardAnswer)
async def block_card(card_id: UUID, body: BlockCard, command: CurrentCommand) -> Response:
    """Block a card: it opens nothing any more. For the holder, the stewards of the city, and the
    federation's admins.
    """
    return await command.run(
        body.model_dump(mode="json"),
        lambda conn: service.block_card(
            conn, command.actor, card_id, reason=body.reason, now=command.context.clock()
        ),
        CardAnswer.of,
    )


@router.post("/cards/{card_id}/unblock", response_model=CardAnswer)
async def unblock_card(card_id: UUID, command: CurrentCommand) -> Response:
    """Let a blocked card open doors again. For stewards of the city and federation admins."""
    return await command.run(
        {},
        lambda conn: service.unblock_card(
            conn, command.actor, card_id, now=command.context.clock()
        ),
        CardAnswer.of,
    )


class ReplaceCard(Body):
    card_id: UUID | None = None
    type: CredentialType = "uid"
    uid: Uid
    label: Annotated[ShortText, Field(max_length=80)] | None = None


@router.post("/cards/{card_id}/replace", status_code=201, response_model=CardAnswer)
async def replace_card(card_id: UUID, body: ReplaceCard, command: CurrentCommand) -> Response:
    """Give the holder a new card; the old one is over. Answers with the new one."""
    context = command.context
    uid = service.read_uid(body.uid.get_secret_value(), body.type)
    new_card_id = body.card_id or new_id()
    return await command.run(
        {
            **body.model_dump(mode="json", exclude={"uid"}),
            "uid": context.vault.fingerprint("uid", uid),
        },
        lambda conn: service.replace_card(
            conn,
            command.actor,
            card_id,
            new_card_id=new_card_id,
            credential_type=body.type,
            uid=uid,
            label=body.label,
            pepper=context.settings.card_pepper.get_secret_value(),
            now=context.clock(),
        ),
        CardAnswer.of,
        status=201,
    )


class ProgramCard(Body):
    uid: Uid


@router.post("/cards/{card_id}/personalisation", response_model=CardSheet)
async def personalise_card(card_id: UUID, body: ProgramCard, command: CurrentCommand) -> Response:
    """What the card programmer writes to an NTAG 424 DNA card: its keys, its file, its settings.

    For those who give out cards. The UID is read from the card in hand, as none is kept; who was
    shown the keys is kept.
    """
    context = command.context
    if not context.card_keys:
        raise conflict("no_card_keys", "This network has no keys for cryptographic cards.")
    uid = service.read_uid(body.uid.get_secret_value(), "ntag424")
    sheet = make_sheet(context.card_keys[0], uid, context.settings.card_url)
    return await command.run(
        {"uid": context.vault.fingerprint("uid", uid)},
        lambda conn: service.disclose_keys(
            conn,
            command.actor,
            card_id,
            uid=uid,
            pepper=context.settings.card_pepper.get_secret_value(),
            now=context.clock(),
        ),
        CardAnswer.of,
        reveal=lambda answer: CardSheet.of(UUID(answer["card_id"]), sheet).model_dump(mode="json"),
    )
