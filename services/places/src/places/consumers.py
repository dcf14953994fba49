"""What identity tells: which cities there are, and whose the readers are."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from common.consumer import Handler
from common.db import Conn
from common.events import Event
from places import store

GROUP = "places"


class CityChanged(BaseModel):
    """The fields that we use of `identity.city.changed.v1`."""

    model_config = ConfigDict(extra="ignore")
    city_id: str
    version: int
    name: str
    timezone: str
    status: Literal["active", "left"]


class ReaderChanged(BaseModel):
    """The fields that we use of `identity.reader.changed.v1`."""

    model_config = ConfigDict(extra="ignore")
    reader_id: UUID
    version: int
    city_id: str
    status: str


async def on_city(conn: Conn, event: Event) -> None:
    if event.type == "identity.city.changed.v1":
        city = CityChanged.model_validate(event.data)
        await store.save_city(conn, store.City(**city.model_dump()))


async def on_reader(conn: Conn, event: Event) -> None:
    if event.type == "identity.reader.changed.v1":
        reader = ReaderChanged.model_validate(event.data)
        await store.save_reader(conn, store.Reader(**reader.model_dump()))


HANDLERS: dict[str, Handler] = {
    "identity.cities.v1": on_city,
    "identity.readers.v1": on_reader,
}
