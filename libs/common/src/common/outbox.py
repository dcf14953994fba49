"""The transactional outbox and its relay.

A service adds an event in the transaction that makes it true. One relay per service, elected by an
advisory lock held on a connection of its own, reads the unpublished rows in id order, sends them,
awaits the broker's acknowledgement and marks them. Within a key the order is right because the
aggregate's row is locked before the event is added; rows are found because they are there, not by
a position that a late commit could slip behind.

Published rows are kept as the source of replay: of a fact for a stated time, of a state for as long
as it is the newest of its key. The relay remembers how far each partition was acknowledged; an end
offset behind that means that the broker lost its log, and everything kept is published again with
a higher `log_epoch`.

Others may publish to the same topics, as the time banks of several shards do, and what they send
again would hide from this relay that its own part was lost. So each relay has a topic that is its
own, the beacon, with one message in it, sent before all others: where that is gone, all is.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata
from opentelemetry.trace import SpanKind
from uuid_utils import uuid7

from common import db, kafka, telemetry
from common.clock import Clock, utc_now
from common.db import Conn
from common.events import Event, Topic, to_message
from common.ids import new_id, row_id
from common.logging import get_logger
from common.metrics import (
    OUTBOX_LOG_LOST,
    OUTBOX_OLDEST_SECONDS,
    OUTBOX_PUBLISHED,
    OUTBOX_WAITING,
)
from common.settings import ServiceSettings

RELAY_LOCK = 7_203_002
BATCH = 500
PAYLOAD_BYTES_MAX = 900_000
ELECTION_POLL_S = 1.0
POLL_S = 1.0
SHARED_TOPICS_REST_S = 2.0
LOG_CHECK_S = 1.0
HOUSEKEEPING_S = 60.0
HOUSEKEEPING_ROWS = 5_000
# An event may be replayed for as long as some outbox keeps it, and a command repeated for 30 days:
# what was seen must be remembered for longer than that.
REMEMBER = timedelta(days=40)

log = get_logger(__name__)


async def add(
    conn: Conn, *, topic: Topic, key: str, type: str, data: dict[str, Any], now: datetime
) -> UUID:
    """Add an event to the transaction of `conn`; the aggregate's row is already locked by it.

    `key` is the aggregate's id, `data` must be JSON (at most 900 kB). Returns the event's id.
    Raises ValueError when the data is too large for a message.
    """
    if len(orjson.dumps(data)) > PAYLOAD_BYTES_MAX:
        raise ValueError(f"the data of {type} {key} is too large for a message")
    event_id = new_id()
    await conn.execute(
        "INSERT INTO outbox"
        " (event_id, topic, compacted, key, type, payload, traceparent, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        event_id,
        topic.name,
        topic.compacted,
        key,
        type,
        data,
        telemetry.current_traceparent(),
        now,
    )
    return event_id


@dataclass(frozen=True, slots=True)
class Item:
    """One of several events of the same type: the aggregate's id, the data, who caused it."""

    key: str
    data: dict[str, Any]
    traceparent: str | None = None


async def add_many(
    conn: Conn, *, topic: Topic, type: str, items: Sequence[Item], now: datetime
) -> None:
    """Like `add`, for many events in one round trip; they are published in the order given."""
    payloads = [orjson.dumps(item.data) for item in items]
    for item, payload in zip(items, payloads, strict=True):
        if len(payload) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"the data of {type} {item.key} is too large for a message")
    # As text: an array of jsonb would be made into JSON a second time.
    await conn.execute(
        "INSERT INTO outbox"
        " (event_id, topic, compacted, key, type, payload, traceparent, created_at)"
        " SELECT event_id, $1, $2, key, $3, payload::jsonb, traceparent, $4"
        " FROM unnest($5::uuid[], $6::text[], $7::text[], $8::text[]) WITH ORDINALITY"
        " AS item (event_id, key, payload, traceparent, place) ORDER BY place",
        topic.name,
        topic.compacted,
        type,
        now,
        [row_id(uuid7().bytes) for _ in items],
        [item.key for item in items],
        [payload.decode() for payload in payloads],
        [item.traceparent for item in items],
    )


class Relay:
    """Publishes the outbox of one service. `run` is one life: any failure ends it.

    `name`: that of the service where it is the only one with its database; else one of its own.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        topics: Sequence[Topic],
        clock: Clock = utc_now,
        name: str | None = None,
    ) -> None:
        self.settings = settings
        self.name = name or settings.service
        self.beacon = Topic(f"{self.name}.relay.v1", compacted=True)
        self.topics = (*topics, self.beacon)
        self.clock = clock
        self.leading = False
        self._lit = False

    async def run(self) -> None:
        """Wait to be elected, then publish until something fails.

        Raises whatever failed: a database or broker that is away, a send that was not
        acknowledged in time.
        """
        dsn = self.settings.database_url.get_secret_value()
        connection = await db.connect(dsn, name=f"{self.settings.service}-relay")
        try:
            await self._be_elected(connection)
            made = await kafka.ensure_topics(self.settings, self.topics)
            if made and self.name != self.settings.service:
                # Another makes the same topics. Two that find a broker empty at the same moment may
                # make one twice, and Tansu then forgets what it was sent before the second time.
                await asyncio.sleep(SHARED_TOPICS_REST_S)
            await self._check_partitions(connection)
            producer = kafka.make_producer(self.settings)
            probe = kafka.make_consumer(self.settings)
            try:
                async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                    await producer.start()
                    await probe.start()
                await self._publish_for_ever(connection, producer, probe)
            finally:
                await kafka.stop(producer)
                await kafka.stop(probe)
        finally:
            self.leading = self._lit = False
            await close(connection)

    async def _be_elected(self, connection: db.Connection) -> None:
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", RELAY_LOCK):
            await asyncio.sleep(ELECTION_POLL_S)
        self.leading = True
        log.info("relay_elected")

    async def _publish_for_ever(
        self,
        connection: db.Connection,
        producer: AIOKafkaProducer,
        probe: AIOKafkaConsumer,
    ) -> None:
        wake = asyncio.Event()
        await connection.add_listener("outbox", lambda *_: wake.set())
        loop = asyncio.get_running_loop()
        log_check_at = housekeeping_at = loop.time()
        while True:
            wake.clear()
            if loop.time() >= log_check_at:
                await self._check_log(connection, probe)
                log_check_at = loop.time() + LOG_CHECK_S
            await self._light_beacon(connection, producer)
            if loop.time() >= housekeeping_at:
                await self._keep_house(connection)
                housekeeping_at = loop.time() + HOUSEKEEPING_S
            if await self._publish_batch(connection, producer) == 0:
                try:
                    async with asyncio.timeout(POLL_S):
                        await wake.wait()
                except TimeoutError:
                    continue

    async def _light_beacon(self, connection: db.Connection, producer: AIOKafkaProducer) -> None:
        """Put the one message into the beacon where it is missing: before anything else is sent,
        so that no log with something of ours in it can go without the beacon."""
        if self._lit:
            return
        known = await watermarks(connection)
        if not any(topic == self.beacon.name for topic, _ in known):
            event = Event(
                id=new_id(),
                type="common.relay.started.v1",
                source=f"/{self.name}",
                subject=self.name,
                time=self.clock(),
                data={"relay": self.name},
            )
            key, value, headers = to_message(event)
            async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
                sent = await producer.send_and_wait(
                    self.settings.prefixed(self.beacon.name), value=value, key=key, headers=headers
                )
            reached = next_offsets([sent], prefix=self.settings.kafka_topic_prefix)
            await save_watermarks(connection, reached)
        self._lit = True

    async def _publish_batch(self, connection: db.Connection, producer: AIOKafkaProducer) -> int:
        rows = await connection.fetch(
            "SELECT o.id, o.event_id, o.topic, o.key, o.type, o.payload, o.traceparent,"
            " o.created_at, COALESCE(l.log_epoch, 0) AS log_epoch"
            " FROM outbox o LEFT JOIN outbox_log l USING (topic)"
            " WHERE o.published_at IS NULL ORDER BY o.id LIMIT $1",
            BATCH,
        )
        if not rows:
            OUTBOX_WAITING.set(0)
            OUTBOX_OLDEST_SECONDS.set(0)
            return 0
        OUTBOX_WAITING.set(len(rows))
        OUTBOX_OLDEST_SECONDS.set((self.clock() - rows[0]["created_at"]).total_seconds())
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            sends = [await self._send(producer, row) for row in rows]
            acknowledged: list[RecordMetadata] = await asyncio.gather(*sends)
        reached = next_offsets(acknowledged, prefix=self.settings.kafka_topic_prefix)
        known = await watermarks(connection)
        lost = fallen_back(acknowledged, known, prefix=self.settings.kafka_topic_prefix)
        if lost:
            await self._start_again(connection, lost)
            return len(rows)
        async with connection.transaction():
            await connection.execute(
                "UPDATE outbox SET published_at = $2 WHERE id = ANY($1::bigint[])",
                [row["id"] for row in rows],
                self.clock(),
            )
            await save_watermarks(connection, reached)
        for topic, count in count_by_topic(rows).items():
            OUTBOX_PUBLISHED.labels(topic).inc(count)
        return len(rows)

    async def _send(
        self, producer: AIOKafkaProducer, row: asyncpg.Record
    ) -> asyncio.Future[RecordMetadata]:
        event = Event(
            id=row["event_id"],
            type=row["type"],
            source=f"/{self.name}",
            subject=row["key"],
            time=row["created_at"],
            data=row["payload"],
            traceparent=row["traceparent"],
            log_epoch=row["log_epoch"],
        )
        key, value, headers = to_message(event)
        topic = self.settings.prefixed(row["topic"])
        with telemetry.span(
            f"send {row['topic']}",
            kind=SpanKind.PRODUCER,
            traceparent=event.traceparent,
            attributes=telemetry.producing(topic, str(event.id)),
        ):
            sent: asyncio.Future[RecordMetadata] = await producer.send(
                topic, value=value, key=key, headers=headers
            )
            return sent

    async def _check_partitions(self, connection: db.Connection) -> None:
        """A partition that was acknowledged and is no more was lost with its whole log.

        A topic may come back with fewer partitions than it had: whoever asks a broker for a topic
        first may make it, with the broker's own count. The end of a partition that does not exist
        is never told, so asking for it would end every life of this relay.
        """
        counts = await kafka.partition_counts(self.settings, self.topics)
        known = await watermarks(connection)
        gone = {
            topic for topic, partition in known if partition >= counts.get(topic, partition + 1)
        }
        if gone:
            await self._start_again(connection, gone)

    async def _check_log(self, connection: db.Connection, probe: AIOKafkaConsumer) -> None:
        """Compare the broker's end offsets with what it acknowledged; behind means lost."""
        known = await watermarks(connection)
        if not known:
            return
        partitions = {
            TopicPartition(self.settings.prefixed(topic), partition): (topic, partition)
            for topic, partition in known
        }
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            await kafka.require_topics(probe, (partition.topic for partition in partitions))
            ends = await probe.end_offsets(list(partitions))
        lost = {partitions[tp][0] for tp, end in ends.items() if end < known[partitions[tp]]}
        if lost:
            await self._start_again(connection, lost)

    async def _start_again(self, connection: db.Connection, topics: set[str]) -> None:
        """Queue all that is kept of these topics to be published again, under a new epoch.

        Without the beacon it is all topics that anything was published to.
        """
        if self.beacon.name in topics:
            topics = topics | {topic for topic, _ in await watermarks(connection)}
            self._lit = False
        names = sorted(topics - {self.beacon.name})
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO outbox_log (topic, log_epoch, lost_at)"
                " SELECT unnest($1::text[]), 1, $2"
                " ON CONFLICT (topic) DO UPDATE"
                " SET log_epoch = outbox_log.log_epoch + 1, lost_at = EXCLUDED.lost_at",
                names,
                self.clock(),
            )
            await connection.execute(
                "DELETE FROM outbox_watermark WHERE topic = ANY($1::text[])", list(topics)
            )
            queued = await connection.execute(
                "UPDATE outbox o SET published_at = NULL"
                " WHERE o.topic = ANY($1::text[]) AND o.published_at IS NOT NULL"
                " AND (NOT o.compacted OR NOT EXISTS ("
                "  SELECT FROM outbox newer WHERE newer.compacted AND newer.topic = o.topic"
                "  AND newer.key = o.key AND newer.id > o.id))",
                names,
            )
        OUTBOX_LOG_LOST.inc(len(names))
        log.warning("log_lost", topics=names, queued=int(queued.split()[-1]))

    async def _keep_house(self, connection: db.Connection) -> None:
        """Delete, a bounded number at a time, what is no longer needed to replay or to compare."""
        now = self.clock()
        await connection.execute(
            "DELETE FROM outbox WHERE id IN ("
            " SELECT o.id FROM outbox o WHERE o.published_at < $1"
            " AND (NOT o.compacted OR EXISTS ("
            "  SELECT FROM outbox newer WHERE newer.compacted AND newer.topic = o.topic"
            "  AND newer.key = o.key AND newer.id > o.id))"
            " LIMIT $2)",
            now - timedelta(hours=self.settings.outbox_retention_hours),
            HOUSEKEEPING_ROWS,
        )
        await connection.execute(
            "DELETE FROM inbox WHERE ctid IN ("
            " SELECT ctid FROM inbox WHERE processed_at < $1 LIMIT $2)",
            now - REMEMBER,
            HOUSEKEEPING_ROWS,
        )
        await connection.execute(
            "DELETE FROM idempotency WHERE ctid IN ("
            " SELECT ctid FROM idempotency WHERE created_at < $1 LIMIT $2)",
            now - REMEMBER,
            HOUSEKEEPING_ROWS,
        )


async def close(connection: db.Connection) -> None:
    """Close a connection whose server may be gone."""
    try:
        await connection.close(timeout=2)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def metadata_topic(metadata: RecordMetadata, prefix: str) -> str:
    return str(metadata.topic).removeprefix(prefix)


def fallen_back(
    acknowledged: Sequence[RecordMetadata], known: Mapping[tuple[str, int], int], *, prefix: str
) -> set[str]:
    """The topics of which a message came to lie before one that had been acknowledged earlier.

    `acknowledged` in the order in which the messages were sent, `known` the watermarks before. The
    log may go while its very first batch is sent, when no watermark would tell.
    """
    lost: set[str] = set()
    reached = dict(known)
    for metadata in acknowledged:
        place = (metadata_topic(metadata, prefix), metadata.partition)
        if metadata.offset < reached.get(place, 0):
            lost.add(place[0])
        reached[place] = metadata.offset + 1
    return lost


def next_offsets(
    acknowledged: Sequence[RecordMetadata], *, prefix: str
) -> dict[tuple[str, int], int]:
    """An offset of each partition that the end of its log can no longer lie behind.

    That is the offset after the first of these messages, not after the last: Tansu counts the last
    batch of records as one when it is asked for the end. A log that was lost begins at 0 again, so
    the first is as good.
    """
    reached: dict[tuple[str, int], int] = {}
    for metadata in acknowledged:
        place = (metadata_topic(metadata, prefix), metadata.partition)
        reached[place] = min(reached.get(place, metadata.offset + 1), metadata.offset + 1)
    return reached


def count_by_topic(rows: Sequence[asyncpg.Record]) -> Mapping[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row["topic"]] += 1
    return counts


async def watermarks(conn: Conn) -> dict[tuple[str, int], int]:
    rows = await conn.fetch("SELECT topic, partition, next_offset FROM outbox_watermark")
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


async def save_watermarks(conn: Conn, reached: Mapping[tuple[str, int], int]) -> None:
    await conn.executemany(
        "INSERT INTO outbox_watermark (topic, partition, next_offset) VALUES ($1, $2, $3)"
        " ON CONFLICT (topic, partition) DO UPDATE"
        " SET next_offset = GREATEST(outbox_watermark.next_offset, EXCLUDED.next_offset)",
        [(topic, partition, offset) for (topic, partition), offset in reached.items()],
    )
