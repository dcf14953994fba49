"""What a member's standing is: a pure function of what they owe, gave, and were let off.

Exempt goes before everything. Else the oldest month that is over and not met decides: in grace for
the days that its city allows, lapsed after them, good without any. Debts stay in the city where
they were made, so moving changes nothing about them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal
from uuid import UUID

from timebank.domain import Actor, Rejected
from timebank.pledges.domain import Dues, Exemption, month_of, next_month

StandingName = Literal["good", "grace", "lapsed", "exempt"]
Cause = Literal["joined", "moved", "pledge", "exemption"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A standing, and why: the month that is short and its city, or the exemption.

    `until`: the last day of the grace, or of the exemption.
    """

    standing: StandingName
    cause: Cause = "pledge"
    city_id: str | None = None
    month: date | None = None
    short_minutes: int = 0
    exemption_id: UUID | None = None
    until: date | None = None


def judge(dues: Sequence[Dues], exemptions: Iterable[Exemption], today: date) -> Judgement:
    """The standing on `today`, the day in the city where the member is."""
    for exemption in exemptions:
        if exemption.covers(today):
            return Judgement(
                "exempt",
                "exemption",
                city_id=exemption.city_id,
                exemption_id=exemption.id,
                until=exemption.until,
            )
    short = [(period, of) for of in dues for period in of.short]
    if not short:
        return Judgement("good")
    lapsed = [item for item in short if item[0].state == "lapsed"]
    period, of = min(lapsed or short, key=lambda item: (item[0].grace_until, item[0].month))
    return Judgement(
        "lapsed" if lapsed else "grace",
        city_id=of.city_id,
        month=period.month,
        short_minutes=period.short_minutes,
        until=period.grace_until,
    )


def next_days(
    dues: Sequence[Dues], exemptions: Iterable[Exemption], *, city_id: str
) -> list[tuple[str, date]]:
    """The days, each with the city whose calendar is meant, on which time alone may change a
    standing: months that end, days of grace that pass, exemptions that do. `city_id`: where the
    member is."""
    days = [
        (city_id, exemption.end)
        for exemption in exemptions
        if exemption.end < date.max and exemption.from_on < exemption.end
    ]
    for of in dues:
        if any(
            pledge.ends_before is None or pledge.ends_before > month_of(of.today)
            for pledge in of.pledges
        ):
            days.append((of.city_id, next_month(of.today)))
        days.extend(
            (of.city_id, period.grace_until + timedelta(days=1))
            for period in of.short
            if period.state == "grace"
        )
    return days


# ── Exemptions ──────────────────────────────────────────────────────────────────────────────────

EXEMPTION_YEARS_MAX = 10
NOT_EXEMPT = Rejected("not_found", "This member is not exempt.")


def check_steward(actor: Actor, member_id: UUID, city_id: str) -> Rejected | None:
    """What only a steward of the member's city does, and not for themselves."""
    if not actor.is_steward_of(city_id):
        if actor.may_know_of(city_id):
            return Rejected("forbidden", "Only a steward of the city does this.")
        return Rejected("not_found", "There is no such member.")
    if str(member_id) == actor.id:
        return Rejected("forbidden", "What concerns you is decided by another steward.")
    return None


def grant_exemption(wanted: Exemption, others: Iterable[Exemption]) -> Exemption | Rejected:
    """Decide an exemption from `from_on`, today, on; `others` are all that the member had."""
    if any(other.covers(wanted.from_on) for other in others):
        return Rejected("already_exempt", "This member is exempt already.")
    years = wanted.until.year - wanted.from_on.year if wanted.until else 0
    if wanted.until is not None and (wanted.until < wanted.from_on or years > EXEMPTION_YEARS_MAX):
        return Rejected(
            "invalid_until",
            f"An exemption ends today at the earliest, in {EXEMPTION_YEARS_MAX} years at the"
            " latest, or is open.",
        )
    return wanted
