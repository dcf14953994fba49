"""The rules of rent credit. Pure. Money is integer cents."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from uuid import UUID

from timebank.domain import Actor, Rejected
from timebank.rules.domain import Rules


@dataclass(frozen=True, slots=True)
class RentCredit:
    """Minutes that a member gave to an organisation, and the rent that this takes off.

    `month`: its first day, in the city. `cents_per_hour`: the city's rate of that day.
    """

    id: UUID
    member_id: UUID
    organisation_id: UUID
    city_id: str
    month: date
    minutes: int
    cents_per_hour: int
    credit_cents: int
    transfer_id: UUID
    made_at: datetime
    reversed_by: UUID | None = None
    reversed_at: datetime | None = None

    @property
    def reversed(self) -> bool:
        return self.reversed_by is not None


@dataclass(frozen=True, slots=True)
class RentStatement:
    """An organisation's rent credits of a month, the oldest first."""

    organisation_id: UUID
    city_id: str
    month: date
    lines: Sequence[RentCredit]

    @property
    def minutes(self) -> int:
        return sum(line.minutes for line in self.lines if not line.reversed)

    @property
    def credit_cents(self) -> int:
        return sum(line.credit_cents for line in self.lines if not line.reversed)


NOT_FOUND = Rejected("not_found", "There is no such rent credit.")


def credit_of(minutes: int, cents_per_hour: int) -> int:
    """What minutes are worth, in whole cents; a part of a cent is not paid."""
    return minutes * cents_per_hour // 60


def make_credit(wanted: RentCredit, rules: Rules, *, used_minutes: int) -> RentCredit | Rejected:
    """Decide a rent credit; `used_minutes` are those of the member's others of the month."""
    if rules.rent_cents_per_hour is None:
        return Rejected("rent_not_offered", "This city takes no minutes for rent.")
    left = rules.rent_minutes_max_per_month - used_minutes
    if wanted.minutes > left:
        return Rejected(
            "rent_limit_passed",
            f"{rules.rent_minutes_max_per_month} minutes a month can be given for rent;"
            f" {max(0, left)} of them are left.",
        )
    return replace(
        wanted,
        cents_per_hour=rules.rent_cents_per_hour,
        credit_cents=credit_of(wanted.minutes, rules.rent_cents_per_hour),
    )


def may_read(actor: Actor, credit: RentCredit) -> bool:
    """The member, and who runs the city or a house of it."""
    return str(credit.member_id) == actor.id or runs(actor, credit.city_id)


def runs(actor: Actor, city_id: str) -> bool:
    return actor.city_id == city_id and (actor.steward or actor.operator)


def check_reversal(credit: RentCredit, actor: Actor) -> Rejected | None:
    """Only a steward takes a credit back, not their own, and once."""
    if not actor.is_steward_of(credit.city_id):
        if may_read(actor, credit):
            return Rejected("forbidden", "Only a steward of the city takes this back.")
        return NOT_FOUND
    if str(credit.member_id) == actor.id:
        return Rejected("forbidden", "What concerns you is taken back by another steward.")
    if credit.reversed:
        return Rejected("already_reversed", "This rent credit was taken back before.")
    return None
