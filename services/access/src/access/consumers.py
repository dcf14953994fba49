"""What access makes of its own taps: the history, in PostgreSQL."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from access import store
from access.events import TAP_DECIDED, TAPS
from common.consumer import BatchHandler
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
    zone: str | None = None
    flags: list[str] = Field(default_factory=list)


COLUMNS = attrgetter(*store.TapRow.__slots__)


async def record_taps(conn: Conn, events: Sequence[Event]) -> None:
    """Put taps into the history. Twice the same changes nothing."""
    taps = [
        TapDecidedData.model_validate(event.data) for event in events if event.type == TAP_DECIDED
    ]
    await store.insert_taps(conn, [store.TapRow(*COLUMNS(tap)) for tap in taps])


HANDLERS = {TAPS.name: BatchHandler(record_taps)}
