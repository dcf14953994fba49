"""What a broker remembers of a log that its city's database forgot."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bank_world import settings_for
from clearing_world import Federation, two_time_banks

from common import db
from common.outbox import Relay
from common.worker import keep_running
from timebank.app import topics_of
from timebank.log import recall, service
from timebank.settings import Settings


@pytest.fixture
def kafka(
    kafka_bootstrap: str, kafka_idempotent: bool, kafka_fetch_wait_ms: int, topic_prefix: str
) -> dict[str, Any]:
    return {
        "kafka_bootstrap": kafka_bootstrap,
        "kafka_idempotent": kafka_idempotent,
        "kafka_fetch_wait_ms": kafka_fetch_wait_ms,
        "kafka_topic_prefix": topic_prefix,
    }


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        await made.agree("nantes", "bourges")
        yield made


async def live(federation: Federation) -> None:
    await federation.send("anna", "nantes", "chloe", "bourges", 10)
    await federation.deliver()
    federation.clock.advance(minutes=10)
    for bank in federation.each:
        await service.work_once(bank.pool, federation.vault, federation.clock())


async def recalled(settings: Settings, pool: db.Pool) -> None:
    """As a worker does when it starts."""
    done = asyncio.Event()
    task = asyncio.create_task(recall.keep_recalled(settings, pool, done))
    try:
        async with asyncio.timeout(30):
            waiter = asyncio.create_task(done.wait())
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            await waiter
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_starts_on_an_old_database_signs_nothing(
    federation: Federation, kafka: dict[str, Any]
) -> None:
    nantes = federation.bank("nantes")
    settings = settings_for(nantes.dsn, **kafka)
    relay = asyncio.create_task(
        keep_running("relay", Relay(settings, topics_of(settings), federation.clock).run)
    )
    try:
        # Nothing was ever signed: a new time bank begins.
        await recalled(settings, nantes.pool)
        await live(federation)
        await live(federation)
        async with asyncio.timeout(30):
            unsent = partial(
                nantes.pool.fetchval, "SELECT count(*) FROM outbox WHERE published_at IS NULL"
            )
            while await unsent():
                await asyncio.sleep(0.05)
    finally:
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
    halted = "SELECT halted FROM log_head WHERE city_id = 'nantes'"
    await recalled(settings, nantes.pool)
    assert await nantes.pool.fetchval(halted) is None
    owner = await db.connect(nantes.dsn, name="test-restore")
    try:
        await owner.execute("SET session_replication_role = replica")
        for table in ("log_entry", "log_checkpoint", "log_account"):
            await owner.execute(f"DELETE FROM {table}")
        await owner.execute("UPDATE log_head SET size = 0, roots = '{}'")
    finally:
        await owner.close()
    await recalled(settings, nantes.pool)
    assert "4 entries were signed, and only 0 are here" in await nantes.pool.fetchval(halted)
    await live(federation)
    assert await nantes.pool.fetchval("SELECT count(*) FROM log_checkpoint") == 0
