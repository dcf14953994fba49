"""French public and school holidays, by département.

Public holidays are computed: eleven days of article L3133-1 of the Code du travail, two more in
Alsace-Moselle (L3134-13; Good Friday holds there only in communes with a church of both
confessions, and is taken as off everywhere), and those of the départements overseas. The library
`holidays` says the same and is what the tests compare with; importing it costs two seconds and the
memory of 250 countries, so the services do without.

School holidays are known for the zones A, B and C of the mainland; Corsica and the overseas
départements have calendars of their own, of which no data is at hand: there, nobody knows (see
`hours.Holidays`).
"""

from datetime import date, timedelta
from functools import lru_cache

from vacances_scolaires_france import SchoolHolidayDates

from places.domain.departements import departements
from places.domain.hours import Holidays

# (month, day)
EVERYWHERE = ((1, 1), (5, 1), (5, 8), (7, 14), (8, 15), (11, 1), (11, 11), (12, 25))
# Days after Easter Sunday: Easter Monday, Ascension, Whit Monday.
EVERYWHERE_FROM_EASTER = (1, 39, 50)
ALSACE_MOSELLE = ("57", "67", "68")
ONLY_IN: dict[str, tuple[tuple[int, int], ...]] = {
    **dict.fromkeys(ALSACE_MOSELLE, ((12, 26),)),
    "971": ((5, 27), (7, 21)),
    "972": ((5, 22), (7, 21)),
    "973": ((6, 10),),
    "974": ((12, 20),),
    "976": ((4, 27),),
    "977": ((10, 9),),
    "978": ((5, 28), (7, 21)),
    "986": ((4, 28), (6, 29), (7, 29)),
    "987": ((3, 5), (11, 20)),
    "988": ((9, 24),),
}
GOOD_FRIDAY, MID_LENT = -2, -24
ONLY_IN_FROM_EASTER: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((*ALSACE_MOSELLE, "987"), (GOOD_FRIDAY,)),
    "971": (GOOD_FRIDAY, MID_LENT),
}
# A year's worth around any horizon: New Year's Day is looked for in December.
YEARS_AROUND = 1


def easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar (Meeus, Jones and Butcher)."""
    golden = year % 19
    century, of_century = divmod(year, 100)
    leaps, of_leaps = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    epact = (19 * golden + century - leaps - correction + 15) % 30
    quads, of_quads = divmod(of_century, 4)
    weekday = (32 + 2 * of_leaps + 2 * quads - epact - of_quads) % 7
    late = (golden + 11 * epact + 22 * weekday) // 451
    month, day = divmod(epact + weekday - 7 * late + 114, 31)
    return date(year, month, day + 1)


def public_holidays(departement: str | None, year: int) -> frozenset[date]:
    """Those of one year. None: what holds in all of France."""
    fixed = (*EVERYWHERE, *ONLY_IN.get(departement or "", ()))
    movable = (*EVERYWHERE_FROM_EASTER, *ONLY_IN_FROM_EASTER.get(departement or "", ()))
    sunday = easter(year)
    return frozenset(date(year, month, day) for month, day in fixed) | frozenset(
        sunday + timedelta(days=days) for days in movable
    )


@lru_cache(maxsize=512)
def holidays_of(departement: str | None, year: int) -> Holidays:
    """The days off of `year` and of the years beside it. None: what holds in all of France."""
    years = range(max(1, year - YEARS_AROUND), min(9999, year + YEARS_AROUND) + 1)
    public = frozenset[date]().union(*(public_holidays(departement, each) for each in years))
    known = departements().get(departement or "")
    if known is None or not known.school_zone:
        return Holidays(public=public)
    calendar = school_holidays()
    return Holidays(
        public=public,
        school=frozenset(
            day
            for day in calendar.data
            if day.year in years and calendar.is_holiday_for_zone(day, known.school_zone)
        ),
        school_from=min(calendar.data),
        school_to=known_until(),
    )


@lru_cache(maxsize=1)
def school_holidays() -> SchoolHolidayDates:
    return SchoolHolidayDates()


def known_until() -> date:
    """The last date of which it is known whether it is a school holiday.

    The table goes on with empty rows after the last decree: the end of the data is its last day
    off, not its last row.
    """
    last: date = max(school_holidays().data)
    return last
