"""French and English: texts from `messages/*.toml`; numbers, dates, durations as people write."""

import re
import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale
from babel.dates import format_date, format_time, get_day_names
from babel.numbers import format_currency, format_decimal
from markupsafe import Markup, escape

LANGUAGES = ("fr", "en")
HEADER_CHARS_MAX = 200
WEEKDAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")

Text = str | Mapping[str, str]


@cache
def catalogue() -> dict[str, dict[str, Text]]:
    """Text by key, then by language; a text that counts has the forms `one` and `other`."""
    texts: dict[str, dict[str, Text]] = {}
    for file in files("portal").joinpath("messages").iterdir():
        for key, text in tomllib.loads(file.read_text("utf-8")).items():
            if key in texts:
                raise ValueError(f"{key} is said twice")
            texts[key] = {**text, "fr": in_french(text["fr"])}
    return texts


def in_french(text: Text) -> Text:
    """With the spaces of French typography, which do not break a line: before `:`, `?` and such."""
    if not isinstance(text, str):
        return {form: str(in_french(words)) for form, words in text.items()}
    return re.sub(r" (?=[:»])|(?<=«) ", "\u00a0", re.sub(r" (?=[;?!])", "\u202f", text))


def preferred(cookie: str | None, accept_language: str | None) -> str:
    """The visitor's own choice, else the browser's favourite of the two, else French."""
    if cookie in LANGUAGES:
        return cookie
    best, best_weight = "fr", 0.0
    for part in (accept_language or "")[:HEADER_CHARS_MAX].split(","):
        tag, _, parameter = part.strip().partition(";")
        language = tag.strip().lower().partition("-")[0]
        try:
            weight = float(parameter.partition("=")[2]) if parameter else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and weight > best_weight:
            best, best_weight = language, weight
    return best


class Speech:
    """Everything that a template says in one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._locale = Locale(language)

    def __call__(self, key: str, *, n: int | None = None, **values: object) -> Markup:
        """The text of a key. Values are escaped; `n` chooses between singular and plural.

        Raises KeyError for an unknown key: a template error, found by the tests.
        """
        text = catalogue()[key][self.language]
        if not isinstance(text, str):
            if n is None:
                raise KeyError(f"{key} counts something: n is missing")
            text = text[self._locale.plural_form(n)]
        shown = {name: self._shown(value) for name, value in {"n": n, **values}.items()}
        return Markup(text).format(**shown)  # noqa: S704 - the catalogue is ours; values are escaped

    def knows(self, key: str) -> bool:
        return key in catalogue()

    def _shown(self, value: object) -> object:
        if isinstance(value, int):
            return self.number(value)
        return escape(value)

    def number(self, value: int) -> str:
        return format_decimal(value, locale=self._locale)

    def minutes(self, value: int) -> str:
        """135 → `2 h 15`, 45 → `45 min`, without a sign."""
        hours, minutes = divmod(abs(value), 60)
        if not hours:
            return f"{minutes} min"
        return f"{self.number(hours)} h {minutes:02d}" if minutes else f"{self.number(hours)} h"

    def day(self, moment: datetime, timezone: str = "Europe/Paris") -> str:
        """`lundi 23 novembre`."""
        local = moment.astimezone(zone(timezone))
        return self.on(local.date())

    def on(self, day: date) -> str:
        """`lundi 23 novembre`."""
        return self._first(format_date(day, "EEEE d MMMM", locale=self._locale))

    def short(self, day: date) -> str:
        """`23 nov. 2026`."""
        return self._first(format_date(day, "medium", locale=self._locale))

    def _first(self, written: str) -> str:
        """In French the first day of a month is an ordinal: `1er décembre`."""
        return re.sub(r"\b1 (?=[a-zéû])", "1er ", written) if self.language == "fr" else written

    def month(self, day: date) -> str:
        """`novembre 2026`."""
        return format_date(day, "MMMM y", locale=self._locale)

    def distance(self, metres: float) -> str:
        """350 → `350 m`, 1,240 → `1,2 km`: no finer than what is known."""
        if metres < 950:
            return f"{max(50, round(metres / 50) * 50)} m"
        kilometres = metres / 1000
        shown = format_decimal(kilometres, "#,##0.#" if kilometres < 10 else "#,##0", self._locale)
        return f"{shown} km"

    def percent(self, permille: int) -> str:
        """25 → `2,5 %`."""
        number = format_decimal(permille / 10, "#,##0.#", self._locale)
        return f"{number}\u00a0%" if self.language == "fr" else f"{number}%"

    def euros(self, cents: int) -> str:
        """1250 → `12,50 €`."""
        return format_currency(cents / 100, "EUR", locale=self._locale)

    def hours_word(self, word: str) -> str:
        """A word of an OSM opening_hours expression: `Mo` → `lundi`, `PH` → `jours fériés`."""
        if word in WEEKDAYS:
            return str(get_day_names("wide", locale=self._locale)[WEEKDAYS.index(word)])
        key = {"PH": "hours.holidays", "SH": "hours.school_holidays"}.get(word, "place.closed_day")
        return str(self(key))

    def date(self, moment: datetime, timezone: str = "Europe/Paris") -> str:
        """`23 nov. 2026`."""
        return self.short(moment.astimezone(zone(timezone)).date())

    def time(self, moment: datetime, timezone: str = "Europe/Paris") -> str:
        """`14:05`, on a 24-hour clock in both languages."""
        return format_time(moment.astimezone(zone(timezone)), "HH:mm", locale=self._locale)


def zone(name: str) -> ZoneInfo:
    """The time zone, or UTC when a service names one that does not exist."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")
