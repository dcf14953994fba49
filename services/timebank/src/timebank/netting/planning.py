"""What could be cleared: debts in a circle, found as the largest circulation. Pure.

If A owes B, B owes C and C owes A, each can owe less by as much as the smallest of the three debts,
and nobody has more or less than before. Debts are the arcs of a graph, from who owes to whom; a
netting is a circulation in it, no arc more than what is owed, so that no position changes sign. The
circulation that clears most minutes is a minimum-cost flow in which every minute costs minus one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

# A proposal that nobody can read is agreed by nobody; what is left is the next proposal's.
MOVES_MAX = 200


@dataclass(frozen=True, slots=True)
class Debt:
    """What the members of `debtor` received from those of `creditor` and did not give back."""

    debtor: str
    creditor: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Move:
    """By how much a debt becomes less; `owed_minutes` is what it was when that was proposed."""

    debtor: str
    creditor: str
    minutes: int
    owed_minutes: int

    @property
    def left_minutes(self) -> int:
        return self.owed_minutes - self.minutes


@dataclass(frozen=True, slots=True)
class Cycle:
    """Each city owes the next one, the last one the first: each `minutes` less."""

    cities: tuple[str, ...]
    minutes: int


@dataclass(frozen=True, slots=True)
class Side:
    """What one city shows, or says, of its position with another. `in_force`: they have an
    agreement, as far as is known."""

    city_id: str
    peer_city_id: str
    position_minutes: int
    in_force: bool


def debts_of(sides: Sequence[Side]) -> list[Debt]:
    """What is owed for sure: where both sides are known, the smaller of what they show, and nothing
    where they do not agree who owes; where one is known, what that shows."""
    shown: dict[tuple[str, str], list[int]] = {}
    for side in sides:
        a, b, minutes = side.city_id, side.peer_city_id, side.position_minutes
        pair, due = ((b, a), minutes) if b < a else ((a, b), -minutes)
        shown.setdefault(pair, []).append(due if side.in_force else 0)
    debts = []
    for (first, second), owed in sorted(shown.items()):
        # Above zero: the first of the pair owes the second.
        if min(owed) > 0:
            debts.append(Debt(first, second, min(owed)))
        elif max(owed) < 0:
            debts.append(Debt(second, first, -max(owed)))
    return debts


def plan_moves(
    debts: Sequence[Debt],
    limits: Mapping[frozenset[str], int] | None = None,
    *,
    among: Collection[str] | None = None,
) -> tuple[Move, ...]:
    """The moves that clear the most minutes; none where no debts go round.

    `limits`: of a pair of cities, how much its move may be at most, where that is less than the
    debt. `among`: the cities that may take part; None: all. The same debts give the same moves, in
    whatever order they come. Raises ValueError for two debts of one pair.
    """
    limits = limits or {}
    owed = {(debt.debtor, debt.creditor): debt.minutes for debt in debts if debt.minutes > 0}
    if len({frozenset(pair) for pair in owed}) != sum(debt.minutes > 0 for debt in debts):
        raise ValueError("two debts of one pair of cities")
    most = {
        pair: min(minutes, limits.get(frozenset(pair), minutes))
        for pair, minutes in sorted(owed.items())
        if among is None or set(pair) <= set(among)
    }
    cleared = circulate({pair: minutes for pair, minutes in most.items() if minutes > 0})
    kept: dict[tuple[str, str], int] = {}
    # All of it, unless it is too much for one proposal: then the largest circles of it.
    for cycle in sorted(split(cleared), key=lambda each: (-each.minutes, each.cities)):
        arcs = set(arcs_of(cycle))
        if len(kept.keys() | arcs) <= MOVES_MAX:
            kept |= {arc: kept.get(arc, 0) + cycle.minutes for arc in arcs}
    return tuple(Move(*arc, minutes, owed[arc]) for arc, minutes in sorted(kept.items()))


def circulate(most: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """The circulation of the most minutes, within what each arc takes at most."""
    after: dict[str, list[str]] = {}
    for debtor, creditor in most:
        after.setdefault(debtor, []).append(creditor)
    try:
        TopologicalSorter(after).prepare()
    except CycleError:
        # 30 MiB that a process needs when there is something to plan, and not before.
        import networkx

        graph = networkx.DiGraph()
        for pair, minutes in most.items():
            graph.add_edge(*pair, capacity=minutes, weight=-1)
        flow = networkx.min_cost_flow(graph)
        return {pair: flow[pair[0]][pair[1]] for pair in most if flow[pair[0]][pair[1]]}
    return {}


def cycles_of(moves: Iterable[Move]) -> tuple[Cycle, ...]:
    """The circles that moves consist of, the largest first. Raises ValueError for what is none."""
    found = split({(move.debtor, move.creditor): move.minutes for move in moves})
    return tuple(sorted(found, key=lambda each: (-each.minutes, each.cities)))


def split(flow: Mapping[tuple[str, str], int]) -> list[Cycle]:
    """A circulation as circles: at most as many as it has arcs."""
    left = dict(sorted(flow.items()))
    cycles = []
    while left:
        (start, _) = next(iter(left))
        path = [start]
        while True:
            onward = next((to for debtor, to in left if debtor == path[-1]), None)
            if onward is None:
                raise ValueError(f"what {path[-1]} gives up is not what others give up for it")
            if onward in path:
                break
            path.append(onward)
        cycle = path[path.index(onward) :]
        arcs = list(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
        minutes = min(left[arc] for arc in arcs)
        for arc in arcs:
            left[arc] -= minutes
            if not left[arc]:
                del left[arc]
        # Named from the city whose name comes first: the same circle is always told alike.
        first = cycle.index(min(cycle))
        cycles.append(Cycle((*cycle[first:], *cycle[:first]), minutes))
    return cycles


def arcs_of(cycle: Cycle) -> list[tuple[str, str]]:
    cities = cycle.cities
    return list(zip(cities, (*cities[1:], cities[0]), strict=True))


def explain(moves: Sequence[Move]) -> dict[str, str]:
    """Which circles, how many minutes, and each pair before and after, in French and English."""
    french, english = [], []
    for cycle in cycles_of(moves):
        round_fr = ", ".join(f"{a} doit à {b}" for a, b in arcs_of(cycle))
        round_en = ", ".join(f"{a} owes {b}" for a, b in arcs_of(cycle))
        french.append(f"{round_fr} : chacune doit {cycle.minutes} minutes de moins.")
        english.append(f"{round_en}: each owes {cycle.minutes} minutes less.")
    for move in moves:
        pair, before, after = (move.debtor, move.creditor), move.owed_minutes, move.left_minutes
        french.append(f"{pair[0]} devait {before} minutes à {pair[1]}, en devra {after}.")
        english.append(f"{pair[0]} owed {pair[1]} {before} minutes, and will owe {after}.")
    return {"fr": " ".join(french), "en": " ".join(english)}
