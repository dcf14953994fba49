"""What a place asks of those who enter: zones, functions, who must be there, whose guests."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from places.domain.hours import HORIZON_DAYS, instant, midnight

TIMED = "timed"
ANYBODY = "anybody"
STAFF_TODAY = "staff_today"


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of a place that doors lead to, such as `workshop`. What it does not say of
    anti-passback, the place does."""

    zone: str
    name: str
    function: str | None = None
    anti_passback: str | None = None
    anti_passback_minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """What one or more zones serve. `opens_with` None: as the place."""

    function: str
    name: str
    capacity: int | None = None
    opens_with: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """`opens_with`: who must be inside, or have come today, before visitors may enter; `guests`:
    when guest passes open; `anti_passback_minutes` of the place, when that is timed."""

    anti_passback_minutes: int | None = None
    opens_with: str = ANYBODY
    guests: str = "hours"
    zones: tuple[Zone, ...] = field(default_factory=tuple)
    functions: tuple[Function, ...] = field(default_factory=tuple)

    @property
    def asks_for_today(self) -> bool:
        opens = {self.opens_with, *(function.opens_with for function in self.functions)}
        return STAFF_TODAY in opens


@dataclass(frozen=True, slots=True)
class WrongRule:
    """What does not fit together; `field` is below the body."""

    field: str
    reason: str


def wrong_rules(rules: Rules, anti_passback: str, used_zones: Iterable[str]) -> WrongRule | None:
    """The first thing that does not fit. `used_zones`: those that doors lead from or to."""
    if (anti_passback == TIMED) != (rules.anti_passback_minutes is not None):
        return WrongRule("anti_passback_minutes", "Give minutes for a timed anti-passback only.")
    functions = [function.function for function in rules.functions]
    zones = [zone.zone for zone in rules.zones]
    for name, found in (("functions", functions), ("zones", zones)):
        if len(set(found)) < len(found):
            return WrongRule(name, "The same one is there twice.")
    for at, zone in enumerate(rules.zones):
        if zone.function is not None and zone.function not in functions:
            return WrongRule(f"zones.{at}.function", "The place has no such function.")
        if (zone.anti_passback == TIMED) != (zone.anti_passback_minutes is not None):
            message = "Give minutes for a timed anti-passback only."
            return WrongRule(f"zones.{at}.anti_passback_minutes", message)
    missing = sorted(set(used_zones) - set(zones))
    if missing:
        return WrongRule("zones", f"A door leads to {missing[0]!r}: change the door first.")
    return None


def wrong_way(
    zones: Sequence[Zone], from_zone: str | None, to_zone: str | None
) -> WrongRule | None:
    """Why no door leads so. Outside, None, is where a door leads from, never to: who goes out is
    not asked."""
    known = {zone.zone for zone in zones}
    for name, zone in (("from_zone", from_zone), ("to_zone", to_zone)):
        if zone is not None and zone not in known:
            return WrongRule(name, "The place has no such zone.")
    if from_zone is not None and from_zone == to_zone:
        return WrongRule("to_zone", "A door leads to another zone than it leads from.")
    if from_zone is not None and to_zone is None:
        message = "A door from a zone leads to a zone; a door to the outside leads from there."
        return WrongRule("to_zone", message)
    return None


def passback_behind(
    rules: Rules, anti_passback: str, to_zone: str | None
) -> tuple[str, int | None]:
    """The anti-passback of a door, and its minutes: that of the zone behind it, or the place's."""
    behind = next((zone for zone in rules.zones if zone.zone == to_zone), None)
    if behind is not None and behind.anti_passback is not None:
        return behind.anti_passback, behind.anti_passback_minutes
    return anti_passback, rules.anti_passback_minutes


def day_starts(timezone: ZoneInfo, computed_at: datetime) -> list[int]:
    """The coming midnights by the clock of a place, from that before `computed_at`, in epoch
    seconds."""
    first = computed_at.astimezone(timezone).date()
    days = (first + timedelta(days=offset) for offset in range(HORIZON_DAYS + 1))
    return [int(instant(midnight(day), timezone).timestamp()) for day in days]
