"""What identity learns from the others: in which city each place lies, and what members are to be
told."""

from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from common.clock import Clock
from common.consumer import Handler
from common.db import Conn
from common.events import Event
from identity import store
from identity.notices import service as notices
from identity.notices.domain import Notice
from identity.settings import IdentitySettings

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


class NoticeTold(BaseModel):
    """`timebank.notice.v1`: somebody is to be told something."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    notice_id: UUID
    member_id: UUID
    kind: str = Field(min_length=1, max_length=100)
    subject: dict[str, Any]
    created_at: AwareDatetime


def handlers(settings: IdentitySettings, clock: Clock) -> dict[str, Handler]:
    """The handlers by topic. Each survives a message that comes twice, and an older one late."""

    async def on_notice(conn: Conn, event: Event) -> None:
        told = NoticeTold.model_validate(event.data)
        notice = Notice(told.notice_id, told.member_id, told.kind, told.subject, told.created_at)
        await notices.take_in(
            conn,
            notice,
            email_on=bool(settings.smtp_url),
            push_on=bool(settings.push_contact),
            now=clock(),
        )

    return {"places.places.v1": on_place, "timebank.notices.v1": on_notice}
