from datetime import date

import pytest
from holidays.countries.france import France

from places.domain.calendar import easter, public_holidays
from places.domain.departements import departements

THEIR_NAMES = {
    "57": "57",
    "67": "6AE",
    "68": "6AE",
    "975": "PM",
    "977": "BL",
    "978": "MF",
    "986": "WF",
    "987": "PF",
    "988": "NC",
    **{code: code for code in ("971", "972", "973", "974", "976")},
}


@pytest.mark.parametrize("departement", sorted(departements()))
def test_public_holidays_are_those_of_the_library(departement: str) -> None:
    years = range(2026, 2041)
    theirs = set(France(subdiv=THEIR_NAMES.get(departement), years=years))
    ours = set().union(*(public_holidays(departement, year) for year in years))
    assert ours == theirs


def test_easter() -> None:
    assert [easter(year) for year in (1818, 1943, 2000, 2026, 2038, 2285)] == [
        date(1818, 3, 22),
        date(1943, 4, 25),
        date(2000, 4, 23),
        date(2026, 4, 5),
        date(2038, 4, 25),
        date(2285, 3, 22),
    ]
