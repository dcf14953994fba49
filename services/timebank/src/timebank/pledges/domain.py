"""The rules of pledges. Pure: months are those of the city's calendar, told as dates.

A member promises a city some minutes of each month. What was given is poured into the months, the
oldest first; what is left over is carried into the months to come. So all that can be asked of a
pledge follows from two things: what each month owes, and how much was counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Literal
from uuid import UUID

from timebank.domain import Actor, Rejected

MINUTES_PER_MONTH_MAX = 6000
SKILLS_MAX = 30
# Of the minutes of one month: all are kept.
CHANGES_MAX = 20
# How far back a steward may let a pledge start, and how far ahead anybody may.
START_MONTHS_MAX = 12

PeriodState = Literal["open", "met", "grace", "lapsed"]


def month_of(day: date) -> date:
    """The first day of the month."""
    return day.replace(day=1)


def next_month(month: date) -> date:
    """The first day of the month after."""
    return month_of(month_of(month) + timedelta(days=31))


def months_from(first: date, last: date) -> Iterator[date]:
    """The months from one to another, both included, as their first days."""
    month = month_of(first)
    while month <= last:
        yield month
        month = next_month(month)


def months_later(month: date, months: int) -> date:
    """The first day of the month that many months later, or earlier."""
    number = month.year * 12 + month.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


@dataclass(frozen=True, slots=True)
class Term:
    """From a month on, so many minutes of each month."""

    from_month: date
    minutes_per_month: int


@dataclass(frozen=True, slots=True)
class Pledge:
    """What a member promised a city. `terms` are in the order in which they were made.

    `ends_before`: the first month that is not owed any more; None: it runs.
    """

    id: UUID
    member_id: UUID
    city_id: str
    starts_on: date
    terms: tuple[Term, ...]
    skills: tuple[str, ...] = ()
    ends_before: date | None = None
    version: int = 1
    made_by: str = ""
    made_at: datetime | None = None

    @property
    def running(self) -> bool:
        return self.ends_before is None

    def covers(self, month: date) -> bool:
        return month_of(self.starts_on) <= month and (
            self.ends_before is None or month < self.ends_before
        )

    def per_month(self, month: date) -> int:
        """What is promised of a whole month."""
        terms = [term for term in self.terms if term.from_month <= month]
        return terms[-1].minutes_per_month if terms else 0

    def owed_in(self, month: date) -> int:
        """What a month owes; the month in which it starts, in proportion to the days left of it."""
        if not self.covers(month):
            return 0
        minutes = self.per_month(month)
        if month == month_of(self.starts_on):
            days = (next_month(month) - month).days
            return minutes * (days - self.starts_on.day + 1) // days
        return minutes


@dataclass(frozen=True, slots=True)
class Exemption:
    """A time in which a member owes nothing. `until` is its last day, None: until it is ended.

    `ended_on`: the first day on which it is no more, once it was ended.
    """

    id: UUID
    member_id: UUID
    # The city that granted it, and whose stewards may know why.
    city_id: str
    from_on: date
    until: date | None = None
    ended_on: date | None = None
    granted_by: str = ""
    granted_at: datetime | None = None

    @property
    def end(self) -> date:
        """The first day on which it is no more."""
        ends = [self.ended_on] if self.ended_on else []
        if self.until is not None and self.until < date.max:
            ends.append(self.until + timedelta(days=1))
        return min(ends, default=date.max)

    def covers(self, day: date) -> bool:
        return self.from_on <= day < self.end

    def touches(self, month: date) -> bool:
        """Whether it held on any day of the month."""
        return self.from_on < self.end and self.from_on < next_month(month) and month < self.end


@dataclass(frozen=True, slots=True)
class Period:
    """A month of a pledge. `grace_until`: the last day to catch up on what is short."""

    month: date
    owed_minutes: int
    met_minutes: int
    grace_until: date
    state: PeriodState

    @property
    def short_minutes(self) -> int:
        return self.owed_minutes - self.met_minutes


@dataclass(frozen=True, slots=True)
class Dues:
    """All that a member owes to one city and has given it, on `today` in that city.

    `counted`: minutes by the month in which they were worked.
    """

    city_id: str
    today: date
    pledges: tuple[Pledge, ...]
    counted: Mapping[date, int] = field(default_factory=dict)
    exemptions: tuple[Exemption, ...] = ()
    grace_days: int = 14
    carry_minutes_max: int = 600

    @property
    def months(self) -> Iterator[date]:
        """From the first that was ever pledged up to the one that it is."""
        if self.pledges:
            first = min(pledge.starts_on for pledge in self.pledges)
            yield from months_from(first, self.today)

    def is_exempt(self, month: date) -> bool:
        return any(exemption.touches(month) for exemption in self.exemptions)

    def owed_in(self, month: date) -> int:
        """What a month owes; nothing when the member was exempt on any day of it."""
        if self.is_exempt(month):
            return 0
        return sum(pledge.owed_in(month) for pledge in self.pledges)

    @property
    def periods(self) -> tuple[Period, ...]:
        """Every month up to the one that it is, the oldest first, with what is met of it."""
        left = sum(self.counted.values())
        periods = []
        for month in self.months:
            owed = self.owed_in(month)
            met = min(owed, left)
            left -= met
            grace_until = next_month(month) + timedelta(days=self.grace_days - 1)
            periods.append(
                Period(month, owed, met, grace_until, self.state(month, owed - met, grace_until))
            )
        return tuple(periods)

    def state(self, month: date, short: int, grace_until: date) -> PeriodState:
        if short == 0:
            return "met"
        if self.today < next_month(month):
            return "open"
        return "grace" if self.today <= grace_until else "lapsed"

    @property
    def carried_minutes(self) -> int:
        """What was given beyond all that is owed so far, for the months to come."""
        owed = sum(self.owed_in(month) for month in self.months)
        return max(0, sum(self.counted.values()) - owed)

    @property
    def short(self) -> tuple[Period, ...]:
        """The months that are over and not met, the oldest first."""
        return tuple(period for period in self.periods if period.state in ("grace", "lapsed"))

    def room(self, performed_on: date) -> int:
        """How much of a work of that day counts: what is owed, and what may be carried on.

        Over the end of no month from then on is more than `carry_minutes_max` carried, so it does
        not matter how late a work is confirmed. Work from before the first pledge counts nothing.
        """
        worked = month_of(performed_on)
        months = list(self.months)
        if not months or not months[0] <= worked <= months[-1]:
            return 0
        carry = self.carry_minutes_max if self.carries(worked) else 0
        room = None
        owed = counted = 0
        for month in months:
            owed += self.owed_in(month)
            counted = sum(minutes for of, minutes in self.counted.items() if of <= month)
            if month >= worked:
                free = owed + carry - counted
                room = free if room is None else min(room, free)
        return max(0, room or 0)

    def carries(self, month: date) -> bool:
        """Whether there are months to come that would want what is left over of this one."""
        return not self.is_exempt(month) and any(
            pledge.running and pledge.covers(month) and pledge.per_month(self.today) > 0
            for pledge in self.pledges
        )


# ── Making, changing and ending a pledge ────────────────────────────────────────────────────────


def check_right(actor: Actor, member_id: UUID, city_id: str, what: str) -> Rejected | None:
    """What is a member's: for them and for the stewards of the city."""
    if str(member_id) == actor.id or actor.is_steward_of(city_id):
        return None
    if actor.may_know_of(city_id):
        return Rejected("forbidden", f"This {what} is not yours.")
    return Rejected("not_found", f"There is no such {what}.")


def start_pledge(
    pledge: Pledge, actor: Actor, *, given_start: bool, others: Sequence[Pledge], today: date
) -> Pledge | Rejected:
    """Decide a new pledge; `others` are those of the member that run, or have owed something.

    Without `given_start`, it starts today, or when the last one of this city is over.
    """
    if any(other.running for other in others):
        return Rejected("pledge_running", "A pledge is running: change it, or end it first.")
    free_from = max(
        (
            other.ends_before
            for other in others
            if other.ends_before is not None and other.city_id == pledge.city_id
        ),
        default=date.min,
    )
    starts_on = pledge.starts_on if given_start else max(today, free_from)
    back = START_MONTHS_MAX if actor.is_steward_of(pledge.city_id) else 0
    if not (months_later(today, -back) <= starts_on < months_later(today, START_MONTHS_MAX + 1)):
        return Rejected(
            "invalid_start",
            f"A pledge starts within {START_MONTHS_MAX} months, from this month on; only a steward"
            " names a month of the past.",
        )
    if month_of(starts_on) < free_from:
        return Rejected("invalid_start", f"The last pledge runs until {free_from}.")
    (term,) = pledge.terms
    return replace(
        pledge, starts_on=starts_on, terms=(replace(term, from_month=month_of(starts_on)),)
    )


def change_pledge(
    pledge: Pledge,
    *,
    minutes_per_month: int | None,
    skills: tuple[str, ...] | None,
    today: date,
) -> Pledge | Rejected:
    """Decide a change: of the minutes from the next month on, of the skills at once."""
    if not pledge.running:
        return ENDED
    changed = replace(pledge, version=pledge.version + 1)
    if skills is not None:
        changed = replace(changed, skills=skills)
    from_month = max(next_month(today), month_of(pledge.starts_on))
    if minutes_per_month is not None and minutes_per_month != pledge.per_month(from_month):
        if sum(term.from_month == from_month for term in pledge.terms) >= CHANGES_MAX:
            return Rejected("too_many_changes", "This was changed often enough for one month.")
        term = Term(from_month, minutes_per_month)
        changed = replace(changed, terms=(*pledge.terms, term))
    return changed


def end_pledge(pledge: Pledge, today: date, *, at_once: bool = False) -> Pledge | Rejected:
    """Decide the end: the month that it is is the last one owed.

    `at_once`, when the member has left the city: this month is not owed any more.
    """
    if not pledge.running:
        return ENDED
    ends_before = month_of(today) if at_once else next_month(today)
    # One that has not begun will not.
    if pledge.starts_on > today:
        ends_before = month_of(pledge.starts_on)
    return replace(
        pledge,
        ends_before=max(ends_before, month_of(pledge.starts_on)),
        version=pledge.version + 1,
    )


ENDED = Rejected("pledge_ended", "This pledge has ended.")
