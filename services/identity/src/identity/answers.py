"""The JSON that the routes answer with: never a hash, a UID or a password."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from identity.domain import City, Client, Member, Organisation, Reader, Relation


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
    places: dict[str, Relation]
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
