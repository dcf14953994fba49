"""Rings of mutual confirmation: what is flagged, what is not, and why."""

from datetime import date, timedelta
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from timebank.contributions.rings import (
    CONFIRMATIONS_MIN,
    RING_MAX,
    SHARE_PERCENT,
    WINDOW,
    Edge,
    Flag,
    find_rings,
    reason,
)

TODAY = date(2026, 11, 23)


def confirmed(
    giver: str, confirmer: str, times: int = 3, minutes: int = 60, days_ago: int = 0
) -> list[Edge]:
    return [Edge(giver, confirmer, minutes, TODAY - timedelta(days=days_ago))] * times


def ring(*people: str, **more: int) -> list[Edge]:
    """Each is confirmed by the next, the last by the first."""
    following = (*people[1:], people[0])
    return [
        edge
        for giver, confirmer in zip(people, following, strict=True)
        for edge in confirmed(giver, confirmer, **more)
    ]


def test_two_who_live_on_each_others_word_are_flagged_once() -> None:
    (flag,) = find_rings(ring("b", "a"), TODAY)
    assert (flag.rule, flag.members, flag.minutes) == ("reciprocal", ("a", "b"), 360)
    assert [(step.giver, step.confirmer, step.percent) for step in flag.steps] == [
        ("a", "b", 100),
        ("b", "a", 100),
    ]


def test_longer_rings_are_flagged_up_to_four() -> None:
    for people in ("abc", "abcd"):
        for order in permutations(people):
            (flag,) = find_rings(ring(*order), TODAY)
            assert (flag.rule, set(flag.members)) == ("cycle", set(people))
    assert RING_MAX == 4
    assert find_rings(ring(*"abcde"), TODAY) == ()


def test_a_one_way_street_is_no_ring() -> None:
    chain = [*confirmed("a", "b"), *confirmed("b", "c"), *confirmed("c", "d")]
    assert find_rings(chain, TODAY) == ()
    assert find_rings([], TODAY) == ()


def test_a_few_times_are_neighbourly() -> None:
    few = ring("a", "b", times=CONFIRMATIONS_MIN - 1, minutes=1000)
    assert find_rings(few, TODAY) == ()
    # It must be regular both ways.
    one_sided = [*confirmed("a", "b", 9), *confirmed("b", "a", CONFIRMATIONS_MIN - 1)]
    assert find_rings(one_sided, TODAY) == ()


def test_who_works_for_many_is_not_flagged() -> None:
    edges = ring("a", "b")
    half = [*edges, *confirmed("a", "c", 3)]
    assert len(find_rings(half, TODAY)) == 1
    less = [*edges, *confirmed("a", "c", 3), *confirmed("a", "d", 1, minutes=1)]
    assert find_rings(less, TODAY) == ()


def test_what_is_long_ago_or_ahead_does_not_count() -> None:
    days = WINDOW.days
    assert len(find_rings(ring("a", "b", days_ago=days - 1), TODAY)) == 1
    assert find_rings(ring("a", "b", days_ago=days), TODAY) == ()
    assert find_rings(ring("a", "b", days_ago=-1), TODAY) == ()


def test_the_heaviest_comes_first() -> None:
    flags = find_rings([*ring("a", "b"), *ring("c", "d", minutes=90), *ring("x", "y", "z")], TODAY)
    # The last two have as many minutes: the order is that of the names.
    assert [flag.members for flag in flags] == [("c", "d"), ("x", "y", "z"), ("a", "b")]


def test_the_reason_says_the_numbers_in_both_languages() -> None:
    (flag,) = find_rings([*ring("a", "b"), *confirmed("a", "c", 1)], TODAY)
    said = reason(flag)
    assert set(said) == {"fr", "en"}
    for text in said.values():
        for number in ("60", "360", "6", "75 %"):
            assert number in text


people = st.sampled_from("abcdef")
edges = st.lists(
    st.builds(
        Edge,
        giver=people,
        confirmer=people,
        minutes=st.integers(1, 1440),
        day=st.integers(-2, WINDOW.days + 2).map(lambda days: TODAY - timedelta(days=days)),
    ).filter(lambda edge: edge.giver != edge.confirmer),
    max_size=60,
)


def brute_force(edges: list[Edge]) -> set[frozenset[tuple[str, str]]]:
    """Every closed walk of two to four people, tried one by one."""
    recent = [edge for edge in edges if TODAY - WINDOW < edge.day <= TODAY]

    def strong(giver: str, confirmer: str) -> bool:
        total = sum(edge.minutes for edge in recent if edge.giver == giver)
        part = [e.minutes for e in recent if (e.giver, e.confirmer) == (giver, confirmer)]
        return len(part) >= CONFIRMATIONS_MIN and sum(part) * 100 >= SHARE_PERCENT * total

    strong_ones = {pair for pair in permutations("abcdef", 2) if strong(*pair)}
    walks = (walk for size in range(2, RING_MAX + 1) for walk in permutations("abcdef", size))
    rings = (frozenset(zip(walk, (*walk[1:], walk[0]), strict=True)) for walk in walks)
    return {steps for steps in rings if steps <= strong_ones}


def steps_of(flag: Flag) -> frozenset[tuple[str, str]]:
    return frozenset((step.giver, step.confirmer) for step in flag.steps)


@given(edges=edges, repeat=st.integers(1, 3))
def test_it_finds_all_rings_that_trying_everything_finds(edges: list[Edge], repeat: int) -> None:
    edges = edges * repeat
    flags = find_rings(edges, TODAY)
    assert {steps_of(flag) for flag in flags} == brute_force(edges)
    assert len({steps_of(flag) for flag in flags}) == len(flags)
    assert find_rings(reversed(edges), TODAY) == flags
