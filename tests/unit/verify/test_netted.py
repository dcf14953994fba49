"""A netting in the logs of three cities: each moves back what the other moves, or is named."""

import sys
from pathlib import Path
from typing import Any

import pytest
from rfc8785 import dumps

sys.path.insert(0, str(Path(__file__).parent))

from evidence_world import NOW, City, uuid_of

from copass_verify.crossings import Ledger
from copass_verify.entries import Book, WrongEntry
from copass_verify.netted import pair_nettings

TOLD: dict[str, Any] = {"clearing": {"id": uuid_of("a circle"), "step": "netting"}}
LATER = NOW.timestamp() + 3600


def post(city: str, **moved: int) -> Book:
    made, book = City.of(city), Book(city)
    lines = [(f"clearing:{peer}", minutes) for peer, minutes in moved.items()]
    made.post("netting", *lines, **TOLD)
    book.add(dumps(made.entries[0]))
    return book


def faults(books: list[Book], told_until: float = LATER) -> list[tuple[str, str]]:
    found = pair_nettings(
        {book.city: book.netted for book in books},
        {book.city: Ledger(book.city, told_until) for book in books},
    )
    return [(fault.city, fault.what.partition(" moves ")[2]) for fault in found]


def a_circle() -> list[Book]:
    return [
        post("nantes", bourges=-60, brest=60),
        post("bourges", nantes=60, brest=-60),
        post("brest", nantes=-60, bourges=60),
    ]


def test_a_circle_that_all_have_posted_fits_also_when_one_log_is_not_here() -> None:
    assert faults(a_circle()) == []
    assert faults(a_circle()[:2]) == []


def test_a_city_that_moved_something_else_or_did_not_post_is_named() -> None:
    nantes, bourges, _ = a_circle()
    wrong = faults([nantes, bourges, post("brest", nantes=-50, bourges=50)])
    assert ("nantes", "60 minutes with brest, which moves -50 back") in wrong
    assert ("brest", "50 minutes with bourges, which moves -60 back") in wrong
    missing = faults([nantes, bourges, Book("brest")])
    assert missing == [
        ("nantes", "60 minutes with brest, which moves 0 back"),
        ("bourges", "-60 minutes with brest, which moves 0 back"),
    ]
    # A log that ends before it could be there says nothing yet.
    assert faults([nantes, bourges, Book("brest")], told_until=NOW.timestamp()) == []


@pytest.mark.parametrize(
    ("lines", "told", "what"),
    [
        ([("clearing:brest", 60), ("anna", -60)], TOLD, "moves pairs alone"),
        ([("clearing:brest", 60), ("clearing:bourges", -60)], {}, "other fields"),
        (
            [("clearing:brest", 60), ("clearing:bourges", -60)],
            {"clearing": {"id": "x", "step": "netting"}},
            "no id",
        ),
    ],
    ids=["of a person", "without its id", "of another id"],
)
def test_an_entry_that_is_no_netting_is_refused(
    lines: list[tuple[str, int]], told: dict[str, Any], what: str
) -> None:
    made = City.of("nantes")
    made.post("netting", *lines, **told)
    with pytest.raises(WrongEntry, match=what):
        Book("nantes").add(dumps(made.entries[0]))


def test_a_netting_is_posted_once() -> None:
    made, book = City.of("nantes"), Book("nantes")
    for _ in range(2):
        made.post("netting", ("clearing:bourges", -60), ("clearing:brest", 60), **TOLD)
    book.add(dumps(made.entries[0]))
    with pytest.raises(WrongEntry, match="was there before"):
        book.add(dumps(made.entries[1]))
