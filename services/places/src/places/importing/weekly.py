"""Hours published per weekday, such as `09:00 - 12:00 / 13:30 - 17:00`, as an OSM expression."""

import re
from collections.abc import Mapping
from itertools import pairwise

WEEK = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
SPAN = re.compile(r"(\d\d:\d\d)\s*-\s*(\d\d:\d\d)", re.ASCII)
# How the form says "nothing": an empty cell, a dash, or both clocks at zero.
NOTHING = {"", "-", "00:00 - 00:00"}


class Contradiction(ValueError):
    """The hours of `day` cannot be read, or say two things."""

    def __init__(self, day: str, message: str) -> None:
        super().__init__(message)
        self.day = day


def weekly_hours(texts: Mapping[str, str]) -> str | None:
    """The expression for a week of texts by day (`Mo`…`Su`); None when every day says nothing.

    A span said twice counts once. Raises Contradiction for spans that overlap otherwise, end
    before they begin, or cannot be read: which of them holds is not for us to guess.
    """
    by_day = {day: day_hours(day, texts.get(day, "")) for day in WEEK}
    rules: list[str] = []
    at = 0
    while at < len(WEEK):
        spans = by_day[WEEK[at]]
        end = at
        while end + 1 < len(WEEK) and by_day[WEEK[end + 1]] == spans:
            end += 1
        if spans:
            days = WEEK[at] if at == end else f"{WEEK[at]}-{WEEK[end]}"
            rules.append(f"{days} {','.join(spans)}")
        at = end + 1
    return "; ".join(rules) or None


def day_hours(day: str, text: str) -> list[str]:
    """`["09:00-12:00", "13:30-17:00"]`"""
    spans: set[tuple[str, str]] = set()
    for part in text.split("/"):
        if part.strip() in NOTHING:
            continue
        match = SPAN.fullmatch(part.strip())
        if match is None:
            raise Contradiction(day, f"{part.strip()!r} is no span of hours")
        spans.add((match[1], match[2]))
    ordered = sorted(spans)
    for begin, end in ordered:
        if not begin < end <= "24:00":
            raise Contradiction(day, f"{begin} - {end} does not end after it begins")
    for (_, end), (begin, _) in pairwise(ordered):
        if begin < end:
            raise Contradiction(day, f"a span that begins at {begin} overlaps one until {end}")
    return [f"{begin}-{end}" for begin, end in ordered]
