"""The relay: elected, in order, complete, and able to tell everything again."""

import asyncio
import random
from collections import defaultdict

import orjson
import pytest
from plumbing import (
    BUMPS,
    COUNTERS,
    NOW,
    Settings,
    bump,
    read_all,
    running,
    until,
)

from common import db, outbox
from common.events import from_message
from common.outbox import Relay

TOPICS = [COUNTERS, BUMPS]


async def all_published(pool: db.Pool) -> bool:
    return not await pool.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")


async def test_every_committed_event_is_published_in_order_within_its_key(
    config: Settings, pool: db.Pool
) -> None:
    randomness = random.Random(7)

    async def writer(count: int) -> None:
        for _ in range(count):
            async with pool.acquire() as conn:
                transaction = conn.transaction()
                await transaction.start()
                await bump(conn, f"counter-{randomness.randrange(6)}")
                # Hold the transaction open: ids are given before commits come.
                await asyncio.sleep(randomness.random() / 100)
                if randomness.random() < 0.1:
                    await transaction.rollback()
                else:
                    await transaction.commit()

    async with running(Relay(config, TOPICS).run):
        await asyncio.gather(*(writer(40) for _ in range(12)))
        await until(lambda: all_published(pool))

    committed = {row["event_id"] for row in await pool.fetch("SELECT event_id FROM outbox")}
    records = await read_all(config, COUNTERS)
    events = [from_message(record.value, record.headers) for record in records]
    assert {event.id for event in events} == committed
    assert len(events) == len(committed)
    versions: dict[str, list[int]] = defaultdict(list)
    for event in events:
        versions[event.subject].append(event.data["version"])
    for seen in versions.values():
        assert seen == list(range(1, len(seen) + 1))


async def test_one_relay_leads_and_another_takes_over_when_its_connection_dies(
    config: Settings, pool: db.Pool
) -> None:
    first, second = Relay(config, TOPICS), Relay(config, TOPICS)

    async def one_leads() -> bool:
        return first.leading != second.leading

    async with running(first.run, second.run):
        await until(one_leads)
        await asyncio.sleep(1.5)
        assert first.leading != second.leading
        leader = first if first.leading else second
        await pool.execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l"
            " WHERE l.locktype = 'advisory' AND l.granted"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

        async def lost() -> bool:
            return not leader.leading

        async with pool.acquire() as conn, conn.transaction():
            await bump(conn, "after")
        await until(lambda: all_published(pool))
        await until(one_leads)
    assert len(await read_all(config, COUNTERS)) >= 1


async def test_an_event_is_on_its_way_within_a_tenth_of_the_poll(
    config: Settings, pool: db.Pool
) -> None:
    """NOTIFY wakes the relay: without it, half of these would wait for the next poll."""
    async with running(Relay(config, TOPICS).run):
        async with pool.acquire() as conn, conn.transaction():
            await bump(conn, "warm-up")
        await until(lambda: all_published(pool))
        waits = []
        for number in range(10):
            async with pool.acquire() as conn, conn.transaction():
                await bump(conn, f"counter-{number}")
            started = asyncio.get_running_loop().time()
            await until(lambda: all_published(pool))
            waits.append(asyncio.get_running_loop().time() - started)
            await asyncio.sleep(0.03)
    assert sorted(waits)[5] < 0.5


async def test_a_relay_killed_between_send_and_mark_sends_again_with_the_same_id(
    config: Settings, pool: db.Pool
) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await bump(conn, "twice")

    async with running(Relay(config, TOPICS).run):
        await until(lambda: all_published(pool))
    # As if it had died before the mark was committed.
    await pool.execute("UPDATE outbox SET published_at = NULL")
    async with running(Relay(config, TOPICS).run):
        await until(lambda: all_published(pool))

    ids = [from_message(r.value, r.headers).id for r in await read_all(config, COUNTERS)]
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_a_log_that_is_behind_its_watermark_is_told_everything_again(
    config: Settings, pool: db.Pool
) -> None:
    async with running(Relay(config, TOPICS).run):
        for number in range(5):
            async with pool.acquire() as conn, conn.transaction():
                await bump(conn, f"state-{number}")
            async with pool.acquire() as conn, conn.transaction():
                await bump(conn, f"state-{number}")
            async with pool.acquire() as conn, conn.transaction():
                await bump(conn, f"fact-{number}", fact=True)
        await until(lambda: all_published(pool))
        before = len(await read_all(config, COUNTERS)), len(await read_all(config, BUMPS))
        assert before == (10, 5)
        # The broker never had that much: what it has now is not what it acknowledged.
        await pool.execute("UPDATE outbox_watermark SET next_offset = next_offset + 1000")

        async def again() -> bool:
            epochs = await pool.fetch("SELECT topic FROM outbox_log WHERE log_epoch = 1")
            return len(epochs) == 2 and await all_published(pool)

        await until(again)

    states = await read_all(config, COUNTERS)
    facts = await read_all(config, BUMPS)
    # Of a state only the newest, of facts all that is kept; under a new epoch.
    assert [orjson.loads(r.value)["version"] for r in states[10:]] == [2] * 5 or len(states) == 15
    assert len(facts) == 10
    assert sorted(from_message(r.value, r.headers).log_epoch for r in states) == [0] * 10 + [1] * 5


async def test_a_topic_that_came_back_with_fewer_partitions_is_told_everything_again(
    config: Settings, pool: db.Pool
) -> None:
    """The end of a partition that is no more is never told: the relay must not wait for it."""
    async with running(Relay(config, TOPICS).run):
        async with pool.acquire() as conn, conn.transaction():
            await bump(conn, "state")
        await until(lambda: all_published(pool))
    await pool.execute(
        "INSERT INTO outbox_watermark (topic, partition, next_offset) VALUES ($1, 7, 40)",
        COUNTERS.name,
    )
    async with pool.acquire() as conn, conn.transaction():
        await bump(conn, "another")
    async with running(Relay(config, TOPICS).run):
        await until(lambda: all_published(pool), 8)
    assert await pool.fetchval("SELECT log_epoch FROM outbox_log WHERE topic = $1", COUNTERS.name)
    counters = [orjson.loads(r.value)["counter"] for r in await read_all(config, COUNTERS)]
    assert sorted(counters) == ["another", "state", "state"]


async def test_housekeeping_forgets_old_facts_and_superseded_states_only(
    config: Settings, pool: db.Pool
) -> None:
    async with pool.acquire() as conn, conn.transaction():
        for _ in range(3):
            await bump(conn, "state")
        await bump(conn, "fact", fact=True)
    await pool.execute("UPDATE outbox SET published_at = now() - interval '30 days'")
    await pool.execute(
        "INSERT INTO inbox (consumer, event_id, processed_at)"
        " VALUES ('old', gen_random_uuid(), now() - interval '60 days'),"
        " ('new', gen_random_uuid(), now())"
    )
    connection = await db.connect(config.database_url.get_secret_value(), name="test")
    try:
        await Relay(config, TOPICS)._keep_house(connection)
    finally:
        await connection.close()
    left = await pool.fetch("SELECT key, payload FROM outbox")
    assert [(row["key"], row["payload"]["version"]) for row in left] == [("state", 3)]
    assert await pool.fetchval("SELECT string_agg(consumer, ',') FROM inbox") == "new"


async def test_a_payload_too_large_for_a_message_is_refused(pool: db.Pool) -> None:
    async with pool.acquire() as conn:
        with pytest.raises(ValueError, match="too large"):
            await outbox.add(
                conn, topic=BUMPS, key="k", type="t", data={"text": "x" * 1_000_000}, now=NOW
            )
        assert await conn.fetchval("SELECT count(*) FROM outbox") == 0


async def test_the_outbox_row_rolls_back_with_what_it_tells(pool: db.Pool) -> None:
    async with pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await bump(conn, "gone")
        await transaction.rollback()
        assert await conn.fetchval("SELECT count(*) FROM outbox") == 0
        assert await conn.fetchval("SELECT count(*) FROM counter") == 0
