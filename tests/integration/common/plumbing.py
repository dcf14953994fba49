"""A service of nothing but plumbing: counters that are bumped, and a consumer that follows them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from aiokafka import ConsumerRecord

from common import db, kafka, outbox
from common.db import Conn
from common.events import Event, Topic
from common.settings import ServiceSettings

COUNTERS = Topic("test.counters.v1", compacted=True)
BUMPS = Topic("test.bumps.v1", compacted=False)
MIGRATIONS = Path(__file__).parent / "plumbing_migrations"
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)


class Settings(ServiceSettings):
    service: ClassVar[str] = "plumbing"


def settings(dsn: str, bootstrap: str, prefix: str, *, idempotent: bool, wait_ms: int) -> Settings:
    return Settings(
        port=1,
        worker_port=2,
        database_url=dsn,
        kafka_bootstrap=bootstrap,
        kafka_idempotent=idempotent,
        kafka_fetch_wait_ms=wait_ms,
        kafka_topic_prefix=prefix,
        token_issuer="https://issuer.test",
        jwks_url="https://issuer.test/jwks",
    )


async def bump(conn: Conn, counter: str, *, fact: bool = False) -> int:
    """One more, in the transaction of `conn`, with its event."""
    version: int = await conn.fetchval(
        "INSERT INTO counter (id, version) VALUES ($1, 1)"
        " ON CONFLICT (id) DO UPDATE SET version = counter.version + 1 RETURNING version",
        counter,
    )
    await outbox.add(
        conn,
        topic=BUMPS if fact else COUNTERS,
        key=counter,
        type="test.counter.changed.v1",
        data={"counter": counter, "version": version},
        now=NOW,
    )
    return version


async def follow(conn: Conn, event: Event) -> None:
    """Remember each event applied, with its version."""
    if event.data.get("poison"):
        raise ValueError("poison")
    await conn.execute(
        "INSERT INTO followed (event_id, counter, version) VALUES ($1, $2, $3)",
        event.id,
        event.data["counter"],
        event.data["version"],
    )


@asynccontextmanager
async def running(*tasks: object) -> AsyncIterator[None]:
    """Run coroutine functions in the background, restarted when they fail, as a worker does."""
    from common.worker import keep_running

    started = [asyncio.create_task(keep_running(str(task), task)) for task in tasks]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def until(condition: object, timeout_s: float = 30.0) -> None:
    """Wait for an async condition. Fails the test when it does not come."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # type: ignore[operator]
            await asyncio.sleep(0.05)


async def read_all(config: Settings, topic: Topic) -> list[ConsumerRecord]:
    """Every message of a topic, in order within each partition."""
    consumer = kafka.make_consumer(config, topic.name)
    await consumer.start()
    records: list[ConsumerRecord] = []
    try:
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        async with asyncio.timeout(30):
            while any([await consumer.position(p) < end for p, end in ends.items()]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    records.extend(batch)
    finally:
        await kafka.stop(consumer)
    return records


@asynccontextmanager
async def pool_of(dsn: str, max_size: int = 20) -> AsyncIterator[db.Pool]:
    pool = await db.create_pool(dsn, name="test", max_size=max_size)
    try:
        yield pool
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await pool.close()
