"""A city around the access service: it publishes the states that the other services would publish,
runs the worker's tasks, and taps at the API."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer
from fastapi import FastAPI

import access
from access.app import create_app
from access.consumers import HANDLERS
from access.events import (
    CARDS,
    HISTORY_GROUP,
    MEMBERS,
    PLACES,
    PROJECTED,
    PROJECTION_GROUP,
    READERS,
    STANDINGS,
)
from access.projector import Projector
from access.redis_pipe import RedisPipe
from access.settings import Settings
from access.tap_relay import TapRelay
from common import kafka
from common.auth import Principal
from common.consumer import Consumer, dead_letters
from common.db import Pool
from common.events import Event, Topic, to_message
from common.ids import new_id
from common.outbox import Relay
from common.problems import unauthenticated
from common.worker import keep_running
from copass_tap import ntag424
from copass_tap.credentials import credential_hash
from copass_tap.ntag424 import KEY_FILE_READ, KeySet, Picc

MIGRATIONS = Path(access.__file__).parent / "migrations"
PEPPER = "p" * 32
CARD_KEYS = KeySet(bytes(16), bytes([7] * 16))
SECRET = "s" * 32
CITY = "nantes"


def make_settings(
    dsn: str, redis_url: str, bootstrap: str, prefix: str, *, idempotent: bool, wait_ms: int
) -> Settings:
    os.environ["ACCESS_TEST_CARD_KEYS"] = json.dumps(
        [{"meta": CARD_KEYS.meta.hex(), "master": CARD_KEYS.master.hex()}]
    )
    return Settings(
        database_url=dsn,
        redis_url=redis_url,
        card_pepper=PEPPER,
        card_keys="env:ACCESS_TEST_CARD_KEYS",
        kafka_bootstrap=bootstrap,
        kafka_idempotent=idempotent,
        kafka_fetch_wait_ms=wait_ms,
        kafka_topic_prefix=prefix,
        token_issuer="https://issuer.test",
        jwks_url="https://issuer.test/jwks",
        key_secret="k" * 32,
    )


def new() -> str:
    return str(new_id())


class Tokens:
    """Takes `<sub>:<city>:<role>,<role>` for a token."""

    async def verify(self, token: str) -> Principal:
        parts = token.split(":")
        if len(parts) != 3:
            raise unauthenticated()
        sub, city, roles = parts
        return Principal(sub, "member", city or None, frozenset(roles.split(",")))


STEWARD = {"authorization": f"Bearer {new()}:{CITY}:member,steward"}
STRANGER = {"authorization": f"Bearer {new()}:rennes:member,steward"}


@dataclass
class World:
    """One place with a public door, its reader, and as many members with cards as are asked for."""

    settings: Settings
    pool: Pool
    pipe: RedisPipe
    app: FastAPI
    http: httpx.AsyncClient
    place_id: str = field(default_factory=new)
    door_id: str = field(default_factory=new)
    home_door_id: str = field(default_factory=new)
    reader_id: str = field(default_factory=new)
    producer: AIOKafkaProducer | None = None

    # --- what the other services publish ----------------------------------------------------------

    async def publish(
        self,
        *states: tuple[Topic, str, dict[str, Any] | bytes | None],
        epoch: int = 0,
        source: str = "/test",
    ) -> None:
        """Put states on their topics, in this order."""
        if self.producer is None:
            await kafka.ensure_topics(self.settings, PROJECTED)
            self.producer = kafka.make_producer(self.settings)
            await self.producer.start()
        for topic, key, data in states:
            event = Event(
                id=new_id(),
                type="test",
                source=source,
                subject=key,
                time=datetime.now(UTC),
                data=data if isinstance(data, dict) else {},
                log_epoch=epoch,
            )
            raw_key, value, headers = to_message(event)
            await self.producer.send(
                self.settings.prefixed(topic.name),
                key=raw_key,
                value=value if isinstance(data, dict) else data,
                headers=headers,
            )
        await self.producer.flush()

    async def stop_publishing(self) -> None:
        if self.producer is not None:
            await kafka.stop(self.producer)
            self.producer = None

    def place(self, version: int = 1, **changes: Any) -> tuple[Topic, str, dict[str, Any]]:
        now = datetime.now(UTC)
        start = int(now.timestamp())
        door = {
            "name": "Entrée",
            "min_assurance": 1,
            "unlock_ms": 3000,
            "readers": [self.reader_id],
        }
        data = {
            "place_id": self.place_id,
            "version": version,
            "city_id": CITY,
            "name": "La Cantine",
            "status": "in_network",
            "timezone": "Europe/Paris",
            "capacity": 10,
            "anti_passback": "off",
            "computed_at": now.isoformat(),
            "expires_at": (now + timedelta(days=14)).isoformat(),
            "doors": [
                {
                    **door,
                    "door_id": self.door_id,
                    "kind": "public",
                    "publics": ["network"],
                    "open": [[start - 7200, start + 7200]],
                },
                {
                    **door,
                    "door_id": self.home_door_id,
                    "kind": "private",
                    "publics": [],
                    "open": [],
                },
            ],
            **changes,
        }
        return PLACES, self.place_id, data

    def reader(self, version: int = 1, **changes: Any) -> tuple[Topic, str, dict[str, Any]]:
        data = {
            "reader_id": self.reader_id,
            "version": version,
            "city_id": CITY,
            "key_sha256": hashlib.sha256(SECRET.encode()).hexdigest(),
            "status": "active",
            **changes,
        }
        return READERS, data["reader_id"], data

    async def knows(self, *people: "Person") -> None:
        """Wait until all that was published of them is known: topics keep no order among them."""
        keys = [
            key
            for person in people
            for key in (
                person.card_key,
                f"member:{person.member_id}",
                f"standing:{person.member_id}",
            )
        ]

        async def has_all() -> bool:
            return bool(await self.pipe.call("EXISTS", *keys) == len(keys))

        await until(has_all)

    async def ready(self) -> None:
        await until(lambda: self.is_ready(), 30)

    async def is_ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200

    # --- taps -------------------------------------------------------------------------------------

    def body(self, uid: str, **changes: Any) -> dict[str, Any]:
        return {
            "tap_id": new(),
            "door_id": self.door_id,
            "credential": {"type": "uid", "uid": uid},
            "direction": "in",
            "occurred_at": datetime.now(UTC).isoformat(),
            "mode": "live",
            **changes,
        }

    async def post(self, body: dict[str, Any], *, key: str | None = None) -> httpx.Response:
        credential = key or f"{self.reader_id}.{SECRET}"
        return await self.http.post(
            "/v1/taps", json=body, headers={"authorization": f"Bearer {credential}"}
        )

    async def tap(self, uid: str, **changes: Any) -> dict[str, Any]:
        response = await self.post(self.body(uid, **changes))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def reason(self, uid: str, **changes: Any) -> str:
        return str((await self.tap(uid, **changes))["reason"])

    async def history(self) -> list[dict[str, Any]]:
        rows = await self.pool.fetch("SELECT * FROM tap ORDER BY decision_id")
        return [dict(row) for row in rows]

    async def stream_length(self) -> int:
        return int(await self.pipe.call("XLEN", "taps"))

    # --- the worker -------------------------------------------------------------------------------

    def projector(self, **changes: Any) -> Projector:
        return Projector(self.settings, self.pool, **changes)

    def relay(self, *, resend_after_s: float = 10.0) -> TapRelay:
        relay = TapRelay(self.settings, self.pool)
        relay.resend_after_s = resend_after_s
        return relay

    def history_consumer(self) -> Consumer:
        return Consumer(self.settings, self.pool, HISTORY_GROUP, HANDLERS)

    def outbox_relay(self) -> Relay:
        letters = [dead_letters(HISTORY_GROUP), dead_letters(PROJECTION_GROUP)]
        return Relay(self.settings, letters)


class Person:
    """A member with a card."""

    def __init__(self) -> None:
        self.member_id = new()
        self.card_id = new()
        self.uid = "04" + new().replace("-", "")[-12:].upper()

    @property
    def card_key(self) -> str:
        return f"card:{credential_hash(PEPPER.encode(), 'uid', self.uid)}"

    def member(self, version: int = 1, **changes: Any) -> tuple[Topic, str, dict[str, Any]]:
        data = {
            "member_id": self.member_id,
            "version": version,
            "city_id": CITY,
            "status": "active",
            "roles": ["member"],
            "places": {},
            **changes,
        }
        return MEMBERS, self.member_id, data

    def card(self, version: int = 1, **changes: Any) -> tuple[Topic, str, dict[str, Any]]:
        data = {
            "card_id": self.card_id,
            "version": version,
            "credential_hash": credential_hash(PEPPER.encode(), "uid", self.uid),
            "credential_type": "uid",
            "member_id": self.member_id,
            "status": "active",
            **changes,
        }
        return CARDS, data["card_id"], data

    def standing(self, standing: str, version: int = 1) -> tuple[Topic, str, dict[str, Any]]:
        data = {
            "member_id": self.member_id,
            "version": version,
            "city_id": CITY,
            "standing": standing,
        }
        return STANDINGS, self.member_id, data

    def states(self) -> list[tuple[Topic, str, dict[str, Any]]]:
        return [self.member(), self.card(), self.standing("good")]


class Holder(Person):
    """A member with a cryptographic card."""

    @property
    def card_key(self) -> str:
        return f"card:{self.credential_hash}"

    @property
    def credential_hash(self) -> str:
        return credential_hash(PEPPER.encode(), "ntag424", self.uid)

    def card(self, version: int = 1, **changes: Any) -> tuple[Topic, str, dict[str, Any]]:
        changes = {
            "credential_hash": self.credential_hash,
            "credential_type": "ntag424",
            **changes,
        }
        return super().card(version, **changes)

    def message(self, counter: int, keys: KeySet = CARD_KEYS) -> dict[str, str]:
        """What the card writes at its reading number `counter`."""
        uid = bytes.fromhex(self.uid)
        plain = b"\xc7" + uid + counter.to_bytes(3, "little") + b"noise"
        mac = ntag424.session_mac(keys.key_of(uid, KEY_FILE_READ), Picc(uid, counter))
        picc_data = ntag424.encrypt(keys.meta, plain)
        return {"type": "ntag424", "picc_data": picc_data.hex(), "mac": mac.hex()}


@asynccontextmanager
async def world_of(settings: Settings, pool: Pool) -> AsyncIterator[World]:
    app = create_app(settings)
    pipe = RedisPipe(settings.redis_url.get_secret_value())
    async with app.router.lifespan_context(app):
        app.state.verifier = Tokens()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://access") as http:
            world = World(settings, pool, pipe, app, http)
            yield world
            await world.stop_publishing()
    await pipe.close()


@asynccontextmanager
async def running(*tasks: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run tasks as a worker does: for ever, again when they fail."""
    started = [asyncio.create_task(keep_running(str(task), task)) for task in tasks]
    try:
        yield
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    """Wait for an async condition. Fails the test when it does not come."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


def problem(response: httpx.Response) -> tuple[int, str, list[str]]:
    """Status, code and fields of a problem, checked to be one."""
    document = json.loads(response.content)
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == response.status_code
    return (
        response.status_code,
        document["code"],
        [error["field"] for error in document["errors"]],
    )
