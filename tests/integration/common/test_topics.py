"""Topics are made by the service that owns them, never by asking for them."""

import asyncio

import pytest
from aiokafka.errors import KafkaError
from plumbing import COUNTERS, Settings

from common import kafka


async def test_whoever_asks_for_a_topic_does_not_make_it(config: Settings) -> None:
    producer = kafka.make_producer(config)
    consumer = kafka.make_consumer(config, COUNTERS.name, group="askers")
    await producer.start()
    try:
        with pytest.raises((KafkaError, TimeoutError)):
            async with asyncio.timeout(2):
                await producer.send_and_wait(config.prefixed(COUNTERS.name), b"x")
        with pytest.raises((KafkaError, TimeoutError)):
            async with asyncio.timeout(2):
                await consumer.start()
        assert await kafka.partition_counts(config, [COUNTERS]) in ({}, {COUNTERS.name: 0})
    finally:
        await kafka.stop(producer)
        await kafka.stop(consumer)


async def test_a_reader_waits_until_the_owner_has_made_the_topic(config: Settings) -> None:
    waiting = asyncio.create_task(kafka.wait_for_topics(config, [COUNTERS.name]))
    await asyncio.sleep(0.6)
    assert not waiting.done()
    await kafka.ensure_topics(config, [COUNTERS])
    async with asyncio.timeout(10):
        await waiting
    counts = await kafka.partition_counts(config, [COUNTERS])
    assert counts == {COUNTERS.name: config.kafka_partitions}
