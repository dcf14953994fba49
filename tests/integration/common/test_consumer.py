"""The consumer: each event once, poison put aside, offsets after the effect."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from plumbing import BUMPS, COUNTERS, NOW, Settings, bump, follow, read_all, running, until

from common import db, kafka
from common.consumer import BatchHandler, Consumer, ask_for_replay, dead_letters, list_dead_letters
from common.db import Conn
from common.events import Event, to_message
from common.outbox import Relay

GROUP = "test.followers"
TOPICS = [COUNTERS, BUMPS, dead_letters(GROUP)]


def event(counter: str, version: int, **extra: object) -> Event:
    return Event(
        id=uuid4(),
        type="test.counter.changed.v1",
        source="/test",
        subject=counter,
        time=NOW,
        data={"counter": counter, "version": version, **extra},
    )


async def send(config: Settings, *messages: Event | tuple[bytes | None, list[object]]) -> None:
    await kafka.ensure_topics(config, TOPICS)
    producer: AIOKafkaProducer = kafka.make_producer(config)
    await producer.start()
    try:
        for message in messages:
            key, value, headers = (
                to_message(message) if isinstance(message, Event) else (b"k", *message)
            )
            await producer.send_and_wait(
                config.prefixed(COUNTERS.name), value=value, key=key, headers=headers
            )
    finally:
        await kafka.stop(producer)


def consumer(config: Settings, pool: db.Pool) -> Consumer:
    return Consumer(config, pool, GROUP, {COUNTERS.name: follow})


async def members(config: Settings) -> int:
    """How many are in the group."""
    admin = AIOKafkaAdminClient(bootstrap_servers=config.kafka_bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_consumer_groups([config.prefixed(GROUP)])
        (group,) = answer.groups
        return len(group[5])
    finally:
        await admin.close()


async def followed(pool: db.Pool) -> list[tuple[str, int]]:
    rows = await pool.fetch("SELECT counter, version FROM followed ORDER BY seen")
    return [(row["counter"], row["version"]) for row in rows]


async def test_an_event_seen_twice_is_applied_once(config: Settings, pool: db.Pool) -> None:
    same = event("a", 1)
    await send(config, same, same, event("b", 1), same)

    async def both() -> bool:
        return len(await followed(pool)) == 2

    async with running(consumer(config, pool).run):
        await until(both)
        await asyncio.sleep(0.5)
    assert sorted(await followed(pool)) == [("a", 1), ("b", 1)]


async def test_what_a_log_read_again_repeats_is_passed_over_together(
    config: Settings, pool: db.Pool
) -> None:
    """Else each new life of a reader would take as long as all that the log ever told."""

    class Counting(Consumer):
        handled = 0
        committed: ClassVar[dict[TopicPartition, int]] = {}

        async def _handle(self, record: Any) -> None:
            self.handled += 1
            await super()._handle(record)

        # What it asks of the broker.
        async def commit(self, offsets: dict[TopicPartition, int]) -> None:
            self.committed.update(offsets)

        def highwater(self, _: Any) -> int:
            return 30

    reader = Counting(config, pool, GROUP, {COUNTERS.name: follow})
    place = TopicPartition(config.prefixed(COUNTERS.name), 0)
    records: list[Any] = []
    for number in range(30):
        key, value, headers = to_message(event("a", number + 1))
        record = {"offset": number, "key": key, "value": value, "headers": headers}
        records.append(SimpleNamespace(topic=place.topic, partition=0, **record))
    broker: Any = reader
    await reader._handle_all(broker, {place: records[:20]})
    assert (reader.handled, reader.committed[place]) == (20, 20)
    await reader._handle_all(broker, {place: records})
    assert (reader.handled, reader.committed[place]) == (30, 30)
    assert len(await followed(pool)) == 30


async def test_a_log_that_began_again_while_nobody_read_is_read_from_its_start(
    config: Settings, pool: db.Pool
) -> None:
    """The offset that a group committed is one of the log that was lost."""
    again = [replace(event("a", version), log_epoch=1) for version in (1, 2, 3)]
    await send(config, *again)
    reader = kafka.make_consumer(config, COUNTERS.name, group=GROUP)
    await reader.start()
    try:
        while not any([await reader.position(one) for one in reader.assignment()]):
            await reader.getmany(timeout_ms=100)
        read = {one: 2 for one in reader.assignment() if await reader.position(one)}
        await reader.commit(read)
    finally:
        await kafka.stop(reader)
    assert await members(config) == 0  # it left, so nobody waits for it

    async def all_three() -> bool:
        return len(await followed(pool)) == 3

    async with running(consumer(config, pool).run):
        await until(all_three)
    assert await followed(pool) == [("a", 1), ("a", 2), ("a", 3)]


async def test_poison_is_put_aside_and_the_partition_moves_on(
    config: Settings, pool: db.Pool
) -> None:
    good = event("k", 1)
    _, _, headers = to_message(good)
    await send(
        config,
        event("k", 0, poison=True),
        (b"not json", headers),
        (None, headers),
        (b"{}", []),
        (b"[1]", headers),
        good,
    )

    async def moved_on() -> bool:
        return await followed(pool) == [("k", 1)]

    async def told() -> bool:
        return not await pool.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")

    async with running(consumer(config, pool).run, Relay(config, TOPICS).run):
        await until(moved_on, 20)
        await until(told)
    async with pool.acquire() as conn:
        letters = await list_dead_letters(conn)
    assert len(letters) == 5
    assert "poison" in "".join(letter["error"] for letter in letters)
    assert len(await read_all(config, dead_letters(GROUP))) == 5


async def test_a_dead_letter_is_replayed_when_asked_for_and_its_cause_is_gone(
    config: Settings, pool: db.Pool
) -> None:
    broken = True

    async def handler(conn: Conn, got: Event) -> None:
        if broken:
            raise RuntimeError("a bug")
        await follow(conn, got)

    async def buried() -> bool:
        return bool(await pool.fetchval("SELECT count(*) FROM dead_letter"))

    async def replayed() -> bool:
        return await followed(pool) == [("late", 3)]

    await send(config, event("late", 3))
    async with running(Consumer(config, pool, GROUP, {COUNTERS.name: handler}).run):
        await until(buried)
        broken = False
        async with pool.acquire() as conn:
            assert await ask_for_replay(conn, None, NOW) == 1
        await until(replayed)
    async with pool.acquire() as conn:
        assert await list_dead_letters(conn) == []


async def test_an_effect_and_its_claim_in_the_inbox_stand_or_fall_together(
    config: Settings, pool: db.Pool
) -> None:
    attempts = 0

    async def fails_after_writing(conn: Conn, got: Event) -> None:
        nonlocal attempts
        await follow(conn, got)
        attempts += 1
        if attempts < 3:
            raise RuntimeError("after the write")

    await send(config, event("a", 1))

    async def done() -> bool:
        return bool(await followed(pool))

    async with running(Consumer(config, pool, GROUP, {COUNTERS.name: fails_after_writing}).run):
        await until(done)
    assert await followed(pool) == [("a", 1)]
    assert attempts == 3


async def follow_all(conn: Conn, events: Sequence[Event]) -> None:
    for one in events:
        await follow(conn, one)


async def test_a_batch_is_one_transaction_of_the_events_that_are_new(
    config: Settings, pool: db.Pool
) -> None:
    batches: list[int] = []

    async def follow_batch(conn: Conn, events: Sequence[Event]) -> None:
        await follow_all(conn, events)
        batches.append(len(events))

    same = event("a", 0)
    await send(config, same, same, *(event("a", version) for version in range(1, 60)), same)

    async def everything() -> bool:
        return len(await followed(pool)) == 60

    together = Consumer(config, pool, GROUP, {COUNTERS.name: BatchHandler(follow_batch)})
    async with running(together.run):
        await until(everything)
    assert await followed(pool) == [("a", version) for version in range(60)]
    assert sum(batches) == 60
    assert len(batches) < 30
    assert await pool.fetchval("SELECT count(*) FROM inbox") == 60


async def test_poison_in_a_batch_is_put_aside_alone_and_the_order_stays(
    config: Settings, pool: db.Pool
) -> None:
    _, _, headers = to_message(event("a", 9))
    messages = [
        event("a", 1),
        event("b", 1),
        event("a", 2, poison=True),
        (b"not json", headers),
        event("a", 3),
        event("b", 2),
    ]
    await send(config, *messages)

    async def everything() -> bool:
        return len(await followed(pool)) == 4

    together = Consumer(config, pool, GROUP, {COUNTERS.name: BatchHandler(follow_all)})
    async with running(together.run):
        await until(everything)
    found = await followed(pool)
    assert [one for one in found if one[0] == "a"] == [("a", 1), ("a", 3)]
    assert [one for one in found if one[0] == "b"] == [("b", 1), ("b", 2)]
    async with pool.acquire() as conn:
        assert len(await list_dead_letters(conn)) == 2


async def test_a_database_that_is_away_delays_and_buries_nothing(
    config: Settings, pool: db.Pool
) -> None:
    """Connections cut under the handler are no fault of the message."""
    cut = 0

    async def cut_twice(conn: Conn, got: Event) -> None:
        nonlocal cut
        await follow(conn, got)
        if cut < 2:
            cut += 1
            await pool.execute(
                "SELECT pg_terminate_backend($1)", await conn.fetchval("SELECT pg_backend_pid()")
            )
            await conn.execute("SELECT 1")

    await send(config, event("a", 1))

    async def done() -> bool:
        return await followed(pool) == [("a", 1)]

    async with running(Consumer(config, pool, GROUP, {COUNTERS.name: cut_twice}).run):
        await until(done)
    assert not await pool.fetchval("SELECT count(*) FROM dead_letter")


async def test_a_killed_member_is_replaced_and_nothing_is_applied_twice(
    config: Settings, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without_a_word(coordinator: GroupCoordinator) -> None:
        return

    # Apache Kafka takes no shorter one than 6 seconds.
    monkeypatch.setattr(kafka, "SESSION_MS", 6_000 if config.kafka_idempotent else 2_000)
    await send(config, *(event(f"c{number % 7}", number) for number in range(200)))

    async def some() -> bool:
        return len(await followed(pool)) > 20

    async def everything() -> bool:
        return len(await followed(pool)) >= 200

    with monkeypatch.context() as killed:
        killed.setattr(GroupCoordinator, "_maybe_leave_group", without_a_word)
        async with running(consumer(config, pool).run):
            await until(some)
    async with running(consumer(config, pool).run, consumer(config, pool).run):
        await until(everything)
    assert sorted(version for _, version in await followed(pool)) == list(range(200))


async def test_an_event_goes_from_one_outbox_to_another_transaction_to_its_consumer(
    config: Settings, pool: db.Pool
) -> None:
    async with running(Relay(config, TOPICS).run, consumer(config, pool).run):
        for _ in range(20):
            async with pool.acquire() as conn, conn.transaction():
                await bump(conn, "chain")

        async def arrived() -> bool:
            return len(await followed(pool)) == 20

        await until(arrived)
    assert await followed(pool) == [("chain", version) for version in range(1, 21)]
