"""The app as a whole: its description, and the connection to Redis."""

import asyncio
from pathlib import Path

import pytest
from access_world import World, problem, until

from access.app import create_app
from access.redis_pipe import RedisError, RedisPipe
from access.settings import Settings
from copass import servers


def test_the_api_description_holds_every_route(config: Settings) -> None:
    paths = create_app(config).openapi()["paths"]
    assert set(paths) == {
        "/v1/taps",
        "/v1/taps/batch",
        "/v1/taps/stored",
        "/v1/tap-conflicts",
        "/v1/taps/looks",
        "/v1/live",
        "/v1/readers/self",
        "/v1/readers/self/health",
        "/v1/readers/health",
        "/v1/doors/{door_id}/snapshot",
        "/v1/doors/{door_id}/changes",
        "/v1/doors/{door_id}/card-keys",
        "/v1/places/{place_id}/presence",
        "/v1/places/{place_id}/occupancy",
        "/v1/places/{place_id}/counts",
        "/v1/places/{place_id}/evacuation",
        "/v1/places/{place_id}/passback-resets",
        "/v1/places/{place_id}/lockdown",
        "/v1/members/{member_id}/export",
        "/v1/members/{member_id}/export.zip",
    }
    assert set(paths["/v1/taps"]) == {"get", "post"}
    assert paths["/v1/taps"]["post"]["security"] == [{"reader_key": []}]


async def test_metrics_count_taps_by_reason(open_world: World) -> None:
    await open_world.reason("04AABBCCDDEEFF")
    text = (await open_world.http.get("/metrics")).text
    assert 'access_taps_total{decision="deny",reason="unknown_credential"}' in text
    assert "access_tap_duration_seconds_count" in text


async def test_without_redis_a_tap_is_answered_503_and_then_works_again(
    world: World, server_folder: Path, start_server
) -> None:
    valkey = await start_server(servers.valkey(server_folder, servers.unused_port()))
    world.app.state.pipe = pipe = RedisPipe(valkey.url)
    assert problem(await world.post(world.body("04AABBCCDDEEFF")))[:2] == (503, "not_ready")
    valkey.kill()
    response = await world.post(world.body("04AABBCCDDEEFF"))
    assert problem(response)[:2] == (503, "unavailable")
    assert response.headers["retry-after"]
    assert (await world.http.get("/readyz")).status_code == 503
    await valkey.start()

    async def is_back() -> bool:
        answer = await world.post(world.body("04AABBCCDDEEFF"))
        return problem(answer)[1] == "not_ready"

    await until(is_back)
    await pipe.close()


async def test_a_redis_that_hangs_loses_the_connection(monkeypatch, redis_url: str) -> None:
    monkeypatch.setattr("access.redis_pipe.TIMEOUT_S", 0.2)
    pipe = RedisPipe(redis_url)
    with pytest.raises(ConnectionError):
        await pipe.call("BLPOP", "nothing", 5)
    assert await pipe.call("PING") == b"PONG"
    await pipe.close()


async def test_one_connection_serves_many_at_once_each_its_own_answer(redis_url: str) -> None:
    pipe = RedisPipe(redis_url)
    answers = await asyncio.gather(*(pipe.call("ECHO", str(i)) for i in range(500)))
    assert answers == [str(i).encode() for i in range(500)]
    clients = await pipe.call("CLIENT", "LIST", "TYPE", "NORMAL")
    assert len(clients.splitlines()) == 1
    with pytest.raises(RedisError):
        await pipe.call("NONSENSE")
    cancelled = asyncio.ensure_future(pipe.call("ECHO", "a"))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await pipe.call("ECHO", "b") == b"b"
    await pipe.close()
