"""The state topics of the other services → Redis, so that a tap asks nobody.

It reads without a consumer group: the offsets are in Redis, written by the same script as the
documents that they account for, so that the two cannot disagree. A *generation* marks a Redis that
was not flushed since; without it everything starts from the beginning.

Ready means complete. `projection:ready` is set when everything that was in the log at the start
has been read, and expires when it is not renewed: a service that can learn nothing any more stops
deciding. After a flush there must also be at least as many documents of each kind as PostgreSQL
remembers; an empty log may be one that was lost a moment ago, which its owners are about to fill
again. If they do not within SETTLE_S of silence, what there is counts as all there is: a missing
card or member only means a denial.

A log that was lost shows in a position beyond its end, or in a higher `ce_logepoch`; then that
topic is read from the beginning. Versions make all of this harmless.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from access import live_store, store
from access.documents import KINDS, Document, documents_of
from access.events import CARDS, PROJECTED, PROJECTION_GROUP
from access.metrics import NOT_PROJECTED
from access.metrics import PROJECTED as PROJECTED_COUNT
from access.presence import store as presence_store
from access.redis_pipe import RedisPipe, load_script
from access.settings import Settings
from common import kafka, outbox
from common.clock import Clock, utc_now
from common.consumer import dead_letters
from common.db import Pool
from common.events import read_log_epoch, read_source
from common.ids import new_id
from common.logging import get_logger
from copass_tap.decision import STAY_MAX

# A batch is one script, and Redis does nothing else meanwhile: 500 documents take about 1 ms.
BATCH = 500
POLL_MS = 200
CHECK_EVERY_S = 1.0
SETTLE_S = 60.0
# Of the longest day, when clocks go back.
ONE_DAY = timedelta(hours=25)
REMEMBER_EVERY_S = 60.0
PARTITIONS_EVERY_S = 30.0
METADATA_POLL_S = 0.02

PROJECT = load_script("project.lua")

log = get_logger(__name__)


class RedisFlushed(Exception):
    """The generation in Redis is not the one that this life began with."""


class Projector:
    """`run` is one life: any failure ends it, to be restarted."""

    def __init__(
        self,
        settings: Settings,
        pool: Pool,
        clock: Clock = utc_now,
        *,
        settle_s: float = SETTLE_S,
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.clock = clock
        self.settle_s = settle_s
        self.is_caught_up = False
        self._generation = b""
        self._positions: dict[TopicPartition, int] = {}
        # By `epoch_field`.
        self._epochs: dict[str, int] = {}
        self._targets: dict[TopicPartition, int] = {}
        self._targets_are_exact = False
        self._quiet_since = 0.0

    async def run(self) -> None:
        """Project until something fails. Raises what failed: Redis, the broker, the database."""
        self.is_caught_up = False
        await kafka.ensure_topics(self.settings, PROJECTED)
        pipe = RedisPipe(self.settings.redis_url.get_secret_value())
        consumer = kafka.make_consumer(
            self.settings, fetch_wait_ms=self.settings.projection_fetch_wait_ms
        )
        try:
            async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                await consumer.start()
                partitions = await find_partitions(self.settings, consumer)
            await self._begin(pipe, consumer, partitions)
            await self._project_for_ever(pipe, consumer)
        finally:
            self.is_caught_up = False
            await kafka.stop(consumer)
            await pipe.close()

    async def _begin(
        self,
        pipe: RedisPipe,
        consumer: AIOKafkaConsumer,
        partitions: Sequence[TopicPartition],
    ) -> None:
        """Go on where this Redis was left, or start from nothing where it was flushed."""
        generation = await pipe.call("GET", "projection:generation")
        if generation is None:
            generation = await self._start_generation(pipe)
        self._generation = generation
        stored = pairs(await pipe.call("HGETALL", "projection:offsets"))
        self._epochs = {
            field: int(value) for field, value in stored.items() if field.startswith("epoch:")
        }
        consumer.assign(partitions)
        for partition in partitions:
            offset = int(stored.get(offset_field(partition), 0))
            self._positions[partition] = offset
            consumer.seek(partition, offset)
        await self._look_at_ends(consumer)
        self._quiet_since = asyncio.get_running_loop().time()

    async def _start_generation(self, pipe: RedisPipe) -> bytes:
        """Begin with a Redis that holds no documents, and with what only PostgreSQL knows."""
        now = self.clock()
        async with self.pool.acquire() as conn:
            lockdowns = await store.lockdowns_since(conn, None)
            inside = await store.people_inside(conn, now - STAY_MAX)
            came = await store.last_in_charge(conn, now - ONE_DAY)
            pardons = await presence_store.pardons(conn, now - STAY_MAX)
        await pipe.call("DEL", "projection:ready", "projection:offsets", "projection:documents")
        for kind in KINDS:
            await delete_keys(pipe, f"{kind}:*")
        await live_store.set_lockdowns(
            pipe, [(str(one.place_id), one.version, one.active) for one in lockdowns]
        )
        await live_store.put_inside(pipe, inside, came)
        for one in pardons:
            await live_store.pardon(pipe, one.place_id, one.member_id, one.reset_at)
        generation = str(new_id()).encode()
        await pipe.call("SET", "projection:generation", generation, "NX")
        log.warning("projection_started_from_nothing", lockdowns=len(lockdowns))
        return bytes(await pipe.call("GET", "projection:generation"))

    async def _project_for_ever(self, pipe: RedisPipe, consumer: AIOKafkaConsumer) -> None:
        loop = asyncio.get_running_loop()
        check_at = loop.time()
        remember_at = loop.time()
        partitions_at = loop.time() + PARTITIONS_EVERY_S
        while True:
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=BATCH)
            if batches:
                self._quiet_since = loop.time()
                await self.project(pipe, consumer, batches)
            if loop.time() >= check_at or not self.is_caught_up:
                await self._renew(pipe, consumer)
                check_at = loop.time() + CHECK_EVERY_S
            if self.is_caught_up and loop.time() >= remember_at:
                await self._remember(pipe)
                remember_at = loop.time() + REMEMBER_EVERY_S
            if loop.time() >= partitions_at:
                if set(known_partitions(self.settings, consumer) or ()) != set(self._positions):
                    log.info("partitions_changed")
                    return
                partitions_at = loop.time() + PARTITIONS_EVERY_S

    async def project(
        self,
        pipe: RedisPipe,
        consumer: AIOKafkaConsumer,
        batches: Mapping[TopicPartition, Sequence[ConsumerRecord]],
    ) -> None:
        """Write a batch and the offsets after it, atomically.

        Raises RedisFlushed when Redis is not the one that was begun with.
        """
        documents: list[Document] = []
        positions: dict[TopicPartition, int] = {}
        lost: set[str] = set()
        epochs: dict[str, int] = {}
        for partition, records in batches.items():
            topic = self._logical(partition)
            for record in records:
                epoch = read_log_epoch(record.headers)
                field = epoch_field(topic, record) if epoch else ""
                if epoch > self._epochs.get(field, 0):
                    self._epochs[field] = epochs[field] = epoch
                    lost.add(topic)
                documents += await self._understand(pipe, topic, record)
            positions[partition] = records[-1].offset + 1
            PROJECTED_COUNT.labels(topic).inc(len(records))
        for partition in self._positions:
            if self._logical(partition) in lost:
                log.warning("log_started_again", topic=partition.topic)
                positions[partition] = 0
                consumer.seek(partition, 0)
        await self._write(pipe, documents, positions, epochs)

    async def _write(
        self,
        pipe: RedisPipe,
        documents: Sequence[Document],
        positions: Mapping[TopicPartition, int],
        epochs: Mapping[str, int],
    ) -> None:
        arguments: list[Any] = [self._generation, len(positions) + len(epochs)]
        for partition, offset in positions.items():
            arguments += (offset_field(partition), offset)
        for field, epoch in epochs.items():
            arguments += (field, epoch)
        for document in documents:
            arguments += document
        if await pipe.run(PROJECT, *arguments) is None:
            raise RedisFlushed("Redis was flushed")
        self._positions.update(positions)

    async def _understand(
        self, pipe: RedisPipe, topic: str, record: ConsumerRecord
    ) -> list[Document]:
        try:
            if record.value is None and topic == CARDS.name:
                return await find_card_documents(pipe, (record.key or b"").decode())
            return documents_of(topic, record.key, record.value)
        except ValueError as error:  # pydantic's and Unicode's errors are ValueErrors
            await self._bury(topic, record, error)
            return []

    async def _bury(self, topic: str, record: ConsumerRecord, error: Exception) -> None:
        """Tell of a message that says nothing understandable, and go on."""
        reason = f"{type(error).__name__}: {error}"[:1000]
        NOT_PROJECTED.labels(topic).inc()
        log.error("message_buried", topic=topic, offset=record.offset, error=reason)
        async with self.pool.acquire() as conn, conn.transaction():
            await outbox.add(
                conn,
                topic=dead_letters(PROJECTION_GROUP),
                key=str(new_id()),
                type="common.message.buried.v1",
                data={
                    "error": reason,
                    "event_id": None,
                    "origin_topic": topic,
                    "origin_partition": record.partition,
                    "origin_offset": record.offset,
                },
                now=self.clock(),
            )

    async def _renew(self, pipe: RedisPipe, consumer: AIOKafkaConsumer) -> None:
        """Say ready, or say it again, if all is read that was in the log a moment ago."""
        reached = self._targets_are_exact
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            for partition, end in self._targets.items():
                # All that was handed out is written, so the consumer's position is ours; it also
                # gets past what compaction took away.
                reached = reached and await consumer.position(partition) >= end
        await self._look_at_ends(consumer)
        if await pipe.call("GET", "projection:generation") != self._generation:
            raise RedisFlushed("Redis was flushed")
        if not reached or not (self.is_caught_up or await self._is_complete(pipe)):
            return
        lease = self.settings.projection_lease_seconds
        await pipe.call("SET", "projection:ready", self._generation, "EX", lease)
        if not self.is_caught_up:
            log.info("projection_ready", documents=await count_documents(pipe))
            self.is_caught_up = True

    async def _is_complete(self, pipe: RedisPipe) -> bool:
        async with self.pool.acquire() as conn:
            remembered = await store.remembered_documents(conn)
        counts = await count_documents(pipe)
        missing = {
            kind: count - counts.get(kind, 0)
            for kind, count in remembered.items()
            if counts.get(kind, 0) < count
        }
        if not missing:
            return True
        quiet_s = asyncio.get_running_loop().time() - self._quiet_since
        if quiet_s < self.settle_s:
            return False
        log.error("projection_incomplete", missing=missing)
        return True

    async def _look_at_ends(self, consumer: AIOKafkaConsumer) -> None:
        """Note how far the log goes now; go back to the beginning of one that was lost.

        What the last fetch told is the end; where there was none yet, what the broker answers when
        asked, which with Tansu is too little: it counts the last batch of records as one.
        """
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            ends = await consumer.end_offsets(list(self._positions))
        fetched = {partition: consumer.highwater(partition) for partition in ends}
        for partition, end in fetched.items():
            if end is not None and self._positions[partition] > end:
                log.warning("log_lost", topic=partition.topic, partition=partition.partition)
                self._positions[partition] = 0
                consumer.seek(partition, 0)
        self._targets = {
            partition: max(end, fetched[partition] or 0) for partition, end in ends.items()
        }
        self._targets_are_exact = None not in fetched.values()

    async def _remember(self, pipe: RedisPipe) -> None:
        counts = await count_documents(pipe)
        async with self.pool.acquire() as conn:
            await store.remember_documents(conn, counts)

    def _logical(self, partition: TopicPartition) -> str:
        return str(partition.topic).removeprefix(self.settings.kafka_topic_prefix)


async def find_partitions(settings: Settings, consumer: AIOKafkaConsumer) -> list[TopicPartition]:
    """All partitions of the projected topics, once the client knows them; the caller bounds that.

    A client learns only of topics that it is assigned to, and every topic has a partition 0.
    """
    consumer.assign([TopicPartition(settings.prefixed(topic.name), 0) for topic in PROJECTED])
    while (found := known_partitions(settings, consumer)) is None:
        await asyncio.sleep(METADATA_POLL_S)
    return found


def known_partitions(settings: Settings, consumer: AIOKafkaConsumer) -> list[TopicPartition] | None:
    """The partitions as the client knows them now; None while it knows none of some topic."""
    found: list[TopicPartition] = []
    for topic in PROJECTED:
        name = settings.prefixed(topic.name)
        numbers = consumer.partitions_for_topic(name)
        if not numbers:
            return None
        found += [TopicPartition(name, number) for number in sorted(numbers)]
    return found


async def find_card_documents(pipe: RedisPipe, card_id: str) -> list[Document]:
    """The removal of a card of which only the id is known. Looks at every card: rare, and slow."""
    cursor = b"0"
    while True:
        cursor, keys = await pipe.call(
            "SCAN", cursor, "MATCH", "card:*", "COUNT", 1000, "TYPE", "hash"
        )
        for key in keys:
            if await pipe.call("HEXISTS", key, card_id):
                return [Document(key.decode(), card_id, 0, "")]
        if cursor == b"0":
            return []


async def delete_keys(pipe: RedisPipe, pattern: str) -> None:
    cursor = b"0"
    while True:
        cursor, keys = await pipe.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        if keys:
            await pipe.call("UNLINK", *keys)
        if cursor == b"0":
            return


async def count_documents(pipe: RedisPipe) -> dict[str, int]:
    """How many documents of each kind there are."""
    counts = pairs(await pipe.call("HGETALL", "projection:documents"))
    return {kind: int(count) for kind, count in counts.items()}


def offset_field(partition: TopicPartition) -> str:
    return f"{partition.topic}:{partition.partition}"


def epoch_field(topic: str, record: ConsumerRecord) -> str:
    """Of a topic and a sender: each counts for itself how often its log was lost."""
    return f"epoch:{topic} {read_source(record.headers)}"


def pairs(flat: Sequence[bytes]) -> dict[str, bytes]:
    """A hash as Redis answers it, name and value in turn."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
