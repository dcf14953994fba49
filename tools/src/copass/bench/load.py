"""A load generator that is much lighter than what it measures: HTTP/1.1 over keep-alive.

Requests are bytes made beforehand but for two fields of fixed width, answers are parsed no further
than needed to find their end. One asyncio process fills one server process several times over.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, cycle
from typing import cast
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from copass.demo_api import Direction

STALLED_AFTER_S = 20.0
TIME_RENEWED_EVERY = 256  # requests

MakeRequest = Callable[[], bytes]


@dataclass(slots=True)
class Load:
    """`latencies_s` in order of arrival; `samples`: the first body seen per HTTP status."""

    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    samples: dict[int, bytes] = field(default_factory=dict)
    needle: bytes = b""
    needles: int = 0  # answers whose body contains `needle`

    @property
    def per_second(self) -> float:
        return len(self.latencies_s) / self.seconds


class Client(asyncio.Protocol):
    """One connection in a closed loop: the next request leaves when the answer is there."""

    def __init__(self, make_request: MakeRequest, load: Load) -> None:
        self.make_request = make_request
        self.load = load
        self.running = True
        self.buffer = b""
        self.sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own class is no subclass
        self.send()

    def send(self) -> None:
        request = self.make_request()
        self.sent_at = time.perf_counter()
        if self.transport is not None:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        end = answer_end(self.buffer)
        if end == 0:
            return
        load = self.load
        load.latencies_s.append(time.perf_counter() - self.sent_at)
        status = int(self.buffer[9:12])
        load.statuses[status] += 1
        if status not in load.samples:
            load.samples[status] = self.buffer
        if load.needle and load.needle in self.buffer:
            load.needles += 1
        self.buffer = self.buffer[end:]
        if self.running:
            self.again()
        else:
            self.finish()

    def again(self) -> None:
        self.send()

    def finish(self) -> None:
        if self.transport is not None:
            self.transport.close()
        if not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))


class SteadyClient(Client):
    """One connection that sends at a fixed rate, however fast the answers come.

    A late answer delays the next request, which then leaves at once: the rate is caught up with.
    """

    def __init__(self, make_request: MakeRequest, load: Load, period_s: float) -> None:
        super().__init__(make_request, load)
        self.period_s = period_s
        self.loop = asyncio.get_running_loop()
        self.due = self.loop.time()
        self.waiting: asyncio.TimerHandle | None = None

    def again(self) -> None:
        self.due += self.period_s
        self.waiting = self.loop.call_at(max(self.due, self.loop.time()), self.send_due)

    def send_due(self) -> None:
        self.waiting = None
        self.send()

    def stop(self) -> None:
        """Nothing is sent any more; a request under way may still be answered."""
        self.running = False
        if self.waiting is not None:
            self.waiting.cancel()
            self.finish()


def answer_end(buffer: bytes) -> int:
    """Where the first answer in the buffer ends; 0 when it is not whole yet."""
    head_end = buffer.find(b"\r\n\r\n")
    if head_end < 0:
        return 0
    start = buffer.lower().find(b"content-length: ", 0, head_end)
    if start < 0:
        raise ValueError(f"an answer without a length: {buffer[:200]!r}")
    length = int(buffer[start + 16 : buffer.find(b"\r\n", start)])
    end = head_end + 4 + length
    return end if len(buffer) >= end else 0


async def closed_loop(
    url: str, make_request: MakeRequest, *, clients: int, seconds: float, needle: bytes = b""
) -> Load:
    """Keeps `clients` requests under way for some seconds. Raises when the server falls silent."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    load = Load(needle=needle)
    running = []
    started = time.perf_counter()
    for _ in range(clients):
        _transport, client = await loop.create_connection(
            lambda: Client(make_request, load), parts.hostname or "", parts.port or 80
        )
        running.append(client)
    await asyncio.sleep(seconds)
    for client in running:
        client.running = False
    async with asyncio.timeout(STALLED_AFTER_S):
        await asyncio.gather(*(client.done for client in running))
    load.seconds = time.perf_counter() - started
    return load


@asynccontextmanager
async def steady(
    url: str, make_request: MakeRequest, *, clients: int, per_second: float
) -> AsyncIterator[Load]:
    """Keeps up a rate of requests while the block runs. Afterwards `load.seconds` is set."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    load = Load()
    running: list[SteadyClient] = []
    started = time.perf_counter()
    try:
        for _ in range(clients):
            _transport, client = await loop.create_connection(
                lambda: SteadyClient(make_request, load, clients / per_second),
                parts.hostname or "",
                parts.port or 80,
            )
            running.append(client)
            await asyncio.sleep(1 / per_second)  # one after the other, not all at once
        yield load
    finally:
        for client in running:
            client.stop()
        async with asyncio.timeout(STALLED_AFTER_S):
            await asyncio.gather(*(client.done for client in running))
        load.seconds = time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Presented:
    """A card at a door, with what its reader presents."""

    door_id: UUID
    reader_key: str
    uid: str
    direction: Direction = "in"


def tap_requests(cards: Sequence[Presented], *, path: str = "/v1/taps") -> MakeRequest:
    """Requests for taps in turn, each with a tap id of its own and the time of now."""
    run = str(uuid4())[:24]
    parts = []
    for card in cards:
        body = (
            f'{{"tap_id":"{run}%012x","door_id":"{card.door_id}",'
            f'"credential":{{"type":"uid","uid":"{card.uid}"}},'
            f'"direction":"{card.direction}","occurred_at":"%s","mode":"live"}}'
        )
        length = len(body % (0, timestamp()))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {card.reader_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        parts.append(head + body)
    numbers, turns = count(), cycle(parts)
    now = timestamp()

    def make() -> bytes:
        nonlocal now
        number = next(numbers)
        if number % TIME_RENEWED_EVERY == 0:
            now = timestamp()
        return (next(turns) % (number, now)).encode()

    return make


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
