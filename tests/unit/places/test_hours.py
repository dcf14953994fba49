from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from places.domain.calendar import holidays_of, known_until
from places.domain.departements import departements, timezone_of
from places.domain.hours import (
    EXPRESSION_CHARACTERS_MAX,
    NO_HOLIDAYS,
    Closure,
    Holidays,
    UnreadableHours,
    check_expression,
    compile_open_intervals,
    horizon,
    instant,
    mentions_holidays,
)

PARIS = ZoneInfo("Europe/Paris")


def wall(
    expression: str,
    day: date,
    days: int = 1,
    *,
    departement: str = "44",
    closures: tuple[Closure, ...] = (),
) -> list[str]:
    """`["24 09:00-24 12:00"]`: day and time on the place's wall clock."""
    zone = timezone_of(departement)
    intervals = compile_open_intervals(
        expression, zone, holidays_of(departement, day.year), closures, day, days
    )
    return [
        "-".join(datetime.fromtimestamp(end, zone).strftime("%d %H:%M") for end in interval)
        for interval in intervals
    ]


CHRISTMAS = date(2026, 12, 25)  # a Friday


# --- public holidays, by département: each date from the law, not from the library


@pytest.mark.parametrize(
    ("departement", "day", "is_off"),
    [
        ("44", date(2026, 12, 25), True),
        ("44", date(2026, 12, 26), False),
        ("67", date(2026, 12, 26), True),
        ("68", date(2026, 12, 26), True),
        ("57", date(2026, 12, 26), True),
        ("54", date(2026, 12, 26), False),
        ("67", date(2026, 4, 3), True),  # Good Friday
        ("44", date(2026, 4, 3), False),
        ("44", date(2026, 4, 6), True),  # Easter Monday
        ("44", date(2027, 3, 29), True),
        ("971", date(2026, 5, 27), True),  # abolition of slavery
        ("972", date(2026, 5, 22), True),
        ("973", date(2026, 6, 10), True),
        ("974", date(2026, 12, 20), True),
        ("976", date(2026, 4, 27), True),
        ("972", date(2026, 5, 27), False),
        ("44", date(2027, 1, 1), True),
    ],
)
def test_public_holidays_are_those_of_the_departement(
    departement: str, day: date, is_off: bool
) -> None:
    found = wall("09:00-12:00; PH off", day, departement=departement)
    assert (found == []) is is_off


def test_new_year_is_a_holiday_for_a_fortnight_that_begins_in_december() -> None:
    found = wall("10:00-11:00; PH off", date(2026, 12, 30), 4)
    assert found == ["30 10:00-30 11:00", "31 10:00-31 11:00", "02 10:00-02 11:00"]


def test_a_list_of_days_and_holidays() -> None:
    assert wall("Sa,PH 10:00-12:00", CHRISTMAS, 3) == ["25 10:00-25 12:00", "26 10:00-26 12:00"]


def test_a_space_after_the_comma_does_not_open_the_place_all_day() -> None:
    # Read to the letter, `Mo-Fr, PH 10:00-12:00` is open around the clock from Monday to Friday.
    assert wall("Mo-Fr, PH 10:00-12:00", date(2026, 12, 24), 2) == [
        "24 10:00-24 12:00",
        "25 10:00-25 12:00",
    ]
    assert wall("Mo 10:00-12:00, 14:00-16:00", date(2026, 12, 24), 1) == []


def test_holidays_narrowed_by_days_of_the_week() -> None:
    # 25 December is a Friday, 26 December (Alsace) a Saturday.
    expression = "10:00-12:00; PH Mo-Fr off"
    assert wall(expression, CHRISTMAS, 2, departement="67") == ["26 10:00-26 12:00"]


def test_the_day_before_a_holiday() -> None:
    assert wall("10:00-12:00; PH -1 day off", date(2026, 12, 24), 2) == ["25 10:00-25 12:00"]


def test_a_night_before_a_holiday_ends_at_midnight_when_the_holiday_is_off() -> None:
    assert wall("22:00-03:00; PH off", date(2026, 12, 24), 2)[:2] == [
        "24 00:00-24 03:00",
        "24 22:00-25 00:00",
    ]


# --- school holidays


def test_school_holidays_by_zone() -> None:
    # Winter 2027: zone A from 13 February, zone B from 20 February, zone C from 6 February.
    day = date(2027, 2, 15)
    expression = "Mo-Fr 09:00-12:00; SH off"
    found = {code: wall(expression, day, departement=code) for code in ("69", "44", "75")}
    assert found == {"69": [], "44": ["15 09:00-15 12:00"], "75": []}


@pytest.mark.parametrize("departement", ["2A", "2B", "974", "971", "988"])
@pytest.mark.parametrize("expression", ["09:00-12:00; SH off", "SH 09:00-12:00"])
def test_an_unknown_school_calendar_never_opens_a_door(departement: str, expression: str) -> None:
    assert wall(expression, date(2026, 12, 1), 14, departement=departement) == []


def test_what_does_not_depend_on_an_unknown_school_calendar_stays_open() -> None:
    expression = "09:00-12:00; SH 09:00-16:00"
    assert wall(expression, date(2026, 12, 1), departement="974") == ["01 09:00-01 12:00"]


def test_after_the_last_known_school_holiday_nobody_knows() -> None:
    day = known_until() + timedelta(days=30)
    assert wall("09:00-12:00; SH off", day) == []
    assert wall("09:00-12:00; PH off", day) != []


def test_every_mainland_departement_but_corsica_has_a_school_zone() -> None:
    without = {code for code, each in departements().items() if not each.school_zone}
    assert without == {"2A", "2B"} | {code for code in departements() if len(code) == 3}


# --- comments


@pytest.mark.parametrize(
    "expression",
    [
        '"sur rendez-vous"',
        'Mo-Su "sur rendez-vous"',
        '10:00-12:00 "sur rendez-vous"',
        '10:00-12:00 open "sur RDV uniquement"',
        '24/7 "by appointment"',
        '"voir le site"',
        'Fr "voir le site"',
        "Mo-Su unknown",
        'Mo-Th 10:00-12:00 || "sur rendez-vous"',
        'Mo-Th 10:00-12:00, Fr "sur rendez-vous"',
        "off",
    ],
)
def test_what_depends_on_a_comment_is_not_open(expression: str) -> None:
    check_expression(expression)
    assert wall(expression, CHRISTMAS) == []


@pytest.mark.parametrize(
    "expression",
    [
        '10:00-12:00 "entrée par la cour"',
        '10:00-12:00 "avec ou sans rendez-vous"',
        '10:00-12:00; Mo "sur rendez-vous"',
        '10:00-12:00 "fermé; PH off"',
        '10:00-12:00, Mo 14:00-16:00 "sur rendez-vous"',
    ],
)
def test_a_comment_that_decides_nothing_leaves_the_place_open(expression: str) -> None:
    assert wall(expression, CHRISTMAS) == ["25 10:00-25 12:00"]


# --- clock changes: 29 March 2026, 02:00 → 03:00; 25 October 2026, 03:00 → 02:00


def utc(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type]  # five numbers


def compiled(expression: str, day: date, days: int = 1) -> list[tuple[int, int]]:
    return compile_open_intervals(expression, PARIS, NO_HOLIDAYS, [], day, days)


def test_the_day_with_23_hours() -> None:
    day = date(2026, 3, 29)
    assert compiled("24/7", day) == [(utc(2026, 3, 28, 23), utc(2026, 3, 29, 22))]
    assert compiled("01:00-04:00", day) == [(utc(2026, 3, 29, 0), utc(2026, 3, 29, 2))]
    # A time that does not exist is the moment of the change.
    assert compiled("02:30-04:00", day) == [(utc(2026, 3, 29, 1), utc(2026, 3, 29, 2))]
    assert compiled("02:15-02:45", day) == []


def test_the_day_with_25_hours() -> None:
    day = date(2026, 10, 25)
    assert compiled("24/7", day) == [(utc(2026, 10, 24, 22), utc(2026, 10, 25, 23))]
    assert compiled("01:00-04:00", day) == [(utc(2026, 10, 24, 23), utc(2026, 10, 25, 3))]
    # A time that comes twice is its first coming.
    assert compiled("02:30-04:00", day) == [(utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 3))]
    assert compiled("01:00-02:30", day) == [(utc(2026, 10, 24, 23), utc(2026, 10, 25, 0, 30))]


def test_the_hours_of_a_place_overseas_are_its_own() -> None:
    found = compile_open_intervals(
        "09:00-12:00", ZoneInfo("Indian/Reunion"), NO_HOLIDAYS, [], date(2026, 11, 22), 1
    )
    assert found == [(utc(2026, 11, 22, 5), utc(2026, 11, 22, 8))]


# --- midnight, horizon, closures


def test_a_night_is_one_interval_and_is_cut_at_the_horizon() -> None:
    assert wall("22:00-02:00", date(2026, 11, 23), 2) == [
        "23 00:00-23 02:00",
        "23 22:00-24 02:00",
        "24 22:00-25 00:00",
    ]


def test_closures_are_whole_days_of_the_place() -> None:
    closed = (Closure(date(2026, 11, 24), date(2026, 11, 25)),)
    assert wall("22:00-02:00", date(2026, 11, 23), 4, closures=closed) == [
        "23 00:00-23 02:00",
        "23 22:00-24 00:00",
        "26 00:00-26 02:00",
        "26 22:00-27 00:00",
    ]


def test_no_expression_is_never_open() -> None:
    assert compile_open_intervals(None, PARIS, NO_HOLIDAYS, [], date(2026, 11, 23)) == []


@pytest.mark.parametrize(
    "expression",
    ["", "   ", "lundi 9h-12h", "9h - 12h", "Mo-Fr 10:00-99:00", "PH Mo[1] off", '"unfinished'],
)
def test_unreadable_hours_are_refused(expression: str) -> None:
    with pytest.raises(UnreadableHours):
        check_expression(expression)


def test_a_very_long_expression_is_refused() -> None:
    with pytest.raises(UnreadableHours):
        check_expression("Mo 10:00-12:00; " * EXPRESSION_CHARACTERS_MAX)


# --- laws


TIMES = st.integers(0, 47).map(lambda half: f"{half // 2:02}:{half % 2 * 30:02}")
DAY = st.sampled_from(["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"])
DAYS = st.one_of(
    st.just(""),
    DAY,
    st.tuples(DAY, DAY).map("-".join),
    st.lists(
        st.one_of(DAY, st.sampled_from(["PH", "SH"])), min_size=1, max_size=3, unique=True
    ).map(",".join),
    st.sampled_from(["PH", "SH", "PH Mo-Fr", "SH Sa,Su", "PH -1 day"]),
)
STATES = st.sampled_from(["", "", "", " off", " unknown", ' "sur rendez-vous"', ' "cour"'])
SPANS = st.lists(st.tuples(TIMES, TIMES).map("-".join), min_size=1, max_size=2).map(",".join)
RULES = st.tuples(DAYS, SPANS, STATES).map(lambda rule: f"{rule[0]} {rule[1]}{rule[2]}".strip())
EXPRESSIONS = st.lists(RULES, min_size=1, max_size=3).map("; ".join)
ZONES = st.sampled_from(["Europe/Paris", "America/Guadeloupe", "Indian/Reunion", "Pacific/Tahiti"])
# A year with both clock changes, and the New Years beside it.
STARTS = st.dates(date(2025, 12, 20), date(2027, 1, 10))
CLOSURES = st.lists(
    st.tuples(STARTS, st.integers(0, 10)).map(
        lambda pair: Closure(pair[0], pair[0] + timedelta(days=pair[1]))
    ),
    max_size=4,
)
DEPARTEMENTS = st.sampled_from(["44", "67", "75", "2A", "974"])


@given(EXPRESSIONS, ZONES, STARTS, CLOSURES, DEPARTEMENTS, st.data())
@settings(max_examples=150, deadline=None)
def test_intervals_are_sorted_disjoint_within_the_horizon_and_closures_have_no_order(
    expression: str,
    zone_name: str,
    start: date,
    closures: list[Closure],
    departement: str,
    data: st.DataObject,
) -> None:
    zone = ZoneInfo(zone_name)
    holidays = holidays_of(departement, start.year)
    found = compile_open_intervals(expression, zone, holidays, closures, start)
    begins, ends = horizon(zone, start)
    edges = [edge for interval in found for edge in interval]
    assert edges == sorted(set(edges))  # sorted, none empty, none touching
    assert all(begins.timestamp() <= edge <= ends.timestamp() for edge in edges)
    shuffled = data.draw(st.permutations(closures))
    assert compile_open_intervals(expression, zone, holidays, shuffled, start) == found
    for closure in closures:
        closed = (
            instant(datetime.combine(closure.from_date, datetime.min.time()), zone).timestamp(),
            instant(
                datetime.combine(closure.to_date + timedelta(days=1), datetime.min.time()), zone
            ).timestamp(),
        )
        assert all(high <= closed[0] or closed[1] <= low for low, high in found)


@given(EXPRESSIONS, STARTS, st.integers(1, 13))
@settings(max_examples=60, deadline=None)
def test_a_fortnight_is_the_same_whether_compiled_at_once_or_in_two_parts(
    expression: str, start: date, cut: int
) -> None:
    holidays = holidays_of("44", start.year)

    def seconds(first: date, days: int) -> set[int]:
        return {
            second
            for low, high in compile_open_intervals(expression, PARIS, holidays, [], first, days)
            for second in range(low, high, 1800)
        }

    assert seconds(start, 14) == seconds(start, cut) | seconds(
        start + timedelta(days=cut), 14 - cut
    )


@given(EXPRESSIONS.filter(lambda text: "SH" in text), STARTS)
@settings(max_examples=60, deadline=None)
def test_without_a_school_calendar_open_means_open_whatever_it_is(
    expression: str, start: date
) -> None:
    public = holidays_of("44", start.year).public
    every_day = frozenset(start + timedelta(days=day) for day in range(-20, 40))
    span = {"school_from": min(every_day), "school_to": max(every_day)}

    def minutes(holidays: Holidays) -> set[int]:
        found = compile_open_intervals(expression, PARIS, holidays, [], start)
        return {minute for low, high in found for minute in range(low, high, 1800)}

    unknown = minutes(Holidays(public=public))
    always = minutes(Holidays(public=public, school=every_day, **span))
    never = minutes(Holidays(public=public, school=frozenset(), **span))
    assert unknown == always & never


@given(st.dates(date(2026, 1, 1), date(2026, 12, 31)), st.times(), st.integers(0, 7200))
@settings(deadline=None)
def test_the_wall_clock_never_goes_backwards(day: date, clock: time, later_s: int) -> None:
    moment = datetime.combine(day, clock.replace(microsecond=0))
    assert instant(moment, PARIS) <= instant(moment + timedelta(seconds=later_s), PARIS)


@given(st.text(alphabet='MoTuFrSaPHSH0123456789:-,;[] "+|ofopenJandweek', max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        check_expression(text)
    except UnreadableHours:
        return
    compile_open_intervals(text, PARIS, holidays_of("44", 2026), [], date(2026, 12, 20))
    assert isinstance(mentions_holidays(text), bool)
