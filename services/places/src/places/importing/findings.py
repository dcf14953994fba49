"""What an import found wrong, and the report of it."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

VALUE_CHARACTERS_MAX = 120
# A spreadsheet takes a cell that begins so for a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one field of one row.

    `line` is the line of the file, counted from 1, on which the row begins. `rejected`: the row
    was not imported; `warning`: it was, without or in spite of this value.
    """

    line: int
    external_id: str
    level: Literal["rejected", "warning"]
    field: str
    code: str
    message: str
    value: str = ""


def neutral(cell: str) -> str:
    """A cell that no spreadsheet runs (OWASP: a quote before what looks like a formula)."""
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell


def writable(text: str) -> str:
    """Text that can be written as UTF-8: what could not be read shows as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_report(path: Path, summary: dict[str, object], findings: Sequence[Finding]) -> None:
    """CSV, or JSON when the name ends in `.json`. Written whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    rows = [
        {
            name: writable(value) if isinstance(value, str) else value
            for name, value in asdict(finding).items()
        }
        for finding in findings
    ]
    if path.suffix.lower() == ".json":
        partial.write_text(
            json.dumps({**summary, "findings": rows}, ensure_ascii=False, indent=1) + "\n",
            encoding="utf-8",
        )
    else:
        with partial.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["line", "external_id", "level", "field", "code", "message", "value"])
            for row in rows:
                writer.writerow(
                    [neutral(cell) if isinstance(cell, str) else cell for cell in row.values()]
                )
    partial.replace(path)
