"""The worker as a real process: it hears identity, keeps the hours fresh, and tells of places."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from places_world import NANTES, Register

from common import kafka
from common.clock import utc_now
from common.events import Event, Topic, to_message
from common.ids import new_id
from places.settings import PlacesSettings

CITIES = Topic("identity.cities.v1", compacted=True)
READERS = Topic("identity.readers.v1", compacted=True)
PATIENCE_S = 60


@pytest.fixture
def settings(
    dsn: str,
    kafka_bootstrap: str,
    kafka_idempotent: bool,
    kafka_fetch_wait_ms: int,
    topic_prefix: str,
    unused_port: int,
) -> PlacesSettings:
    return PlacesSettings(
        database_url=dsn,  # type: ignore[arg-type]  # pydantic makes it a SecretStr
        worker_port=unused_port,
        kafka_bootstrap=kafka_bootstrap,
        kafka_idempotent=kafka_idempotent,
        kafka_fetch_wait_ms=kafka_fetch_wait_ms,
        kafka_topic_prefix=topic_prefix,
        token_issuer="https://identity.test",
        jwks_url="https://identity.test/jwks",
    )


async def start_worker(settings: PlacesSettings) -> asyncio.subprocess.Process:
    values = settings.model_dump(mode="json") | {
        "database_url": settings.database_url.get_secret_value(),
        "refresh_every_s": 0.2,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "places", "worker"),
        env={**os.environ, **{f"PLACES_{name.upper()}": str(v) for name, v in values.items()}},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with httpx.AsyncClient() as http:

        async def ready() -> bool:
            try:
                url = f"http://127.0.0.1:{settings.worker_port}/readyz"
                return (await http.get(url)).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(ready)
    return process


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            await asyncio.sleep(0.05)


async def send(settings: PlacesSettings, topic: Topic, type_: str, data: dict[str, Any]) -> Event:
    event = Event(
        id=new_id(),
        type=type_,
        source="/identity",
        subject=str(next(iter(data.values()))),
        time=utc_now(),
        data=data,
    )
    await send_again(settings, topic, event)
    return event


async def send_again(settings: PlacesSettings, topic: Topic, event: Event) -> None:
    producer = kafka.make_producer(settings)
    await producer.start()
    try:
        key, value, headers = to_message(event)
        await producer.send_and_wait(
            settings.prefixed(topic.name), value=value, key=key, headers=headers
        )
    finally:
        await producer.stop()


async def test_cities_and_readers_come_in_and_places_go_out(
    register: Register, settings: PlacesSettings
) -> None:
    await kafka.ensure_topics(settings, [CITIES, READERS])
    place = await register.operator.made("places", NANTES)
    # As if the worker had been away for weeks: what is due stands in the database.
    await register.pool.execute(
        "UPDATE place SET expires_at = $1", datetime(2026, 1, 1, tzinfo=UTC)
    )
    worker = await start_worker(settings)
    try:
        city = await send(
            settings,
            CITIES,
            "identity.city.changed.v1",
            {
                "city_id": "arles",
                "version": 2,
                "name": "Arles",
                "timezone": "Europe/Paris",
                "status": "active",
                "a_field_of_tomorrow": 1,
            },
        )
        reader_id = new_id()
        reader = {"reader_id": str(reader_id), "version": 1, "city_id": "arles"}
        await send(
            settings,
            READERS,
            "identity.reader.changed.v1",
            {**reader, "key_sha256": "00", "status": "active"},
        )

        async def heard() -> bool:
            row = await register.pool.fetchrow(
                "SELECT (SELECT version FROM city WHERE city_id = 'arles'),"
                " (SELECT city_id FROM reader WHERE reader_id = $1)",
                reader_id,
            )
            return tuple(row) == (2, "arles")

        await eventually(heard)

        async def refreshed() -> bool:
            version: int = await register.pool.fetchval("SELECT version FROM place")
            return version == 2

        await eventually(refreshed)
        worker.kill()
        await worker.wait()
        await register.operator.send("PATCH", f"places/{place['place_id']}", {"name": "Le Onze"})
        await send_again(settings, CITIES, city)
        worker = await start_worker(settings)

        async def all_told() -> bool:
            waiting = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
            return await register.pool.fetchval(waiting) == 0

        await eventually(all_told)
    finally:
        worker.terminate()
        await worker.wait()
    assert worker.returncode == 0
    told = await read_all(settings, "places.places.v1")
    assert [(data["version"], data["name"]) for data in told] == [
        (1, "Le Dix"),
        (2, "Le Dix"),
        (3, "Le Onze"),
    ]


async def read_all(settings: PlacesSettings, topic: str) -> list[dict[str, Any]]:
    """The data of every message, each version once, in order."""
    consumer = kafka.make_consumer(settings, topic)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(list(consumer.assignment()))
        found = []
        async with asyncio.timeout(PATIENCE_S):
            for partition, end in ends.items():
                await consumer.seek_to_beginning(partition)
                while await consumer.position(partition) < end:
                    records = await consumer.getmany(partition, timeout_ms=200)
                    found += [orjson.loads(each.value) for each in records.get(partition, [])]
        return sorted(
            {each["version"]: each for each in found}.values(), key=lambda d: d["version"]
        )
    finally:
        await consumer.stop()
