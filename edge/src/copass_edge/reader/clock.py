"""What time it is, also on a board whose clock stops with the power.

Time goes on by the monotonic clock from what the board said at start, so that nobody who sets its
clock moves the doors' hours. The Date of each answer of the service says how far off that is; it
has whole seconds, so every answer narrows the interval in which the offset lies.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# A board that starts with an earlier time than it once had, by more than this, has lost its clock.
BEHIND_MAX_S = 120.0
# A server is at most this late with the second that it writes in Date.
DATE_RESOLUTION_S = 2.0


class Clock:
    """`is_trusted`: the time is not known to be wrong. Epoch seconds throughout."""

    def __init__(
        self,
        last_known: float = 0.0,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`last_known`: the latest time that this board has ever known."""
        self._monotonic = monotonic
        started = wall()
        self.is_trusted = started >= last_known - BEHIND_MAX_S
        self._base = max(started, last_known) - monotonic()
        self._low, self._high = float("-inf"), float("inf")
        self.offset_s = 0.0

    def now(self) -> float:
        return self._base + self._monotonic() + self.offset_s

    def now_utc(self) -> datetime:
        return datetime.fromtimestamp(self.now(), UTC)

    def hear(self, date: str | None, sent_at: float, received_at: float) -> None:
        """Learn from the Date of an answer; `sent_at` and `received_at` are monotonic."""
        try:
            said = parsedate_to_datetime(date).timestamp() if date else None
        except (ValueError, TypeError, OverflowError):
            said = None
        if said is None:
            return
        low = said - (self._base + received_at)
        high = said + DATE_RESOLUTION_S - (self._base + sent_at)
        self._low, self._high = max(low, self._low), min(high, self._high)
        if self._low > self._high:  # one of the clocks was set: begin again
            self._low, self._high = low, high
        # The smallest correction that agrees with all that was heard.
        self.offset_s = min(max(0.0, self._low), self._high)
        self.is_trusted = True
