"""French public and school holidays, by département.

Public holidays differ in Alsace-Moselle (Good Friday, 26 December) and overseas (abolition of
slavery, and more). School holidays are known for the zones A, B and C of the mainland; Corsica and
the overseas départements have calendars of their own, of which no data is at hand: there, nobody
knows (see `hours.Holidays`).
"""

from datetime import date
from functools import lru_cache

import holidays as public_holidays
from vacances_scolaires_france import SchoolHolidayDates

from places.domain.departements import departements
from places.domain.hours import Holidays

# What the `holidays` library calls the parts of France that have days of their own.
SUBDIVISIONS = {
    **dict.fromkeys(("57", "67", "68"), "57"),
    **{code: code for code in ("971", "972", "973", "974", "976")},
    "975": "PM",
    "977": "BL",
    "978": "MF",
    "986": "WF",
    "987": "PF",
    "988": "NC",
}
# A year's worth around any horizon: New Year's Day is looked for in December.
YEARS_AROUND = 1


@lru_cache(maxsize=512)
def holidays_of(departement: str | None, year: int) -> Holidays:
    """The days off of `year` and of the years beside it. None: what holds in all of France."""
    years = range(year - YEARS_AROUND, year + YEARS_AROUND + 1)
    found = public_holidays.country_holidays(
        "FR", subdiv=SUBDIVISIONS.get(departement or ""), years=years
    )
    zone = departements()[departement].school_zone if departement in departements() else ""
    if not zone:
        return Holidays(public=frozenset(found))
    school = school_holidays()
    days = frozenset(
        day for day in school.data if day.year in years and school.is_holiday_for_zone(day, zone)
    )
    # The table goes on with empty rows after the last decree: the end of the data is its last
    # day off, not its last row.
    return Holidays(
        public=frozenset(found),
        school=days,
        school_from=min(school.data),
        school_to=max(school.data),
    )


@lru_cache(maxsize=1)
def school_holidays() -> SchoolHolidayDates:
    return SchoolHolidayDates()


def known_until() -> date:
    """The last date of which it is known whether it is a school holiday."""
    last: date = max(school_holidays().data)
    return last
