"""A statement as a file: CSV for a spreadsheet (pdf.py: for paper)."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from timebank.statements.store import StatementLine

COLUMNS = (
    "posted_at",
    "transfer_id",
    "kind",
    "minutes",
    "balance_minutes",
    "memo",
    "reverses",
    "occurred_at",
)
# What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Statement:
    """An account from `start` (included) to `end` (excluded); lines are the oldest first."""

    account_id: UUID
    city_id: str
    start: datetime | None
    end: datetime
    opening_minutes: int
    closing_minutes: int
    lines: Sequence[StatementLine]


def text_cell(text: str | None) -> str:
    """A text that no spreadsheet runs: an apostrophe before what would be a formula.

    Spaces before it, also those that only look like nothing, do not hide it.
    """
    if not text:
        return ""
    return f"'{text}" if text[0].isspace() or text.lstrip().startswith(FORMULA) else text


def to_csv(statement: Statement) -> bytes:
    """UTF-8 with a byte order mark, without which spreadsheets garble accents; minutes are plain
    numbers, negative when given."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for line in statement.lines:
        writer.writerow(
            (
                line.posted_at.isoformat(),
                line.transfer_id or "",
                line.kind,
                line.posting.minutes,
                line.posting.balance_minutes,
                text_cell(line.memo),
                line.reverses or "",
                line.occurred_at.isoformat() if line.occurred_at else "",
            )
        )
    return out.getvalue().encode("utf-8-sig")


def hours(minutes: int) -> str:
    """`-1 h 30`: what people say."""
    sign = "-" if minutes < 0 else ""
    return f"{sign}{abs(minutes) // 60} h {abs(minutes) % 60:02}"
