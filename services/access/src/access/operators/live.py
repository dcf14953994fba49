"""Taps as they happen, for those who look after a place: one reader of the stream for all of them.

Without names or cards: at what door, in or out, and what was decided.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from access.redis_pipe import RedisPipe
from access.tap_relay import STREAM, read_entries
from common.logging import get_logger
from common.problems import Problem

WATCHERS_MAX = 200
# One city's open pages leave room for those of others.
WATCHERS_OF_CITY_MAX = 50
WAITING_MAX = 500  # taps that a slow watcher may be behind; then the oldest are left out
BLOCK_MS = 1000
READ_MAX = 200
PAUSE_S = 1.0
SHOWN = (
    "decision_id",
    "place_id",
    "door_id",
    "direction",
    "mode",
    "decision",
    "reason",
    "decided_at",
    "zone",
    "flags",
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A tap as a watcher is told it; `stream_id` is where to go on from."""

    stream_id: str
    tap: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Watcher:
    """Somebody who watches a city, or one place of it. `lost`: taps left out since last told."""

    city_id: str
    place_id: str | None
    waiting: deque[Seen] = field(default_factory=deque)
    lost: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def concerns(self, tap: Mapping[str, Any]) -> bool:
        return tap["city_id"] == self.city_id and self.place_id in (None, tap["place_id"])

    def tell(self, seen: Seen) -> None:
        if len(self.waiting) >= WAITING_MAX:
            self.waiting.popleft()
            self.lost += 1
        self.waiting.append(seen)
        self.woken.set()

    async def next(self, timeout_s: float) -> tuple[list[Seen], int]:
        """What happened since it was last asked, and how many taps were left out; nothing after
        `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.woken.wait()
        except TimeoutError:
            return [], 0
        self.woken.clear()
        found, lost = list(self.waiting), self.lost
        self.waiting.clear()
        self.lost = 0
        return found, lost


class LiveTaps:
    """The watchers of this process. The stream is read while there are any."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._watchers: set[Watcher] = set()
        self._reading: asyncio.Task[None] | None = None
        self._reached: str | None = None

    def begin(self, city_id: str, place_id: str | None) -> Watcher:
        """To be ended. Raises Problem 503 when too many watch already."""
        of_city = sum(one.city_id == city_id for one in self._watchers)
        if len(self._watchers) >= WATCHERS_MAX or of_city >= WATCHERS_OF_CITY_MAX:
            raise Problem(
                503,
                "too_many_watchers",
                "Too many watch already. Try again in a minute.",
                headers={"Retry-After": "60"},
            )
        watcher = Watcher(city_id, place_id)
        self._watchers.add(watcher)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_for_ever())
        return watcher

    async def end(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers:
            await self.close()

    async def close(self) -> None:
        """Stop reading; who watches next begins with what happens then."""
        self._reached = None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_for_ever(self) -> None:
        while True:
            try:
                await self._read()
            # Also what nobody foresaw: without this task all would watch, and see nothing.
            except Exception as error:
                log.warning("live_taps_interrupted", error=type(error).__name__)
            await asyncio.sleep(PAUSE_S)

    async def _read(self) -> None:
        """From now on, or from where the last connection was lost."""
        pipe = RedisPipe(self._redis_url)
        try:
            seconds, microseconds = await pipe.call("TIME")
            now_ms = int(seconds) * 1000 + int(microseconds) // 1000
            # Redis may have come back with another clock, and nothing would be new for long.
            if self._reached is None or int(self._reached.split("-")[0]) > now_ms:
                self._reached = f"{now_ms}-0"
            while True:
                found = await pipe.call(
                    "XREAD", "COUNT", READ_MAX, "BLOCK", BLOCK_MS, "STREAMS", STREAM, self._reached
                )
                if found:
                    entries = found[0][1]
                    self._reached = entries[-1][0].decode()
                    self._tell(entries)
        finally:
            await pipe.close()

    def _tell(self, raw: Sequence[Any]) -> None:
        for entry in read_entries(raw):
            seen = Seen(entry.stream_id, {name: entry.data.get(name) for name in SHOWN})
            for watcher in self._watchers:
                if watcher.concerns(entry.data):
                    watcher.tell(seen)


def event(name: str, data: Mapping[str, Any], event_id: str | None = None) -> bytes:
    """One server-sent event (HTML, 9.2.6)."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {name}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


async def events(watcher: Watcher, *, quiet_s: float, until: float) -> AsyncIterator[bytes]:
    """What a watcher sees, until the loop's time `until`; a comment when nothing happens, so that
    both sides know that the line is good."""
    loop = asyncio.get_running_loop()
    yield b"retry: 2000\n\n"
    while (left := until - loop.time()) > 0:
        found, lost = await watcher.next(min(quiet_s, left))
        if lost:
            yield event("lost", {"taps": lost})
        for seen in found:
            yield event("tap", seen.tap, seen.stream_id)
        if not found:
            yield b": still here\n\n"
