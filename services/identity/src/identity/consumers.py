"""What identity learns from the others: in which city each place lies."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict

from common.consumer import Handler
from common.db import Conn
from common.events import Event
from identity import store

GROUP = "identity"


class PlaceChanged(BaseModel):
    """The fields of `places.place.changed.v1` that matter here; others may come and go."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    place_id: UUID
    version: int
    city_id: str


async def on_place(conn: Conn, event: Event) -> None:
    place = PlaceChanged.model_validate(event.data)
    await store.save_known_place(conn, place.place_id, place.city_id, place.version)


HANDLERS: dict[str, Handler] = {"places.places.v1": on_place}
