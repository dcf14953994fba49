"""Many messages in few batches: all there, each key in its order and in its own partition."""

import asyncio

from plumbing import BUMPS, Settings

from common import kafka

KEYS = [f"key-{number}".encode() for number in range(7)]
COUNT = 2000
PADDING = b"x" * 500  # so that no partition's share fits into one batch


async def test_many_messages_keep_the_order_and_the_partition_of_their_keys(
    config: Settings,
) -> None:
    await kafka.ensure_topics(config, [BUMPS])
    topic = config.prefixed(BUMPS.name)
    producer = kafka.make_producer(config)
    consumer = kafka.make_consumer(config, BUMPS.name)
    await producer.start()
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            alone = [await producer.send_and_wait(topic, b"alone", key=key) for key in KEYS]
            await kafka.send_all(
                producer,
                topic,
                (
                    (KEYS[number % 7], b"%d " % number + PADDING, [("n", b"%d" % number)])
                    for number in range(COUNT)
                ),
            )
            records = []
            while len(records) < COUNT + len(KEYS):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records.extend(batch)
    finally:
        await kafka.stop(producer)
        await kafka.stop(consumer)
    partition_of = {key: sent.partition for key, sent in zip(KEYS, alone, strict=True)}
    assert all(record.partition == partition_of[record.key] for record in records)
    for number, key in enumerate(KEYS):
        values = [record.value for record in records if record.key == key]
        assert values[0] == b"alone"
        found = [int(value.split()[0]) for value in values[1:]]
        assert found == list(range(number, COUNT, 7))
    assert {record.headers for record in records if record.value.startswith(b"12 ")} == {
        (("n", b"12"),)
    }
