"""What the time bank publishes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from common.events import Topic
from timebank.domain import Transfer

STANDINGS = Topic("timebank.standings.v1", compacted=True)
TRANSFERS = Topic("timebank.transfers.v1", compacted=False)
BOOKS = Topic("timebank.books.v1", compacted=False)
NOTICES = Topic("timebank.notices.v1", compacted=False)
PUBLISHED = (STANDINGS, TRANSFERS, BOOKS, NOTICES)

STANDING_CHANGED = "timebank.standing.changed.v1"
TRANSFER_POSTED = "timebank.transfer.posted.v1"
NOTICE = "timebank.notice.v1"
BOOK_DIFFERS = "timebank.book.differs.v1"


def standing_changed(
    *, member_id: str, city_id: str, standing: str, version: int
) -> dict[str, Any]:
    """The whole public state of a member's standing."""
    return {
        "member_id": member_id,
        "version": version,
        "city_id": city_id,
        "standing": standing,
    }


def transfer_posted(transfer: Transfer) -> dict[str, Any]:
    """The fact; without the memo, which may name people."""
    return {
        "transfer_id": str(transfer.id),
        "city_id": transfer.city_id,
        "kind": transfer.kind,
        "posted_at": transfer.posted_at.isoformat(),
        "postings": [
            {"account_id": str(posting.account_id), "minutes": posting.minutes}
            for posting in transfer.postings
        ],
        "reverses": str(transfer.reverses) if transfer.reverses else None,
    }


def book_differs(
    *, city_id: str, checked_at: datetime, differences: int, first: Sequence[str]
) -> dict[str, Any]:
    """A check found a book that does not follow from its postings; `first` of what is wrong."""
    return {
        "city_id": city_id,
        "checked_at": checked_at.isoformat(),
        "differences": differences,
        "first": list(first),
    }
