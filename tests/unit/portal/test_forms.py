"""What people type: durations, days, positions, skills."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.board.where import as_position
from portal.forms import Form, as_day, as_minutes, as_minutes_or_none, typed
from portal.skills import as_skills


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("45 min", 45),
        ("45min", 45),
        ("1h30", 90),
        ("1 h 30", 90),
        ("1 H 30 min", 90),
        ("1\u202fh\u00a030", 90),
        ("2h", 120),
        ("1:05", 65),
        ("1h5", 65),
        ("0", None),
        ("0h", None),
        ("1h60", None),
        ("-5", None),
        ("1.5", None),
        ("1_000", None),
        ("٣", None),
        ("h30", None),
        ("", None),
        ("1 h 30 2 h", None),
        ("9" * 17, None),
    ],
)
def test_durations_as_people_write_them(text: str, minutes: int | None) -> None:
    assert as_minutes(text) == minutes


@pytest.mark.parametrize("text", ["0", "0 h", "0 min", "00"])
def test_none_at_all_is_said_with_a_zero(text: str) -> None:
    assert as_minutes_or_none(text) == 0


@given(st.integers(1, 599_999))
def test_a_duration_that_a_form_shows_is_read_back(minutes: int) -> None:
    assert as_minutes(typed(minutes)) == minutes


@given(st.text())
def test_no_text_breaks_a_form(text: str) -> None:
    as_minutes(text), as_day(text), as_position(text), as_skills(text)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11-23", date(2026, 11, 23)),
        ("23/11/2026", date(2026, 11, 23)),
        ("1.2.2026", date(2026, 2, 1)),
        ("2026-02-30", None),
        ("0001-01-01", None),
        ("23/11/26", None),
        ("hier", None),
    ],
)
def test_days(text: str, day: date | None) -> None:
    assert as_day(text) == day


@pytest.mark.parametrize("text", ["47.22 -1.55", "47,22 ; -1,55", "47.22, -1.55", "47.22,-1.55"])
def test_positions(text: str) -> None:
    found = as_position(text)
    assert found is not None
    assert (found.latitude, found.longitude) == (47.22, -1.55)


@pytest.mark.parametrize("text", ["Nantes", "95 0", "0 181", "1", "1 2 3", "NaN 0", "1e2 0"])
def test_what_is_no_position(text: str) -> None:
    assert as_position(text) is None


def test_skills_become_slugs_each_once() -> None:
    assert as_skills("Réparation de vélo, cuisine,  Cuisine, ") == ["reparation-de-velo", "cuisine"]
    assert as_skills("") == []
    assert as_skills("x") is None
    assert as_skills("3d") is None
    assert as_skills("a" * 60) is None


def test_the_first_thing_that_is_wrong_with_a_field_stays() -> None:
    form = Form({"one": "", "two": "x"})
    form.wrong("two", "form.too_long")
    form.wrong("two", "form.choose")
    assert form.errors == {"two": "form.too_long"}
    assert form.first_error == "two"
