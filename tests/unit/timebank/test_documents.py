"""Statements as files."""

import csv
import io
from datetime import UTC, datetime
from uuid import UUID

import pytest

from timebank.domain import Posting
from timebank.statements.documents import Statement, hours, text_cell, to_csv
from timebank.statements.pdf import to_pdf
from timebank.store import StatementLine

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
