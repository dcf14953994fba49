"""The consumer loop: one message, one transaction; then the offset.

`{claim in the inbox, handle, outbox}` commit together, so a message that comes twice, because the
process died before the offset was committed or because the broker was replayed, does nothing twice.
A `BatchHandler` is given many messages in one transaction, for facts that come by the thousand.
A message that keeps failing is kept as a dead letter, and its partition moves on. What fails
because a server is away is no fault of the message: the loop ends, to be restarted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError
from opentelemetry.trace import SpanKind

from common import db, inbox, kafka, outbox, telemetry
from common.clock import Clock, utc_now
from common.db import Conn, Pool
from common.events import (
    Event,
    MalformedEvent,
    Topic,
    from_message,
    read_id,
    read_log_epoch,
    read_source,
)
from common.ids import new_id
from common.logging import get_logger
from common.metrics import CONSUMER_LAG, EVENTS_HANDLED
from common.settings import ServiceSettings

Handler = Callable[[Conn, Event], Awaitable[None]]
Watch = Callable[[AIOKafkaConsumer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BatchHandler:
    """Handles the new events of one poll together, in the order of each partition.

    One that cannot be handled spoils the whole batch, which is then handled one by one.
    """

    handle: Callable[[Conn, Sequence[Event]], Awaitable[None]]


BATCH = 500
ATTEMPTS_MAX = 4
FIRST_RETRY_S = 0.05
# A log that is read again from its start has thousands that were handled before: with so many at a
# time it is worth asking for all of them at once.
ASK_FROM = 10
LOG_CHECK_S = 1.0
REPLAY_POLL_S = 2.0
REPLAY_BATCH = 50

log = get_logger(__name__)


def dead_letters(group: str) -> Topic:
    """The topic that tells of the messages that `group` gave up on."""
    return Topic(f"{group}.dead-letters.v1", compacted=False)


class Consumer:
    """Handles topics for one consumer group. `run` is one life: any failure ends it."""

    def __init__(
        self,
        settings: ServiceSettings,
        pool: Pool,
        group: str,
        handlers: Mapping[str, Handler | BatchHandler],
        clock: Clock = utc_now,
        watch: Watch | None = None,
    ) -> None:
        """`watch` is called about once a second, when all that was polled is handled."""
        self.settings = settings
        self.pool = pool
        self.group = group
        self.handlers = handlers
        self.clock = clock
        self.watch = watch
        self.assigned = False
        # By partition and sender: each counts for itself how often its log was lost.
        self._epochs: dict[tuple[TopicPartition, str], int] = {}

    async def run(self) -> None:
        """Consume until something fails. Raises what failed: the database or the broker is away."""
        await kafka.wait_for_topics(self.settings, self.handlers)
        consumer = kafka.make_consumer(self.settings, *self.handlers, group=self.group)
        self._epochs.clear()
        loop = asyncio.get_running_loop()
        log_check_at = replay_at = loop.time() + LOG_CHECK_S
        try:
            async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                await consumer.start()
            while True:
                batches = await consumer.getmany(timeout_ms=500, max_records=BATCH)
                self.assigned = bool(consumer.assignment())
                await self._handle_all(consumer, batches)
                if loop.time() >= log_check_at:
                    await self._check_log(consumer)
                    if self.watch is not None:
                        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                            await self.watch(consumer)
                    log_check_at = loop.time() + LOG_CHECK_S
                if loop.time() >= replay_at:
                    await self._replay_dead_letters()
                    replay_at = loop.time() + REPLAY_POLL_S
        finally:
            self.assigned = False
            await kafka.stop(consumer)

    async def _handle_all(
        self,
        consumer: AIOKafkaConsumer,
        batches: Mapping[TopicPartition, Sequence[ConsumerRecord]],
    ) -> None:
        """Handle what one poll brought, and commit the offsets."""
        seen = await self._seen_of(batches)
        together: dict[str, list[ConsumerRecord]] = {}
        done: dict[TopicPartition, int] = {}
        for partition, records in batches.items():
            is_batch = isinstance(self._handler_of(partition.topic), BatchHandler)
            for record in records:
                epoch, sender = read_log_epoch(record.headers), read_source(record.headers)
                if epoch > self._epochs.get((partition, sender), 0):
                    # The log was lost and grew again behind our back, perhaps while we were not
                    # running: what came before this message may be new to us. So a log that was
                    # lost once is read from its start by every new life; the inbox absorbs it.
                    self._epochs[partition, sender] = epoch
                    log.warning("log_started_again", topic=partition.topic, epoch=epoch)
                    await seek_to_beginning(consumer, partition)
                    done.pop(partition, None)
                    break
                if is_batch:
                    together.setdefault(partition.topic, []).append(record)
                elif seen and read_id(record.headers) in seen:
                    EVENTS_HANDLED.labels(self.group, self._name(partition), "seen_before").inc()
                else:
                    await self._handle(record)
                done[partition] = record.offset + 1
        for records in together.values():
            await self._handle_together(records)
        if not done:
            return
        try:
            await consumer.commit(done)
        except (CommitFailedError, IllegalStateError):
            # A partition went to another member meanwhile; the inbox absorbs what it reads again.
            log.info("offsets_not_committed", partitions=len(done))
        for partition, offset in done.items():
            behind = (consumer.highwater(partition) or offset) - offset
            CONSUMER_LAG.labels(self.group, partition.topic, str(partition.partition)).set(behind)

    async def _seen_of(
        self, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]
    ) -> set[UUID]:
        """Which of many messages were handled before, so that none of them takes a transaction."""
        records = [record for records in batches.values() for record in records]
        if len(records) < ASK_FROM:
            return set()
        ids = {event_id for record in records if (event_id := read_id(record.headers)) is not None}
        async with self.pool.acquire() as conn:
            return await inbox.seen(conn, self.group, ids)

    def _name(self, partition: TopicPartition) -> str:
        return str(partition.topic.removeprefix(self.settings.kafka_topic_prefix))

    def _handler_of(self, topic: str) -> Handler | BatchHandler:
        return self.handlers[topic.removeprefix(self.settings.kafka_topic_prefix)]

    async def _handle_together(self, records: Sequence[ConsumerRecord]) -> None:
        """Handle the messages of one topic in one transaction, or else one by one."""
        topic = records[0].topic
        try:
            await self._apply(topic, [from_message(one.value, one.headers) for one in records])
        except db.SERVER_AWAY:
            raise
        except Exception as error:
            log.warning("batch_taken_apart", topic=topic, error=f"{type(error).__name__}: {error}")
            for record in records:
                await self._handle(record)

    async def _handle(self, record: ConsumerRecord) -> None:
        """Handle one message, or keep it as a dead letter after several tries."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                event = from_message(record.value, record.headers)
                await self._apply(record.topic, [event], record)
                return
            except db.SERVER_AWAY:  # the message is innocent: try again later, however often
                raise
            except MalformedEvent as error:
                await self._bury(record, None, error)
                return
            except Exception as error:
                if attempt == ATTEMPTS_MAX - 1:
                    await self._bury(record, event.id, error)
                    return
                await asyncio.sleep(FIRST_RETRY_S * 2**attempt)

    async def _apply(
        self, topic: str, events: Sequence[Event], record: ConsumerRecord | None = None
    ) -> None:
        """Handle, in one transaction, those events that are new."""
        name = topic.removeprefix(self.settings.kafka_topic_prefix)
        handler = self.handlers[name]
        attributes = (
            telemetry.consuming(name, record.partition, record.offset, self.group) if record else {}
        )
        with telemetry.span(
            f"process {name}",
            kind=SpanKind.CONSUMER,
            traceparent=events[0].traceparent if len(events) == 1 else None,
            attributes=attributes,
        ):
            async with self.pool.acquire() as conn, conn.transaction():
                fresh = await inbox.claim(conn, self.group, events)
                if not isinstance(handler, BatchHandler):
                    for event in fresh:
                        await handler(conn, event)
                elif fresh:
                    await handler.handle(conn, fresh)
        EVENTS_HANDLED.labels(self.group, name, "handled").inc(len(fresh))
        EVENTS_HANDLED.labels(self.group, name, "seen_before").inc(len(events) - len(fresh))

    async def _bury(self, record: ConsumerRecord, event_id: UUID | None, error: Exception) -> None:
        topic = record.topic.removeprefix(self.settings.kafka_topic_prefix)
        letter_id = new_id()
        now = self.clock()
        reason = f"{type(error).__name__}: {error}"[:1000]
        headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        async with self.pool.acquire() as conn, conn.transaction():
            await conn.execute(
                "INSERT INTO dead_letter (id, consumer, event_id, topic, partition,"
                " message_offset, key, value, headers, error, failed_at)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
                " ON CONFLICT (consumer, event_id) DO UPDATE"
                " SET error = EXCLUDED.error, failed_at = EXCLUDED.failed_at, resolved_at = NULL",
                letter_id,
                self.group,
                event_id,
                topic,
                record.partition,
                record.offset,
                record.key,
                record.value,
                headers,
                reason,
                now,
            )
            await outbox.add(
                conn,
                topic=dead_letters(self.group),
                key=str(letter_id),
                type="common.message.buried.v1",
                data={
                    "error": reason,
                    "event_id": str(event_id) if event_id else None,
                    "origin_topic": topic,
                    "origin_partition": record.partition,
                    "origin_offset": record.offset,
                },
                now=now,
            )
        EVENTS_HANDLED.labels(self.group, topic, "buried").inc()
        log.error("message_buried", topic=topic, offset=record.offset, error=reason)

    async def _check_log(self, consumer: AIOKafkaConsumer) -> None:
        """A position beyond the end means that the broker lost its log: read it from the start.

        The end is the one that the last fetch told; Tansu counts the last batch of records as one
        when it is asked for the end. A broker that refuses such a fetch resets the position.
        """
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            for partition in consumer.assignment():
                end = consumer.highwater(partition)
                if end is not None and await consumer.position(partition) > end:
                    log.warning("log_lost", topic=partition.topic)
                    await seek_to_beginning(consumer, partition)

    async def _replay_dead_letters(self) -> None:
        """Try again the dead letters that somebody asked for."""
        rows = await self.pool.fetch(
            "SELECT id, event_id, topic, value, headers FROM dead_letter"
            " WHERE consumer = $1 AND resolved_at IS NULL AND replay_at IS NOT NULL"
            " ORDER BY failed_at LIMIT $2",
            self.group,
            REPLAY_BATCH,
        )
        for row in rows:
            try:
                headers = [(name, value.encode()) for name, value in row["headers"].items()]
                await self._apply(row["topic"], [from_message(row["value"], headers)])
            except db.SERVER_AWAY:  # the message is innocent: try again later, however often
                raise
            except Exception as error:
                await self.pool.execute(
                    "UPDATE dead_letter SET replay_at = NULL, error = $2 WHERE id = $1",
                    row["id"],
                    f"{type(error).__name__}: {error}"[:1000],
                )
                continue
            await self.pool.execute(
                "UPDATE dead_letter SET resolved_at = $2 WHERE id = $1", row["id"], self.clock()
            )


async def seek_to_beginning(consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
    try:
        await consumer.seek_to_beginning(partition)
    except IllegalStateError:
        # Reassigned meanwhile: its new owner starts from its own committed offset.
        return


async def list_dead_letters(conn: Conn, limit: int = 100) -> list[dict[str, Any]]:
    """The unresolved dead letters, oldest first."""
    rows = await conn.fetch(
        "SELECT id, consumer, topic, partition, message_offset, event_id, error, failed_at,"
        " replay_at FROM dead_letter WHERE resolved_at IS NULL ORDER BY failed_at LIMIT $1",
        limit,
    )
    return [dict(row) for row in rows]


async def ask_for_replay(conn: Conn, ids: Sequence[UUID] | None, now: Any) -> int:
    """Ask the worker to try these dead letters again (None: all of them). Returns how many."""
    result = await conn.execute(
        "UPDATE dead_letter SET replay_at = $1 WHERE resolved_at IS NULL"
        " AND ($2::uuid[] IS NULL OR id = ANY($2))",
        now,
        ids,
    )
    return int(result.split()[-1])
