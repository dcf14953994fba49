"""From the stream to the history: every answered tap exactly once, whatever dies on the way."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg
from access_world import STEWARD, STRANGER, Person, World, new, problem, running, until

from access import partitions, retention, store
from access.consumers import record_taps
from access.events import TAPS
from access.store import TapRow
from access.tap_relay import TapRelay, read_entries, tap_event
from common import kafka
from common.db import Pool
from common.events import from_message, to_message
from common.ids import new_id


async def tap_many(world: World, count: int) -> set[str]:
    """Taps of nobody in particular. Returns the decisions' ids."""
    answers = await asyncio.gather(*(world.tap("04AABBCCDDEEFF") for _ in range(count)))
    return {answer["decision_id"] for answer in answers}


async def ids(world: World) -> list[str]:
    return [str(row["decision_id"]) for row in await world.history()]


async def settled(world: World, decisions: set[str]) -> None:
    """Wait until the history has them and the stream is empty; then check: once each."""

    async def is_empty() -> bool:
        return await world.stream_length() == 0

    await until(is_empty, 30)
    found = await ids(world)
    assert set(found) == decisions
    assert len(found) == len(decisions)


async def test_a_tap_reaches_the_history_and_leaves_the_stream(open_world: World) -> None:
    anne = Person()
    await open_world.publish(*anne.states())
    async with running(open_world.relay().run, open_world.history_consumer().run):

        async def is_in() -> bool:
            return await open_world.reason(anne.uid) == "network_member"

        await until(is_in)

        async def is_empty() -> bool:
            return await open_world.stream_length() == 0

        await until(is_empty)
    row = (await open_world.history())[-1]
    assert (row["decision"], row["reason"]) == ("grant", "network_member")
    assert row["member_id"] == UUID(anne.member_id)
    assert row["card_id"] == UUID(anne.card_id)
    assert row["place_id"] == UUID(open_world.place_id)
    assert row["city_id"] == "nantes"
    assert row["stream_id"].endswith("-0")


async def test_taps_wait_in_the_stream_while_the_history_is_away(open_world: World) -> None:
    async with running(open_world.relay().run):
        decisions = await tap_many(open_world, 20)
        await asyncio.sleep(1.5)
        assert await open_world.stream_length() == 20
    async with running(open_world.relay().run, open_world.history_consumer().run):
        await settled(open_world, decisions)


async def test_killed_between_send_and_confirm_the_history_has_each_tap_once(
    open_world: World,
) -> None:
    decisions = await tap_many(open_world, 50)
    for _ in range(3):  # each life sends all of them, and dies before it confirms any
        sent = asyncio.Event()

        class Dying(TapRelay):
            async def send(self, producer, entries, sent=sent):  # type: ignore[no-untyped-def]
                await super().send(producer, entries)
                sent.set()

            async def confirm(self, pipe):  # type: ignore[no-untyped-def]
                await asyncio.sleep(60)

        life = asyncio.create_task(Dying(open_world.settings, open_world.pool).run())
        async with asyncio.timeout(20):
            await sent.wait()
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
    assert await open_world.stream_length() == 50
    async with running(open_world.relay().run, open_world.history_consumer().run):
        await settled(open_world, decisions)


async def test_what_the_broker_lost_is_sent_again(open_world: World) -> None:
    decisions = await tap_many(open_world, 10)
    attempts = 0

    class Losing(TapRelay):
        async def send(self, producer, entries):  # type: ignore[no-untyped-def]
            nonlocal attempts
            attempts += 1
            if attempts > 1:  # the first time the broker says yes, and forgets
                await super().send(producer, entries)

    await kafka.ensure_topics(open_world.settings, [TAPS])
    relay = Losing(open_world.settings, open_world.pool)
    relay.resend_after_s = 1.0
    async with running(relay.run, open_world.history_consumer().run):
        await settled(open_world, decisions)
    assert attempts == 2


async def test_the_same_message_twice_is_one_row(open_world: World) -> None:
    decisions = await tap_many(open_world, 5)
    relay = open_world.relay()
    producer = kafka.make_producer(open_world.settings)
    await kafka.ensure_topics(open_world.settings, [TAPS])
    await producer.start()
    entries = read_entries(await open_world.pipe.call("XRANGE", "taps", "-", "+"))
    for _ in range(3):
        await relay.send(producer, entries)
    await kafka.stop(producer)
    async with running(relay.run, open_world.history_consumer().run):
        await settled(open_world, decisions)


# --- reading it -----------------------------------------------------------------------------------


async def record(world: World, decisions: set[str]) -> None:
    """Put all taps into the history, with the same messages but no broker between."""
    entries = read_entries(await world.pipe.call("XRANGE", "taps", "-", "+"))
    messages = [to_message(tap_event(entry)) for entry in entries]
    events = [from_message(value, headers) for _, value, headers in messages]
    async with world.pool.acquire() as conn, conn.transaction():
        await record_taps(conn, events)
    assert set(await ids(world)) >= decisions


async def test_stewards_page_through_their_citys_taps(open_world: World) -> None:
    decisions = await tap_many(open_world, 7)
    await record(open_world, decisions)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(4):
        params = {"place_id": open_world.place_id, "limit": "2"}
        if cursor:
            params["cursor"] = cursor
        page = (await open_world.http.get("/v1/taps", params=params, headers=STEWARD)).json()
        seen += [item["decision_id"] for item in page["items"]]
        cursor = page["next"]
    assert cursor is None
    assert seen == sorted(decisions, reverse=True)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    empty = await open_world.http.get("/v1/taps", params={"since": later}, headers=STEWARD)
    assert empty.json() == {"items": [], "next": None}
    foreign = await open_world.http.get(
        "/v1/taps", params={"place_id": open_world.place_id}, headers=STRANGER
    )
    assert foreign.json()["items"] == []


async def test_members_see_their_own_taps_and_no_others(open_world: World) -> None:
    anne = Person()
    await open_world.publish(*anne.states())

    async def is_in() -> bool:
        return await open_world.reason(anne.uid) == "network_member"

    await until(is_in)
    others = await tap_many(open_world, 2)
    await record(open_world, others)
    me = {"authorization": f"Bearer {anne.member_id}:nantes:member"}
    mine = await open_world.http.get("/v1/taps", params={"member_id": anne.member_id}, headers=me)
    assert {item["member_id"] for item in mine.json()["items"]} == {anne.member_id}
    for params in ({}, {"member_id": new()}, {"place_id": open_world.place_id}):
        refused = await open_world.http.get("/v1/taps", params=params, headers=me)
        assert problem(refused)[:2] == (403, "forbidden")
    assert (await open_world.http.get("/v1/taps")).status_code == 401


# --- forgetting -----------------------------------------------------------------------------------


async def test_after_thirty_days_only_counts_are_left(open_world: World) -> None:
    decisions = await tap_many(open_world, 5)
    await record(open_world, decisions)
    now = datetime.now(UTC)
    await retention.make_days(open_world.pool, now)  # moves what came before the day's table
    assert len(await open_world.history()) == 5
    assert await retention.anonymise(open_world.pool, now + timedelta(days=29)) == 0
    another = replace(TapRow(**(await open_world.history())[0]), decision_id=new_id())
    async with open_world.pool.acquire() as conn:
        await store.insert_taps(conn, [another])  # into the table of its day
    assert await open_world.pool.fetchval("SELECT count(*) FROM tap_other") == 0
    assert await retention.anonymise(open_world.pool, now + timedelta(days=31)) == 6
    assert await open_world.history() == []
    rows = await open_world.pool.fetch("SELECT * FROM tap_daily_count")
    assert sum(row["taps"] for row in rows) == 6
    assert {row["reason"] for row in rows} == {"unknown_credential"}
    # The table of the day is gone with them, those of later days are not.
    days = await open_world.pool.fetch("SELECT inhrelid::regclass::text AS name FROM pg_inherits")
    names = {row["name"] for row in days}
    assert f"tap_{now:%Y_%m_%d}" not in names
    assert f"tap_{now + timedelta(days=7):%Y_%m_%d}" in names
    assert await retention.anonymise(open_world.pool, now + timedelta(days=31)) == 0
    # A day that is dropped waits for who reads the history, and never they for it in a circle.
    pool = open_world.pool
    async with pool.acquire() as reader, reader.transaction():
        await reader.execute("LOCK TABLE ONLY tap IN ACCESS SHARE MODE")
        dropping = asyncio.create_task(drop(pool, (now + timedelta(days=7)).date()))
        while not await pool.fetchval(
            "SELECT true FROM pg_locks WHERE relation = 'tap'::regclass AND NOT granted"
        ):
            assert not dropping.done()
            await asyncio.sleep(0.01)
        assert await reader.fetchval("SELECT count(*) FROM tap") == 0
    with suppress(asyncpg.LockNotAvailableError):  # on a slow machine, and tried again in an hour
        assert await dropping == 0


async def drop(pool: Pool, day: date) -> int:
    async with pool.acquire() as conn, conn.transaction():
        dropped = await partitions.count_and_drop(conn, day)
        # A day has millions of taps: moving or counting them takes longer than a request may.
        assert await conn.fetchval("SHOW statement_timeout") == "5min"
        return dropped
