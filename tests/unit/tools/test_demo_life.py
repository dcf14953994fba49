"""The life of the demo network, as plain values."""

from datetime import date

import pytest

from copass.demo_data import demo_network
from copass.demo_life_data import (
    CITIES,
    LATE,
    LATE_MINUTES_A_MONTH,
    LATE_MONTHS,
    Pledge,
    demo_life,
)
from copass.seed_life import groups

NETWORK = demo_network()
LIFE = demo_life(NETWORK)
TODAY = date(2026, 1, 31)


@pytest.mark.parametrize(
    ("months_ago", "first"), [(0, (2026, 1, 1)), (1, (2025, 12, 1)), (2, (2025, 11, 1))]
)
def test_a_pledge_starts_with_a_month(months_ago: int, first: tuple[int, int, int]) -> None:
    pledge = Pledge(NETWORK.member(LATE), 60, months_ago)
    assert pledge.starts_on(TODAY) == date(*first)


def test_ids_are_distinct() -> None:
    ids = [work.contribution_id for life in LIFE for work in life.works]
    ids += [listing.listing_id for life in LIFE for listing in life.listings]
    assert len(set(ids)) == len(ids)


def test_nobody_acts_outside_their_city() -> None:
    assert {life.city_id for life in LIFE} == set(CITIES)
    for life in LIFE:
        people = [pledge.member for pledge in life.pledges]
        people += [work.giver for work in life.works]
        people += [listing.owner for listing in life.listings]
        assert {member.city_id for member in [*people, life.animator]} == {life.city_id}


def test_who_speaks_for_themselves_can_log_in() -> None:
    for life in LIFE:
        assert life.animator.email
        assert "animator" in life.animator.roles
        assert all(work.giver.email for work in life.works if work.own)
        assert all(listing.owner.email for listing in life.listings)


def test_one_member_alone_is_behind() -> None:
    """By two hours; the others are ahead for months, or a demo left running would refuse them."""
    assert LATE_MONTHS * LATE_MINUTES_A_MONTH == 120
    for life in LIFE:
        for pledge in life.pledges:
            worked = sum(
                work.minutes
                for work in life.works
                if work.giver == pledge.member and work.confirmed and work.beneficiary is None
            )
            if pledge.member.key == LATE:
                assert worked == 0
            else:
                assert worked >= 6 * pledge.minutes_per_month


def test_groups_hold_each_work_once_and_one_kind_of_it() -> None:
    for life in LIFE:
        works = [work for work in life.works if not work.own]
        found = list(groups(works))
        assert sorted(work.key for group in found for work in group) == sorted(
            work.key for work in works
        )
        assert all(len({(w.activity, w.days_ago) for w in group}) == 1 for group in found)
