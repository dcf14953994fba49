"""Notices, how a member wants to hear of them, and when a message is tried again: no clock, no
database, no network."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Literal, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

Language = Literal["fr", "en"]
EmailChoice = Literal["off", "daily", "each"]
ChannelName = Literal["email", "push"]
Status = Literal["waiting", "sent", "dropped", "refused", "given_up"]

KEPT = timedelta(days=180)
DELIVERIES_KEPT = timedelta(days=30)
# Older news is read in the app: after an outage nobody is woken by what happened last week.
STALE = timedelta(hours=48)
# Of one channel to one member. What is beyond waits in the app.
DELIVERIES_PER_DAY_MAX = 50
SUBSCRIPTIONS_MAX = 10
UNREAD_COUNTED_MAX = 100
DIGEST_AT = time(18)
# Longer than a channel may take, so that a message is never sent by two workers at once.
LEASE = timedelta(minutes=2)
# Waits after each failed attempt: about a day in all, then the message is given up.
BACKOFF = tuple(timedelta(minutes=m) for m in (1, 5, 30, 120, 360, 900))
ATTEMPTS_MAX = len(BACKOFF) + 1


@dataclass(frozen=True, slots=True)
class Preferences:
    """How a member is told. `email`: never, once a day, or of each notice."""

    email: EmailChoice = "daily"
    push: bool = True
    language: Language = "fr"


@dataclass(frozen=True, slots=True)
class Notice:
    notice_id: UUID
    member_id: UUID
    kind: str
    subject: Mapping[str, Any]
    created_at: datetime
    read_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A browser's address at its push service, and its keys (RFC 8291: P-256 point, 16 bytes)."""

    subscription_id: UUID
    member_id: UUID
    endpoint: str
    p256dh: bytes
    auth: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to be sent; `attempts` counts this one."""

    delivery_id: UUID
    member_id: UUID
    channel: ChannelName
    notice_id: UUID | None
    subscription_id: UUID | None
    digest_on: date | None
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Letter:
    """What a channel needs to send one message. `notices` are the newest first, at least one."""

    delivery_id: UUID
    language: Language
    notices: tuple[Notice, ...]
    email: str | None
    subscription: Subscription | None
    now: datetime
    is_digest: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side has taken it over."""


@dataclass(frozen=True, slots=True)
class Refused:
    """It will never be taken: trying again is no use. `reason`: a word of ours, no address."""

    reason: str


@dataclass(frozen=True, slots=True)
class Away:
    """Not now. `wait`: what the other side asks for, where it says so."""

    reason: str
    wait: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The address exists no more: it is forgotten."""


Outcome = Sent | Refused | Away | Gone


class Channel(Protocol):
    """One way to reach a member. Bounded in time; every failure is an outcome, never raised."""

    async def send(self, letter: Letter) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a delivery: its status, and while it waits, when it is tried again."""

    status: Status
    next_at: datetime | None = None
    last_error: str | None = None


def judge(delivery: Delivery, outcome: Outcome, now: datetime) -> Next:
    """What becomes of a delivery after an attempt."""
    match outcome:
        case Sent():
            return Next("sent")
        case Gone():
            return Next("refused", last_error="gone")
        case Refused(reason):
            return Next("refused", last_error=reason)
        case Away(reason, wait):
            if delivery.attempts >= ATTEMPTS_MAX:
                return Next("given_up", last_error=reason)
            pause = BACKOFF[delivery.attempts - 1]
            if wait is not None:
                pause = min(max(pause, wait), BACKOFF[-1])
            return Next("waiting", now + pause, reason)


def wanted(delivery: Delivery, preferences: Preferences) -> bool:
    """Whether the member still wants it when it is about to be sent."""
    if delivery.channel == "push":
        return preferences.push
    return preferences.email == ("daily" if delivery.digest_on else "each")


@dataclass(frozen=True, slots=True)
class DigestDay:
    """The e-mail of a day tells of what came before `until`, and is not older than `since`."""

    on: date
    since: datetime
    until: datetime


def digest_due(timezone: str, now: datetime) -> DigestDay | None:
    """Today's digest of a time zone, from 18:00 there until midnight; before that None."""
    zone = ZoneInfo(timezone)
    today = now.astimezone(zone).date()
    until = datetime.combine(today, DIGEST_AT, zone)
    return DigestDay(today, until - STALE, until) if now >= until else None
