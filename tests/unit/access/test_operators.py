"""How full a place was, how readers are, and what those who watch are told."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from access.operators import live
from access.operators.domain import (
    HOUR,
    Movement,
    ReaderReport,
    hours_of,
    troubles_of,
)
from access.operators.live import WAITING_MAX, LiveTaps, Seen, Watcher, events
from access.partitions import day_of, first_id
from common.ids import new_id
from common.problems import Problem
from copass_tap.decision import STAY_MAX

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
ANNE, BEN, CLEO = (UUID(int=number) for number in (1, 2, 3))


def moved(member: UUID, hours: float, *, enters: bool = True) -> Movement:
    return Movement(member, enters, START + timedelta(hours=hours))


def test_each_hour_tells_who_came_who_left_and_the_most_at_once() -> None:
    found = hours_of(
        [
            moved(ANNE, -1),  # there before
            moved(BEN, 0.1),
            moved(ANNE, 0.2, enters=False),
            moved(CLEO, 0.3),
            moved(BEN, 1.5, enters=False),
        ],
        START,
        3,
    )
    assert [(one.entered, one.left, one.peak) for one in found] == [(2, 1, 2), (0, 1, 2), (0, 0, 1)]
    assert [one.start for one in found] == [START, START + HOUR, START + 2 * HOUR]


def test_who_forgets_to_tap_out_counts_until_the_longest_stay_is_over() -> None:
    stay = STAY_MAX / HOUR
    found = hours_of([moved(ANNE, -stay + 1.5), moved(BEN, -stay - 1)], START, 3)
    assert [one.peak for one in found] == [1, 1, 0]


def test_who_taps_in_twice_is_one() -> None:
    (hour,) = hours_of([moved(ANNE, 0.1), moved(ANNE, 0.2), moved(ANNE, 0.3)], START, 1)
    assert (hour.entered, hour.peak) == (1, 1)


def test_another_zone_is_still_inside_for_who_was_and_no_way_in_for_who_was_not() -> None:
    into_zone = [
        Movement(who, enters=False, at=START + timedelta(hours=1.5), stays=True)
        for who in (ANNE, BEN)
    ]
    found = hours_of([moved(ANNE, 0.5), *into_zone], START, 2)
    assert [(one.entered, one.left, one.peak) for one in found] == [(1, 0, 1), (0, 0, 1)]


def test_who_leaves_without_having_come_leaves_nobody() -> None:
    (hour,) = hours_of([moved(ANNE, 0.1, enters=False)], START, 1)
    assert (hour.entered, hour.left, hour.peak) == (0, 0, 0)


@given(
    st.lists(
        st.builds(
            moved, st.sampled_from([ANNE, BEN, CLEO]), st.floats(-15, 30), enters=st.booleans()
        )
    )
)
def test_numbers_fit_whatever_happened(movements: list[Movement]) -> None:
    found = hours_of(movements, START, 24)
    assert len(found) == 24
    inside_max = len({one.member_id for one in movements})
    for one in found:
        assert 0 <= one.peak <= inside_max
        assert one.left <= one.peak + one.entered


WELL = ReaderReport(
    reader_id=ANNE,
    city_id="nantes",
    doors=(BEN,),
    last_tap_at=START,
    reported_at=START,
    program="copass-reader 1",
    snapshot_issued_at=START - HOUR,
    clock_offset_ms=40,
    backlog=0,
    oldest_waiting_at=None,
    problems=(),
)


@pytest.mark.parametrize(
    ("report", "trouble"),
    [
        (WELL, []),
        (replace(WELL, reported_at=START - timedelta(minutes=6)), ["silent"]),
        (replace(WELL, snapshot_issued_at=START - 5 * HOUR), ["snapshot_old"]),
        (replace(WELL, snapshot_issued_at=None), ["no_snapshot"]),
        (replace(WELL, clock_offset_ms=-2001), ["clock_off"]),
        (replace(WELL, backlog=3, oldest_waiting_at=START - HOUR), ["backlog"]),
        (replace(WELL, backlog=3, oldest_waiting_at=START), []),
        (replace(WELL, reported_at=None), []),  # it cannot say; it taps
        (replace(WELL, reported_at=None, last_tap_at=None), ["never_heard"]),
    ],
)
def test_what_is_wrong_with_a_reader_is_named(report: ReaderReport, trouble: list[str]) -> None:
    assert troubles_of(report, START) == trouble


async def test_who_reads_too_slowly_is_told_how_much_was_left_out() -> None:
    watcher = Watcher("nantes", None)
    for number in range(WAITING_MAX + 3):
        watcher.tell(Seen(f"{number}-0", {"decision_id": number}))
    stream = events(watcher, quiet_s=0.01, until=asyncio.get_running_loop().time() + 0.05)
    parts = [part async for part in stream]
    assert parts[0] == b"retry: 2000\n\n"
    assert parts[1] == b'event: lost\ndata: {"taps":3}\n\n'
    assert parts[2] == b'id: 3-0\nevent: tap\ndata: {"decision_id":3}\n\n'
    assert sum(part.startswith(b"id:") for part in parts) == WAITING_MAX
    assert parts[-1] == b": still here\n\n"


def test_a_watcher_sees_only_the_own_city_and_place() -> None:
    tap = {"city_id": "nantes", "place_id": str(BEN)}
    assert Watcher("nantes", None).concerns(tap)
    assert Watcher("nantes", str(BEN)).concerns(tap)
    assert not Watcher("nantes", str(ANNE)).concerns(tap)
    assert not Watcher("rennes", None).concerns(tap)


def test_ids_of_a_day_are_those_between_its_midnights() -> None:
    made = new_id()
    day = day_of(made)
    assert first_id(day) <= made < first_id(day + timedelta(days=1))
    assert day_of(first_id(day)) == day
    assert day_of(UUID(int=first_id(day).int - 1)) == day - timedelta(days=1)


async def test_what_nobody_foresaw_does_not_end_watching(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = 0

    async def read(taps: LiveTaps) -> None:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise ValueError("an entry that is no tap")
        await asyncio.Event().wait()

    monkeypatch.setattr(live, "PAUSE_S", 0)
    monkeypatch.setattr(LiveTaps, "_read", read)
    monkeypatch.setattr(live, "WATCHERS_MAX", 2)
    monkeypatch.setattr(live, "WATCHERS_OF_CITY_MAX", 1)
    taps = LiveTaps("redis://127.0.0.1")
    watcher = taps.begin("nantes", None)
    with pytest.raises(Problem):
        taps.begin("nantes", None)
    other = taps.begin("brest", None)
    with pytest.raises(Problem):
        taps.begin("bourges", None)
    await taps.end(other)
    while lives < 2:
        await asyncio.sleep(0)
    await taps.end(watcher)
    await taps.end(watcher)  # twice is once
    await taps.end(taps.begin("nantes", None))
