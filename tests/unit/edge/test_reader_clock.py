"""What time a board believes that it is."""

from email.utils import formatdate

import pytest

from copass_edge.reader.clock import Clock


class Board:
    """A board whose clocks tests turn."""

    def __init__(self, wall: float) -> None:
        self.wall, self.monotonic = wall, 1000.0

    def clock(self, last_known: float = 0.0) -> Clock:
        return Clock(last_known, wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def hear(self, clock: Clock, true_time: float) -> None:
        """An answer that took 40 ms, with the whole second in its Date."""
        sent = self.monotonic
        self.monotonic += 0.04
        clock.hear(formatdate(int(true_time), usegmt=True), sent, self.monotonic)


def test_a_clock_that_is_right_is_left_alone() -> None:
    board = Board(1_800_000_000.5)
    clock = board.clock()
    board.hear(clock, 1_800_000_000.5)
    assert clock.offset_s == 0


@pytest.mark.parametrize("wrong_s", [-3600.0, -30.0, 45.0, 7200.0])
def test_a_clock_that_is_wrong_is_set_right_from_what_the_service_says(wrong_s: float) -> None:
    board = Board(1_800_000_000.0 + wrong_s)
    clock = board.clock()
    for step in range(20):
        true_time = 1_800_000_000.0 + board.monotonic - 1000.0
        board.hear(clock, true_time)
        board.monotonic += 0.37 + step / 100
    true_time = 1_800_000_000.0 + board.monotonic - 1000.0
    assert abs(clock.now() - true_time) < 2.0


def test_a_wall_clock_that_somebody_sets_moves_nothing() -> None:
    board = Board(1_800_000_000.0)
    clock = board.clock()
    board.wall += 9_000
    board.monotonic += 10
    assert clock.now() == pytest.approx(1_800_000_010.0)


def test_a_board_that_lost_its_clock_goes_on_from_what_it_knew_and_says_so() -> None:
    board = Board(0.0)  # 1970
    clock = board.clock(last_known=1_800_000_000.0)
    assert clock.now() == pytest.approx(1_800_000_000.0)
    assert not clock.is_trusted
    board.hear(clock, 1_800_009_000.0)
    assert clock.is_trusted
    assert abs(clock.now() - 1_800_009_000.0) < 3


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sun, 99 Nov 2026 99:99:99 GMT"])
def test_a_date_that_is_none_teaches_nothing(date: str | None) -> None:
    clock = Board(1_800_000_000.0).clock()
    clock.hear(date, 1.0, 2.0)
    assert clock.offset_s == 0
