from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copass.simulate_plan import HOURS, Day, Entrance, Visitor, plan_day

CITIES = ("bourges", "nantes", "lyon")
MEMBERS = [Visitor(CITIES[n % 3]) for n in range(200)]
DOORS = [Entrance(CITIES[n % 3]) for n in range(30)]


def day(seed: int, minutes: float = 4, rate: float = 10) -> Day:
    return plan_day(seed, MEMBERS, DOORS, taps_per_second=rate, minutes=minutes)


def test_the_same_seed_plans_the_same_day() -> None:
    assert day(7) == day(7)
    assert day(7) != day(8)


def test_about_as_many_taps_as_asked_for() -> None:
    assert 0.95 * 2400 <= len(day(1).taps) <= 1.15 * 2400


def test_rush_hour_is_busier_than_night() -> None:
    taps = day(1).taps
    hour_s = 240 / len(HOURS)
    per_hour = Counter(int(tap.at_s // hour_s) for tap in taps if tap.at_s < 240)
    assert per_hour[8] > 5 * per_hour[3]


def test_some_visit_other_cities_but_most_do_not() -> None:
    found = day(1)
    entries = sum(tap.direction == "in" for tap in found.taps)
    assert 0.05 * entries < found.visits_to_other_cities < 0.3 * entries


def test_a_lost_card_is_only_tried_by_its_finder_and_on_the_way_out() -> None:
    found = day(1)
    assert found.losses
    lost_at = {loss.member: loss.at_s for loss in found.losses}
    for tap in found.taps:
        if tap.actor == "member" and tap.direction == "in" and tap.member in lost_at:
            assert tap.at_s <= lost_at[tap.member]
        if tap.actor == "finder":
            assert tap.at_s >= lost_at[tap.member]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), people=st.integers(1, 40), doors=st.integers(1, 10))
def test_everybody_who_enters_leaves_by_the_same_door(seed: int, people: int, doors: int) -> None:
    found = plan_day(seed, MEMBERS[:people], DOORS[:doors], taps_per_second=5, minutes=0.5)
    assert [tap.at_s for tap in found.taps] == sorted(tap.at_s for tap in found.taps)
    inside: dict[int, int] = {}
    for tap in found.taps:
        if tap.actor != "member":
            continue
        if tap.direction == "in":
            assert tap.member not in inside
            inside[tap.member] = tap.door
        else:
            assert inside.pop(tap.member) == tap.door
    assert not inside


def test_nobody_to_play_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan_day(1, [], DOORS, taps_per_second=1, minutes=1)
