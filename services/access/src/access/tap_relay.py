"""The stream of taps in Redis → `access.taps.v1` → history; and only then out of Redis.

An entry leaves the stream when its decision is found in the history, whoever put it there: the
database is the proof, so nothing depends on what a process remembered. What was sent and is not
in the history after a while is sent again, because the broker may have lost its log.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from aiokafka import AIOKafkaProducer

from access import store
from access.events import TAP_DECIDED, TAPS
from access.metrics import OLDEST_SECONDS, WAITING
from access.redis_pipe import RedisPipe
from access.settings import Settings
from common import kafka
from common.clock import Clock, utc_now
from common.db import Pool
from common.events import Event, to_message
from common.logging import get_logger

STREAM = "taps"
# Redis does nothing else while it answers: a batch takes it a quarter of a millisecond.
BATCH = 250
BLOCK_MS = 1000
# Taps that come close together travel together; each trip costs all servers as much as many taps.
GATHER_S = 0.05
CONFIRM_EVERY_S = 0.5
TOPIC_CHECK_S = 1.0
CONFIRM_BATCH = 250
RESEND_AFTER_S = 10.0
RESEND_PAUSE_MAX_S = 300.0
WAITING_ALARM = 100_000

log = get_logger(__name__)


class Entry(NamedTuple):
    """A tap in the stream: its id, and the event's data."""

    stream_id: str
    data: dict[str, Any]

    @property
    def added_at(self) -> float:
        """When it was added, in epoch seconds of the Redis server."""
        return int(self.stream_id.split("-")[0]) / 1000


class TapRelay:
    """`run` is one life: any failure ends it, to be restarted; it begins with what is left."""

    def __init__(self, settings: Settings, pool: Pool, clock: Clock = utc_now) -> None:
        self.settings = settings
        self.pool = pool
        self.clock = clock
        self.resend_after_s = RESEND_AFTER_S

    async def run(self) -> None:
        """Send and confirm until something fails. Raises what failed."""
        await kafka.ensure_topics(self.settings, [TAPS])
        # Of its own: waiting for new entries would hold up everybody else's commands.
        waiting = RedisPipe(self.settings.redis_url.get_secret_value())
        pipe = RedisPipe(self.settings.redis_url.get_secret_value())
        producer = kafka.make_producer(self.settings)
        try:
            async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                await producer.start()
            await until_one_fails(
                self._send_new(waiting, producer),
                self._confirm_for_ever(pipe, producer),
                self._watch_topic(producer),
            )
        finally:
            await kafka.stop(producer)
            await waiting.close()
            await pipe.close()

    async def _watch_topic(self, producer: AIOKafkaProducer) -> None:
        """Raises TopicsGone when the broker has forgotten it: the next life makes it again."""
        while True:
            await kafka.require_topics(producer, [self.settings.prefixed(TAPS.name)])
            await asyncio.sleep(TOPIC_CHECK_S)

    async def _send_new(self, pipe: RedisPipe, producer: AIOKafkaProducer) -> None:
        reached = "0"
        while True:
            found = await pipe.call(
                "XREAD", "COUNT", BATCH, "BLOCK", BLOCK_MS, "STREAMS", STREAM, reached
            )
            if not found:
                continue
            entries = read_entries(found[0][1])
            await self.send(producer, entries)
            reached = entries[-1].stream_id
            if len(entries) < BATCH:
                await asyncio.sleep(GATHER_S)

    async def _confirm_for_ever(self, pipe: RedisPipe, producer: AIOKafkaProducer) -> None:
        pause_s = self.resend_after_s
        loop = asyncio.get_running_loop()
        resend_at = loop.time() + pause_s
        while True:
            confirmed, missing = await self.confirm(pipe)
            if confirmed:
                pause_s = self.resend_after_s
            now = self.clock().timestamp()
            overdue = [entry for entry in missing if now - entry.added_at > self.resend_after_s]
            if overdue and loop.time() >= resend_at:
                log.warning("taps_sent_again", taps=len(overdue))
                await self.send(producer, overdue)
                pause_s = min(pause_s * 2, RESEND_PAUSE_MAX_S)
                resend_at = loop.time() + pause_s
            await self._watch(pipe, missing)
            await asyncio.sleep(0 if len(confirmed) == CONFIRM_BATCH else CONFIRM_EVERY_S)

    async def confirm(self, pipe: RedisPipe) -> tuple[list[str], list[Entry]]:
        """Delete from the stream, of the oldest entries, those that the history has.

        Returns the ids deleted and the entries that are still missing from the history.
        """
        entries = read_entries(await pipe.call("XRANGE", STREAM, "-", "+", "COUNT", CONFIRM_BATCH))
        if not entries:
            return [], []
        async with self.pool.acquire() as conn:
            known = await store.recorded(conn, (entry.data["decision_id"] for entry in entries))
        confirmed = [entry.stream_id for entry in entries if entry.data["decision_id"] in known]
        if confirmed:
            await pipe.call("XDEL", STREAM, *confirmed)
        return confirmed, [entry for entry in entries if entry.data["decision_id"] not in known]

    async def send(self, producer: AIOKafkaProducer, entries: Sequence[Entry]) -> None:
        """Send taps and await their acknowledgement. Raises TimeoutError, KafkaError."""
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            await kafka.send_all(
                producer,
                self.settings.prefixed(TAPS.name),
                (to_message(tap_event(entry)) for entry in entries),
            )

    async def _watch(self, pipe: RedisPipe, missing: Sequence[Entry]) -> None:
        waiting = await pipe.call("XLEN", STREAM)
        WAITING.set(waiting)
        oldest = missing[0].added_at if missing else None
        OLDEST_SECONDS.set(self.clock().timestamp() - oldest if oldest else 0)
        if waiting > WAITING_ALARM:
            log.error("taps_pile_up", waiting=waiting)


def read_entries(raw: Sequence[Any]) -> list[Entry]:
    """Entries of XRANGE or XREAD; each has one field, `event`."""
    return [Entry(stream_id.decode(), orjson.loads(fields[1])) for stream_id, fields in raw]


def tap_event(entry: Entry) -> Event:
    """The event's id is the decision's, so that a tap sent twice is seen to be the same."""
    return Event(
        id=entry.data["decision_id"],
        type=TAP_DECIDED,
        source="/access",
        subject=entry.data["door_id"],
        time=datetime.fromisoformat(entry.data["decided_at"]),
        data={**entry.data, "stream_id": entry.stream_id},
    )


async def until_one_fails(*awaitables: Awaitable[None]) -> None:
    """Run them at once; when one fails, end the others and raise what failed."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
