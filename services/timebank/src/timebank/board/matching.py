"""Which offer answers which need, and why: docs/decisions/board-matching.md. Pure.

The points of a match are those of its reasons, all of them told; nothing else orders the answer,
and nobody's past, standing or balance is looked at.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Literal
from uuid import UUID

from timebank.board.listings.domain import Listing, Slot

ReasonCode = Literal["skill", "category", "words", "near", "same_city", "schedule", "price"]

SKILL_POINTS = 30
SKILLS_POINTS_MAX = 60
CATEGORY_POINTS = 15
WORD_POINTS = 10
WORDS_POINTS_MAX = 30
# From each distance on: the points.
NEAR_POINTS = ((1_000, 15), (3_000, 10), (10_000, 5))
SAME_CITY_POINTS = 5
SCHEDULE_POINTS = 10
PRICE_POINTS = 5
# A category alone is too little to call upon somebody.
POINTS_MIN = 20
# From here on the other side is told when a listing appears: a skill in common at the least.
TELL_POINTS_MIN = 30
CANDIDATES_MAX = 200
MATCHES_MAX = 20
TOLD_MAX = 5

EARTH_RADIUS_M = 6_371_000.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, and what it counts. `value`: the skills, words, metres, minutes that it is about."""

    code: ReasonCode
    points: int
    value: str


@dataclass(frozen=True, slots=True)
class Match:
    listing: Listing
    reasons: tuple[Reason, ...]

    @property
    def points(self) -> int:
        return sum(reason.points for reason in self.reasons)


def match(
    ours: Listing, our_stems: frozenset[str], theirs: Listing, their_stems: frozenset[str]
) -> Match | None:
    """Why `theirs` answers `ours`; None: it does not, or too little speaks for it.

    Necessary: an offer and a need, of the same thing, of two owners, and what they ask of each
    other possible: between cities only what costs nothing.
    """
    offer, need = (ours, theirs) if ours.kind == "offer" else (theirs, ours)
    if {ours.kind, theirs.kind} != {"offer", "need"} or ours.what != theirs.what:
        return None
    if ours.owner_id == theirs.owner_id:
        return None
    if ours.city_id != theirs.city_id and (offer.price_minutes or offer.deposit_minutes):
        return None
    about = (
        *shared_skills(ours, theirs),
        *same_category(ours, theirs),
        *shared_words(our_stems, their_stems),
    )
    if not about:
        return None
    found = Match(
        theirs,
        (
            *about,
            *nearness(ours, theirs),
            *shared_hours(ours, theirs),
            *within_price(offer, need),
        ),
    )
    return found if found.points >= POINTS_MIN else None


def rank(matches: Iterable[Match]) -> list[Match]:
    """The most points first; among equals the newest."""
    return sorted(matches, key=lambda found: (-found.points, -found.listing.id.int))[:MATCHES_MAX]


def shared_skills(ours: Listing, theirs: Listing) -> Iterable[Reason]:
    shared = sorted(set(ours.skills) & set(theirs.skills))
    if shared:
        points = min(SKILL_POINTS * len(shared), SKILLS_POINTS_MAX)
        yield Reason("skill", points, ", ".join(shared))


def same_category(ours: Listing, theirs: Listing) -> Iterable[Reason]:
    if ours.category == theirs.category != "other":
        yield Reason("category", CATEGORY_POINTS, ours.category)


def shared_words(ours: frozenset[str], theirs: frozenset[str]) -> Iterable[Reason]:
    shared = sorted(ours & theirs)
    if shared:
        points = min(WORD_POINTS * len(shared), WORDS_POINTS_MAX)
        yield Reason("words", points, ", ".join(shared))


def nearness(ours: Listing, theirs: Listing) -> Iterable[Reason]:
    metres = distance_m(ours, theirs)
    if metres is None:
        if ours.city_id == theirs.city_id:
            yield Reason("same_city", SAME_CITY_POINTS, ours.city_id)
        return
    for within_m, points in NEAR_POINTS:
        if metres <= within_m:
            yield Reason("near", points, str(metres))
            return


def shared_hours(ours: Listing, theirs: Listing) -> Iterable[Reason]:
    minutes = overlap_minutes(ours.schedule_slots, theirs.schedule_slots)
    if minutes:
        yield Reason("schedule", SCHEDULE_POINTS, str(minutes))


def within_price(offer: Listing, need: Listing) -> Iterable[Reason]:
    """The offer asks for no more than the need gives."""
    if offer.price_minutes <= need.price_minutes:
        yield Reason("price", PRICE_POINTS, str(offer.price_minutes))


def distance_m(ours: Listing, theirs: Listing) -> int | None:
    """Whole metres on a sphere; None when either is nowhere."""
    if (
        ours.latitude is None
        or ours.longitude is None
        or theirs.latitude is None
        or theirs.longitude is None
    ):
        return None
    lat, other = radians(ours.latitude), radians(theirs.latitude)
    across = radians(theirs.longitude - ours.longitude)
    inner = sin((other - lat) / 2) ** 2 + cos(lat) * cos(other) * sin(across / 2) ** 2
    return round(2 * EARTH_RADIUS_M * asin(min(1.0, sqrt(inner))))


def overlap_minutes(ours: Iterable[Slot], theirs: Iterable[Slot]) -> int:
    """Minutes of the week within slots of both; slots of one side do not overlap."""
    return sum(
        max(0, min(a.until_minute, b.until_minute) - max(a.from_minute, b.from_minute))
        for a in ours
        for b in theirs
        if a.weekday == b.weekday
    )


def strongest(by_listing: Mapping[UUID, Iterable[Match]]) -> list[tuple[UUID, Match]]:
    """The matches of several listings in one order, the best of each pair once."""
    pairs = [(ours, found) for ours, matches in by_listing.items() for found in matches]
    pairs.sort(key=lambda pair: (-pair[1].points, -pair[1].listing.id.int, -pair[0].int))
    return pairs[:MATCHES_MAX]
