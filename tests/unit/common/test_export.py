"""A person's data as files."""

import csv
import io
import json
import zipfile
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from common.export import cell, to_csv, to_document, to_zip

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=UTC)
WHO = UUID("01900000-0000-7000-8000-000000000000")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (-5, -5),
        (0.5, 0.5),
        ("", ""),
        ("plain", "plain"),
        ("=1+1", "'=1+1"),
        ("+33", "'+33"),
        ("-2", "'-2"),
        ("@x", "'@x"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("\u00a0=1", "'\u00a0=1"),
        ("a=1", "a=1"),
        (WHO, str(WHO)),
        (NOW, "2026-11-22T12:30:00+00:00"),
        (date(2026, 11, 22), "2026-11-22"),
        ({"a": [WHO]}, f'{{"a":["{WHO}"]}}'),
        (("a", "b"), '["a","b"]'),
    ],
)
def test_a_cell_is_a_number_or_a_text_that_nothing_runs(value: Any, shown: Any) -> None:
    assert cell(value) == shown


def test_columns_follow_the_first_row() -> None:
    read = list(
        csv.reader(
            io.StringIO(to_csv([{"b": 1, "a": "é,\n"}, {"a": 2, "b": None}]).decode("utf-8-sig"))
        )
    )
    assert read == [["b", "a"], ["1", "é,\n"], ["", "2"]]
    assert to_csv([]).decode("utf-8-sig") == "\r\n"


def test_everything_is_in_the_document_and_tables_with_rows_are_files() -> None:
    tables = {"notes": [{"note": "=x", "at": NOW}], "empty": []}
    with zipfile.ZipFile(io.BytesIO(to_zip("timebank", WHO, tables, NOW))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["timebank.json", "timebank/notes.csv"]
        document = json.loads(archive.read("timebank.json"))
    assert document == to_document("timebank", WHO, tables, NOW)
    assert document["tables"] == {
        "notes": [{"note": "=x", "at": "2026-11-22T12:30:00+00:00"}],
        "empty": [],
    }


def test_the_same_data_is_the_same_file() -> None:
    tables = {"a": [{"b": 1}]}
    assert to_zip("x", WHO, tables, NOW) == to_zip("x", WHO, tables, NOW)
