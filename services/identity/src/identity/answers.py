"""The JSON that the routes answer with: never a hash, a UID or a password."""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

from identity.domain import Card, City, Client, Member, Organisation, Reader
from identity.personalisation import NDEF_FILE, PURPOSES, Sheet

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """`next` is the cursor of the page that follows, null on the last."""

    items: list[T]
    next: str | None


class CityAnswer(BaseModel):
    city_id: str
    version: int
    name: str
    timezone: str
    status: Literal["active", "left"]
    created_at: datetime

    @classmethod
    def of(cls, city: City) -> "CityAnswer":
        return cls.model_validate(city, from_attributes=True)


class MemberAnswer(BaseModel):
    member_id: UUID
    version: int
    city_id: str | None
    display_name: str
    email: str | None
    status: Literal["active", "suspended", "erased"]
    roles: list[str]
    places: dict[str, Literal["resident", "staff"]]
    created_at: datetime

    @classmethod
    def of(cls, member: Member) -> "MemberAnswer":
        return cls.model_validate(
            {
                "member_id": member.member_id,
                "version": member.version,
                "city_id": member.city_id,
                "display_name": member.display_name,
                "email": member.email,
                "status": member.status,
                "roles": sorted(member.all_roles),
                "places": dict(member.places),
                "created_at": member.created_at,
            }
        )


class OrganisationAnswer(BaseModel):
    organisation_id: UUID
    city_id: str
    name: str
    kind: str
    created_at: datetime

    @classmethod
    def of(cls, organisation: Organisation) -> "OrganisationAnswer":
        return cls.model_validate(organisation, from_attributes=True)


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


class ReaderAnswer(BaseModel):
    reader_id: UUID
    version: int
    city_id: str
    generation: int
    status: Literal["active", "revoked"]
    created_at: datetime

    @classmethod
    def of(cls, reader: Reader) -> "ReaderAnswer":
        return cls.model_validate(reader, from_attributes=True)


class ReaderWithKey(ReaderAnswer):
    key: str = Field(description="`<reader_id>.<secret>`, to be presented as a bearer token")


class ClientAnswer(BaseModel):
    client_id: UUID
    name: str
    city_id: str | None
    roles: list[str]
    audiences: list[str]
    generation: int
    status: Literal["active", "revoked"]
    created_at: datetime

    @classmethod
    def of(cls, client: Client) -> "ClientAnswer":
        return cls.model_validate(
            {
                "client_id": client.client_id,
                "name": client.name,
                "city_id": client.city_id,
                "roles": sorted(client.roles),
                "audiences": list(client.audiences),
                "generation": client.generation,
                "status": client.status,
                "created_at": client.created_at,
            }
        )


class ClientWithSecret(ClientAnswer):
    client_secret: str


class TokenAnswer(BaseModel):
    """RFC 6749, section 5.1. `expires_in` in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the name of a scheme, no secret
    expires_in: int
    refresh_token: str | None = None


class OAuthErrorAnswer(BaseModel):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str


class KeySetAnswer(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, Any]]
