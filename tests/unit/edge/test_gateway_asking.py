"""What the gateway keeps for later, and which replies come too late."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from copass_edge.gateway import fabomatic
from copass_edge.gateway.asking import Asker
from copass_edge.gateway.broker import Board, Broker
from copass_edge.gateway.lanes import WAITING_MAX, Lanes
from copass_edge.gateway.rates import Rate
from copass_edge.gateway.settings import Fabomatic, Mqtt, Secret
from copass_edge.gateway.swipes import Point, Swipe, Swipes

DOOR = "11111111-1111-4111-8111-111111111111"
UID = "04A2B1C3D4E5F6"
INSIDE = Point("exit", DOOR, Secret("id.secret"), "out")
OUTSIDE = Point("door", DOOR, Secret("id.secret"))


class Access:
    """An access service in memory: away at will; keeps the bodies of taps."""

    def __init__(self) -> None:
        self.away = False
        self.delay_s = 0.0
        self.taps: list[dict[str, Any]] = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self.delay_s)
        if self.away:
            return httpx.Response(503, json={})
        self.taps.append(json.loads(request.content))
        return httpx.Response(
            200,
            json={
                "decision": "grant",
                "reason": "network_member",
                "unlock_ms": 3000,
                "message": {"fr": "Bienvenue.", "en": "Welcome."},
                "decision_id": "d1",
            },
        )


def asker_of(access: Access, http: httpx.AsyncClient, **changes: Any) -> Asker:
    return Asker(http, Rate(100, 100), Swipes(), **changes)


def http_of(access: Access) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(access.answer), base_url="http://access")


async def test_who_left_while_access_was_away_is_told_later_and_once() -> None:
    access = Access()
    async with http_of(access) as http:
        asker = asker_of(access, http, resend_every_s=0.01)
        access.away = True
        assert (await asker.ask(INSIDE, UID)).granted
        assert not (await asker.ask(OUTSIDE, UID)).granted
        past = Swipe(OUTSIDE, UID, "t1", datetime.now(UTC) - timedelta(minutes=5), "replay")
        await asker.send(past)
        sending = asyncio.create_task(asker.resend())
        await asyncio.sleep(0.05)
        assert (len(asker.backlog), access.taps) == (2, [])
        access.away = False
        async with asyncio.timeout(5):
            while asker.backlog:
                await asyncio.sleep(0.01)
        sending.cancel()
        assert [(tap["direction"], tap["mode"]) for tap in access.taps] == [
            ("out", "replay"),
            ("in", "replay"),
        ]


async def test_what_is_kept_for_later_has_an_end() -> None:
    access = Access()
    access.away = True
    async with http_of(access) as http:
        asker = asker_of(access, http)
        for number in range(1100):
            asker.keep(Swipe(OUTSIDE, UID, str(number), datetime.now(UTC), "replay"))
        assert (len(asker.backlog), asker.backlog[0].tap_id) == (1000, "100")


class Client:
    """Takes what is published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []

    async def publish(self, topic: str, payload: bytes, **_: Any) -> None:
        self.published.append((topic, json.loads(payload)))


def broker_of(asker: Asker) -> tuple[Broker, Board]:
    config = Fabomatic.model_validate(
        {"machine": "12", "label": "ENDER", "door_id": DOOR, "reader_key": "env:NONE"}
    )
    board = Board(config, Point("fabomatic.12", DOOR, Secret("id.secret")))
    mqtt = Mqtt(host="127.0.0.1", username="copass-gateway", password="env:NONE")
    return Broker(mqtt, Secret("x"), asker, {"12": board}, {}), board


async def test_a_reply_that_a_newer_question_overtook_is_not_given() -> None:
    """A board would take it for the answer about the newer card."""
    access, client = Access(), Client()
    async with http_of(access) as http:
        broker, board = broker_of(asker_of(access, http))
        soon = asyncio.get_running_loop().time() + fabomatic.REPLY_SECONDS_MAX
        access.delay_s = 0.05
        broker._asked[board.point.name] = 1
        question = fabomatic.Query("checkuser", UID)
        first = asyncio.create_task(broker.reply(client, board, question, 1, soon))  # type: ignore[arg-type]  # a fake
        await asyncio.sleep(0.01)
        broker._asked[board.point.name] = 2
        await first
        assert client.published == []
        await broker.reply(client, board, question, 2, soon)  # type: ignore[arg-type]
        assert client.published[0][1]["is_valid"] is True
        # So is one after the board gave up.
        await broker.reply(client, board, question, 2, soon - 10)  # type: ignore[arg-type]
        assert len(client.published) == 1


async def test_a_device_that_floods_fills_its_own_lane(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    hold, done = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        await hold.wait()

    async def finish() -> None:
        done.set()

    async with Lanes() as lanes:
        taken = [lanes.add("loud", wait) for _ in range(50)]
        assert sum(taken) == WAITING_MAX
        assert len(caplog.records) == 1
        assert lanes.add("quiet", finish)
        await asyncio.wait_for(done.wait(), 5)
        hold.set()
