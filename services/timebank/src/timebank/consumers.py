"""What the time bank learns from identity. It reads the fields that it uses, and no others."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.clock import Clock
from common.consumer import Handler
from common.db import Conn
from common.events import Event
from common.ids import new_id
from timebank import service

GROUP = "timebank"
CITIES = "identity.cities.v1"
MEMBERS = "identity.members.v1"


class CityChanged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    city_id: str
    version: int = Field(gt=0)
    status: Literal["active", "left"]
    timezone: str


class MemberChanged(BaseModel):
    model_config = ConfigDict(extra="ignore")
    member_id: UUID
    version: int = Field(gt=0)
    city_id: str
    status: Literal["active", "suspended", "erased"]


def handlers(clock: Clock) -> dict[str, Handler]:
    """The handlers by topic. Each survives a message that comes twice, and an older one late."""

    async def on_city(conn: Conn, event: Event) -> None:
        city = CityChanged.model_validate(event.data)
        state = service.CityState(city.city_id, city.status, city.timezone, city.version)
        await service.apply_city(conn, state, clock(), new_id)

    async def on_member(conn: Conn, event: Event) -> None:
        member = MemberChanged.model_validate(event.data)
        state = service.MemberState(member.member_id, member.city_id, member.status, member.version)
        await service.apply_member(conn, state, clock(), new_id)

    return {CITIES: on_city, MEMBERS: on_member}
