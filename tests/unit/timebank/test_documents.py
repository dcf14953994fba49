"""Statements as files."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from timebank.domain import Posting
from timebank.statements.documents import Statement, hours, text_cell, to_csv
from timebank.statements.pdf import Page, note, to_pdf
from timebank.statements.store import StatementLine

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def statement(*memos: str | None) -> Statement:
    lines = [
        StatementLine(
            Posting(UUID(int=1), -90, number, -90 * number),
            UUID(int=9),
            "transfer",
            None,
            memo,
            NOW,
        )
        for number, memo in enumerate(memos, 1)
    ]
    return Statement(UUID(int=1), "nantes", None, NOW, 0, -90 * len(memos), lines)


@pytest.mark.parametrize(
    "memo", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", " =1", "\u00a0=1", "\u3000@x"]
)
def test_no_cell_is_a_formula(memo: str) -> None:
    assert text_cell(memo) == f"'{memo}"
    (_, row) = csv.reader(io.StringIO(to_csv(statement(memo)).decode("utf-8-sig")))
    assert row[5] == f"'{memo}"


@pytest.mark.parametrize("memo", ["cuisine", "2 heures", "été = hiver", ""])
def test_plain_words_stay(memo: str) -> None:
    assert text_cell(memo) == memo


def test_minutes_are_numbers() -> None:
    (_, row) = csv.reader(io.StringIO(to_csv(statement('a "b", c')).decode("utf-8-sig")))
    assert (row[3], row[4], row[5]) == ("-90", "-90", 'a "b", c')


@pytest.mark.parametrize(
    ("minutes", "text"), [(0, "0 h 00"), (90, "1 h 30"), (-90, "-1 h 30"), (-5, "-0 h 05")]
)
def test_hours_as_people_say_them(minutes: int, text: str) -> None:
    assert hours(minutes) == text


def test_a_page_shows_whatever_a_memo_has_in_it() -> None:
    made = to_pdf(statement(None, "œuvre d’été – 5 €", "日本 🎉", "(a)\\ endobj", "x" * 2000))
    assert made.startswith(b"%PDF-")
    many = to_pdf(statement(*["repas"] * 200))
    assert many.count(b"/Type /Page\n") > 3


def test_names_are_written_as_their_owners_write_them() -> None:
    with Page() as page:
        page.set_font("Noto", size=9)
        for words in ("Łukasz & Ștefan", "Ирина", "Ξένια", "œuvre d’été – 5 €"):
            assert page.fit(words, 100) == words
        assert page.fit("日本 🎉", 100) == "?? ?"
        cut = page.fit("repas " * 100, 100)
        assert cut.endswith("…")
        assert page.get_string_width(cut) <= 100


def test_what_was_imported_shows_its_day() -> None:
    (line,) = statement("Cours").lines
    assert note(line) == "Cours"
    imported = replace(line, occurred_at=datetime(2024, 5, 1, tzinfo=UTC))
    assert note(imported) == "2024-05-01 · Cours"
    assert note(replace(imported, memo=None)) == "2024-05-01"
    (_, row) = csv.reader(
        io.StringIO(to_csv(replace(statement(), lines=[imported])).decode("utf-8-sig"))
    )
    assert row[7] == "2024-05-01T00:00:00+00:00"
