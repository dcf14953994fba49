"""A person's data as files: JSON for programs, one CSV per table for spreadsheets."""

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import Response

from common.db import Conn

Rows = Sequence[Mapping[str, Any]]

# What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
JSON_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def to_document(service: str, member_id: UUID, tables: Mapping[str, Rows], now: datetime) -> Any:
    """The whole export as JSON values: who keeps it, of whom, when, and the rows by table."""
    return {
        "service": service,
        "member_id": str(member_id),
        "exported_at": now.isoformat(),
        "tables": {name: [plain(row) for row in rows] for name, rows in tables.items()},
    }


async def read_tables(
    conn: Conn, queries: Mapping[str, str], member_id: UUID
) -> dict[str, list[dict[str, Any]]]:
    """The rows by table of queries that each ask for a member's, who is their `$1`."""
    return {
        name: [dict(row) for row in await conn.fetch(query, member_id)]
        for name, query in queries.items()
    }


def plain(value: Any) -> Any:
    """A value from the database as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def text_cell(text: str) -> str:
    """A text that no spreadsheet runs: an apostrophe before what would be a formula.

    Spaces before it, also those that only look like nothing, do not hide it.
    """
    if not text:
        return ""
    return f"'{text}" if text[0].isspace() or text.lstrip().startswith(FORMULA) else text


def cell(value: Any) -> str | int | float:
    """One cell: a number as it is, a list or an object as JSON, nothing as an empty cell."""
    match plain(value):
        case None:
            return ""
        case bool() as truth:
            return "true" if truth else "false"
        case int() | float() as number:
            return number
        case str() as text:
            return text_cell(text)
        case other:
            return text_cell(orjson.dumps(other).decode())


def to_csv(rows: Rows) -> bytes:
    """UTF-8 with a byte order mark, without which spreadsheets garble accents; the columns are
    those of the first row."""
    out = io.StringIO()
    writer = csv.writer(out)
    columns = list(rows[0]) if rows else []
    writer.writerow(columns)
    for row in rows:
        writer.writerow([cell(row[column]) for column in columns])
    return out.getvalue().encode("utf-8-sig")


def to_zip(service: str, member_id: UUID, tables: Mapping[str, Rows], now: datetime) -> bytes:
    """`<service>.json` with everything, and `<service>/<table>.csv` for each table with rows."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        document = orjson.dumps(to_document(service, member_id, tables, now), option=JSON_OPTIONS)
        files = {f"{service}.json": document}
        files |= {f"{service}/{name}.csv": to_csv(rows) for name, rows in tables.items() if rows}
        for name, content in files.items():
            info = zipfile.ZipInfo(name, now.timetuple()[:6])
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


def json_response(
    service: str, member_id: UUID, tables: Mapping[str, Rows], now: datetime
) -> Response:
    """The answer that is `to_document`."""
    content = orjson.dumps(to_document(service, member_id, tables, now))
    headers = {"Cache-Control": "no-store"}
    return Response(content, headers=headers, media_type="application/json")


def zip_response(
    service: str, member_id: UUID, tables: Mapping[str, Rows], now: datetime
) -> Response:
    """The answer that is the file of `to_zip`."""
    name = f"{service}-{now:%Y-%m-%d}.zip"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
    }
    content = to_zip(service, member_id, tables, now)
    return Response(content, headers=headers, media_type="application/zip")
