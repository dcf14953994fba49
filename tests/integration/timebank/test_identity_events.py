"""Cities and members as identity tells of them: in any order, more than once, and late."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer

from common import db, kafka
from common.clock import utc_now
from common.consumer import Consumer
from common.events import Event, Topic, to_message
from common.ids import new_id
from common.outbox import Relay
from timebank import consumers
from timebank.events import PUBLISHED
from timebank.settings import Settings


def city(city_id: str, version: int = 1, status: str = "active") -> Event:
    return Event(
        id=new_id(),
        type="identity.city.changed.v1",
        source="/identity",
        subject=city_id,
        time=utc_now(),
        data={
            "city_id": city_id,
            "version": version,
            "name": city_id.title(),
            "timezone": "Europe/Paris",
            "status": status,
        },
    )


def member(
    member_id: UUID, city_id: str = "nantes", version: int = 1, status: str = "active"
) -> Event:
    return Event(
        id=new_id(),
        type="identity.member.changed.v1",
        source="/identity",
        subject=str(member_id),
        time=utc_now(),
        data={
            "member_id": str(member_id),
            "version": version,
            "city_id": city_id,
            "status": status,
            "roles": ["member"],
            "places": {},
        },
    )


@pytest.fixture
async def pool(dsn: str) -> Any:
    async with await db.create_pool(dsn, name="test", max_size=4) as pool:
        yield pool


async def handle(pool: db.Pool, *events: Event) -> None:
    handlers = consumers.handlers(utc_now)
    for event in events:
        topic = consumers.CITIES if "city.changed" in event.type else consumers.MEMBERS
        async with pool.acquire() as conn, conn.transaction():
            await handlers[topic](conn, event)


async def accounts(pool: db.Pool) -> list[tuple[str, str, int | None, str]]:
    rows = await pool.fetch("SELECT city_id, kind, floor_minutes, status FROM account")
    return sorted(tuple(row) for row in rows)


async def standings(pool: db.Pool) -> list[dict[str, Any]]:
    rows = await pool.fetch(
        "SELECT payload FROM outbox WHERE topic = 'timebank.standings.v1' ORDER BY id"
    )
    return [row["payload"] for row in rows]


COMMON = [("nantes", "commons", None, "open"), ("nantes", "solidarity_fund", 0, "open")]
MEMBERS = ("nantes", "member", -600, "open")


async def test_a_city_opens_a_book_with_its_commons(pool: db.Pool) -> None:
    await handle(pool, city("nantes"))
    assert await accounts(pool) == COMMON


async def test_a_member_gets_an_account_and_good_standing(pool: db.Pool) -> None:
    anna = new_id()
    await handle(pool, city("nantes"), member(anna))
    assert await accounts(pool) == sorted([*COMMON, MEMBERS])
    assert await standings(pool) == [
        {"member_id": str(anna), "version": 1, "city_id": "nantes", "standing": "good"}
    ]


async def test_a_member_may_be_heard_of_before_the_city(pool: db.Pool) -> None:
    await handle(pool, member(new_id()), city("nantes"))
    assert await accounts(pool) == sorted([*COMMON, MEMBERS])
    assert await pool.fetchval("SELECT city_version FROM book") == 1


async def test_both_at_once_open_one_book(pool: db.Pool) -> None:
    events = [city("nantes"), *(member(new_id()) for _ in range(3))]
    await asyncio.gather(*(handle(pool, event) for event in events))
    assert await accounts(pool) == sorted([*COMMON, *[MEMBERS] * 3])


async def test_a_message_seen_twice_or_late_changes_nothing(pool: db.Pool) -> None:
    anna = new_id()
    events = [city("nantes"), member(anna, version=1), member(anna, version=2, status="suspended")]
    await handle(pool, *events, *events, city("nantes", 3, "left"), city("nantes", 2))
    assert len(await accounts(pool)) == 3
    assert len(await standings(pool)) == 1
    assert await pool.fetchval("SELECT status FROM member") == "suspended"
    assert await pool.fetchval("SELECT status FROM book") == "left"


async def test_one_who_moves_has_an_account_in_the_new_city_too(pool: db.Pool) -> None:
    anna = new_id()
    await handle(pool, member(anna), member(anna, "bourges", 2))
    kinds = [(row[0], row[1]) for row in await accounts(pool)]
    assert ("nantes", "member") in kinds
    assert ("bourges", "member") in kinds
    told = await standings(pool)
    assert [(item["city_id"], item["version"]) for item in told] == [("nantes", 1), ("bourges", 2)]


async def test_the_accounts_of_one_who_was_erased_are_closed(pool: db.Pool) -> None:
    anna, unknown = new_id(), new_id()
    await handle(pool, member(anna), member(anna, version=2, status="erased"))
    await handle(pool, member(unknown, status="erased"))
    assert ("nantes", "member", -600, "closed") in await accounts(pool)
    assert len(await accounts(pool)) == 3


async def test_identity_is_heard_and_standings_are_told_over_kafka(
    dsn: str,
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
) -> None:
    settings = Settings(
        database_url=dsn,
        kafka_bootstrap=kafka_bootstrap,
        kafka_idempotent=kafka_idempotent,
        kafka_fetch_wait_ms=kafka_fetch_wait_ms,
        kafka_topic_prefix=topic_prefix,
        token_issuer="https://identity.test",
        jwks_url="https://identity.test/jwks",
    ).for_app()
    anna = new_id()
    async with await db.create_pool(
        settings.database_url.get_secret_value(), name="test", max_size=4
    ) as pool:
        consumer = Consumer(settings, pool, consumers.GROUP, consumers.handlers(utc_now))
        relay = Relay(settings, PUBLISHED)
        tasks = [asyncio.create_task(consumer.run()), asyncio.create_task(relay.run())]
        producer = kafka.make_producer(settings)
        told = AIOKafkaConsumer(
            settings.prefixed("timebank.standings.v1"),
            bootstrap_servers=kafka_bootstrap,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=kafka_fetch_wait_ms,
        )
        try:
            heard = [Topic(name, compacted=True) for name in consumers.handlers(utc_now)]
            await kafka.ensure_topics(settings, [*heard, *PUBLISHED])
            await producer.start()
            for event, topic in ((member(anna), "members"), (city("nantes"), "cities")):
                key, value, headers = to_message(event)
                name = settings.prefixed(f"identity.{topic}.v1")
                await producer.send_and_wait(name, value=value, key=key, headers=headers)
            await told.start()
            async with asyncio.timeout(30):
                message = await told.getone()
            assert message.key == str(anna).encode()
            assert b'"standing":"good"' in message.value
            async with asyncio.timeout(30):
                while await pool.fetchval("SELECT max(city_version) FROM book") != 1:
                    await asyncio.sleep(0.05)
        finally:
            await producer.stop()
            await told.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
