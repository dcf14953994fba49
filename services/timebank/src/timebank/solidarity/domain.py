"""The rules of the solidarity fund. Pure.

Anybody gives; a member asks, for their balance or for months of their pledge that are short; a
steward who is not that member decides. Who was helped is known to them and the stewards alone.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal
from uuid import UUID

from timebank.domain import Actor, Rejected

REQUEST_MINUTES_MAX = 60_000

Purpose = Literal["balance", "pledge"]
RequestStatus = Literal["asked", "granted", "declined", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Gift:
    """Minutes that a member gave to the fund of a city."""

    id: UUID
    member_id: UUID
    city_id: str
    minutes: int
    anonymous: bool
    transfer_id: UUID
    given_at: datetime


@dataclass(frozen=True, slots=True)
class HelpRequest:
    """Minutes that a member asks of a city's fund, and what became of it."""

    id: UUID
    member_id: UUID
    city_id: str
    minutes: int
    purpose: Purpose
    asked_at: datetime
    status: RequestStatus = "asked"
    decided_by: str | None = None
    decided_at: datetime | None = None
    granted_minutes: int | None = None
    transfer_id: UUID | None = None


NOT_FOUND = Rejected("not_found", "There is no such request.")


def check_decider(request: HelpRequest, actor: Actor) -> Rejected | None:
    """Whether the actor may decide: to all others, the request does not exist."""
    if str(request.member_id) == actor.id:
        return Rejected("forbidden", "Another steward decides about your request.")
    if not actor.is_steward_of(request.city_id):
        return NOT_FOUND
    return None


def decide_request(
    request: HelpRequest, status: RequestStatus, actor: Actor, now: datetime
) -> HelpRequest | Rejected:
    """The request as it was decided, once."""
    if request.status != "asked":
        return Rejected("request_decided", f"This request was {request.status} before.")
    return replace(request, status=status, decided_by=actor.id, decided_at=now)


def granted(
    request: HelpRequest, *, minutes: int | None, short_minutes: int | None
) -> int | Rejected:
    """How much is given: `minutes`, or all that was asked; for a pledge no more than is short.

    `short_minutes`: of the months that are over; None for help with a balance.
    """
    wanted = request.minutes if minutes is None else minutes
    if wanted > request.minutes:
        return Rejected("exceeds_request", f"Only {request.minutes} minutes were asked for.")
    if short_minutes is None:
        return wanted
    if short_minutes == 0:
        return Rejected("nothing_short", "No month of the pledge is short any more.")
    return min(wanted, short_minutes)
