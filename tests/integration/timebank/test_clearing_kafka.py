"""Two time banks with nothing between them but a real broker: they converge by themselves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bank_world import settings_for
from clearing_world import Federation, two_time_banks

from common import outbox
from common.clock import utc_now
from common.consumer import Consumer
from common.outbox import Relay
from common.worker import keep_running
from timebank import consumers
from timebank.app import topics_of
from timebank.clearing.service import keep_clearing
from timebank.events import CLEARING
from timebank.reconciliation import service as reconciliation


@asynccontextmanager
async def working(federation: Federation, **kafka: Any) -> AsyncIterator[None]:
    """The workers of both, as far as clearing goes; their topics and groups are their own."""
    tasks = []
    for shard, bank in zip(("west", "centre"), federation.each, strict=True):
        settings = settings_for(bank.dsn, shard=shard, **kafka)
        handlers = consumers.clearing_handlers(federation.vault, utc_now)
        group = settings.group(consumers.CLEARING_GROUP)
        works = (
            Relay(settings, topics_of(settings), utc_now, f"timebank.{shard}").run,
            Consumer(settings, bank.pool, group, handlers).run,
            partial(keep_clearing, bank.pool, federation.vault, utc_now),
        )
        tasks += [asyncio.create_task(keep_running(str(work), work)) for work in works]
    try:
        yield
    finally:
        for running in tasks:
            running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.05)


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
) -> AsyncIterator[Federation]:
    kafka = {
        "kafka_bootstrap": kafka_bootstrap,
        "kafka_idempotent": kafka_idempotent,
        "kafka_fetch_wait_ms": kafka_fetch_wait_ms,
        "kafka_topic_prefix": topic_prefix,
    }
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(two_time_banks(make_database, utc_now))
        await stack.enter_async_context(working(made, **kafka))
        yield made


async def test_cities_of_two_time_banks_agree_clear_and_take_back(federation: Federation) -> None:
    async def both_know_the_other() -> bool:
        known = [
            await bank.pool.fetchval("SELECT count(*) FROM peer_city") for bank in federation.each
        ]
        return known == [3, 3]

    await until(both_know_the_other)
    proposal = {
        "city_id": "nantes",
        "peer_city_id": "bourges",
        "limit_out_minutes": 600,
        "limit_in_minutes": 600,
    }
    proposed = await federation.steward("nantes").post("agreements", proposal)
    assert proposed.status_code == 201, proposed.text

    async def is_active() -> bool:
        await federation.steward("bourges").post("agreements/bourges/nantes/accept", {})
        (item,) = (await federation.steward("nantes").get("agreements", city_id="nantes")).json()[
            "items"
        ]
        return bool(item["state"] == "active")

    await until(is_active)
    sent = [await federation.send("anna", "nantes", "chloe", "bourges", 20) for _ in range(5)]

    async def are_settled() -> bool:
        states = [await federation.state("nantes", one["transfer_id"]) for one in sent]
        return states == ["settled"] * 5

    await until(are_settled)
    assert await federation.balance("bourges", "chloe") == 100
    path = f"clearing/transfers/{sent[0]['transfer_id']}/reversal"
    for city in ("nantes", "bourges"):
        assert (await federation.steward(city).post(path)).status_code == 200

    async def is_back() -> bool:
        return await federation.balance("nantes", "anna") == -80

    await until(is_back)
    assert await federation.balance("bourges", "chloe") == 80

    async def is_at_rest() -> bool:
        # What came back is settled when Bourges has heard that it arrived.
        waiting = "SELECT count(*) FROM clearing_out WHERE state = 'sent'"
        return [await bank.pool.fetchval(waiting) for bank in federation.each] == [0, 0]

    await until(is_at_rest)
    await federation.check_books()

    # Each asks the other where it stands, and finds the same.
    for bank in federation.each:
        hour = timedelta(hours=1)
        vault = federation.vault
        await reconciliation.ask_where_due(bank.pool, vault, utc_now, every=hour, overdue=hour)

    async def agree() -> bool:
        pairs = [
            (await federation.steward(city).get("reconciliation")).json()["items"]
            for city in ("nantes", "bourges")
        ]
        found = [(each["state"], each["position_minutes"]) for (each,) in pairs]
        return found == [("agrees", 80), ("agrees", -80)]

    await until(agree)


async def test_a_message_that_nobody_can_read_stops_nobody(federation: Federation) -> None:
    """It becomes a dead letter, which is told as well; what comes after it is heard and sent."""
    west = federation.bank("nantes")
    async with west.pool.acquire() as conn, conn.transaction():
        await outbox.add(
            conn,
            topic=CLEARING,
            key="poison",
            type="timebank.clearing.said.v1",
            data={"version": 1, "body": {"kind": "gift"}},
            now=utc_now(),
        )

    async def are_kept() -> bool:
        kept = [
            await bank.pool.fetchval("SELECT count(*) FROM dead_letter") for bank in federation.each
        ]
        return kept == [1, 1]

    await until(are_kept)

    async def all_is_published() -> bool:
        waiting = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
        return [await bank.pool.fetchval(waiting) for bank in federation.each] == [0, 0]

    await until(all_is_published)
