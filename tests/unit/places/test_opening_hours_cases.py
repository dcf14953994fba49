"""The expressions of opening-hours-rs, through our compiler.

Ours tells when a place is open for certain; theirs also knows "unknown" and comments. Times are
compared in UTC, where the wall clock and the instants agree.
"""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from places.domain.calendar import holidays_of
from places.domain.hours import NO_HOLIDAYS, check_expression, compile_open_intervals

CASES = json.loads((Path(__file__).parent / "data" / "opening_hours_rs_cases.json").read_text())
ZONE = ZoneInfo("UTC")
PARIS = ZoneInfo("Europe/Paris")

# What is left out, and why:
# - before 1900 and after 9999: no place is asked about those years;
# - calendars of other countries: the network is French, `PH` is by département;
# - `no_next_change`: never within the fortnight either, of which the other cases tell enough.
# And where a comment changes but not whether it is open, they see a change, and we none.
CHANGES_OF_COMMENT = {
    ('00:00-14:00 "may open earlier", 14:00-24:00', "2024-01-01 12:00"),
    ('00:00-14:00 "may open earlier", 14:00-24:00', "2024-01-01 16:00"),
    ('01:00-03:00 closed "aaa"', "2024-01-01 02:00"),
    ('01:00-03:00 closed "aaa"', "2024-01-01 12:00"),
}


def named(case: dict[str, Any]) -> str:
    return f"{case.get('date') or case.get('at')} {case['expr']}"


def minutes_of(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def expected_open(case: dict[str, Any]) -> list[tuple[int, int]]:
    """Minutes since midnight; adjacent intervals joined, as ours are."""
    joined: list[tuple[int, int]] = []
    for begin, end, state, comment in case["intervals"]:
        assert comment is None or isinstance(comment, str)
        if state != "open":
            continue
        low, high = minutes_of(begin), minutes_of(end)
        if joined and joined[-1][1] == low:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined


def found_open(
    expression: str, day: date, zone: ZoneInfo = ZONE, **more: Any
) -> list[tuple[int, int]]:
    holidays = more.pop("holidays", NO_HOLIDAYS)
    intervals = compile_open_intervals(expression, zone, holidays, [], day, 1, **more)
    midnight = datetime.combine(day, datetime.min.time(), tzinfo=zone).timestamp()
    return [(int(low - midnight) // 60, int(high - midnight) // 60) for low, high in intervals]


@pytest.mark.parametrize("case", CASES["schedule_at"], ids=named)
def test_day(case: dict[str, Any]) -> None:
    assert found_open(case["expr"], date.fromisoformat(case["date"])) == expected_open(case)


@pytest.mark.parametrize(
    "case",
    [each for each in CASES["schedule_at_with_country"] if each["country"] == "FR"],
    ids=named,
)
def test_day_in_france(case: dict[str, Any]) -> None:
    day = date.fromisoformat(case["date"])
    found = found_open(case["expr"], day, holidays=holidays_of("75", day.year))
    assert found == expected_open(case)


@pytest.mark.parametrize("case", CASES["schedule_at_paris_coords"], ids=named)
def test_day_by_the_sun_of_paris(case: dict[str, Any]) -> None:
    day = date.fromisoformat(case["date"])
    found = found_open(case["expr"], day, PARIS, coordinates=tuple(case["coords"]))
    assert found == expected_open(case)


def within_reason(case: dict[str, Any]) -> bool:
    return case["at"][0] != "+" and 1900 <= int(case["at"][:4]) < 9999


@pytest.mark.parametrize(
    "case",
    [
        {**each, "expected": each["expected"] if name == "state" else name.removeprefix("is_")}
        for name in ("state", "is_open", "is_closed", "is_unknown")
        for each in CASES[name]
        if within_reason(each) and each["expected"] is not False
    ],
    ids=named,
)
def test_state(case: dict[str, Any]) -> None:
    at = datetime.fromisoformat(case["at"])
    minute = at.hour * 60 + at.minute
    found = any(low <= minute < high for low, high in found_open(case["expr"], at.date()))
    assert found is (case["expected"] == "open")


@pytest.mark.parametrize(
    "case", [each for each in CASES["next_change"] if within_reason(each)], ids=named
)
def test_next_change(case: dict[str, Any]) -> None:
    """Within a fortnight the next change is where they say; beyond it, nothing changes for us."""
    at = datetime.fromisoformat(case["at"]).replace(tzinfo=UTC)
    expected = datetime.fromisoformat(case["expected"]).replace(tzinfo=UTC)
    if at.date() > date.max - timedelta(days=20):
        pytest.skip("at the end of the calendar")
    intervals = compile_open_intervals(case["expr"], ZONE, NO_HOLIDAYS, [], at.date(), 14)
    end = datetime.combine(at.date() + timedelta(days=14), datetime.min.time(), tzinfo=UTC)
    changes = sorted(
        moment for interval in intervals for moment in interval if moment > at.timestamp()
    )
    changes = [moment for moment in changes if moment < end.timestamp()]
    if expected < end and (case["expr"], case["at"]) not in CHANGES_OF_COMMENT:
        assert changes[0] == expected.timestamp()
    else:
        assert changes == []


@pytest.mark.parametrize("name", [key for key in CASES if isinstance(CASES[key], list)])
def test_every_expression_is_readable(name: str) -> None:
    for case in CASES[name]:
        check_expression(case["expr"])
