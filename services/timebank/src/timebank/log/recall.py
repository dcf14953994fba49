"""Before anything is signed: what did we sign before, as others remember it?

The database may be an old one that was brought back. Whatever it forgot is still on the topics,
said by ourselves and by those who cosigned it.
"""

import asyncio

from aiokafka import AIOKafkaConsumer

from common import kafka
from common.db import Pool
from common.events import MalformedEvent, from_message
from common.logging import get_logger
from common.settings import ServiceSettings
from timebank.events import CHECKPOINTS, COSIGNATURES
from timebank.log.cosigning import hear_of_own

IDLE_MS = 500

log = get_logger(__name__)


async def keep_recalled(settings: ServiceSettings, pool: Pool, recalled: asyncio.Event) -> None:
    """The worker's task: read all that is told of logs, hold ours against it, then let sign."""
    notes = await read_topics(settings)
    for city_id, note in notes:
        async with pool.acquire() as conn, conn.transaction():
            await hear_of_own(conn, city_id, note)
    recalled.set()
    log.info("log_recalled", notes=len(notes))
    await asyncio.Event().wait()


async def read_topics(settings: ServiceSettings) -> list[tuple[str, str]]:
    """The last note of each key, with the city that it is of; one per city and cosigner.

    Raises KafkaError or TimeoutError when the broker does not answer.
    """
    topics = (CHECKPOINTS.name, COSIGNATURES.name)
    await kafka.wait_for_topics(settings, topics)
    consumer = kafka.make_consumer(settings, *topics, fetch_wait_ms=IDLE_MS // 2)
    found: dict[tuple[str, bytes | None], tuple[str, str]] = {}
    try:
        async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
            await consumer.start()
        while not await read_some(consumer, found):
            continue
    finally:
        await kafka.stop(consumer)
    return list(found.values())


async def read_some(
    consumer: AIOKafkaConsumer, found: dict[tuple[str, bytes | None], tuple[str, str]]
) -> bool:
    """Take in what comes; whether that was all there is."""
    batches = await consumer.getmany(timeout_ms=IDLE_MS)
    for partition, records in batches.items():
        for record in records:
            try:
                data = from_message(record.value, record.headers).data
            except MalformedEvent:
                continue
            city_id, note = data.get("city_id"), data.get("note")
            if isinstance(city_id, str) and isinstance(note, str):
                found[partition.topic, record.key] = (city_id, note)
    if batches:
        return False
    async with asyncio.timeout(kafka.SEND_TIMEOUT_S):
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        reached = [await consumer.position(each) >= ends[each] for each in partitions]
    return bool(partitions) and all(reached)
