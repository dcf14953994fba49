"""OSM opening hours, compiled to intervals in UTC.

https://wiki.openstreetmap.org/wiki/Key:opening_hours/specification

The library evaluates expressions; four things it leaves to the caller are done here:

* **Holidays.** It knows the national ones only, and ignores `SH` without a word. So `PH` and `SH`
  are replaced, day by day, by the days of the week that they mean there. A school holiday that
  nobody has dates for is tried both ways, and only what is open both ways counts as open.
* **Comments.** `"sur rendez-vous"` alone, and hours that a comment makes depend on an
  appointment, evaluate as open. A door cannot make an appointment: they count as not open.
* **Lists.** `Mo-Fr, PH 10:00-12:00` would mean "Monday to Friday, all day; and on holidays…".
  Days of a list with a space after the comma are read as one list, which is what people mean.
* **Clock changes.** Expressions are read on the wall clock and mapped to UTC by a rule that never
  goes backwards: a time that does not exist is the moment of the change, a time that comes twice
  is its first coming.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from opening_hours import OpeningHours, ParserError, State  # type: ignore[attr-defined] # not in its stub

EXPRESSION_CHARACTERS_MAX = 1000
HORIZON_DAYS = 14

Interval = tuple[int, int]

WEEKDAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
DAY = r"(?i:Mo|Tu|We|Th|Fr|Sa|Su)"
OFFSET = r"(?:\s+[+-]\d+\s+days?)?"
WEEKDAY_ITEM = rf"{DAY}(?:\s*-\s*{DAY})?(?:\[[^\]]*\])?{OFFSET}"
HOLIDAY_ITEM = rf"(?:PH|SH){OFFSET}"
ITEM = rf"(?:{HOLIDAY_ITEM}|{WEEKDAY_ITEM})"
# The days of a rule: a list, or holidays narrowed by days of the week after a space.
DAYS = re.compile(
    rf"(?<![A-Za-z])(?:(?P<holidays>{HOLIDAY_ITEM}(?:\s*,\s*{HOLIDAY_ITEM})*)"
    rf"\s+(?P<among>{WEEKDAY_ITEM}(?:\s*,\s*{WEEKDAY_ITEM})*)"
    rf"|(?P<list>{ITEM}(?:\s*,\s*{ITEM})*))(?![A-Za-z])"
)
HOLIDAY = re.compile(r"(?P<kind>PH|SH)(?:\s+(?P<offset>[+-]\d+)\s+days?)?")
PLAIN_WEEKDAYS = re.compile(rf"(?P<first>{DAY})(?:\s*-\s*(?P<last>{DAY}))?")
SUN = re.compile(r"\b(?:sunrise|sunset|dawn|dusk)\b")
COMMENT = re.compile(r'"[^"]*"')
# What parts one rule from the next. A comma parts rules when a space follows it.
RULES = re.compile(r"(;|\|\||,\s+)")
TIME_OR_STATE = re.compile(
    r"\d{1,2}:\d{2}|24/7|\b(?:sunrise|sunset|dawn|dusk)\b|\b(?i:open|off|closed|unknown)\b"
)
APPOINTMENT = re.compile(r"rendez[- ]?vous|\br\.?d\.?v\b|appointment|r[ée]servation", re.IGNORECASE)
WITHOUT = re.compile(
    r"\b(?:sans|without|no)\s+(?:rendez|r\.?d\.?v|appoint|r[ée]serv)", re.IGNORECASE
)
# Never matches: the library is given no country, and so knows no public holiday.
NEVER = "PH"


class UnreadableHours(ValueError):
    """An expression that cannot be evaluated. The message says where, for the one who wrote it."""


@dataclass(frozen=True, slots=True)
class Holidays:
    """The days off of one département.

    `school` holds for the dates from `school_from` to `school_to`, both included; outside of them,
    or where it is None, nobody knows.
    """

    public: frozenset[date] = frozenset()
    school: frozenset[date] | None = None
    school_from: date = date.max
    school_to: date = date.min

    def school_known(self, day: date) -> bool:
        return self.school is not None and self.school_from <= day <= self.school_to


NO_HOLIDAYS = Holidays()


@dataclass(frozen=True, slots=True)
class Closure:
    """Closed from the first to the last of these local dates, both included."""

    from_date: date
    to_date: date


def check_expression(expression: str) -> None:
    """Raises UnreadableHours when `compile_open_intervals` could not evaluate the expression."""
    if not expression.strip():
        raise UnreadableHours("the expression is empty")
    if len(expression) > EXPRESSION_CHARACTERS_MAX:
        raise UnreadableHours(f"more than {EXPRESSION_CHARACTERS_MAX} characters")
    # A date is as good as any; both readings of the holidays must be readable.
    a_day = date(2026, 1, 1)
    for special in (frozenset[date](), frozenset({a_day})):
        parse(rewrite(expression, a_day, public=special, school=special), None, None)


def compile_open_intervals(
    expression: str | None,
    timezone: ZoneInfo,
    holidays: Holidays,
    closures: Iterable[Closure],
    start: date,
    days: int = HORIZON_DAYS,
    *,
    coordinates: tuple[float, float] | None = None,
) -> list[Interval]:
    """When a place is open: half-open UTC intervals in epoch seconds, sorted, disjoint, apart.

    From local midnight of `start` to local midnight `days` later. `coordinates` (latitude,
    longitude) serve expressions with sunrise or sunset. No expression: never open.
    Raises UnreadableHours.
    """
    if expression is None or days <= 0:
        return []
    open_on_wall_clock: list[tuple[datetime, datetime]] = []
    for first, last, texts in readings(expression, holidays, start, days):
        alternatives = [evaluate(text, timezone, coordinates, first, last) for text in texts]
        found = alternatives[0]
        for other in alternatives[1:]:
            found = intersect(found, other)
        open_on_wall_clock += found
    for closure in closures:
        open_on_wall_clock = subtract(
            open_on_wall_clock,
            midnight(closure.from_date),
            midnight(min(closure.to_date, date.max - timedelta(days=1)) + timedelta(days=1)),
        )
    return to_utc(merge(open_on_wall_clock), timezone)


def horizon(timezone: ZoneInfo, start: date, days: int = HORIZON_DAYS) -> tuple[datetime, datetime]:
    """The instants, in UTC, between which `compile_open_intervals` tells when a place is open."""
    return (
        instant(midnight(start), timezone),
        instant(midnight(start + timedelta(days=days)), timezone),
    )


def readings(
    expression: str, holidays: Holidays, start: date, days: int
) -> Iterable[tuple[date, date, Sequence[str]]]:
    """What to evaluate: (first day, day after the last, one text, or two when nobody knows).

    One stretch where no holiday matters; else day by day, for the text is only right on its day
    and for what spills over from the day before.
    """
    if not mentions_holidays(expression):
        yield start, start + timedelta(days=days), [rewrite(expression, start)]
        return
    asks_for_school = "SH" in COMMENT.sub("", expression)
    for offset in range(days):
        day = start + timedelta(days=offset)
        # Offsets as in `SH -2 days` look further; a week around is beyond any in use.
        around = [day + timedelta(days=distance) for distance in range(-8, 9)]
        known = frozenset(
            other for other in around if holidays.school_known(other) and in_school(holidays, other)
        )
        unknown = frozenset(other for other in around if not holidays.school_known(other))
        texts = [rewrite(expression, day, public=holidays.public, school=known)]
        if asks_for_school and unknown:
            texts.append(rewrite(expression, day, public=holidays.public, school=known | unknown))
        yield day, day + timedelta(days=1), texts


def in_school(holidays: Holidays, day: date) -> bool:
    return holidays.school is not None and day in holidays.school


def mentions_holidays(expression: str) -> bool:
    return re.search(r"\b[PS]H\b", COMMENT.sub('""', expression)) is not None


def rewrite(
    expression: str,
    day: date,
    *,
    public: frozenset[date] = frozenset(),
    school: frozenset[date] = frozenset(),
) -> str:
    """The expression as the library must read it to be right about `day`."""
    # Comments are set aside, so that nothing in them is taken for a rule or a day.
    comments = COMMENT.findall(expression)
    numbers = iter(range(len(comments)))
    text = COMMENT.sub(lambda _: f'"{next(numbers)}"', expression)
    rules = RULES.split(join_lists(text))
    rules[::2] = [
        rewrite_days(rewrite_comment(rule, comments), day, public=public, school=school)
        for rule in rules[::2]
    ]
    return re.sub(r'"(\d+)"', lambda match: comments[int(match[1])], "".join(rules)).strip()


def join_lists(text: str) -> str:
    """`Mo-Fr, PH 10:00-12:00, 14:00-16:00` → `Mo-Fr,PH 10:00-12:00,14:00-16:00`."""
    pieces = RULES.split(text)
    for at in range(1, len(pieces), 2):
        left, right = pieces[at - 1], pieces[at + 1]
        incomplete = not TIME_OR_STATE.search(left) and '"' not in left
        times = re.search(r"\d\d:\d\d\+?\s*$", left) and re.match(r"\d{1,2}:\d\d", right)
        if pieces[at].startswith(",") and (incomplete or times):
            pieces[at] = ","
    return "".join(pieces)


def rewrite_comment(rule: str, comments: Sequence[str]) -> str:
    """`"sur rendez-vous"` → `unknown "sur rendez-vous"`, when all depends on the comment."""
    match = re.search(r'"(\d+)"', rule)
    if match is None:
        return rule
    before = rule[: match.start()]
    if re.search(r"\b(?:off|closed|unknown)\b", before, re.IGNORECASE):
        return rule
    if TIME_OR_STATE.search(before) and not needs_appointment(comments[int(match[1])]):
        return rule
    before = re.sub(r"\bopen\s*$", "", before.rstrip(), flags=re.IGNORECASE).rstrip()
    return f"{before} unknown {rule[match.start() :]}"


def needs_appointment(comment: str) -> bool:
    return APPOINTMENT.search(comment) is not None and WITHOUT.search(comment) is None


def rewrite_days(rule: str, day: date, *, public: frozenset[date], school: frozenset[date]) -> str:
    """Replace `PH` and `SH` by those of the two days that matter, yesterday and today, they are."""
    matter = (day - timedelta(days=1), day)

    def matching(item: re.Match[str]) -> set[str]:
        dates = public if item["kind"] == "PH" else school
        shift = timedelta(days=int(item["offset"] or 0))
        return {WEEKDAYS[each.weekday()] for each in matter if each - shift in dates}

    def replace(days: re.Match[str]) -> str:
        items = re.split(r"\s*,\s*", days["list"] or days["holidays"])
        names: list[str] = []
        for item in items:
            holiday = HOLIDAY.fullmatch(item)
            names += sorted(matching(holiday)) if holiday else [item]
        if days["among"]:
            among = expand_weekdays(days["among"])
            names = [name for name in names if name in among]
        return ",".join(dict.fromkeys(names)) or NEVER

    return DAYS.sub(replace, rule)


def expand_weekdays(text: str) -> set[str]:
    """The days of `Mo-We,Sa`. Raises UnreadableHours for `Mo[1]` and the like."""
    found: set[str] = set()
    for item in re.split(r"\s*,\s*", text):
        match = PLAIN_WEEKDAYS.fullmatch(item)
        if match is None:
            raise UnreadableHours(f"holidays narrowed by {item!r} are not supported")
        first = WEEKDAYS.index(match["first"].capitalize())
        last = WEEKDAYS.index((match["last"] or match["first"]).capitalize())
        found |= {WEEKDAYS[(first + step) % 7] for step in range((last - first) % 7 + 1)}
    return found


@lru_cache(maxsize=2048)
def parse(
    text: str, timezone: ZoneInfo | None, coordinates: tuple[float, float] | None
) -> OpeningHours:
    """Raises UnreadableHours."""
    try:
        # Never guess: no country (see NEVER), and the zone of the place, not of its coordinates.
        # (The library reads the coordinates only with `auto_timezone`.)
        return OpeningHours(
            text,
            timezone=timezone,
            coords=coordinates,
            auto_country=False,
            auto_timezone=coordinates is not None,
        )
    except (ParserError, ValueError) as error:
        raise UnreadableHours(" ".join(str(error).split())[:300]) from error


def evaluate(
    text: str,
    timezone: ZoneInfo,
    coordinates: tuple[float, float] | None,
    first: date,
    last: date,
) -> list[tuple[datetime, datetime]]:
    """When open, on the wall clock, from midnight of `first` to midnight of `last`."""
    sun = coordinates is not None and SUN.search(text) is not None
    hours = parse(text, timezone, coordinates) if sun else parse(text, None, None)
    return merge(
        (begin.replace(tzinfo=None), end.replace(tzinfo=None))
        for begin, end, state, _comment in hours.intervals(midnight(first), midnight(last))
        if state == State.OPEN
    )


def from_epoch(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def midnight(day: date) -> datetime:
    return datetime.combine(day, time())


def instant(wall: datetime, timezone: ZoneInfo) -> datetime:
    """The instant, in UTC, when a clock on the wall first shows `wall` or has jumped over it."""
    local = wall.replace(tzinfo=timezone, fold=0)
    utc = local.astimezone(UTC)
    if utc.astimezone(timezone).replace(tzinfo=None) == wall:
        return utc
    # Jumped over. The offset before the change gives an instant after it, by as much as `wall` is
    # beyond the clock's last time before the jump.
    jump_ends = local.replace(fold=1).astimezone(UTC)
    return last_instant_before(jump_ends, utc, timezone)


def last_instant_before(low: datetime, high: datetime, timezone: ZoneInfo) -> datetime:
    """The moment of the change of offset between two instants, to the second."""
    before = low.astimezone(timezone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(timezone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high


def to_utc(intervals: Iterable[tuple[datetime, datetime]], timezone: ZoneInfo) -> list[Interval]:
    """Epoch seconds. The mapping never goes backwards, so order and disjointness stay."""
    result: list[Interval] = []
    for begin, end in intervals:
        low = int(instant(begin, timezone).timestamp())
        high = int(instant(end, timezone).timestamp())
        if result and low <= result[-1][1]:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        elif low < high:
            result.append((low, high))
    return result


def merge(intervals: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    """Sorted, disjoint, apart."""
    result: list[tuple[datetime, datetime]] = []
    for begin, end in sorted(intervals):
        if begin >= end:
            continue
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def intersect(
    left: Sequence[tuple[datetime, datetime]], right: Sequence[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    return merge((max(a, c), min(b, d)) for a, b in left for c, d in right if max(a, c) < min(b, d))


def subtract(
    intervals: Iterable[tuple[datetime, datetime]], begin: datetime, end: datetime
) -> list[tuple[datetime, datetime]]:
    kept: list[tuple[datetime, datetime]] = []
    for low, high in intervals:
        if low < begin:
            kept.append((low, min(high, begin)))
        if high > end:
            kept.append((max(low, end), high))
    return kept
