"""The day that the simulator plays, as a plain list made from a seed. Pure; no clock, no network.

A day of 24 hours is compressed into the minutes asked for. People come in the morning, at noon and
in the evening; most go to places of their city, some visit another one; some lose their card, and
whoever found it tries the doors. In the end everybody has left.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

# Comings and goings per hour of the day, relative: a night with few, three peaks.
HOURS = (1, 1, 1, 1, 1, 2, 5, 12, 20, 14, 8, 10, 16, 16, 12, 8, 9, 14, 18, 12, 8, 5, 3, 2)
HOME_SHARE, SAME_CITY_SHARE = 0.7, 0.15  # the rest visits another city
FIRST_DOOR_SHARE = 0.6  # the city's first door is that of its house, open at any hour
STRANGER_SHARE = 0.01  # taps with a card that nobody issued
LEAVING_SHARE = 0.45
MEMBERS_PER_LOST_CARD = 100
FINDER_SHARE = 0.02  # taps by whoever found a lost card

Actor = Literal["member", "finder", "stranger"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """A member with a card: indexes, so that the plan knows no id."""

    city_id: str


@dataclass(frozen=True, slots=True)
class Entrance:
    city_id: str


@dataclass(frozen=True, slots=True)
class PlannedTap:
    at_s: float
    member: int  # index; of no meaning for a stranger
    door: int
    direction: Literal["in", "out"]
    actor: Actor = "member"


@dataclass(frozen=True, slots=True)
class PlannedLoss:
    """The member notices that the card is gone and has it blocked."""

    at_s: float
    member: int


@dataclass(frozen=True, slots=True)
class Day:
    taps: tuple[PlannedTap, ...]
    losses: tuple[PlannedLoss, ...]
    visits_to_other_cities: int


def moments(dice: random.Random, count: int, length_s: float) -> list[float]:
    """`count` moments in [0, length_s), dense where the day is busy, sorted."""
    steps = list(accumulate(HOURS))
    hour_s = length_s / len(HOURS)
    found = []
    for _ in range(count):
        hour = bisect(steps, dice.random() * steps[-1])
        found.append((min(hour, len(HOURS) - 1) + dice.random()) * hour_s)
    return sorted(found)


def plan_day(
    seed: int,
    members: Sequence[Visitor],
    doors: Sequence[Entrance],
    *,
    taps_per_second: float,
    minutes: float,
) -> Day:
    """A day with about taps_per_second × 60 × minutes taps, and then the last people leave.

    The same arguments give the same day. Raises ValueError without a member or a door.
    """
    if not members or not doors:
        raise ValueError("a day needs at least one member and one door")
    dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    length_s = minutes * 60
    home = [home_door(dice, member, doors) for member in members]
    losses = plan_losses(dice, len(members), length_s)
    lost_at = {loss.member: loss.at_s for loss in losses}

    outside = list(range(len(members)))
    inside: list[tuple[int, int]] = []  # (member, door)
    taps: list[PlannedTap] = []
    visits = 0
    for at_s in moments(dice, max(1, round(taps_per_second * length_s)), length_s):
        chance = dice.random()
        lost = [member for member, when in lost_at.items() if when <= at_s]
        if chance < STRANGER_SHARE:
            taps.append(PlannedTap(at_s, 0, dice.randrange(len(doors)), "in", "stranger"))
        elif lost and chance < STRANGER_SHARE + FINDER_SHARE:
            door = dice.randrange(len(doors))
            taps.append(PlannedTap(at_s, dice.choice(lost), door, "in", "finder"))
        elif inside and (dice.random() < LEAVING_SHARE or not outside):
            member, door = inside.pop(dice.randrange(len(inside)))
            taps.append(PlannedTap(at_s, member, door, "out"))
            outside.append(member)
        elif outside:
            member = outside.pop(dice.randrange(len(outside)))
            if lost_at.get(member, at_s) < at_s:
                continue  # without a card one stays at home
            door = choose_door(dice, members[member], home[member], doors)
            visits += doors[door].city_id != members[member].city_id
            taps.append(PlannedTap(at_s, member, door, "in"))
            inside.append((member, door))
    taps += [PlannedTap(length_s, member, door, "out") for member, door in inside]
    return Day(tuple(taps), tuple(losses), visits)


def plan_losses(dice: random.Random, members: int, length_s: float) -> list[PlannedLoss]:
    """Distinct members who lose their card in the middle of the day, in order of time."""
    count = min(members, max(1, members // MEMBERS_PER_LOST_CARD))
    losers = dice.sample(range(members), count)
    return sorted(
        (PlannedLoss(dice.uniform(0.2, 0.8) * length_s, member) for member in losers),
        key=lambda loss: loss.at_s,
    )


def home_door(dice: random.Random, member: Visitor, doors: Sequence[Entrance]) -> int:
    """The door that a member uses most: of the own city where there is one, mostly the first."""
    own = [n for n, door in enumerate(doors) if door.city_id == member.city_id]
    if own and dice.random() < FIRST_DOOR_SHARE:
        return own[0]
    return dice.choice(own or range(len(doors)))


def choose_door(dice: random.Random, member: Visitor, home: int, doors: Sequence[Entrance]) -> int:
    chance = dice.random()
    if chance < HOME_SHARE:
        return home
    same = chance < HOME_SHARE + SAME_CITY_SHARE
    choice = [n for n, door in enumerate(doors) if (door.city_id == member.city_id) == same]
    return dice.choice(choice) if choice else home
