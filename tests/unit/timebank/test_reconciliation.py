"""Two books compared posting by posting: what is open is the difference, in whatever order it is
told, and what is not in flight is found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timebank.reconciliation import domain
from timebank.reconciliation.domain import Kind, Known, Movement, Open, Said, Side, Story

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)
MIRROR: dict[Kind, Kind] = {
    "settlement": "arrival",
    "arrival": "settlement",
    "netting": "netting",
    "other": "other",
}

things = st.lists(
    st.tuples(
        st.sampled_from(["settlement", "arrival", "netting"]),
        st.integers(1, 500),
        st.sampled_from([1, -1]),
    ),
    max_size=20,
)


def books(
    told: list[tuple[Kind, int, int]], theirs_order: list[int]
) -> tuple[list[Movement], list[Movement]]:
    """What both cities post of the same transfers and nettings, each in its own order."""
    ours, theirs = [], []
    for number, (kind, minutes, sign) in enumerate(told):
        # One settles what it sent, and takes in what came; a netting goes either way.
        signed = minutes if kind == "settlement" else -minutes if kind == "arrival" else 0
        signed = signed or minutes * sign
        ours.append(Movement(number + 1, kind, UUID(int=number + 1), signed))
    for place, number in enumerate(theirs_order):
        one = ours[number]
        theirs.append(Movement(place + 1, MIRROR[one.kind], one.id, -one.minutes))
    return ours, theirs


class Comparison:
    def __init__(self) -> None:
        self.story = Story()
        self.open: dict[domain.Key, Open] = {}

    def take_in(self, side: Side, movements: list[Movement]) -> None:
        self.story = self.story.told(side, movements)
        added, removed = domain.match(self.open, side, [(each, NOW) for each in movements])
        for key in removed:
            del self.open[key]
        for one in added:
            known = self.open.get(one.key)
            minutes = one.minutes + (known.minutes if known else 0)
            self.open[one.key] = replace(one, minutes=minutes)
        assert sum(one.minutes for one in self.open.values()) == self.story.difference_minutes


@given(told=things, seed=st.randoms(use_true_random=False), pages=st.integers(1, 4))
@settings(max_examples=80, deadline=None, derandomize=True, database=None)
def test_what_is_open_is_the_difference_and_nothing_is_when_both_have_told_all(
    told: list[tuple[Kind, int, int]], seed: object, pages: int
) -> None:
    order = list(range(len(told)))
    seed.shuffle(order)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    ours, theirs = books(told, order)
    both = Comparison()
    while ours or theirs:
        if ours and (not theirs or seed.random() < 0.5):  # type: ignore[attr-defined]  # as above
            both.take_in("ours", ours[:pages])
            ours = ours[pages:]
        else:
            both.take_in("theirs", theirs[:pages])
            theirs = theirs[pages:]
    assert both.open == {}
    assert both.story.difference_minutes == 0


@given(told=things.filter(bool), wrong=st.integers(0, 19), more=st.integers(1, 9))
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_another_amount_or_a_posting_that_is_shown_twice_stays_open(
    told: list[tuple[Kind, int, int]], wrong: int, more: int
) -> None:
    ours, theirs = books(told, list(range(len(told))))
    place = wrong % len(theirs)
    changed = list(theirs)
    changed[place] = replace(theirs[place], minutes=theirs[place].minutes + more)
    both = Comparison()
    both.take_in("ours", ours)
    both.take_in("theirs", changed)
    assert {one.id for one in both.open.values()} == {theirs[place].id}
    assert {one.counterpart in both.open for one in both.open.values()} == {True}

    twice = Comparison()
    twice.take_in("ours", ours)
    twice.take_in("theirs", [*theirs, replace(theirs[place], version=len(theirs) + 1)])
    assert [(one.side, one.id) for one in twice.open.values()] == [("theirs", theirs[place].id)]


def test_a_posting_that_is_missing_in_between_is_not_overlooked() -> None:
    later = Movement(2, "arrival", UUID(int=1), -5)
    with pytest.raises(ValueError, match="go on from 0"):
        Story().told("theirs", [later])


def opened(side: Side, direction: domain.Direction, version: int = 1) -> Open:
    return Open(side, direction, UUID(int=1), -5, version, NOW)


WAITS = Said(5, frozenset({UUID(int=1)}))
KNOWS_OF_NOTHING = Said(5, frozenset())
CUT_SHORT = Said(5, None)
ASKED_BEFORE = Said(0, frozenset())


@pytest.mark.parametrize(
    ("one", "said", "known", "verdict"),
    [
        # They took in what we sent, and we have not heard so.
        (opened("theirs", "out"), WAITS, "waiting", "in_flight"),
        (opened("theirs", "out"), WAITS, "unknown", "unknown_here"),
        (opened("theirs", "out"), WAITS, "refused", "contradicted"),
        (opened("theirs", "out"), WAITS, "done", "contradicted"),
        # They ended what they sent: not before we took it in.
        (opened("theirs", "in"), WAITS, "unknown", "unknown_here"),
        (opened("theirs", "in"), WAITS, "refused", "contradicted"),
        (opened("theirs", "netting"), WAITS, "waiting", "in_flight"),
        (opened("theirs", "netting"), WAITS, "unknown", "unknown_here"),
        (opened("theirs", "netting"), WAITS, "refused", "contradicted"),
        # We took in what they sent: they wait for our answer, or have lost it.
        (opened("ours", "in"), WAITS, "unknown", "in_flight"),
        (opened("ours", "in"), CUT_SHORT, "unknown", "in_flight"),
        (opened("ours", "in"), KNOWS_OF_NOTHING, "unknown", "unknown_there"),
        (opened("ours", "in"), ASKED_BEFORE, "unknown", "in_flight"),
        # We settled what they had taken in before.
        (opened("ours", "out"), WAITS, "unknown", "unknown_there"),
        (opened("ours", "out"), ASKED_BEFORE, "unknown", "in_flight"),
        (opened("ours", "netting"), WAITS, "unknown", "in_flight"),
        (opened("ours", "netting"), KNOWS_OF_NOTHING, "unknown", "unknown_there"),
        (opened("ours", "other"), WAITS, "unknown", "unexplained"),
        (opened("theirs", "other"), WAITS, "unknown", "unexplained"),
    ],
)
def test_what_is_in_flight_and_what_cannot_be(
    one: Open, said: Said, known: Known, verdict: str
) -> None:
    def judged(now: datetime, *, differs: bool = False) -> str:
        return domain.judge(one, now=now, overdue=HOUR, said=said, known=known, differs=differs)

    assert judged(NOW) == judged(NOW + HOUR - timedelta(seconds=1)) == verdict
    assert judged(NOW + HOUR) == ("late" if verdict == "in_flight" else verdict)
    other = verdict if one.direction == "other" else "amount_differs"
    assert judged(NOW, differs=True) == other


def test_alarms_are_by_kind_and_name_the_first_hundred() -> None:
    many = [replace(opened("theirs", "out"), id=UUID(int=number)) for number in range(150)]
    verdicts: list[tuple[Open, domain.Verdict]] = [(one, "unknown_here") for one in many]
    verdicts += [(opened("ours", "in"), "in_flight"), (opened("ours", "out"), "late")]
    late, unknown = domain.alarms_of(verdicts)
    assert (late.kind, late.ids, late.count, late.minutes) == ("late", (UUID(int=1),), 1, -5)
    assert (unknown.kind, unknown.count, unknown.minutes) == ("unknown_here", 150, -750)
    assert len(unknown.ids) == 100
