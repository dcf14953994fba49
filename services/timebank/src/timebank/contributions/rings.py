"""Rings of mutual confirmation: who confirms those who confirm them. Pure.

Neighbours who help each other confirm each other, and that is what a time bank is for; so nothing
here blocks anybody. A ring is flagged for a steward to look at when it is both regular and nearly
all that its members live on:

- `reciprocal`: A confirmed B's minutes and B confirmed A's;
- `cycle`: A confirmed B's, B confirmed C's, and so on back to A, over 3 or 4 people.

In both, within WINDOW: each step of the ring was confirmed at least CONFIRMATIONS_MIN times, and
is at least SHARE_PERCENT of the minutes that were confirmed to its giver by anybody. With half of
somebody's minutes at stake, nobody has more than two such steps, so the search stays small.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

WINDOW = timedelta(days=60)
CONFIRMATIONS_MIN = 3
SHARE_PERCENT = 50
RING_MAX = 4

Rule = Literal["reciprocal", "cycle"]


@dataclass(frozen=True, slots=True)
class Edge:
    """Minutes of `giver` that `confirmer` confirmed on a day of the city."""

    giver: str
    confirmer: str
    minutes: int
    day: date


@dataclass(frozen=True, slots=True)
class Step:
    """All that one confirmed of another within the window; `percent` of all that the giver got."""

    giver: str
    confirmer: str
    minutes: int
    confirmations: int
    percent: int


@dataclass(frozen=True, slots=True)
class Flag:
    """A ring: each step's confirmer is the giver of the next, and the last leads to the first."""

    rule: Rule
    steps: tuple[Step, ...]

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(step.giver for step in self.steps)

    @property
    def minutes(self) -> int:
        return sum(step.minutes for step in self.steps)


def find_rings(edges: Iterable[Edge], today: date) -> tuple[Flag, ...]:
    """The rings among these confirmations, the most minutes first; each ring once."""
    strong = strong_steps(edge for edge in edges if today - WINDOW < edge.day <= today)
    flags = [
        Flag("reciprocal" if len(ring) == 2 else "cycle", ring)
        for start in sorted(strong)
        for ring in rings_from(start, strong)
    ]
    return tuple(sorted(flags, key=lambda flag: (-flag.minutes, flag.members)))


def strong_steps(edges: Iterable[Edge]) -> dict[str, dict[str, Step]]:
    """By giver and confirmer: the steps that are regular, and much of the giver's minutes."""
    minutes: dict[tuple[str, str], int] = defaultdict(int)
    times: dict[tuple[str, str], int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for edge in edges:
        minutes[edge.giver, edge.confirmer] += edge.minutes
        times[edge.giver, edge.confirmer] += 1
        total[edge.giver] += edge.minutes
    strong: dict[str, dict[str, Step]] = defaultdict(dict)
    for (giver, confirmer), given in minutes.items():
        confirmations = times[giver, confirmer]
        # In whole numbers: 100 times the part, against the percentage of the whole.
        if confirmations >= CONFIRMATIONS_MIN and 100 * given >= SHARE_PERCENT * total[giver]:
            percent = 100 * given // total[giver]
            strong[giver][confirmer] = Step(giver, confirmer, given, confirmations, percent)
    return strong


def rings_from(
    start: str, strong: Mapping[str, Mapping[str, Step]], path: tuple[Step, ...] = ()
) -> Iterator[tuple[Step, ...]]:
    """The rings from `start` in which nobody comes before it: so each is found once."""
    at = path[-1].confirmer if path else start
    been = {step.giver for step in path}
    for confirmer, step in sorted(strong.get(at, {}).items()):
        if confirmer == start:
            yield (*path, step)
        elif confirmer > start and confirmer not in been and len(path) + 1 < RING_MAX:
            yield from rings_from(start, strong, (*path, step))


def reason(flag: Flag) -> dict[str, str]:
    """Why it was flagged, in plain words, by language."""
    least = min(step.percent for step in flag.steps)
    times = sum(step.confirmations for step in flag.steps)
    people = len(flag.steps)
    return {
        "fr": (
            f"En {WINDOW.days} jours, {people} personnes se sont confirmé les unes aux autres"
            f" {flag.minutes} minutes en {times} fois ; pour chacune, c'est au moins {least} % du"
            " temps qui lui a été confirmé. Rien n'est bloqué : à regarder."
        ),
        "en": (
            f"In {WINDOW.days} days, {people} people confirmed one another {flag.minutes} minutes"
            f" in {times} times; for each of them that is at least {least} % of the time that was"
            " confirmed to them. Nothing is blocked: worth a look."
        ),
    }
