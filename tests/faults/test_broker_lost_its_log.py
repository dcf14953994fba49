"""A broker that comes back empty costs nothing: relay and consumers notice and converge."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "common"))

import plumbing

from common import db
from common.consumer import Consumer, dead_letters
from common.outbox import Relay
from copass import servers

pytestmark = pytest.mark.faults
LOSSES = 3 if os.environ.get("FULL") == "1" else 1
GROUP = "test.followers"
TOPICS = [plumbing.COUNTERS, plumbing.BUMPS, dead_letters(GROUP)]

StartServer = Callable[[servers.Server], Awaitable[servers.Running]]
MakeDatabase = Callable[[str, Path], Awaitable[str]]


async def counters_of(pool: db.Pool, table: str) -> dict[str, int]:
    rows = await pool.fetch(
        "SELECT id, version FROM counter"
        if table == "counter"
        else "SELECT counter AS id, max(version) AS version FROM followed GROUP BY counter"
    )
    return {row["id"]: row["version"] for row in rows}


async def test_a_broker_killed_with_its_log_while_events_flow(
    make_database: MakeDatabase,
    start_server: StartServer,
    server_folder: Path,
    unused_port: int,
) -> None:
    broker = await start_server(servers.tansu(server_folder, unused_port))
    # Two databases: the sender's, and the follower's, which must not lean on the sender's memory.
    sender_dsn = await make_database("plumbing", plumbing.MIGRATIONS)
    follower_dsn = await make_database("plumbing", plumbing.MIGRATIONS)
    bootstrap = f"127.0.0.1:{unused_port}"
    sender = plumbing.settings(sender_dsn, bootstrap, "", idempotent=False, wait_ms=10)
    follower = plumbing.settings(follower_dsn, bootstrap, "", idempotent=False, wait_ms=10)
    stop = asyncio.Event()

    async with (
        plumbing.pool_of(sender_dsn) as sending,
        plumbing.pool_of(follower_dsn) as following,
        plumbing.running(
            Relay(sender, TOPICS).run,
            Consumer(
                follower,
                following,
                GROUP,
                {plumbing.COUNTERS.name: plumbing.follow, plumbing.BUMPS.name: plumbing.follow},
            ).run,
        ),
    ):

        async def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                async with sending.acquire() as conn, conn.transaction():
                    await plumbing.bump(conn, f"state-{number % 30}")
                async with sending.acquire() as conn, conn.transaction():
                    await plumbing.bump(conn, f"fact-{number}", fact=True)
                await asyncio.sleep(0.005)

        writer = asyncio.create_task(write())
        for _ in range(LOSSES):
            await asyncio.sleep(2.5)
            broker.kill()
            await asyncio.sleep(1.0)
            await broker.start()
        await asyncio.sleep(1.0)
        stop.set()
        await writer

        async def converged() -> bool:
            return await counters_of(following, "followed") == await counters_of(sending, "counter")

        await plumbing.until(converged, 60)
        assert await sending.fetchval("SELECT max(log_epoch) FROM outbox_log") >= 1
        applied = await following.fetch("SELECT event_id FROM followed")
        assert len({row["event_id"] for row in applied}) == len(applied)
        assert not await following.fetchval("SELECT count(*) FROM dead_letter")


async def test_an_idle_relay_refills_a_broker_that_came_back_empty(
    make_database: MakeDatabase,
    start_server: StartServer,
    server_folder: Path,
    unused_port: int,
) -> None:
    """Nothing new is written: the relay must notice by itself."""
    broker = await start_server(servers.tansu(server_folder, unused_port))
    dsn = await make_database("plumbing", plumbing.MIGRATIONS)
    config = plumbing.settings(dsn, f"127.0.0.1:{unused_port}", "", idempotent=False, wait_ms=10)
    async with plumbing.pool_of(dsn) as pool, plumbing.running(Relay(config, TOPICS).run):
        for number in range(40):
            async with pool.acquire() as conn, conn.transaction():
                await plumbing.bump(conn, f"state-{number}")

        async def published() -> bool:
            return not await pool.fetchval("SELECT count(*) FROM outbox WHERE published_at IS NULL")

        await plumbing.until(published)
        broker.kill()
        await broker.start()

        async def refilled() -> bool:
            try:
                return len(await plumbing.read_all(config, plumbing.COUNTERS)) >= 40
            except Exception:
                return False

        await plumbing.until(refilled, 40)


async def test_a_quiet_relay_beside_a_loud_one_notices_that_the_log_was_lost(
    make_database: MakeDatabase,
    start_server: StartServer,
    server_folder: Path,
    unused_port: int,
) -> None:
    """Both publish to one topic, and what the loud one sends again reaches far beyond all that the
    quiet one had sent: the end of the log tells nothing."""
    broker = await start_server(servers.tansu(server_folder, unused_port))
    dsns = [await make_database("plumbing", plumbing.MIGRATIONS) for _ in range(2)]
    quiet, loud = (
        plumbing.settings(dsn, f"127.0.0.1:{unused_port}", "", idempotent=False, wait_ms=10)
        for dsn in dsns
    )
    async with plumbing.pool_of(dsns[0]) as one, plumbing.pool_of(dsns[1]) as other:
        for pool, prefix, count in ((one, "quiet", 1), (other, "loud", 200)):
            for number in range(count):
                async with pool.acquire() as conn, conn.transaction():
                    await plumbing.bump(conn, f"{prefix}-{number}")
        unpublished = "SELECT count(*) FROM outbox WHERE published_at IS NULL"

        async def published() -> bool:
            return [await pool.fetchval(unpublished) for pool in (one, other)] == [0, 0]

        async with plumbing.running(
            Relay(quiet, TOPICS, name="quiet").run, Relay(loud, TOPICS, name="loud").run
        ):
            await plumbing.until(published)
        broker.kill()
        await broker.start()
        # The loud one is the first to be back.
        async with plumbing.running(Relay(loud, TOPICS, name="loud").run):
            lost = "SELECT count(*) FROM outbox_log"

            async def refilled() -> bool:
                return bool(await other.fetchval(lost)) and await published()

            await plumbing.until(refilled)
        async with plumbing.running(Relay(quiet, TOPICS, name="quiet").run):

            async def is_there() -> bool:
                records = await plumbing.read_all(quiet, plumbing.COUNTERS)
                return any(record.key == b"quiet-0" for record in records)

            await plumbing.until(is_there, 20)
