"""What a person would want to know, told to whoever brings it to them.

The words are made elsewhere, in the reader's language: a notice carries its kind, pseudonymous
ids, numbers and dates, never a name or a note.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from common import outbox
from common.db import Conn
from common.ids import new_id
from timebank import events

NoticeKind = Literal[
    "contribution.to_confirm",
    "contribution.confirmed",
    "contribution.disputed",
    "contribution.ruled",
    "contribution.reversed",
    "contribution.withdrawn",
    "pledge.met",
    "pledge.short",
    "standing.changed",
    "solidarity.granted",
    "solidarity.declined",
    "rent_credit.made",
    "exchange.requested",
    "exchange.agreed",
    "exchange.declined",
    "exchange.cancelled",
    "exchange.done",
    "exchange.handed_over",
    "exchange.returned",
    "exchange.damaged",
    "exchange.ruled",
    "exchange.late",
    "listing.match",
    "hold.placed",
    "hold.expired",
    "transfer.received",
    "limit.changed",
    "clearing.settled",
    "clearing.returned",
    "clearing.received",
]


async def tell(
    conn: Conn,
    *,
    member_id: UUID,
    kind: NoticeKind,
    subject: Mapping[str, UUID | date | str | int | None],
    now: datetime,
) -> UUID:
    """Tell a member something, in the transaction in which it happened; the notice's id.

    `subject`: ids, slugs, integers (minutes, cents) and dates by name, as JSON will show them.
    """
    notice_id = new_id()
    await outbox.add(
        conn,
        topic=events.NOTICES,
        key=str(member_id),
        type=events.NOTICE,
        data={
            "notice_id": str(notice_id),
            "member_id": str(member_id),
            "kind": kind,
            "subject": {
                name: str(value) if isinstance(value, UUID | date) else value
                for name, value in subject.items()
            },
            "created_at": now.isoformat(),
        },
        now=now,
    )
    return notice_id
