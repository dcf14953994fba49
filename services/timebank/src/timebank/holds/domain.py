"""The rules of holds. Pure, like those of transfers.

The payer sets minutes aside for the payee; they count against the payer's floor until the hold
ends, once: posted (in full or in part, the rest is free again), voided, or expired. Who gives may
complete it and who receives may release it; neither can take what the other was promised.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from timebank.domain import (
    Account,
    Actor,
    Leg,
    Posted,
    Rejected,
    RejectionCode,
    TransferRequest,
    check_legs,
    check_payees,
    check_payers,
    check_state,
    post_transfer,
)

HOLD_MAX = timedelta(days=366)

HoldStatus = Literal["open", "posted", "voided", "expired"]
HoldPurpose = Literal["exchange"]


@dataclass(frozen=True, slots=True)
class Hold:
    """Minutes set aside. From `expires_at` on, nothing can be given of it."""

    id: UUID
    city_id: str
    from_account: UUID
    to_account: UUID
    minutes: int
    memo: str | None
    requested_by: str
    created_at: datetime
    expires_at: datetime
    status: HoldStatus = "open"
    resolved_at: datetime | None = None
    posted_minutes: int | None = None
    transfer_id: UUID | None = None
    # What it belongs to, which alone ends it before its time; None: its two sides do.
    purpose: HoldPurpose | None = None


@dataclass(frozen=True, slots=True)
class HoldPosted:
    """The hold as it ended, and the transfer to write."""

    hold: Hold
    posted: Posted


ENDED: dict[HoldStatus, RejectionCode] = {
    "posted": "hold_already_posted",
    "voided": "hold_already_voided",
    "expired": "hold_expired",
}


def place_hold(
    request: TransferRequest,
    accounts: dict[UUID, Account],
    *,
    expires_at: datetime,
    now: datetime,
    purpose: HoldPurpose | None = None,
) -> tuple[Hold, Account] | Rejected:
    """Decide a hold: what would refuse the transfer now refuses it. The payer, with it held."""
    if not now < expires_at <= now + HOLD_MAX:
        return Rejected("invalid_expiry", f"A hold ends within {HOLD_MAX.days} days from now.")
    refused = (
        check_legs(request.legs)
        or check_payers(request, accounts)
        or check_payees(request, accounts)
        or check_state(request, accounts)
    )
    if refused:
        return refused
    giving, receiving = sorted(request.legs, key=lambda leg: leg.minutes)
    payer = accounts[giving.account_id]
    hold = Hold(
        id=request.transfer_id,
        city_id=payer.city_id,
        from_account=giving.account_id,
        to_account=receiving.account_id,
        minutes=receiving.minutes,
        memo=request.memo or None,
        requested_by=request.actor.id,
        created_at=now,
        expires_at=expires_at,
        purpose=purpose,
    )
    return hold, replace(payer, held_minutes=payer.held_minutes + hold.minutes)


def post_hold(
    hold: Hold,
    accounts: Mapping[UUID, Account],
    actor: Actor,
    *,
    minutes: int | None,
    transfer_id: UUID,
    key: str | None,
    now: datetime,
    purpose: HoldPurpose | None = None,
) -> HoldPosted | Rejected:
    """Give what is held, or `minutes` of it; the rest is free again."""
    payer = accounts[hold.from_account]
    if not actor.may_pay_from(payer):
        return not_theirs(hold, accounts, actor)
    if (ended := check_open(hold, now) or check_purpose(hold, purpose)) is not None:
        return ended
    given = hold.minutes if minutes is None else minutes
    if given > hold.minutes:
        return Rejected("exceeds_hold", f"Only {hold.minutes} minutes are held.")
    freed = dict(accounts) | {payer.id: release(payer, hold)}
    decided = post_transfer(
        TransferRequest(
            transfer_id=transfer_id,
            own_id=False,
            key=key,
            actor=actor,
            legs=(Leg(hold.from_account, -given), Leg(hold.to_account, given)),
            memo=hold.memo,
        ),
        freed,
        now,
    )
    if isinstance(decided, Rejected):
        return decided
    ended_hold = replace(
        hold, status="posted", resolved_at=now, posted_minutes=given, transfer_id=transfer_id
    )
    return HoldPosted(ended_hold, decided)


def void_hold(
    hold: Hold,
    accounts: Mapping[UUID, Account],
    actor: Actor,
    now: datetime,
    purpose: HoldPurpose | None = None,
) -> tuple[Hold, Account] | Rejected:
    """Release what is held: the payee or a steward does without it."""
    if not actor.may_pay_from(accounts[hold.to_account]):
        return not_theirs(hold, accounts, actor)
    if (ended := check_open(hold, now) or check_purpose(hold, purpose)) is not None:
        return ended
    return (
        replace(hold, status="voided", resolved_at=now),
        release(accounts[hold.from_account], hold),
    )


def expire_hold(hold: Hold, payer: Account, now: datetime) -> tuple[Hold, Account] | None:
    """The hold expired and its minutes free; None when it ended before, or is not due."""
    if hold.status != "open" or now < hold.expires_at:
        return None
    return replace(hold, status="expired", resolved_at=now), release(payer, hold)


def check_open(hold: Hold, now: datetime) -> Rejected | None:
    """Time decides, not whether the worker that sweeps has come by."""
    if hold.status != "open":
        return Rejected(ENDED[hold.status], f"This hold has ended: it is {hold.status}.")
    if now >= hold.expires_at:
        return Rejected("hold_expired", "This hold has expired.")
    return None


def check_purpose(hold: Hold, purpose: HoldPurpose | None) -> Rejected | None:
    """What belongs to something is ended by it alone."""
    if hold.purpose != purpose:
        return Rejected("hold_bound", f"This hold belongs to an {hold.purpose}, which ends it.")
    return None


def may_see(hold: Hold, accounts: Mapping[UUID, Account], actor: Actor) -> bool:
    sides = (accounts[hold.from_account], accounts[hold.to_account])
    return actor.is_steward_of(hold.city_id) or any(actor.owns(account) for account in sides)


def not_theirs(hold: Hold, accounts: Mapping[UUID, Account], actor: Actor) -> Rejected:
    """Forbidden to those who may know of it; absent for all others."""
    if may_see(hold, accounts, actor) or actor.may_know_of(hold.city_id):
        return Rejected("forbidden", "Who gives completes a hold; who receives releases it.")
    return Rejected("not_found", "There is no such hold.")


def release(payer: Account, hold: Hold) -> Account:
    return replace(payer, held_minutes=payer.held_minutes - hold.minutes)
