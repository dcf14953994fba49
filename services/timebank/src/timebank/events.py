"""What the time bank publishes."""

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from common.events import Topic
from timebank.board.exchanges.domain import Exchange
from timebank.board.listings.domain import Listing
from timebank.contributions.domain import Contribution
from timebank.domain import Account, Transfer
from timebank.holds.domain import Hold
from timebank.pledges.domain import Pledge

STANDINGS = Topic("timebank.standings.v1", compacted=True)
TRANSFERS = Topic("timebank.transfers.v1", compacted=False)
BOOKS = Topic("timebank.books.v1", compacted=False)
ACCOUNTS = Topic("timebank.accounts.v1", compacted=True)
HOLDS = Topic("timebank.holds.v1", compacted=True)
CONTRIBUTIONS = Topic("timebank.contributions.v1", compacted=True)
NOTICES = Topic("timebank.notices.v1", compacted=False)
PLEDGES = Topic("timebank.pledges.v1", compacted=True)
LISTINGS = Topic("timebank.listings.v1", compacted=True)
EXCHANGES = Topic("timebank.exchanges.v1", compacted=True)
# What cities say to each other: signed messages, which are facts; and the keys they sign with.
CLEARING = Topic("timebank.clearing.v1", compacted=False)
CITY_KEYS = Topic("timebank.cities.v1", compacted=True)
# The newest checkpoint of each city's log, and what each other city holds of it.
CHECKPOINTS = Topic("timebank.checkpoints.v1", compacted=True)
COSIGNATURES = Topic("timebank.cosignatures.v1", compacted=True)
PUBLISHED = (
    STANDINGS,
    TRANSFERS,
    BOOKS,
    NOTICES,
    PLEDGES,
    ACCOUNTS,
    HOLDS,
    CONTRIBUTIONS,
    LISTINGS,
    EXCHANGES,
    CLEARING,
    CITY_KEYS,
    CHECKPOINTS,
    COSIGNATURES,
)

STANDING_CHANGED = "timebank.standing.changed.v1"
TRANSFER_POSTED = "timebank.transfer.posted.v1"
CONTRIBUTION_CHANGED = "timebank.contribution.changed.v1"
NOTICE = "timebank.notice.v1"
ACCOUNT_CHANGED = "timebank.account.changed.v1"
HOLD_CHANGED = "timebank.hold.changed.v1"
PLEDGE_CHANGED = "timebank.pledge.changed.v1"
LISTING_CHANGED = "timebank.listing.changed.v1"
EXCHANGE_CHANGED = "timebank.exchange.changed.v1"
CLEARING_SAID = "timebank.clearing.said.v1"
CITY_KEY_CHANGED = "timebank.city.changed.v1"
CHECKPOINT_SIGNED = "timebank.checkpoint.signed.v1"
CHECKPOINT_COSIGNED = "timebank.checkpoint.cosigned.v1"
BOOK_DIFFERS = "timebank.book.differs.v1"
PAIR_ALARM_CHANGED = "timebank.pair.alarm.changed.v1"


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


def pledge_changed(pledge: Pledge) -> dict[str, Any]:
    """The whole public state of a pledge. Of `terms` for the same month, the last one is meant."""
    return {
        "pledge_id": str(pledge.id),
        "version": pledge.version,
        "member_id": str(pledge.member_id),
        "city_id": pledge.city_id,
        "status": "running" if pledge.running else "ended",
        "starts_on": pledge.starts_on.isoformat(),
        "ends_before": pledge.ends_before.isoformat() if pledge.ends_before else None,
        "terms": [
            {
                "from_month": term.from_month.isoformat(),
                "minutes_per_month": term.minutes_per_month,
            }
            for term in pledge.terms
        ],
        "skills": list(pledge.skills),
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


def pair_alarm_changed(
    *,
    alarm_id: UUID,
    version: int,
    city_id: str,
    peer_city_id: str,
    kind: str,
    ids: Sequence[UUID],
    count: int,
    minutes: int,
    raised_at: datetime,
    closed_at: datetime | None,
) -> dict[str, Any]:
    """Two cities' positions differ by something that is not in flight; `ids`: what it is about."""
    return {
        "alarm_id": str(alarm_id),
        "version": version,
        "city_id": city_id,
        "peer_city_id": peer_city_id,
        "kind": kind,
        "ids": [str(each) for each in ids],
        "count": count,
        "minutes": minutes,
        "raised_at": raised_at.isoformat(),
        "closed_at": closed_at.isoformat() if closed_at else None,
    }


def contribution_changed(contribution: Contribution) -> dict[str, Any]:
    """The whole public state; without notes, which may name people."""
    claim = contribution.given.claim
    return {
        "contribution_id": str(contribution.id),
        "version": contribution.state_version,
        "city_id": contribution.city_id,
        "giver_id": str(contribution.giver_id),
        "beneficiary": {
            "kind": contribution.beneficiary.kind,
            "id": str(contribution.beneficiary.id) if contribution.beneficiary.id else None,
        },
        "group_id": str(contribution.group_id) if contribution.group_id else None,
        "status": contribution.status,
        "minutes": claim.minutes,
        "performed_on": claim.performed_on.isoformat(),
        "activity": claim.activity,
        "place_id": str(claim.place_id) if claim.place_id else None,
        "confirmed_minutes": contribution.confirmed_minutes,
        "transfer_id": str(contribution.transfer_id) if contribution.transfer_id else None,
        "logged_at": contribution.logged_at.isoformat(),
        "decided_at": contribution.decided_at.isoformat() if contribution.decided_at else None,
        "reversed_at": contribution.reversed_at.isoformat() if contribution.reversed_at else None,
    }


def listing_changed(listing: Listing) -> dict[str, Any]:
    """The whole public state of a listing: no words, and not where it is."""
    return {
        "listing_id": str(listing.id),
        "version": listing.version,
        "city_id": listing.city_id,
        "owner_kind": listing.owner_kind,
        "owner_id": str(listing.owner_id),
        "kind": listing.kind,
        "what": listing.what,
        "category": listing.category,
        "skills": list(listing.skills),
        "place_id": str(listing.place_id) if listing.place_id else None,
        "price_minutes": listing.price_minutes,
        "deposit_minutes": listing.deposit_minutes,
        "quantity": listing.quantity,
        "quantity_left": listing.left,
        "available_until": listing.available_until.isoformat() if listing.available_until else None,
        "visibility": listing.visibility,
        "status": listing.status,
        "created_at": listing.created_at.isoformat(),
    }


def exchange_changed(exchange: Exchange) -> dict[str, Any]:
    """The whole public state of an exchange, without messages and notes."""
    return {
        "exchange_id": str(exchange.id),
        "version": exchange.version,
        "listing_id": str(exchange.listing_id),
        "city_id": exchange.city_id,
        "requester_city_id": exchange.requester_city_id,
        "kind": exchange.kind,
        "what": exchange.what,
        "category": exchange.category,
        "giver": {"kind": exchange.giver.kind, "id": str(exchange.giver.id)},
        "receiver": {"kind": exchange.receiver.kind, "id": str(exchange.receiver.id)},
        "minutes": exchange.minutes,
        "deposit_minutes": exchange.deposit_minutes,
        "quantity": exchange.quantity,
        "from_on": exchange.from_on.isoformat() if exchange.from_on else None,
        "until_on": exchange.until_on.isoformat() if exchange.until_on else None,
        "status": exchange.status,
        "settled_minutes": exchange.settled_minutes,
        "contribution_id": str(exchange.contribution_id) if exchange.contribution_id else None,
        "transfer_id": str(exchange.transfer_id) if exchange.transfer_id else None,
        "created_at": exchange.created_at.isoformat(),
        "ended_at": exchange.ended_at.isoformat() if exchange.ended_at else None,
    }


def city_key_changed(
    city_id: str, public_key: bytes, keys: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The whole public state of a city as clearing knows it: its newest Ed25519 key, and all that
    it ever had, each with the statement by which the one before handed over."""
    return {
        "city_id": city_id,
        "version": len(keys),
        "public_key": public_key.hex(),
        "keys": [dict(each) for each in keys],
    }


def checkpoint_signed(
    city_id: str, size: int, note: str, proofs: Mapping[int, Sequence[bytes]]
) -> dict[str, Any]:
    """A city's newest checkpoint, and the proofs (in base64) that it goes on from earlier ones."""
    return {
        "city_id": city_id,
        "version": size,
        "note": note,
        "proofs": [
            {"from": earlier, "hashes": [base64.b64encode(item).decode() for item in hashes]}
            for earlier, hashes in proofs.items()
        ],
    }


def checkpoint_cosigned(
    city_id: str, cosigner: str, size: int, note: str, *, fork: bool
) -> dict[str, Any]:
    """The last checkpoint of a city that another cosigned, with both signatures. `fork`: it was
    shown one that does not go on from it."""
    return {
        "city_id": city_id,
        "cosigner": cosigner,
        "version": size,
        "note": note,
        "fork": fork,
    }
