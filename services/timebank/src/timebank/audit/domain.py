"""What looks odd among the transfers between cities. Pure.

Nothing here blocks anybody, and nothing is a score: each finding names its rule, and says in
figures what the rule saw. Most findings have a good reason; an auditor asks for it.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
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
# Steps looked at for each transfer that a ring might begin with, a busy week has some; and in all.
RING_STEPS_MAX = 2_000
RING_STEPS_ALL_MAX = 1_000_000
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
    f" least {RING_MINUTES_MIN} minutes. Beyond {RING_STEPS_MAX} steps from one transfer, or"
    f" {RING_STEPS_ALL_MAX} in all, nothing is looked at.",
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
        before: list[int] = []  # the minutes of ones[first:number], the smallest first
        for number, one in enumerate(ones):
            while ones[first].at < one.at - HISTORY:
                del before[bisect_left(before, ones[first].minutes)]
                first += 1
            asked = one.at >= since and one.minutes >= SIZE_MINUTES_MIN
            if asked and len(before) >= SIZE_HISTORY_MIN:
                middle = middle_of(before)
                spread = max(median_distance(before, middle), SPREAD_MINUTES_MIN)
                if one.minutes > middle + SIZE_SPREADS * spread:
                    yield Anomaly(
                        "unusual_size",
                        from_city,
                        to_city,
                        (one.transfer_id,),
                        one.at,
                        f"{one.minutes} minutes, where half of the {number - first} transfers"
                        f" before it were of {middle:g} or fewer.",
                        {"minutes": one.minutes, "median": middle, "transfers": number - first},
                    )
            insort(before, one.minutes)


def middle_of(ordered: Sequence[int]) -> float:
    """The median of numbers that are in order, of which there are some."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def median_distance(ordered: Sequence[int], middle: float) -> float:
    """The median of how far each number is from `middle`. As they are in order, found by halving:
    the history of a busy pair is long, and asked for at each of its transfers."""
    half = len(ordered) // 2
    upper = nth_distance(ordered, middle, half)
    return upper if len(ordered) % 2 else (nth_distance(ordered, middle, half - 1) + upper) / 2


def nth_distance(ordered: Sequence[int], middle: float, n: int) -> float:
    """The distance that `n` others are not beyond: the `n + 1` nearest stand side by side."""
    low, high = 0, len(ordered) - n - 1
    while low < high:
        at = (low + high) // 2
        if middle - ordered[at] > ordered[at + n + 1] - middle:
            low = at + 1
        else:
            high = at
    return max(middle - ordered[low], ordered[low + n] - middle)


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
    left = RING_STEPS_ALL_MAX
    for one in ordered:
        if one.payer is None or one.state == "returned" or one.minutes < RING_MINUTES_MIN:
            continue
        if one.at < since - timedelta(days=RING_DAYS):
            continue  # whatever it closed was closed before
        ring, steps = close_ring(one, given, min(left, RING_STEPS_MAX))
        left -= steps
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
    start: Crossing, given: Mapping[UUID, Sequence[Crossing]], steps_max: int
) -> tuple[tuple[Crossing, ...] | None, int]:
    """The shortest way on which what `start` gave came back to its payer, within the time; and how
    many steps were looked at. `given`: what each gave, the first first."""
    until = start.at + timedelta(days=RING_DAYS)
    ways: list[tuple[Crossing, ...]] = [(start,)]
    steps = 0
    for _ in range(RING_PEOPLE_MAX - 1):
        longer = []
        for way in ways:
            people = {step.payer for step in way}
            onward = given.get(way[-1].payee, ())
            for number in range(bisect_left(onward, way[-1].at, key=time_of), len(onward)):
                step = onward[number]
                if step.at > until:
                    break
                if steps >= steps_max:
                    return None, steps
                steps += 1
                if abs(step.minutes - start.minutes) * 100 > start.minutes * RING_PERCENT:
                    continue
                if step.payee == start.payer and step.payer not in people:
                    return (*way, step), steps
                if step.payee not in people and step.payer not in people:
                    longer.append((*way, step))
        ways = longer
    return None, steps


def time_of(one: Crossing) -> datetime:
    return one.at


def piecemeal(ordered: Sequence[Crossing], since: datetime) -> Iterator[Anomaly]:
    """Each piece in one finding at most: a day that has enough of them is told when the next piece
    is not of it any more, so that going on for longer hides nothing."""
    grouped: dict[tuple[UUID, UUID], list[Crossing]] = defaultdict(list)
    for one in ordered:
        if one.payer is not None and one.state != "returned":
            grouped[one.payer, one.payee].append(one)
    for ones in grouped.values():
        first = minutes = 0  # minutes: of ones[first:number + 1]
        for number, one in enumerate(ones):
            while ones[first].at < one.at - PIECES_WITHIN:
                minutes -= ones[first].minutes
                first += 1
            minutes += one.minutes
            count = number + 1 - first
            if count < PIECES_MIN or minutes < PIECES_MINUTES_MIN or one.at < since:
                continue
            if number + 1 < len(ones) and ones[number + 1].at <= ones[first].at + PIECES_WITHIN:
                continue
            yield Anomaly(
                "piecemeal",
                one.from_city,
                one.to_city,
                tuple(piece.transfer_id for piece in ones[first : number + 1]),
                one.at,
                f"{count} transfers from one account to one person within a day, {minutes} minutes"
                " in all.",
                {"transfers": count, "minutes": minutes},
            )
            first, minutes = number + 1, 0


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
