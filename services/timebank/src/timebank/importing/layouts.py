"""What the rows of a file mean. Pure: text in, rows or named faults out.

The layouts: ours; the export of Komunitin; the export of TimeOverflow, whose rows have no id.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError

from common import ids
from common.fields import MINUTES_MAX, LongText

Layout = Literal["copass", "komunitin", "timeoverflow"]
Unit = Literal["minutes", "hours", "seconds"]

FIELDS: dict[Layout, tuple[str, ...]] = {
    "copass": ("id", "from_account", "to_account", "minutes", "memo", "occurred_at"),
    "komunitin": (
        *("id", "payer", "payee", "user", "amount", "description", "createdAt", "updatedAt"),
    ),
    "timeoverflow": (
        *("source_id", "source_type", "destination_id", "destination_type"),
        *("amount", "created_at", "reason", "post_id"),
    ),
}
UNITS: dict[Layout, Unit] = {"copass": "minutes", "komunitin": "hours", "timeoverflow": "seconds"}
SECONDS_IN: dict[Unit, int] = {"minutes": 60, "hours": 3600, "seconds": 1}
# No sign, no exponent, no digits of other scripts.
AMOUNT = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
ID_MAX = 200
# Ids of transfers are made in it, from the source's name and the row's id.
NAMESPACE = UUID("6f0d2d3e-94c5-5d0c-9a57-0c1f6a1c8f10")

memo_of: TypeAdapter[str | None] = TypeAdapter(LongText | None)


class LayoutError(Exception):
    """The file as a whole is not of this layout."""


@dataclass(frozen=True, slots=True)
class Row:
    """One transfer that a file asks for. `line` counts the rows of the file from 1."""

    line: int
    id: str
    payer: str
    payee: str
    minutes: int
    memo: str | None
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that asks for nothing that could be done."""

    line: int
    id: str
    code: str
    detail: str


def transfer_id(source: str, row_id: str) -> UUID:
    """The same for the same row of the same source, whenever and wherever it is imported.

    It is `uuid5(NAMESPACE, …)`, made in a fifth of the time.
    """
    name = f"{len(source)}:{source}:{row_id}".encode()
    raw = bytearray(hashlib.sha1(NAMESPACE.bytes + name, usedforsecurity=False).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x50  # version 5
    raw[8] = raw[8] & 0x3F | 0x80  # the variant of RFC 9562
    return ids.row_id(bytes(raw))


def read_csv(lines: Iterable[str], layout: Layout) -> Iterator[dict[str, Any]]:
    """The rows of a CSV file. Raises LayoutError for another header or a broken row."""
    reader = csv.DictReader(lines, strict=True)
    try:
        if tuple(reader.fieldnames or ()) != FIELDS[layout]:
            raise LayoutError(f"The first line must be {','.join(FIELDS[layout])}")
        yield from reader
    except csv.Error as error:
        raise LayoutError(f"line {reader.line_num}: {error}") from error


def read_json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file of JSON objects, one a line. Raises LayoutError for anything else."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise LayoutError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise LayoutError(f"line {number} is not an object")
        yield row


def to_rows(
    records: Iterable[Mapping[str, Any]], layout: Layout, unit: Unit
) -> Iterator[Row | Fault]:
    """What the records of a file ask for, each a row or a fault."""
    seen: Counter[bytes] = Counter()
    for line, record in enumerate(records, 1):
        if layout == "timeoverflow":
            yield to_row(line, timeoverflow(record, seen), unit)
        elif layout == "komunitin":
            yield to_row(line, komunitin(record), unit)
        else:
            yield to_row(line, record, unit)


def komunitin(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": record.get("id"),
        "from_account": record.get("payer"),
        "to_account": record.get("payee"),
        "minutes": record.get("amount"),
        "memo": record.get("description"),
        "occurred_at": record.get("createdAt"),
    }


def timeoverflow(record: Mapping[str, Any], seen: Counter[bytes]) -> dict[str, Any]:
    """Its rows have no id: what is in them is their id, and for equal ones which of them it is.

    So a longer export of the same bank gives the same ids to the rows that it shares.
    """
    content = "\x1f".join(str(record.get(name, "")) for name in FIELDS["timeoverflow"])
    digest = hashlib.sha256(content.encode("utf-8", errors="replace")).digest()
    seen[digest] += 1
    return {
        "id": f"{digest.hex()[:32]}-{seen[digest]}",
        "from_account": f"{record.get('source_type')}:{record.get('source_id')}",
        "to_account": f"{record.get('destination_type')}:{record.get('destination_id')}",
        "minutes": record.get("amount"),
        "memo": record.get("reason"),
        "occurred_at": record.get("created_at"),
    }


def to_row(line: int, record: Mapping[str, Any], unit: Unit) -> Row | Fault:
    row_id = str(record.get("id") or "").strip()
    if not 1 <= len(row_id) <= ID_MAX or None in record:
        return Fault(line, row_id[:ID_MAX], "malformed", "The row has no id, or too many fields.")
    amount = record.get("minutes")
    minutes = to_minutes("" if isinstance(amount, bool) else str(amount), unit)
    if minutes is None:
        return Fault(line, row_id, "bad_amount", f"Not a whole number of minutes, in {unit}.")
    try:
        memo = memo_of.validate_python(record.get("memo") or None)
    except ValidationError:
        return Fault(line, row_id, "bad_memo", "The words are too long, or not to be printed.")
    try:
        occurred_at = to_instant(record.get("occurred_at") or None)
    except ValueError:
        return Fault(line, row_id, "bad_date", "This is no date and time.")
    return Row(
        line=line,
        id=row_id,
        payer=str(record.get("from_account") or "").strip(),
        payee=str(record.get("to_account") or "").strip(),
        minutes=minutes,
        memo=memo,
        occurred_at=occurred_at,
    )


def to_minutes(amount: str, unit: Unit) -> int | None:
    """Whole minutes, exactly, or None: nothing is rounded."""
    if not AMOUNT.fullmatch(amount):
        return None
    seconds = Decimal(amount) * SECONDS_IN[unit]
    if seconds % 60 or not 1 <= seconds // 60 <= MINUTES_MAX:
        return None
    return int(seconds // 60)


def to_instant(text: object) -> datetime | None:
    """ISO 8601, or as Rails prints it; UTC unless it says otherwise. Raises ValueError."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError("not a date")
    instant = datetime.fromisoformat(text.strip().removesuffix(" UTC"))
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def read_account_map(lines: Iterable[str]) -> dict[str, UUID]:
    """`id,account_id`: which account of ours one of the source is. Raises LayoutError."""
    reader = csv.DictReader(lines, strict=True)
    if tuple(reader.fieldnames or ()) != ("id", "account_id"):
        raise LayoutError("The first line of the accounts must be id,account_id")
    found: dict[str, UUID] = {}
    for row in reader:
        try:
            account_id = UUID(row["account_id"])
        except (ValueError, TypeError, AttributeError) as error:
            raise LayoutError(f"accounts, line {reader.line_num}: no account id") from error
        if found.setdefault(row["id"].strip(), account_id) != account_id:
            raise LayoutError(f"accounts, line {reader.line_num}: {row['id']} is there twice")
    return found
