"""What holds of every history of pledges, work, help and exemptions.

Laws: what counts never exceeds what is owed and what may be carried; taking back undoes counting
exactly; a standing follows from the history alone, in whatever order it became known; nothing is
ever short by less than nothing; the exempt and the good are not lapsed by anybody's arithmetic.
"""

import calendar
from dataclasses import replace
from datetime import date, timedelta
from uuid import UUID

from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from timebank.pledges.domain import (
    Dues,
    Exemption,
    Pledge,
    Term,
    change_pledge,
    end_pledge,
    month_of,
    months_from,
    months_later,
    next_month,
)
from timebank.standings.domain import judge, next_days

at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
MEMBER = UUID(int=1)
FIRST = date(2025, 10, 1)
days = st.dates(FIRST, date(2026, 12, 31))


@st.composite
def pledges(draw: st.DrawFn) -> Pledge:
    starts_on = draw(st.dates(FIRST, date(2026, 6, 30)))
    terms = [Term(month_of(starts_on), draw(st.integers(0, 900)))]
    for _ in range(draw(st.integers(0, 3))):
        later = months_later(terms[-1].from_month, draw(st.integers(0, 4)))
        terms.append(Term(later, draw(st.integers(0, 900))))
    length = draw(st.none() | st.integers(0, 14))
    return Pledge(
        id=UUID(int=2),
        member_id=MEMBER,
        city_id="nantes",
        starts_on=starts_on,
        terms=tuple(terms),
        ends_before=None if length is None else months_later(month_of(starts_on), length),
    )


@st.composite
def exemptions(draw: st.DrawFn) -> Exemption:
    from_on = draw(days)
    until = draw(st.none() | st.integers(0, 200))
    ended = draw(st.none() | st.integers(0, 200))
    return Exemption(
        id=UUID(int=3),
        member_id=MEMBER,
        city_id="nantes",
        from_on=from_on,
        until=None if until is None else from_on + timedelta(days=until),
        ended_on=None if ended is None else from_on + timedelta(days=ended),
    )


@st.composite
def dues(draw: st.DrawFn, *, exempt: bool = True) -> Dues:
    """What somebody owes, with nothing counted yet."""
    return Dues(
        city_id="nantes",
        today=draw(days),
        pledges=(draw(pledges()),),
        exemptions=tuple(draw(st.lists(exemptions(), max_size=2))) if exempt else (),
        grace_days=draw(st.integers(0, 60)),
        carry_minutes_max=draw(st.integers(0, 1000)),
    )


works = st.lists(st.tuples(days, st.integers(1, 1440)), max_size=12)


def count(owed: Dues, performed_on: date, minutes: int) -> tuple[Dues, int]:
    """As the service does."""
    assume(performed_on <= owed.today)
    counted = min(minutes, owed.room(performed_on))
    month = month_of(performed_on)
    table = {**owed.counted, month: owed.counted.get(month, 0) + counted}
    return replace(owed, counted=table), counted


def totals(owed: Dues, until: date) -> tuple[int, int]:
    """What is owed, and what counts, of the months up to one."""
    return (
        sum(owed.owed_in(month) for month in owed.months if month <= until),
        sum(minutes for month, minutes in owed.counted.items() if month <= until),
    )


@at_any_speed
@given(dues(), works)
def test_no_more_counts_than_is_owed_and_may_be_carried(
    owed: Dues, history: list[tuple[date, int]]
) -> None:
    for performed_on, minutes in history:
        if performed_on > owed.today:
            continue
        before = owed
        owed, counted = count(owed, performed_on, minutes)
        assert 0 <= counted <= minutes
        if counted == 0:
            assert owed.periods == before.periods
        for month in owed.months:
            of_owed, of_counted = totals(owed, month)
            assert of_counted <= of_owed + owed.carry_minutes_max
        assert owed.carried_minutes <= owed.carry_minutes_max


@at_any_speed
@given(dues(), works)
def test_what_counts_is_what_is_met_and_what_is_carried(
    owed: Dues, history: list[tuple[date, int]]
) -> None:
    counted = 0
    for performed_on, minutes in history:
        if performed_on <= owed.today:
            owed, more = count(owed, performed_on, minutes)
            counted += more
    periods = owed.periods
    assert counted == sum(period.met_minutes for period in periods) + owed.carried_minutes
    assert all(0 <= period.met_minutes <= period.owed_minutes for period in periods)
    assert all(period.short_minutes >= 0 for period in periods)
    # The oldest first: after a month that is short, nothing is met.
    first_short = next((at for at, period in enumerate(periods) if period.short_minutes), None)
    if first_short is not None:
        assert all(period.met_minutes == 0 for period in periods[first_short + 1 :])
        assert owed.carried_minutes == 0


@at_any_speed
@given(dues(exempt=False), st.integers(0, 400), works)
def test_work_enough_for_each_month_keeps_a_standing_good(
    owed: Dues, ahead: int, history: list[tuple[date, int]]
) -> None:
    """Whoever gives what a month owes before it ends is never in grace, whatever else they do."""
    for performed_on, minutes in history:
        if performed_on <= owed.today:
            owed, _ = count(owed, performed_on, minutes)
    for month in list(owed.months):
        owed, _ = count(owed, month, max(0, totals(owed, month)[0] - totals(owed, month)[1]))
    assert judge([owed], [], owed.today).standing == "good"


@at_any_speed
@given(dues(), works, days, st.integers(1, 1440))
def test_taking_back_undoes_counting_exactly(
    owed: Dues, history: list[tuple[date, int]], performed_on: date, minutes: int
) -> None:
    assume(performed_on <= owed.today)
    for at, given_minutes in history:
        if at <= owed.today:
            owed, _ = count(owed, at, given_minutes)
    after, counted = count(owed, performed_on, minutes)
    month = month_of(performed_on)
    back = replace(after, counted={**after.counted, month: after.counted[month] - counted})
    assert back.periods == owed.periods
    assert back.carried_minutes == owed.carried_minutes
    assert back.room(performed_on) == owed.room(performed_on)
    assert judge([back], back.exemptions, back.today) == judge([owed], owed.exemptions, owed.today)


@at_any_speed
@given(dues(), st.dictionaries(days.map(month_of), st.integers(1, 900)), st.randoms())
def test_a_standing_follows_from_the_history_in_any_order(
    owed: Dues, counted: dict[date, int], random: object
) -> None:
    known = replace(owed, counted=counted)
    shuffled = list(counted.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis' own Random
    again = replace(owed, counted=dict(shuffled), exemptions=owed.exemptions[::-1])
    assert known.periods == again.periods
    first, second = (judge([one], one.exemptions, one.today) for one in (known, again))
    assert first.standing == second.standing
    assert (first.month, first.short_minutes) == (second.month, second.short_minutes)


@at_any_speed
@given(st.lists(dues(), max_size=3), st.dictionaries(days.map(month_of), st.integers(1, 900)))
def test_exempt_before_all_and_lapsed_only_after_the_grace(
    owed: list[Dues], counted: dict[date, int]
) -> None:
    owed = [replace(one, counted=counted) for one in owed]
    let_off = [exemption for one in owed for exemption in one.exemptions]
    today = owed[0].today if owed else date(2026, 6, 1)
    judged = judge(owed, let_off, today)
    if any(exemption.covers(today) for exemption in let_off):
        assert judged.standing == "exempt"
        return
    assert judged.standing != "exempt"
    over = [
        (period, one)
        for one in owed
        for period in one.periods
        if period.short_minutes and next_month(period.month) <= one.today
    ]
    if not over:
        assert judged.standing == "good"
    elif all(
        one.today <= next_month(period.month) + timedelta(days=one.grace_days - 1)
        for period, one in over
    ):
        assert judged.standing == "grace"
    else:
        assert judged.standing == "lapsed"


@at_any_speed
@given(dues(), works)
def test_between_the_days_that_are_watched_nothing_changes(
    owed: Dues, history: list[tuple[date, int]]
) -> None:
    """The worker looks on the days of `next_days` only: no standing changes on another one."""
    for performed_on, minutes in history:
        if performed_on <= owed.today:
            owed, _ = count(owed, performed_on, minutes)
    current = [one for one in owed.exemptions if one.covers(owed.today)]
    watched = min(
        (day for _, day in next_days([owed], current, city_id="nantes")),
        default=owed.today + timedelta(days=400),
    )
    # As granted exemptions begin at once, none begins later.
    owed = replace(
        owed, exemptions=tuple(one for one in owed.exemptions if one.from_on <= owed.today)
    )
    before = judge([owed], owed.exemptions, owed.today).standing
    day = owed.today
    while day < min(watched, owed.today + timedelta(days=70)):
        assert judge([replace(owed, today=day)], owed.exemptions, day).standing == before
        day += timedelta(days=1)


@at_any_speed
@given(pledges(), days, st.integers(0, 6000), st.booleans())
def test_a_change_or_an_end_leaves_the_months_until_then_alone(
    pledge: Pledge, today: date, minutes: int, ends: bool
) -> None:
    assume(pledge.running)
    changed = (
        end_pledge(pledge, today)
        if ends
        else change_pledge(pledge, minutes_per_month=minutes, skills=None, today=today)
    )
    assert isinstance(changed, Pledge)
    assert changed.version == pledge.version + 1
    if ends and pledge.starts_on > today:
        assert not any(changed.covers(month) for month in months_from(FIRST, date(2028, 1, 1)))
        return
    for month in months_from(FIRST, today):
        assert changed.owed_in(month) == pledge.owed_in(month)
    later = max(next_month(today), month_of(pledge.starts_on))
    assert changed.per_month(later) == (pledge.per_month(later) if ends else minutes)
    if ends:
        assert changed.owed_in(next_month(later)) == 0


@at_any_speed
@given(days, st.integers(0, 6000))
@example(date(2026, 2, 28), 100)
@example(date(2026, 2, 1), 100)
def test_the_first_month_owes_in_proportion_to_its_days(starts_on: date, minutes: int) -> None:
    month = month_of(starts_on)
    pledge = Pledge(UUID(int=1), MEMBER, "nantes", starts_on, (Term(month, minutes),))
    length = calendar.monthrange(starts_on.year, starts_on.month)[1]
    assert pledge.owed_in(month) == minutes * (length - starts_on.day + 1) // length
    assert pledge.owed_in(next_month(month)) == minutes
    assert pledge.owed_in(months_later(month, -1)) == 0


@at_any_speed
@given(st.dates(date(1950, 1, 1), date(2100, 1, 1)), st.integers(-30, 30))
def test_months_are_those_of_the_calendar(day: date, months: int) -> None:
    later = months_later(day, months)
    assert later.day == 1
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == months
    assert next_month(day) == months_later(day, 1)
    last = calendar.monthrange(day.year, day.month)[1]
    assert next_month(day) - timedelta(days=1) == day.replace(day=last)
