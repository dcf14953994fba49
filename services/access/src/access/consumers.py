"""What access makes of its own taps: the history, in PostgreSQL."""

from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from access import store
from access.events import TAP_DECIDED, TAPS
from common.consumer import Handler
from common.db import Conn
from common.events import Event


class TapDecidedData(BaseModel):
    model_config = ConfigDict(extra="ignore")

    decision_id: UUID
    tap_id: UUID
    door_id: UUID
    place_id: UUID
    city_id: str
    reader_id: UUID
    card_id: UUID | None
    member_id: UUID | None
    direction: Literal["in", "out"]
    mode: Literal["live", "replay"]
    decision: Literal["grant", "deny"]
    reason: str
    occurred_at: AwareDatetime
    decided_at: AwareDatetime
    policy_version: int
    stream_id: str


async def record_tap(conn: Conn, event: Event) -> None:
    """Put a tap into the history. Twice the same changes nothing."""
    if event.type != TAP_DECIDED:
        return
    data = TapDecidedData.model_validate(event.data)
    await store.insert_tap(conn, store.TapRow(**data.model_dump()))


HANDLERS: dict[str, Handler] = {TAPS.name: record_tap}
