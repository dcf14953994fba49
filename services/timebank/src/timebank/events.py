"""What the time bank publishes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from common.events import Topic
from timebank.domain import Account, Transfer
from timebank.holds.domain import Hold

STANDINGS = Topic("timebank.standings.v1", compacted=True)
TRANSFERS = Topic("timebank.transfers.v1", compacted=False)
BOOKS = Topic("timebank.books.v1", compacted=False)
ACCOUNTS = Topic("timebank.accounts.v1", compacted=True)
HOLDS = Topic("timebank.holds.v1", compacted=True)
NOTICES = Topic("timebank.notices.v1", compacted=False)
PUBLISHED = (STANDINGS, TRANSFERS, BOOKS, NOTICES, ACCOUNTS, HOLDS)

STANDING_CHANGED = "timebank.standing.changed.v1"
TRANSFER_POSTED = "timebank.transfer.posted.v1"
NOTICE = "timebank.notice.v1"
ACCOUNT_CHANGED = "timebank.account.changed.v1"
HOLD_CHANGED = "timebank.hold.changed.v1"
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


def account_changed(account: Account, version: int) -> dict[str, Any]:
    """The whole public state of an account but its balance, which follows from the transfers.

    `version` counts these states, not the postings.
    """
    return {
        "account_id": str(account.id),
        "version": version,
        "city_id": account.city_id,
        "kind": account.kind,
        "owner_id": str(account.owner_id) if account.owner_id else None,
        "status": "open" if account.open else "closed",
        "floor_minutes": account.floor_minutes,
        "ceiling_minutes": account.ceiling_minutes,
    }


def hold_changed(hold: Hold) -> dict[str, Any]:
    """The whole public state of a hold, without the memo. It changes once: when it ends."""
    return {
        "hold_id": str(hold.id),
        "version": 1 if hold.status == "open" else 2,
        "city_id": hold.city_id,
        "from_account": str(hold.from_account),
        "to_account": str(hold.to_account),
        "minutes": hold.minutes,
        "status": hold.status,
        "created_at": hold.created_at.isoformat(),
        "expires_at": hold.expires_at.isoformat(),
        "resolved_at": hold.resolved_at.isoformat() if hold.resolved_at else None,
        "posted_minutes": hold.posted_minutes,
        "transfer_id": str(hold.transfer_id) if hold.transfer_id else None,
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
