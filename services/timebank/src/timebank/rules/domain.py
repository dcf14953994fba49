"""What a city may decide for itself. Pure."""

from dataclasses import dataclass
from datetime import datetime

CARRY_MINUTES_MAX = 60_000
GRACE_DAYS_MAX = 366
RENT_CENTS_PER_HOUR_MAX = 1_000_000
RENT_MINUTES_MAX = 60_000
FLOOR_MINUTES_MIN = -60_000


@dataclass(frozen=True, slots=True)
class Rules:
    """A city's rules in force. `number` counts them; 0: the defaults, which nobody set.

    `rent_cents_per_hour` None: minutes pay no rent here.
    """

    city_id: str
    number: int = 0
    # What may be carried over the end of a month: ten hours.
    carry_minutes_max: int = 600
    # Two weeks to catch up before the doors of other places close.
    grace_days: int = 14
    rent_cents_per_hour: int | None = None
    rent_minutes_max_per_month: int = 600
    # The floor that a new member's account is given.
    member_floor_minutes: int = -600
    set_by: str | None = None
    set_at: datetime | None = None
