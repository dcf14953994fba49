"""Before anything is signed: what did we sign before, as others remember it?

The database may be an old one that was brought back. Whatever it forgot is still on the topics,
said by ourselves and by those who cosigned it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer

from common import kafka
from common.clock import Clock, utc_now
from common.db import Conn, Pool
from common.events import Event, MalformedEvent, from_message
from common.logging import get_logger
from common.settings import ServiceSettings
from timebank.clearing.rotation import hear_keys
from timebank.events import CHECKPOINTS, CITY_KEYS, COSIGNATURES
from timebank.log.cosigning import hear_of_own

IDLE_MS = 500

Take = Callable[[str, Event], Awaitable[None]]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """The last event of a key of the topics that tell of logs and of cities' keys."""

    topic: str
    data: dict[str, Any]


async def keep_recalled(
    settings: ServiceSettings, pool: Pool, recalled: asyncio.Event, clock: Clock = utc_now
) -> None:
    """The worker's task: read all that is told of logs, hold ours against it, then let sign."""
    found = await read_topics(settings)
    await hold_against(pool, found, clock())
    recalled.set()
    log.info("log_recalled", events=len(found))
    await asyncio.Event().wait()


async def hold_against(pool: Pool, found: Sequence[Told], now: datetime) -> None:
    """Keys first: a checkpoint is read with that of its size."""
    for told in sorted(found, key=lambda each: each.topic != CITY_KEYS.name):
        async with pool.acquire() as conn, conn.transaction():
            if told.topic == CITY_KEYS.name:
                await hear_told_keys(conn, told.data, now)
            else:
                await hear_of_own(conn, told.data["city_id"], told.data["note"], now)


async def hear_told_keys(conn: Conn, data: Mapping[str, Any], now: datetime) -> None:
    version, public_key, keys = data.get("version"), data.get("public_key"), data.get("keys")
    if type(version) is int and type(public_key) is str and (keys is None or type(keys) is list):
        await hear_keys(conn, data["city_id"], version, public_key, keys, now)


def notes_of(found: Sequence[Told], city_id: str) -> list[str]:
    """The checkpoints of a city's log that were told."""
    return [
        each.data["note"]
        for each in found
        if each.topic != CITY_KEYS.name and each.data["city_id"] == city_id
    ]


async def read_topics(settings: ServiceSettings) -> list[Told]:
    """The last event of each key; of checkpoints one per city and cosigner.

    Raises KafkaError or TimeoutError when the broker does not answer.
    """
    found: dict[tuple[str, str], Told] = {}

    async def keep(topic: str, event: Event) -> None:
        says = "public_key" if topic == CITY_KEYS.name else "note"
        if isinstance(event.data.get("city_id"), str) and isinstance(event.data.get(says), str):
            found[topic, event.subject] = Told(topic, event.data)

    topics = (CITY_KEYS.name, CHECKPOINTS.name, COSIGNATURES.name)
    await read_from_start(settings, topics, keep)
    return list(found.values())


async def read_from_start(settings: ServiceSettings, topics: Sequence[str], take: Take) -> None:
    """Give all that topics hold to `take`, each partition in its order; what is no event is left
    out. No group's place changes.

    Raises KafkaError or TimeoutError when the broker does not answer, and what `take` raises.
    """
    await kafka.wait_for_topics(settings, topics)
    consumer = kafka.make_consumer(settings, *topics, fetch_wait_ms=IDLE_MS // 2)
    try:
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            await consumer.start()
        while not await read_some(consumer, settings.kafka_topic_prefix, take):
            continue
    finally:
        await kafka.stop(consumer)


async def read_some(consumer: AIOKafkaConsumer, prefix: str, take: Take) -> bool:
    """Take in what comes; whether that was all there is."""
    batches = await consumer.getmany(timeout_ms=IDLE_MS)
    for partition, records in batches.items():
        for record in records:
            try:
                event = from_message(record.value, record.headers)
            except MalformedEvent:
                continue
            await take(partition.topic.removeprefix(prefix), event)
    if batches:
        return False
    async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        reached = [await consumer.position(each) >= ends[each] for each in partitions]
    return bool(partitions) and all(reached)
