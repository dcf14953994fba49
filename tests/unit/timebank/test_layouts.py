"""What the rows of a file mean."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import pytest

from timebank.importing.layouts import (
    NAMESPACE,
    UNITS,
    Fault,
    Layout,
    LayoutError,
    Row,
    read_account_map,
    read_csv,
    read_json_lines,
    to_minutes,
    to_rows,
    transfer_id,
)

KOMUNITIN = "id,payer,payee,user,amount,description,createdAt,updatedAt"
TIMEOVERFLOW = (
    "source_id,source_type,destination_id,destination_type,amount,created_at,reason,post_id"
)


def rows(layout: Layout, *lines: str) -> list[Row | Fault]:
    return list(to_rows(read_csv([f"{line}\n" for line in lines], layout), layout, UNITS[layout]))


def test_our_own_layout() -> None:
    (row,) = rows(
        "copass",
        "id,from_account,to_account,minutes,memo,occurred_at",
        '7,a,b,90,"two, words",2024-05-01T10:00:00+02:00',
    )
    assert row == Row(1, "7", "a", "b", 90, "two, words", datetime(2024, 5, 1, 8, tzinfo=UTC))


def test_the_layout_of_komunitin() -> None:
    (row,) = rows("komunitin", KOMUNITIN, "k-1,NET1,NET2,u,1.5,Pain,2024-05-01T10:00:00.000Z,x")
    assert row == Row(1, "k-1", "NET1", "NET2", 90, "Pain", datetime(2024, 5, 1, 10, tzinfo=UTC))


def test_the_layout_of_timeoverflow() -> None:
    line = "12,Member,3,Organization,5400,2024-05-01 10:00:00 UTC,Cours,9"
    first, second, other = rows(
        "timeoverflow", TIMEOVERFLOW, line, line, line.replace("Cours", "Pain")
    )
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert isinstance(other, Row)
    assert (first.payer, first.payee, first.minutes) == ("Member:12", "Organization:3", 90)
    assert first.occurred_at == datetime(2024, 5, 1, 10, tzinfo=UTC)
    # Two equal rows are two transfers, and a longer export names its first rows the same.
    assert len({first.id, second.id, other.id}) == 3
    assert rows("timeoverflow", TIMEOVERFLOW, line)[0] == first


@pytest.mark.parametrize(
    ("amount", "unit", "minutes"),
    [
        ("90", "minutes", 90),
        ("1.5", "hours", 90),
        ("0.1", "hours", 6),
        ("60", "seconds", 1),
        ("9007199254740991", "minutes", 2**53 - 1),
    ],
)
def test_amounts_are_exact(amount: str, unit: Any, minutes: int) -> None:
    assert to_minutes(amount, unit) == minutes


@pytest.mark.parametrize(
    "amount",
    [
        *("", "0", "-5", "+5", "1e3", "NaN", "Infinity", "1_000", "٣", " 5", "5 ", "0.5", "1,5"),
        *("9007199254740992", "99999999999999999999", "None", "True", "=1"),
    ],
)
def test_what_is_no_whole_number_of_minutes_is_a_fault(amount: str) -> None:
    assert to_minutes(amount, "minutes") is None


def test_nothing_is_rounded() -> None:
    assert to_minutes("61", "seconds") is None
    assert to_minutes("0.01", "hours") is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (",a,b,5,,", "malformed"),
        ("1,a,b,5,,,more", "malformed"),
        (f"{'x' * 201},a,b,5,,", "malformed"),
        ("1,a,b,x,,", "bad_amount"),
        (f"1,a,b,5,{'x' * 2001},", "bad_memo"),
        ("1,a,b,5,\u202egnp.exe,", "bad_memo"),
        ("1,a,b,5,,yesterday", "bad_date"),
    ],
)
def test_a_bad_row_is_a_named_fault_and_not_the_end(line: str, code: str) -> None:
    fault, good = rows(
        "copass", "id,from_account,to_account,minutes,memo,occurred_at", line, "2,a,b,5,,"
    )
    assert isinstance(fault, Fault)
    assert (fault.code, fault.line) == (code, 1)
    assert isinstance(good, Row)


def test_json_lines() -> None:
    lines = ['{"id": 1, "from_account": "a", "to_account": "b", "minutes": 5}\n', "\n"]
    assert list(to_rows(read_json_lines(lines), "copass", "minutes")) == [
        Row(1, "1", "a", "b", 5, None, None)
    ]
    for line in ("[]", "nope", '{"minutes": NaN}'):
        with pytest.raises(LayoutError):
            list(read_json_lines([line]))
    (fault,) = to_rows([{"id": "1", "minutes": True}], "copass", "minutes")
    assert isinstance(fault, Fault)


@pytest.mark.parametrize("header", ["", "id,payer", TIMEOVERFLOW])
def test_another_layout_is_refused_whole(header: str) -> None:
    with pytest.raises(LayoutError):
        rows("komunitin", header, "1,a,b,u,1,x,2024-01-01,x")


def test_ids_follow_from_source_and_row() -> None:
    assert transfer_id("a", "1") == transfer_id("a", "1")
    assert len({transfer_id(*names) for names in (("a", "1"), ("b", "1"), ("a", "11"))}) == 3
    # No two pairs are written the same.
    assert transfer_id("a:1", "2") != transfer_id("a", "1:2")
    # For ever: a file that is sent again years later must find what it did.
    assert transfer_id("école", "1") == uuid5(NAMESPACE, "5:école:1")


def test_the_map_of_accounts() -> None:
    known = read_account_map(["id,account_id\n", f"NET1,{UUID(int=1)}\n"])
    assert known == {"NET1": UUID(int=1)}
    for lines in (["id\n"], ["id,account_id\n", "NET1,x\n"], ["id,account_id\n", "NET1\n"]):
        with pytest.raises(LayoutError):
            read_account_map(lines)
    with pytest.raises(LayoutError, match="twice"):
        read_account_map(["id,account_id\n", f"a,{UUID(int=1)}\n", f"a,{UUID(int=2)}\n"])
