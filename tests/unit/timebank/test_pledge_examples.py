"""The edges of pledges and standings, one by one."""

from dataclasses import replace
from datetime import date
from uuid import UUID

import pytest

from timebank.pledges.domain import Dues, Exemption, Pledge, Term, next_month
from timebank.standings.domain import judge

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
PLEDGE = Pledge(UUID(int=1), UUID(int=2), "nantes", OCTOBER, (Term(OCTOBER, 120),))
DUES = Dues("nantes", date(2026, 11, 22), (PLEDGE,))


def exemption(
    from_on: date, *, until: date | None = None, ended_on: date | None = None
) -> Exemption:
    return Exemption(UUID(int=3), UUID(int=2), "nantes", from_on, until, ended_on)


@pytest.mark.parametrize(
    ("today", "standing"),
    [
        (date(2026, 10, 31), "good"),
        (date(2026, 11, 1), "grace"),
        (date(2026, 11, 14), "grace"),
        (date(2026, 11, 15), "lapsed"),
    ],
)
def test_grace_ends_with_its_last_day(today: date, standing: str) -> None:
    assert judge([replace(DUES, today=today)], [], today).standing == standing


def test_without_grace_a_month_that_is_short_lapses_at_once() -> None:
    today = date(2026, 11, 1)
    assert judge([replace(DUES, today=today, grace_days=0)], [], today).standing == "lapsed"


def test_the_oldest_month_says_why() -> None:
    judged = judge([replace(DUES, grace_days=60)], [], DUES.today)
    assert (judged.standing, judged.month, judged.short_minutes) == ("grace", OCTOBER, 120)
    assert judged.until == date(2026, 12, 30)


def test_one_city_that_is_lapsed_is_enough() -> None:
    elsewhere = replace(DUES, city_id="bourges", grace_days=60)
    judged = judge([elsewhere, DUES], [], DUES.today)
    assert (judged.standing, judged.city_id) == ("lapsed", "nantes")


@pytest.mark.parametrize(
    ("held", "october", "november"),
    [
        # One day of a month is enough for all of it.
        (exemption(date(2026, 10, 31), until=date(2026, 10, 31)), 0, 120),
        (exemption(date(2026, 10, 31), until=date(2026, 11, 1)), 0, 0),
        (exemption(date(2026, 11, 30)), 120, 0),
        (exemption(date(2026, 10, 5), until=date(2026, 11, 30), ended_on=NOVEMBER), 0, 120),
        (exemption(date(2026, 10, 5), until=date(2026, 10, 9), ended_on=date(2026, 12, 1)), 0, 120),
        # Ended on the day when it began: it never was.
        (exemption(date(2026, 10, 5), ended_on=date(2026, 10, 5)), 120, 120),
    ],
)
def test_a_month_that_an_exemption_touches_owes_nothing(
    held: Exemption, october: int, november: int
) -> None:
    owed = replace(DUES, exemptions=(held,))
    assert (owed.owed_in(OCTOBER), owed.owed_in(NOVEMBER)) == (october, november)


def test_work_of_an_exempt_month_pays_what_is_owed_and_is_not_carried() -> None:
    owed = replace(DUES, exemptions=(exemption(date(2026, 11, 2)),))
    assert owed.room(date(2026, 11, 20)) == 120
    assert replace(owed, counted={OCTOBER: 120}).room(date(2026, 11, 20)) == 0


def test_a_pledge_that_has_ended_can_be_made_up_for_and_no_more() -> None:
    ended = replace(DUES, pledges=(replace(PLEDGE, ends_before=NOVEMBER),))
    assert ended.room(date(2026, 10, 9)) == 120
    assert ended.room(date(2026, 11, 9)) == 120
    assert replace(ended, counted={OCTOBER: 120}).room(date(2026, 11, 9)) == 0


def test_a_second_pledge_goes_on_where_the_first_ended() -> None:
    second = replace(PLEDGE, starts_on=NOVEMBER, terms=(Term(NOVEMBER, 60),))
    both = replace(DUES, pledges=(replace(PLEDGE, ends_before=NOVEMBER), second))
    assert [period.owed_minutes for period in both.periods] == [120, 60]
    assert both.room(date(2026, 11, 9)) == 120 + 60 + 600


def test_december_is_followed_by_january() -> None:
    assert next_month(date(2026, 12, 31)) == date(2027, 1, 1)
    assert next_month(date(2028, 1, 31)) == date(2028, 2, 1)
