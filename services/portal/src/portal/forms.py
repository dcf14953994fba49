"""What people type, as values; what is wrong with it, as keys of the catalogue."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TypeVar
from uuid import UUID

from common.ids import new_id

T = TypeVar("T")

MINUTES_MAX = 2**53 - 1
DURATION = re.compile(r"([0-9]{1,4}) ?[h:] ?([0-9]{1,2})?(?: ?(?:min|mn|m))?", re.IGNORECASE)
MINUTES = re.compile(r"([0-9]{1,16})(?: ?(?:min|mn|m|minutes?))?", re.IGNORECASE)


@dataclass(slots=True)
class Form:
    """The fields as they were typed, and what is wrong with which, for the page to show again."""

    values: dict[str, str]
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, fields: Mapping[str, str], names: tuple[str, ...]) -> "Form":
        return cls({name: fields.get(name, "") for name in names})

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def first_error(self) -> str:
        """Where the visitor goes on, or nothing."""
        return next((name for name in self.values if name in self.errors), "")

    def wrong(self, name: str, key: str) -> None:
        """Mark a field; the first thing that is wrong with it stays."""
        self.errors.setdefault(name, key)

    def read(self, name: str, parse: Callable[[str], T | None], key: str) -> T | None:
        """The field's value, or None, and then it is marked with `key`."""
        value = parse(self[name])
        if value is None:
            self.wrong(name, key)
        return value

    def optional(self, name: str, parse: Callable[[str], T | None], key: str) -> T | None:
        """As `read`, but nothing typed is nothing wrong."""
        return self.read(name, parse, key) if self[name] else None

    def text(self, name: str, chars_max: int, key: str = "form.too_long") -> str:
        if len(self[name]) > chars_max:
            self.wrong(name, key)
        return self[name]

    def choice(self, name: str, choices: tuple[str, ...], key: str = "form.choose") -> str:
        if self[name] not in choices:
            self.wrong(name, key)
        return self[name]


def as_uuid(text: str) -> UUID | None:
    """A UUID in its usual form, as people paste it: spaces around, any case."""
    text = text.strip().lower()
    return UUID(text) if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) else None


def as_minutes(text: str) -> int | None:
    """`90`, `45 min`, `1h30`, `1 h 30`, `2h` or `1:30`; None for anything else, and for nothing.

    Plain digits only: int() also takes 1_000, +5 and the digits of other scripts.
    """
    text = re.sub(r"[\u00a0\u202f ]+", " ", text).strip()
    if plain := MINUTES.fullmatch(text):
        minutes = int(plain.group(1))
    elif clock := DURATION.fullmatch(text):
        hours, rest = int(clock.group(1)), int(clock.group(2) or 0)
        if rest > 59:
            return None
        minutes = hours * 60 + rest
    else:
        return None
    return minutes if 1 <= minutes <= MINUTES_MAX else None


def typed(minutes: int) -> str:
    """Minutes as people type them, and as `as_minutes` reads them: `45`, `4h`, `1h30`."""
    hours, rest = divmod(minutes, 60)
    return (f"{hours}h{rest:02d}" if rest else f"{hours}h") if hours else str(minutes)


def as_minutes_or_none(text: str) -> int | None:
    """As `as_minutes`, and 0 for none at all."""
    return 0 if re.fullmatch(r"0{1,4}(?: ?(?:min|mn|m|h))?", text.strip()) else as_minutes(text)


def as_day(text: str) -> date | None:
    """`2026-11-23` as browsers send it, or `23/11/2026` as people type it; from 1900 to 2199."""
    if found := re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", text):
        year, month, day = found.groups()
    elif found := re.fullmatch(r"([0-9]{1,2})[/.]([0-9]{1,2})[/.]([0-9]{4})", text):
        day, month, year = found.groups()
    else:
        return None
    try:
        return date(int(year), int(month), int(day)) if 1900 <= int(year) < 2200 else None
    except ValueError:
        return None


def as_coordinate(limit: float) -> Callable[[str], float | None]:
    """Degrees between -limit and limit, with a point or a comma."""

    def parse(text: str) -> float | None:
        if not re.fullmatch(r"-?[0-9]{1,3}(?:[.,][0-9]{1,12})?", text):
            return None
        degrees = float(text.replace(",", "."))
        return degrees if -limit <= degrees <= limit else None

    return parse


def once_of(fields: Mapping[str, str]) -> str:
    """The id that the form was given when it was shown: sent twice, it does once."""
    return str(as_uuid(fields.get("once", "")) or new_id())
