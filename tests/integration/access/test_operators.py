"""What operators see of their doors, and who sees that they looked."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from access_world import CITY, SECRET, STEWARD, STRANGER, World, new, problem
from test_history import record, tap_many

from access.operators import routes


async def test_operators_see_doors_live_and_by_the_day_and_are_seen(
    open_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = open_world
    monkeypatch.setattr(routes, "WATCH_S", 1.5)

    # Live: what happens while one watches, in one's own city.
    def watching(who: dict[str, str], **params: str) -> "asyncio.Task[httpx.Response]":
        return asyncio.create_task(world.http.get("/v1/live", params=params, headers=who))

    watchers = [
        watching(STEWARD),
        watching(STEWARD, place_id=world.place_id),
        watching(STRANGER),
    ]
    await asyncio.sleep(0.5)
    decisions = await tap_many(world, 3)
    all_of_city, of_place, elsewhere = [await one for one in watchers]
    for seen in (all_of_city, of_place):
        assert seen.headers["content-type"].startswith("text/event-stream")
        assert all(decision in seen.text for decision in decisions)
        assert "member_id" not in seen.text
        assert "card_id" not in seen.text
    assert "event: tap" not in elsewhere.text
    not_theirs = await world.http.get(
        "/v1/live", params={"place_id": world.place_id}, headers=STRANGER
    )
    assert problem(not_theirs)[:2] == (404, "not_found")

    # By reason, by hour, by filter.
    await record(world, decisions)
    today = datetime.now(UTC).date()
    period = {"from": str(today - timedelta(days=1)), "until": str(today)}
    counts = await world.http.get(
        f"/v1/places/{world.place_id}/counts", params=period, headers=STEWARD
    )
    (count,) = counts.json()["items"]
    assert (count["reason"], count["taps"]) == ("unknown_credential", 3)
    hours = await world.http.get(
        f"/v1/places/{world.place_id}/occupancy",
        params={"from": (datetime.now(UTC) - timedelta(hours=2)).isoformat()},
        headers=STEWARD,
    )
    assert [one["peak"] for one in hours.json()["hours"]] in ([0, 0], [0, 0, 0])
    wanted = {"reason": "unknown_credential", "door_id": world.door_id, "decision": "deny"}
    taps = await world.http.get("/v1/taps", params=wanted, headers=STEWARD)
    assert len(taps.json()["items"]) == 3
    none = await world.http.get("/v1/taps", params={"reader_id": new()}, headers=STEWARD)
    assert none.json()["items"] == []

    # Who looked.
    looks = (await world.http.get("/v1/taps/looks", headers=STEWARD)).json()["items"]
    assert [look["taps"] for look in looks] == [0, 3]
    assert looks[1]["filters"]["reason"] == "unknown_credential"
    them = new()
    me = {"authorization": f"Bearer {them}:nantes:member"}
    await world.http.get("/v1/taps", params={"member_id": them}, headers=STEWARD)
    mine = await world.http.get("/v1/taps/looks", params={"member_id": them}, headers=me)
    assert [look["member_id"] for look in mine.json()["items"]] == [them]
    assert problem(await world.http.get("/v1/taps/looks", headers=me))[:2] == (403, "forbidden")

    # A reader says how it is; only its own city hears.
    await world.pool.execute(
        "INSERT INTO snapshot_reader (reader_id, version, city_id, key_sha256, status)"
        " VALUES ($1, 1, $2, $3, 'active')",
        world.reader_id,
        CITY,
        hashlib.sha256(SECRET.encode()).hexdigest(),
    )
    assert await readers(world, STRANGER) == []
    (silent,) = await readers(world, STEWARD)
    assert (silent["trouble"], silent["program"]) == ([], None)  # it taps, and says nothing else
    report = {"program": "copass-reader 1.0", "backlog": 4, "clock_offset_ms": 3000}
    assert (await say(world, report)).status_code == 204
    (told,) = await readers(world, STEWARD)
    assert told["trouble"] == ["no_snapshot", "clock_off"]
    assert (told["backlog"], told["program"]) == (4, "copass-reader 1.0")
    for wrong in (
        {"backlog": -1},
        {"program": "\u202e"},
        {"clock_offset_ms": 2**31},
        {"more": 1},
        {"oldest_waiting_at": "9999-12-31T23:59:59Z"},
    ):
        refused = await say(world, {**report, **wrong})
        assert problem(refused)[0] == 422, wrong
    assert (await say(world, report, secret="x" * 32)).status_code == 401


async def readers(world: World, who: dict[str, str]) -> list[dict[str, Any]]:
    page = await world.http.get("/v1/readers/health", headers=who)
    items: list[dict[str, Any]] = page.json()["items"]
    return items


async def say(world: World, report: dict[str, Any], secret: str = SECRET) -> httpx.Response:
    headers = {"authorization": f"Bearer {world.reader_id}.{secret}"}
    return await world.http.put("/v1/readers/self/health", json=report, headers=headers)
