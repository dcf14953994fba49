"""A file of open data, read and checked whole before anything is written."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from places.domain.place import Details
from places.importing.findings import Finding
from places.importing.rows import FORMATS, Format, read_row

FILE_BYTES_MAX = 100 * 1024 * 1024


class UnreadableFile(Exception):
    """The file as a whole cannot be imported; nothing was."""


@dataclass(frozen=True, slots=True)
class Source:
    """The places of a file, in its order, by the line on which each row begins."""

    layout: Format
    rows: int
    places: list[tuple[int, Details]]
    findings: list[Finding]


def read_file(path: Path, format_name: str = "auto", encoding: str = "utf-8") -> Source:
    """Read and check a CSV file. Raises UnreadableFile."""
    return read_text(read_bytes(path, encoding), format_name)


def read_bytes(path: Path, encoding: str) -> str:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise UnreadableFile(f"larger than {FILE_BYTES_MAX // 2**20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"cannot be opened: {error.strerror}") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile("UTF-16: save it as UTF-8 first")
    try:
        # What is not UTF-8 is kept as it is and found again in its row, which is then rejected.
        text = content.decode(encoding, "surrogateescape")
    except (LookupError, UnicodeError) as error:
        raise UnreadableFile(f"cannot be read as {encoding}: {error}") from error
    return text.removeprefix("\ufeff")


def read_text(text: str, format_name: str = "auto") -> Source:
    lines = numbered_rows(text)
    try:
        _line, header = next(lines)
    except StopIteration:
        raise UnreadableFile("is empty") from None
    columns = [name.strip() for name in header]
    layout = choose_format(columns, format_name)
    findings = check_header(columns, layout)
    places: list[tuple[int, Details]] = []
    first_line: dict[str, int] = {}
    rows = 0
    for line, cells in lines:
        rows += 1
        if len(cells) != len(columns):
            findings.append(
                Finding(
                    line,
                    "",
                    "rejected",
                    "row",
                    "wrong_number_of_cells",
                    f"{len(cells)} cells, where the header has {len(columns)}",
                )
            )
            continue
        row = dict(zip(columns, cells, strict=True))
        details, found = read_row(row, line, layout)
        identifier = row[layout.id_column].strip()
        if identifier and identifier in first_line:
            message = f"the identifier of line {first_line[identifier]}"
            findings.append(
                Finding(
                    line, identifier, "rejected", layout.id_column, "duplicate", message, identifier
                )
            )
            continue
        first_line[identifier] = line
        findings += found
        if details is not None:
            places.append((line, details))
    return Source(layout=layout, rows=rows, places=places, findings=findings)


def numbered_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows with the line on which each begins. Raises UnreadableFile for broken quoting."""
    delimiter = guess_delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    before = 0
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield before + 1, cells
            before = reader.line_num
    except csv.Error as error:
        raise UnreadableFile(f"broken after line {before}: {error}") from error


def guess_delimiter(text: str) -> str:
    """Comma or semicolon, whichever the header has more of."""
    header = text.split("\n", 1)[0]
    return ";" if header.count(";") > header.count(",") else ","


def choose_format(columns: list[str], name: str) -> Format:
    if len(set(columns)) != len(columns):
        raise UnreadableFile("the header has the same column twice")
    if name == "auto":
        for layout in FORMATS.values():
            if layout.needs <= set(columns):
                return layout
        raise UnreadableFile(f"is of none of the formats {', '.join(FORMATS)}, by its header")
    layout = FORMATS[name]
    missing = sorted(layout.needs - set(columns))
    if missing:
        raise UnreadableFile(f"lacks the columns {', '.join(missing)} of the format {name}")
    return layout


def check_header(columns: list[str], layout: Format) -> list[Finding]:
    return [
        Finding(1, "", "warning", column, "unknown_column", "not read")
        for column in columns
        if column not in layout.knows
    ]
