"""How full a place was by hour, and how readers are. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from copass_tap.decision import STAY_MAX

HOUR = timedelta(hours=1)
HOURS_MAX = 7 * 24
# A reader that works says so every minute; three missed may be a bad network.
SILENT_AFTER = timedelta(minutes=5)
SNAPSHOT_OLD_AFTER = timedelta(hours=4)
CLOCK_OFFSET_MAX_MS = 2_000
BACKLOG_OLD_AFTER = timedelta(minutes=10)

Trouble = Literal["never_heard", "silent", "snapshot_old", "no_snapshot", "clock_off", "backlog"]


@dataclass(frozen=True, slots=True)
class Movement:
    """Somebody went through a door. `enters`: into the place; `stays`: out into another zone of it,
    which only who is inside can do."""

    member_id: UUID
    enters: bool
    at: datetime
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Hour:
    """From `start` for an hour. `peak`: the most people who were inside at once."""

    start: datetime
    entered: int
    left: int
    peak: int


def hours_of(movements: Iterable[Movement], start: datetime, hours: int) -> list[Hour]:
    """How many came, went and were inside, hour by hour from `start`.

    `movements`: all from STAY_MAX before `start`. Somebody who never tapped out counts until
    STAY_MAX after they entered, as at the door.
    """
    inside: dict[UUID, datetime] = {}
    found: list[Hour] = []
    ordered = sorted(movements, key=lambda one: one.at)
    position = 0
    while position < len(ordered) and ordered[position].at < start:
        move(inside, ordered[position])
        position += 1
    for number in range(hours):
        begin, end = start + number * HOUR, start + (number + 1) * HOUR
        forget(inside, begin)
        entered = left = 0
        peak = len(inside)
        while position < len(ordered) and ordered[position].at < end:
            one = ordered[position]
            forget(inside, one.at)
            was_inside = one.member_id in inside
            move(inside, one)
            is_inside = one.member_id in inside
            entered += is_inside and not was_inside
            left += was_inside and not is_inside
            peak = max(peak, len(inside))
            position += 1
        found.append(Hour(begin, entered, left, peak))
    return found


def move(inside: dict[UUID, datetime], one: Movement) -> None:
    was_inside = inside.pop(one.member_id, None) is not None
    if one.enters or (one.stays and was_inside):
        inside[one.member_id] = one.at


def forget(inside: dict[UUID, datetime], now: datetime) -> None:
    """Who entered too long ago has left. Entries are in the order of their time."""
    while inside:
        member_id, since = next(iter(inside.items()))
        if since > now - STAY_MAX:
            return
        del inside[member_id]


@dataclass(frozen=True, slots=True)
class ReaderReport:
    """What is known of a reader: its doors, its last tap, and what it last said of itself."""

    reader_id: UUID
    city_id: str
    doors: Sequence[UUID]
    last_tap_at: datetime | None
    reported_at: datetime | None
    program: str | None
    snapshot_issued_at: datetime | None
    clock_offset_ms: int | None
    backlog: int | None
    oldest_waiting_at: datetime | None
    problems: Sequence[str]


def troubles_of(report: ReaderReport, now: datetime) -> list[Trouble]:
    """What somebody should look at; nothing is well. A reader that says nothing of itself, because
    its program cannot, is judged by its taps alone."""
    if report.reported_at is None:
        return [] if report.last_tap_at is not None else ["never_heard"]
    found: list[Trouble] = []
    if now - report.reported_at > SILENT_AFTER:
        found.append("silent")
    if report.snapshot_issued_at is None:
        found.append("no_snapshot")
    elif now - report.snapshot_issued_at > SNAPSHOT_OLD_AFTER:
        found.append("snapshot_old")
    if abs(report.clock_offset_ms or 0) > CLOCK_OFFSET_MAX_MS:
        found.append("clock_off")
    waits = report.oldest_waiting_at
    if report.backlog and waits is not None and now - waits > BACKLOG_OLD_AFTER:
        found.append("backlog")
    return found
