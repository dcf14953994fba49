"""What looks odd among the transfers between cities. Pure.

Nothing here blocks anybody, and nothing is a score: each finding names its rule, and says in
figures what the rule saw. Most findings have a good reason; an auditor asks for it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any, Literal
from uuid import UUID

Rule = Literal[
    "unusual_size", "unusual_hour", "turned_one_way", "ring", "piecemeal", "overdue", "returned"
]
State = Literal["sent", "settled", "returned"]
Pair = tuple[str, str]

# What is usual is what the days before show.
HISTORY = timedelta(days=90)
SIZE_HISTORY_MIN = 20
SIZE_MINUTES_MIN = 240
SIZE_SPREADS = 8
SPREAD_MINUTES_MIN = 15
NIGHT_HOURS = range(1, 5)
NIGHT_HISTORY_MIN = 50
NIGHT_ONE_IN = 50
ONE_WAY_MINUTES_MIN = 600
ONE_WAY_PERCENT = 95
BOTH_WAYS_PERCENT = 25
RING_DAYS = 7
RING_PEOPLE_MAX = 5
RING_PERCENT = 10
RING_MINUTES_MIN = 60
# Steps looked at for each transfer that a ring might begin with; a busy week has some.
RING_STEPS_MAX = 2_000
PIECES_MIN = 5
PIECES_WITHIN = timedelta(hours=24)
PIECES_MINUTES_MIN = 600
LATE = timedelta(hours=1)
RETURNED_OF_MIN = 10
RETURNED_PERCENT = 20

EXPLAINED: Mapping[Rule, str] = {
    "unusual_size": f"At least {SIZE_MINUTES_MIN} minutes, and further above the median of the same"
    f" direction's last {HISTORY.days} days than {SIZE_SPREADS} times the usual distance from it"
    f" (the median of the distances, at least {SPREAD_MINUTES_MIN} minutes). With fewer than"
    f" {SIZE_HISTORY_MIN} transfers before it there is no usual.",
    "unusual_hour": f"Sent between {NIGHT_HOURS.start} and {NIGHT_HOURS.stop} o'clock of its city,"
    f" where fewer than one in {NIGHT_ONE_IN} of the city's last {HISTORY.days} days were (at least"
    f" {NIGHT_HISTORY_MIN} transfers).",
    "turned_one_way": f"Of at least {ONE_WAY_MINUTES_MIN} minutes between two cities,"
    f" {ONE_WAY_PERCENT} % or more went one way, while in the {HISTORY.days} days before at least"
    f" {BOTH_WAYS_PERCENT} % went either way.",
    "ring": f"Minutes that came back to who gave them: two to {RING_PEOPLE_MAX} people within"
    f" {RING_DAYS} days, each giving the next what they got, give or take {RING_PERCENT} %, at"
    f" least {RING_MINUTES_MIN} minutes.",
    "piecemeal": f"{PIECES_MIN} transfers or more from one account to one person within"
    f" {PIECES_WITHIN.total_seconds() / 3600:.0f} hours, {PIECES_MINUTES_MIN} minutes or more in"
    " all.",
    "overdue": f"Unanswered more than {LATE.total_seconds() / 3600:.0f} hour after its deadline.",
    "returned": f"Of at least {RETURNED_OF_MIN} transfers one way, {RETURNED_PERCENT} % or more"
    " came back.",
}


@dataclass(frozen=True, slots=True)
class Crossing:
    """A transfer between two cities. `hour`: of `from_city`'s clock; None where that is not known.

    `payer`: the account that gave, of who; None when its city keeps its book elsewhere.
    """

    transfer_id: UUID
    from_city: str
    to_city: str
    minutes: int
    at: datetime
    state: State
    payer: UUID | None
    payee: UUID
    deadline: datetime
    hour: int | None

    @property
    def pair(self) -> Pair:
        return self.from_city, self.to_city


@dataclass(frozen=True, slots=True)
class Anomaly:
    """What a rule found. `figures` are the numbers that `reason` says in words."""

    rule: Rule
    from_city: str
    to_city: str
    transfer_ids: tuple[UUID, ...]
    at: datetime
    reason: str
    figures: Mapping[str, Any]


def find_anomalies(crossings: Sequence[Crossing], since: datetime, now: datetime) -> list[Anomaly]:
    """What looks odd from `since` on, the newest first; what was before is what is usual.

    `crossings`: all from HISTORY before `since`, each once.
    """
    ordered = sorted(crossings, key=lambda one: (one.at, one.transfer_id))
    rules: Sequence[Callable[[Sequence[Crossing], datetime], Iterable[Anomaly]]] = (
        unusual_sizes,
        unusual_hours,
        turned_one_way,
        rings,
        piecemeal,
        returned,
    )
    found = [anomaly for rule in rules for anomaly in rule(ordered, since)]
    found += overdue(ordered, now)
    return sorted(found, key=lambda one: (one.at, one.rule, one.transfer_ids[:1]), reverse=True)


def by_pair(crossings: Iterable[Crossing]) -> dict[Pair, list[Crossing]]:
    grouped: dict[Pair, list[Crossing]] = defaultdict(list)
    for one in crossings:
        grouped[one.pair].append(one)
    return grouped


def unusual_sizes(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    for (from_city, to_city), ones in by_pair(ordered).items():
        first = 0
        for number, one in enumerate(ones):
            while ones[first].at < one.at - HISTORY:
                first += 1
            if one.at < since or one.minutes < SIZE_MINUTES_MIN:
                continue
            before = [other.minutes for other in ones[first:number]]
            if len(before) < SIZE_HISTORY_MIN:
                continue
            middle = median(before)
            spread = max(median(abs(m - middle) for m in before), SPREAD_MINUTES_MIN)
            if one.minutes > middle + SIZE_SPREADS * spread:
                yield Anomaly(
                    "unusual_size",
                    from_city,
                    to_city,
                    (one.transfer_id,),
                    one.at,
                    f"{one.minutes} minutes, where half of the {len(before)} transfers before it"
                    f" were of {middle:g} or fewer.",
                    {"minutes": one.minutes, "median": middle, "transfers": len(before)},
                )


def unusual_hours(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    by_city: dict[str, list[Crossing]] = defaultdict(list)
    for one in ordered:
        if one.hour is not None:
            by_city[one.from_city].append(one)
    for ones in by_city.values():
        first = nights = 0  # nights: among ones[first:number]
        for number, one in enumerate(ones):
            while ones[first].at < one.at - HISTORY:
                nights -= ones[first].hour in NIGHT_HOURS
                first += 1
            before = number - first
            is_night = one.hour in NIGHT_HOURS
            rare = before >= NIGHT_HISTORY_MIN and nights * NIGHT_ONE_IN < before
            if is_night and rare and one.at >= since:
                yield Anomaly(
                    "unusual_hour",
                    one.from_city,
                    one.to_city,
                    (one.transfer_id,),
                    one.at,
                    f"Sent at {one.hour} o'clock; of the {before} transfers before it {nights} were"
                    " sent at night.",
                    {"hour": one.hour, "transfers": before, "at_night": nights},
                )
            nights += is_night


def turned_one_way(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    before: dict[Pair, int] = defaultdict(int)
    after: dict[Pair, list[Crossing]] = defaultdict(list)
    for one in ordered:
        if one.state == "returned":
            continue
        if one.at >= since:
            after[one.pair].append(one)
        elif one.at >= since - HISTORY:
            before[one.pair] += one.minutes
    for (from_city, to_city), ones in after.items():
        there = sum(one.minutes for one in ones)
        back = sum(one.minutes for one in after.get((to_city, from_city), ()))
        was = before[from_city, to_city], before[to_city, from_city]
        if (
            there + back >= ONE_WAY_MINUTES_MIN
            and there * 100 >= (there + back) * ONE_WAY_PERCENT
            and sum(was) >= ONE_WAY_MINUTES_MIN
            and min(was) * 100 >= sum(was) * BOTH_WAYS_PERCENT
        ):
            yield Anomaly(
                "turned_one_way",
                from_city,
                to_city,
                tuple(one.transfer_id for one in ones),
                ones[-1].at,
                f"{there} minutes one way and {back} the other; in the {HISTORY.days} days before"
                f" {was[0]} and {was[1]}.",
                {"there": there, "back": back, "there_before": was[0], "back_before": was[1]},
            )


def rings(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    """Each ring once, told at the transfer that closes it."""
    given: dict[UUID, list[Crossing]] = defaultdict(list)
    for one in ordered:
        if one.payer is not None and one.state != "returned":
            given[one.payer].append(one)
    for one in ordered:
        if one.payer is None or one.state == "returned" or one.minutes < RING_MINUTES_MIN:
            continue
        ring = close_ring(one, given)
        if ring is not None and ring[-1].at >= since:
            yield Anomaly(
                "ring",
                one.from_city,
                one.to_city,
                tuple(step.transfer_id for step in ring),
                ring[-1].at,
                f"{one.minutes} minutes came back to who gave them, by {len(ring)} people in"
                f" {(ring[-1].at - one.at).days + 1} days.",
                {"minutes": one.minutes, "people": len(ring)},
            )


def close_ring(
    start: Crossing, given: Mapping[UUID, Sequence[Crossing]]
) -> tuple[Crossing, ...] | None:
    """The shortest way on which what `start` gave came back to its payer, within the time."""
    until = start.at + timedelta(days=RING_DAYS)
    ways: list[tuple[Crossing, ...]] = [(start,)]
    steps = 0
    for _ in range(RING_PEOPLE_MAX - 1):
        longer = []
        for way in ways:
            people = {step.payer for step in way}
            for step in given.get(way[-1].payee, ()):
                steps += 1
                if steps > RING_STEPS_MAX:
                    return None
                differs = abs(step.minutes - start.minutes) * 100
                if not way[-1].at <= step.at <= until or differs > start.minutes * RING_PERCENT:
                    continue
                if step.payee == start.payer and step.payer not in people:
                    return (*way, step)
                if step.payee not in people and step.payer not in people:
                    longer.append((*way, step))
        ways = longer
    return None


def piecemeal(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    grouped: dict[tuple[UUID, UUID], list[Crossing]] = defaultdict(list)
    for one in ordered:
        if one.payer is not None and one.state != "returned":
            grouped[one.payer, one.payee].append(one)
    for ones in grouped.values():
        first = told = 0
        for number, one in enumerate(ones):
            while ones[first].at < one.at - PIECES_WITHIN:
                first += 1
            pieces = ones[first : number + 1]
            minutes = sum(piece.minutes for piece in pieces)
            follows = number + 1 < len(ones) and ones[number + 1].at <= one.at + PIECES_WITHIN
            if len(pieces) < PIECES_MIN or minutes < PIECES_MINUTES_MIN or one.at < since:
                continue
            if follows or first < told:  # told once, with all its pieces
                continue
            told = number + 1
            yield Anomaly(
                "piecemeal",
                one.from_city,
                one.to_city,
                tuple(piece.transfer_id for piece in pieces),
                one.at,
                f"{len(pieces)} transfers from one account to one person within a day, {minutes}"
                " minutes in all.",
                {"transfers": len(pieces), "minutes": minutes},
            )


def returned(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    for (from_city, to_city), ones in by_pair(one for one in ordered if one.at >= since).items():
        back = [one for one in ones if one.state == "returned"]
        if len(ones) >= RETURNED_OF_MIN and len(back) * 100 >= len(ones) * RETURNED_PERCENT:
            yield Anomaly(
                "returned",
                from_city,
                to_city,
                tuple(one.transfer_id for one in back),
                back[-1].at,
                f"{len(back)} of {len(ones)} transfers came back.",
                {"transfers": len(ones), "returned": len(back)},
            )


def overdue(ordered: Sequence[Crossing], now: datetime) -> Iterator[Anomaly]:
    for one in ordered:
        late = now - one.deadline
        if one.state == "sent" and late > LATE:
            yield Anomaly(
                "overdue",
                one.from_city,
                one.to_city,
                (one.transfer_id,),
                one.deadline,
                f"{one.minutes} minutes, unanswered {late.total_seconds() / 3600:.0f} hours after"
                " the deadline.",
                {"minutes": one.minutes, "hours": round(late.total_seconds() / 3600)},
            )
