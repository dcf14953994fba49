"""Tansu counts the last batch of records as one when it is asked for the end of a log."""

import asyncio

import asyncpg
from plumbing import BUMPS, COUNTERS, Settings, bump, follow, running, until

from common import db
from common.consumer import Consumer
from common.outbox import LOG_CHECK_S, Relay


async def test_many_events_sent_at_once_are_not_taken_for_a_lost_log(
    config: Settings, pool: db.Pool
) -> None:
    async def all_followed() -> bool:
        return bool(await pool.fetchval("SELECT count(*) = 40 FROM followed"))

    async with pool.acquire() as conn, conn.transaction():
        for number in range(40):
            await bump(conn, f"counter-{number % 2}")
    consumer = Consumer(config, pool, "followers", {COUNTERS.name: follow})
    async with running(Relay(config, [COUNTERS, BUMPS]).run, consumer.run):
        await until(all_followed)
        await asyncio.sleep(3 * LOG_CHECK_S)
    lost: list[asyncpg.Record] = await pool.fetch("SELECT topic FROM outbox_log")
    assert lost == []
    assert await pool.fetchval("SELECT count(*) FROM followed") == 40
