"""What the pages use of the services' answers: more is ignored, less is an error."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from portal.i18n import Speech, zone

Interval = tuple[datetime, datetime]
DAYS_SHOWN = 7


class View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def one_of(known: Sequence[str], otherwise: str) -> AfterValidator:
    """A name that a service may add to: what is newer than this portal is `otherwise` here."""
    return AfterValidator(lambda name: name if name in known else otherwise)


class Tokens(View):
    access_token: str
    refresh_token: str
    expires_in: int = Field(ge=1, le=24 * 3600)


class Me(View):
    member_id: UUID
    city_id: str | None
    display_name: str
    roles: list[str]
    places: dict[UUID, str] = {}


class Card(View):
    card_id: UUID
    status: Literal["active", "blocked", "replaced"]
    label: str = ""
    uid_tail: str = ""
    type: str = "uid"
    created_at: AwareDatetime | None = None


class Moment(View):
    utc: AwareDatetime


class Openness(View):
    """Whether a place is open, and when that changes next; `reason` tells closed from unknown."""

    open: bool
    reason: str = ""
    next_change: Moment | None = None


class Door(View):
    door_id: UUID | None = None
    name: str
    kind: Literal["public", "private"]
    opening_hours: str | None = None


class Place(View):
    place_id: UUID
    city_id: str | None
    name: str
    status: str = "in_network"
    address: str | None = ""
    postcode: str | None = ""
    commune: str | None = ""
    timezone: str = "Europe/Paris"
    opening_hours: str | None = None
    # The intervals of the coming days, where the register tells them.
    open: list[tuple[AwareDatetime, AwareDatetime]] = []
    capacity: int | None = None
    latitude: float | None = None
    longitude: float | None = None
    doors: list[Door] = []
    attribution: str | None = None
    source: str | None = None
    licence: str | None = None

    def where(self) -> str:
        """`12 rue des Arts, 44000 Nantes`, as far as it is known."""
        return ", ".join(self.address_lines())

    def address_lines(self) -> list[str]:
        town = " ".join(part for part in (self.postcode, self.commune) if part)
        return [line for line in (self.address, town) if line]

    def origin(self) -> str:
        """Where the facts come from, with the licence, as open data asks to be told."""
        return " · ".join(part for part in (self.attribution or self.source, self.licence) if part)


class Page(View):
    items: list[Place]
    next: str | None = None


class Account(View):
    account_id: UUID
    kind: str
    balance_minutes: int
    held_minutes: int = 0
    floor_minutes: int | None = None
    status: str = "open"


class Posting(View):
    minutes: int
    posted_at: AwareDatetime
    kind: str = "transfer"
    memo: str | None = None
    reverses: UUID | None = None


class Leg(View):
    account_id: UUID
    minutes: int


class Transfer(View):
    transfer_id: UUID
    postings: list[Leg]


class Presence(View):
    inside: int
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class State:
    """How open a place is, in words: `kind` is the colour."""

    kind: Literal["open", "shut", "unknown"]
    text: str


@dataclass(frozen=True, slots=True)
class Day:
    name: str
    hours: str


def state_of(t: Speech, place: Place, open_now: bool | None) -> State:
    """Open or closed, as a list of places says it. `open_now` None: nobody could tell us."""
    if place.status == "closed":
        return State("shut", t("place.gone"))
    if place.status != "in_network":
        return State("shut", t("place.suspended"))
    if open_now is None or (not open_now and not place.opening_hours):
        return State("unknown", t("place.unknown_hours"))
    return State("open", t("place.open")) if open_now else State("shut", t("place.closed"))


def state_with_change(t: Speech, place: Place, openness: Openness, now: datetime) -> State:
    """Open or closed, and until when."""
    known = openness.reason != "hours_unknown"
    plain = state_of(t, place, openness.open if known else None)
    if place.status != "in_network" or not known or openness.next_change is None:
        return plain
    change = openness.next_change.utc
    zoned = zone(place.timezone)
    same_day = change.astimezone(zoned).date() == now.astimezone(zoned).date()
    if openness.open:
        key = "place.open_until" if same_day else "place.open_until_day"
    else:
        key = "place.opens_at" if same_day else "place.opens_day"
    time, day = t.time(change, place.timezone), t.day(change, place.timezone)
    return State(plain.kind, t(key, time=time, day=day))


def week_of(t: Speech, place: Place, now: datetime) -> list[Day]:
    """The hours of today and the six days after, in the place's own time; empty when unknown.

    An interval belongs to the day on which it begins: a bar that closes at 2 is open on its day.
    """
    if not place.open:
        return []
    zoned = zone(place.timezone)
    local = [(start.astimezone(zoned), end.astimezone(zoned)) for start, end in place.open]
    today = now.astimezone(zoned).date()
    week = []
    for offset in range(DAYS_SHOWN):
        day = today + timedelta(days=offset)
        spans = [(start, end) for start, end in local if start.date() == day]
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=zoned)
        week.append(Day(t.day(noon, place.timezone), spans_in_words(t, spans, place.timezone)))
    return week


def spans_in_words(t: Speech, spans: Sequence[Interval], timezone: str) -> str:
    """`09:00–12:00, 14:00–18:30`."""
    return ", ".join(f"{t.time(start, timezone)}–{t.time(end, timezone)}" for start, end in spans)


OSM_WORD = re.compile(r"Mo|Tu|We|Th|Fr|Sa|Su|PH|SH|off|closed|\d\d:\d\d(?:-\d\d:\d\d)?|[,;\- ]+")


def hours_in_words(t: Speech, expression: str) -> list[str]:
    """`Mo-Fr 09:00-18:00; Sa off` → `lundi–vendredi 09:00–18:00`, `samedi fermé`.

    Only for what is plainly days and times; anything else stays as it was written.
    """
    if re.sub(OSM_WORD, "", expression):
        return [expression]
    lines = []
    for rule in expression.split(";"):
        words = re.sub(r"[A-Za-z]{2,}", lambda word: t.hours_word(word.group()), rule.strip())
        lines.append(words.replace("-", "–").replace(",", ", ").replace(",  ", ", "))
    return [line for line in lines if line]
