"""What an auditor is shown as odd, and what not."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from uuid import UUID, uuid4

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timebank.audit.domain import (
    EXPLAINED,
    RING_STEPS_MAX,
    Anomaly,
    Crossing,
    find_anomalies,
    median_distance,
    middle_of,
)
from timebank.audit.exports import COLUMNS, to_archive

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SINCE = NOW - timedelta(days=30)
PEOPLE = [UUID(int=number) for number in range(1, 20)]


def crossing(
    days_ago: float,
    minutes: int = 60,
    *,
    pair: tuple[str, str] = ("nantes", "bourges"),
    payer: UUID | None = None,
    payee: UUID | None = None,
    hour: int = 14,
    state: str = "settled",
) -> Crossing:
    at = NOW - timedelta(days=days_ago)
    return Crossing(
        transfer_id=uuid4(),
        from_city=pair[0],
        to_city=pair[1],
        minutes=minutes,
        at=at,
        state=state,  # type: ignore[arg-type] # a literal, spelt by the tests
        payer=payer or uuid4(),
        payee=payee or uuid4(),
        deadline=at + timedelta(days=1),
        hour=hour,
    )


def usual(count: int = 60, **more: object) -> list[Crossing]:
    """Before the period: an hour each, at two in the afternoon."""
    return [crossing(31 + number * 50 / count, **more) for number in range(count)]  # type: ignore[arg-type] # passed on


def found(crossings: Sequence[Crossing], rule: str) -> list[Anomaly]:
    return [one for one in find_anomalies(crossings, SINCE, NOW) if one.rule == rule]


def test_a_quiet_federation_shows_nothing() -> None:
    assert find_anomalies([*usual(), crossing(3), crossing(1, 90)], SINCE, NOW) == []


def test_a_transfer_far_larger_than_others_is_shown_with_the_figures() -> None:
    odd = crossing(2, 600)
    (one,) = found([*usual(), crossing(3), odd], "unusual_size")
    assert one.transfer_ids == (odd.transfer_id,)
    assert one.figures == {"minutes": 600, "median": 60, "transfers": 61}
    assert "600 minutes" in one.reason


@pytest.mark.parametrize(
    "crossings",
    [
        [*usual(19), crossing(2, 600)],  # too little is known of what is usual
        [*usual(), crossing(2, 230)],  # large for this pair, and small all the same
        [*usual(minutes=500), crossing(2, 600)],  # such are usual here
        [*usual(pair=("nantes", "brest")), crossing(2, 600)],  # usual elsewhere is not usual here
        [*usual(), crossing(40, 600)],  # before the period
    ],
)
def test_what_is_no_unusual_size(crossings: list[Crossing]) -> None:
    assert found(crossings, "unusual_size") == []


def test_a_transfer_in_the_night_is_shown_where_nobody_is_awake() -> None:
    odd = crossing(2, hour=3)
    (one,) = found([*usual(), odd], "unusual_hour")
    assert one.figures == {"hour": 3, "transfers": 60, "at_night": 0}
    assert found([*usual(), *usual(2, hour=2), odd], "unusual_hour") == []
    assert found([*usual(40), odd], "unusual_hour") == []
    assert found([*usual(), replace(odd, hour=None)], "unusual_hour") == []


def test_a_pair_that_turns_one_way_is_shown() -> None:
    back = ("bourges", "nantes")
    before = [*usual(20), *usual(20, pair=back)]
    after = [crossing(day, 100) for day in range(1, 8)]
    (one,) = found([*before, *after], "turned_one_way")
    assert one.figures == {"there": 700, "back": 0, "there_before": 1200, "back_before": 1200}
    assert len(one.transfer_ids) == 7
    assert found([*before, *after, crossing(2, 100, pair=back)], "turned_one_way") == []
    assert found([*usual(40), *after], "turned_one_way") == []  # it always went one way


def test_minutes_that_come_back_to_who_gave_them_are_a_ring() -> None:
    a, b, c, d = PEOPLE[:4]
    ring = [
        crossing(6, 100, payer=a, payee=b),
        crossing(5, 95, payer=b, payee=c, pair=("bourges", "brest")),
        crossing(4, 105, payer=c, payee=a, pair=("brest", "nantes")),
    ]
    (one,) = found(ring, "ring")
    assert one.transfer_ids == tuple(step.transfer_id for step in ring)
    assert one.figures == {"minutes": 100, "people": 3}
    assert found([ring[0], ring[2], replace(ring[1], payee=d)], "ring") == []
    assert found([ring[0], replace(ring[1], minutes=80), ring[2]], "ring") == []
    assert found([ring[0], replace(ring[1], state="returned"), ring[2]], "ring") == []
    late = replace(ring[2], at=ring[0].at + timedelta(days=8))
    assert found([*ring[:2], late], "ring") == []


def test_a_large_sum_in_pieces_is_shown_once_with_all_of_them() -> None:
    a, b = PEOPLE[:2]
    pieces = [crossing(2 - number / 24, 120, payer=a, payee=b) for number in range(7)]
    (one,) = found(pieces, "piecemeal")
    assert one.transfer_ids == tuple(piece.transfer_id for piece in pieces)
    assert found(pieces[:4], "piecemeal") == []
    assert found([replace(piece, minutes=20) for piece in pieces], "piecemeal") == []
    assert found([replace(piece, payee=uuid4()) for piece in pieces], "piecemeal") == []


def test_what_is_unanswered_or_often_returned_is_shown() -> None:
    late = crossing(3, state="sent")
    (one,) = found([late, crossing(1.01, state="sent")], "overdue")
    assert one.transfer_ids == (late.transfer_id,)
    assert one.figures == {"minutes": 60, "hours": 48}
    back = [crossing(day, state="returned") for day in (1, 2)]
    (other,) = found([*back, *(crossing(day) for day in range(3, 11))], "returned")
    assert other.figures == {"transfers": 10, "returned": 2}
    assert found([*back, *(crossing(day) for day in range(3, 12))], "returned") == []


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_the_usual_distance_is_that_of_the_textbook(minutes: list[int]) -> None:
    ordered = sorted(minutes)
    middle = median(ordered)
    assert middle_of(ordered) == middle
    assert median_distance(ordered, middle) == median(abs(one - middle) for one in ordered)


def test_a_trickle_after_a_large_sum_in_pieces_does_not_hide_it() -> None:
    a, b = PEOPLE[:2]
    pieces = [crossing(20 - number / 24, 120, payer=a, payee=b) for number in range(7)]
    trickle = [crossing(19 - number * 0.9, 1, payer=a, payee=b) for number in range(20)]
    (one,) = found([*pieces, *trickle], "piecemeal")
    assert {piece.transfer_id for piece in pieces} <= set(one.transfer_ids)


def test_small_change_does_not_hide_a_ring_nor_does_what_was_long_ago() -> None:
    a, b = PEOPLE[:2]
    there = crossing(6, 100, payer=a, payee=b)
    back = crossing(5, 100, payer=b, payee=a, pair=("bourges", "nantes"))
    long_ago = [crossing(60, 1, payer=b) for _ in range(RING_STEPS_MAX + 1)]
    (one,) = found([*long_ago, there, back], "ring")
    assert one.transfer_ids == (there.transfer_id, back.transfer_id)


def test_as_many_steps_are_looked_at_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = PEOPLE[:2]
    ring = [crossing(6, 100, payer=a, payee=b), crossing(5, 100, payer=b, payee=a)]
    assert len(found(ring, "ring")) == 1
    monkeypatch.setattr("timebank.audit.domain.RING_STEPS_ALL_MAX", 0)
    assert found(ring, "ring") == []


CROSSINGS = st.lists(
    st.builds(
        crossing,
        st.floats(0, 130),
        st.integers(1, 700),
        pair=st.permutations(["nantes", "bourges", "brest"]).map(lambda all_: (all_[0], all_[1])),
        payer=st.sampled_from(PEOPLE[:5]),
        payee=st.sampled_from(PEOPLE[:5]),
        hour=st.integers(0, 23),
        state=st.sampled_from(["sent", "settled", "returned"]),
    ),
    max_size=60,
)


@given(CROSSINGS)
def test_whatever_crossed_each_finding_says_why_and_of_what(crossings: list[Crossing]) -> None:
    known = {one.transfer_id for one in crossings}
    anomalies = find_anomalies(crossings, SINCE, NOW)
    for one in anomalies:
        assert one.rule in EXPLAINED
        assert one.reason
        assert one.transfer_ids
        assert set(one.transfer_ids) <= known
    assert anomalies == find_anomalies(crossings[::-1], SINCE, NOW)


def test_an_export_holds_the_same_as_csv_and_as_parquet() -> None:
    row = {
        "number": 2**53 - 1,
        "looked_at": NOW,
        "actor_id": "=1+1",
        "role": "auditor",
        "city_id": None,
        "path": "/v1/audit/looks",
        "query": "",
    }
    notes = {"nantes": "copass/nantes\n1\nAAAA\n"}
    as_csv = zipfile.ZipFile(io.BytesIO(to_archive("looks", [row], "csv", notes, NOW)))
    assert as_csv.namelist() == ["looks.csv", "README.txt", "checkpoints/nantes.txt"]
    assert as_csv.read("checkpoints/nantes.txt").decode() == notes["nantes"]
    lines = as_csv.read("looks.csv").decode("utf-8-sig").splitlines()
    assert lines[0].split(",") == list(COLUMNS["looks"])
    assert ",'=1+1,auditor,," in lines[1]  # no spreadsheet runs it
    as_parquet = zipfile.ZipFile(io.BytesIO(to_archive("looks", [row], "parquet", notes, NOW)))
    table = pq.read_table(io.BytesIO(as_parquet.read("looks.parquet")))
    assert table.to_pylist() == [row]
    assert orjson.loads(table.schema.metadata[b"copass.checkpoints"]) == notes


def test_an_empty_export_still_has_its_columns() -> None:
    for name, columns in COLUMNS.items():
        archive = zipfile.ZipFile(io.BytesIO(to_archive(name, [], "parquet", {}, NOW)))
        table = pq.read_table(io.BytesIO(archive.read(f"{name}.parquet")))
        assert table.column_names == list(columns)
        assert table.num_rows == 0
