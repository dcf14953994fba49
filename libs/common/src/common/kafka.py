"""Producers, consumers and topics, with every wait bounded."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import aiokafka.admin.client
import aiokafka.client
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.protocol.metadata import MetadataRequest

from common.events import Headers, Topic
from common.logging import get_logger
from common.settings import ServiceSettings

SEND_TIMEOUT_S = 10
# A broker keeps and hands out whole batches: many small ones cost it several times as much.
BATCH_BYTES_MAX = 256 * 1024
STOP_TIMEOUT_S = 5
# A group waits so long for a member that it does not hear of.
SESSION_MS = 6_000
TOPICS_POLL_S = 0.25

choose_partition = DefaultPartitioner()

log = get_logger(__name__)


class AskOnly(MetadataRequest):  # type: ignore[misc]  # aiokafka has no types
    """Asks about topics without making them.

    A broker may make a topic that somebody merely asks for, with as many partitions as it likes
    and never compacted. When many ask at once, as all do after it was restarted, Tansu makes the
    topic several times, and the last time forgets what was sent meanwhile. So a topic is made by
    `ensure_topics` alone. aiokafka has no setting for it.
    """

    def __init__(self, topics: list[str] | None = None) -> None:
        super().__init__(topics, allow_auto_topic_creation=False)


aiokafka.client.MetadataRequest = AskOnly
aiokafka.admin.client.MetadataRequest = AskOnly

leave_group = GroupCoordinator._maybe_leave_group


async def leave_any_group(coordinator: GroupCoordinator) -> None:
    """Tells the group that this member goes, also in the group's first generation.

    Tansu counts generations from 0. aiokafka takes 0 for no group, as Kafka counts from 1, and goes
    without a word: the next member, most often the same worker started again, would wait until the
    session is over. The request to leave names no generation.
    """
    if coordinator.generation == 0:
        coordinator.generation = 1
    await leave_group(coordinator)


GroupCoordinator._maybe_leave_group = leave_any_group


def make_producer(settings: ServiceSettings) -> AIOKafkaProducer:
    """A producer that waits for all in-sync replicas; idempotent where the broker knows how."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        client_id=settings.service,
        acks="all",
        enable_idempotence=settings.kafka_idempotent,
        request_timeout_ms=SEND_TIMEOUT_S * 1000,
        retry_backoff_ms=50,
        metadata_max_age_ms=30_000,
        max_batch_size=BATCH_BYTES_MAX,
    )


def make_consumer(
    settings: ServiceSettings,
    *topics: str,
    group: str | None = None,
    fetch_wait_ms: int | None = None,
) -> AIOKafkaConsumer:
    """A consumer that commits only when told. `topics` and `group` are logical names.

    `fetch_wait_ms`: the longest wait of a fetch, where it is not that of the settings.
    """
    return AIOKafkaConsumer(
        *(settings.prefixed(topic) for topic in topics),
        bootstrap_servers=settings.kafka_bootstrap,
        client_id=settings.service,
        group_id=settings.prefixed(group) if group else None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=fetch_wait_ms or settings.kafka_fetch_wait_ms,
        request_timeout_ms=SEND_TIMEOUT_S * 1000,
        retry_backoff_ms=50,
        metadata_max_age_ms=5_000,
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=1_000,
    )


async def send_all(
    producer: AIOKafkaProducer, topic: str, messages: Iterable[tuple[bytes, bytes, Headers]]
) -> None:
    """Send (key, value, headers) in few batches, and await that the broker has them all.

    A third of the work of sending one by one. The order of each key stays, and its partition is
    the one that `producer.send` would choose. Raises KafkaError; the caller bounds the time.
    """
    partitions = sorted(await producer.partitions_for(topic))
    chosen: dict[bytes, int] = {}
    batches: dict[int, Any] = {}
    sends = []
    for key, value, headers in messages:
        partition = chosen.get(key)
        if partition is None:
            partition = chosen[key] = choose_partition(key, partitions, partitions)
        batch = batches.get(partition)
        if batch is not None:
            if batch.append(key=key, value=value, timestamp=None, headers=headers):
                continue
            sends.append(await producer.send_batch(batch, topic, partition=partition))
        batch = batches[partition] = producer.create_batch()
        # The first is taken whatever its size; the broker refuses what is too large for it.
        batch.append(key=key, value=value, timestamp=None, headers=headers)
    for partition, batch in batches.items():
        sends.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sends)


async def stop(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Stop a client; one that hangs because its broker is away is left behind after a while.

    In a task of its own: a consumer that is stopped takes a cancellation for that of one of its own
    tasks, and then waits on, so that no timeout around it would end.
    """
    stopping = asyncio.ensure_future(client.stop())
    stopping.add_done_callback(look_at)
    try:
        await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
    finally:
        stopping.cancel()  # of one that is done it does nothing
    if stopping.done() and not stopping.cancelled() and stopping.exception() is None:
        return
    if isinstance(client, AIOKafkaProducer):
        await abandon(client)
    elif isinstance(client, AIOKafkaConsumer):
        abandon_consumer(client)


def look_at(task: "asyncio.Future[None]") -> None:
    """What a client that was left behind met at last is nobody's concern, and no warning."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.info("client_not_stopped", error=f"{type(error).__name__}: {error}")


def abandon_consumer(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer that could not be stopped say no more that it is a member of its group: its
    partitions would wait for it."""
    tasks = (
        (consumer._coordinator, "_coordination_task"),
        (consumer._coordinator, "_heartbeat_task"),
        (consumer._fetcher, "_fetch_task"),
    )
    for owner, name in tasks:
        task = getattr(owner, name, None)
        if task is not None and not task.done():
            task.cancel()


async def abandon(producer: AIOKafkaProducer) -> None:
    """Let a producer that could not be stopped send nothing any more.

    It would keep what it was given and send it when the broker is back, beside the one that came
    after it.
    """
    producer._message_accumulator.fail_all(KafkaError("the producer was stopped"))
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await producer._sender.close()
            await producer.client.close()
    except (TimeoutError, KafkaError):
        return


class TopicsGone(Exception):
    """The broker forgot topics that were made. Their owner makes them again, and starts anew."""


async def require_topics(client: AIOKafkaProducer | AIOKafkaConsumer, names: Iterable[str]) -> None:
    """Raises TopicsGone unless the broker has these topics (its names).

    A producer would wait for one that is gone for as long as it may, asking for it without a pause.
    """
    async with asyncio.timeout(SEND_TIMEOUT_S):
        if isinstance(client, AIOKafkaProducer):
            known = (await client.client.fetch_all_metadata()).topics()
        else:
            known = await client.topics()
    if gone := set(names) - known:
        raise TopicsGone(f"the broker has no topic {', '.join(sorted(gone))}")


async def ensure_topics(settings: ServiceSettings, topics: Sequence[Topic]) -> bool:
    """Create the topics that are missing. Whether any was.

    Raises KafkaError or TimeoutError when the broker does not answer.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap,
        client_id=settings.service,
        request_timeout_ms=SEND_TIMEOUT_S * 1000,
    )
    async with asyncio.timeout(SEND_TIMEOUT_S * 2):
        try:
            await admin.start()
            existing = set(await admin.list_topics())
            missing = [
                NewTopic(
                    name=settings.prefixed(topic.name),
                    num_partitions=settings.kafka_partitions,
                    replication_factor=settings.kafka_replication,
                    topic_configs={"cleanup.policy": "compact" if topic.compacted else "delete"},
                )
                for topic in topics
                if settings.prefixed(topic.name) not in existing
            ]
            if missing:
                with suppress(TopicAlreadyExistsError):
                    await admin.create_topics(missing)
            return bool(missing)
        finally:
            await admin.close()


async def wait_for_topics(settings: ServiceSettings, topics: Iterable[str]) -> None:
    """Wait until the services that own these topics (logical names) have made them.

    Raises KafkaError or TimeoutError when the broker does not answer; waits for ever for a topic.
    """
    wanted = {settings.prefixed(topic) for topic in topics}
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap,
        client_id=settings.service,
        request_timeout_ms=SEND_TIMEOUT_S * 1000,
    )
    told = False
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await admin.start()
        while True:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                missing = wanted - set(await admin.list_topics())
            if not missing:
                return
            if not told:
                log.info("waiting_for_topics", topics=sorted(missing))
                told = True
            await asyncio.sleep(TOPICS_POLL_S)
    finally:
        await admin.close()


async def partition_counts(settings: ServiceSettings, topics: Sequence[Topic]) -> dict[str, int]:
    """How many partitions each of these topics has now, by its logical name; absent: none.

    Raises KafkaError or TimeoutError when the broker does not answer.
    """
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap,
        client_id=settings.service,
        request_timeout_ms=SEND_TIMEOUT_S * 1000,
    )
    names = {settings.prefixed(topic.name): topic.name for topic in topics}
    async with asyncio.timeout(SEND_TIMEOUT_S * 2):
        try:
            await admin.start()
            described = await admin.describe_topics(list(names))
        finally:
            await admin.close()
    return {names[each["topic"]]: len(each["partitions"]) for each in described}
