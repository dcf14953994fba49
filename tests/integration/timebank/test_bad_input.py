"""What no field can mean is refused in the name of the field, and changes nothing.

The fields are those of the OpenAPI: bodies and queries, each sent what its type is not, what is out
of every range, and what has fooled other parsers. Everything else in the request is right.
"""

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from matrix_world import BODIES, World, a_full_city, filled, of_route
from nonsense import QUERIES, VALUES, places, what_is_wrong, written

from common.ids import new_id

SEED = 22112026


@pytest.fixture
async def world(make_database: Callable[[str, Path], Awaitable[str]]) -> AsyncIterator[World]:
    async with a_full_city(make_database) as made:
        yield made


async def counts(world: World) -> dict[str, int]:
    pool = world.federation.bank("nantes").pool
    tables = await pool.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        " AND table_type = 'BASE TABLE' ORDER BY table_name"
    )
    return {table: await pool.fetchval(f'SELECT count(*) FROM "{table}"') for (table,) in tables}


async def ask(world: World, method: str, path: str, **sent: Any) -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {world.caller('steward', 'nantes', 'anna').token}",
        "Idempotency-Key": str(new_id()),
        "Content-Type": "application/json",
    }
    return await world.http.request(method, path, headers=headers, **sent)


async def send_nonsense(world: World, sample: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """The answers that are not good, of all nonsense that `sample` takes."""
    components = world.federation.bank("nantes").app.openapi()["components"]["schemas"]
    tries: list[tuple[Any, ...]] = []
    for method, path, spec in world.operations:
        for each in spec.get("parameters", ()):
            if each["in"] == "query":
                tries += [(method, path, "query", each["name"], value) for value in QUERIES]
        if "requestBody" in spec:
            (content,) = spec["requestBody"]["content"].values()
            for at in places(content["schema"], components):
                tries += [(method, path, "body", at, value) for value in VALUES]
    bad = []
    for method, path, where, at, value in sample(tries):
        things = of_route(world, path)[0]
        sent: dict[str, Any]
        if where == "query":
            sent = {"params": {at: value}}
            body = BODIES.get(f"{method} {path}")
        else:
            body = filled(BODIES[f"{method} {path}"], things)
            sent = {"content": written(body, at, value).encode()}
        before = await counts(world)
        answer = await ask(world, method, filled(path, things), **sent)
        wrong = what_is_wrong(answer)
        if wrong is None and answer.status_code >= 400 and await counts(world) != before:
            wrong = "changes something"
        if wrong:
            bad.append((method, path, at, value[:40], wrong, answer.text[:200]))
    return bad


async def test_nonsense_is_refused_and_changes_nothing(world: World) -> None:
    chosen = random.Random(SEED)
    assert await send_nonsense(world, lambda tries: chosen.sample(tries, 400)) == []


OTHERWISE_READ = [
    ("standings/{member_id}/history", "cursor", "1_000"),
    ("accounts/{account_id}/postings", "limit", "1.0"),
    ("accounts/{account_id}/postings", "limit", "+1"),
    ("accounts/{account_id}/postings", "limit", "١٢"),
    ("accounts/{account_id}/postings", "from", "0001-01-01T00:00:00+14:00"),
    ("accounts/{account_id}/statement.csv", "from", "0001-01-01T00:00:00+14:00"),
    ("accounts/{account_id}/statement.pdf", "from", "1899-12-31T23:59:59Z"),
]


async def test_what_another_reader_would_take_for_a_number_or_a_day(
    world: World, subtests: pytest.Subtests
) -> None:
    for path, query, value in OTHERWISE_READ:
        with subtests.test(f"{path} {value}"):
            where = f"/v1/{filled(path, world.things)}"
            answer = await ask(world, "GET", where, params={query: value})
            assert answer.status_code == 422, answer.text
            assert [each["field"] for each in answer.json()["errors"]] == [f"query.{query}"]


async def test_yes_and_no_are_not_numbers(world: World) -> None:
    body = {"minutes": 1, "anonymous": 1}
    answer = await ask(world, "POST", "/v1/solidarity/gifts", content=json.dumps(body).encode())
    assert answer.json()["errors"][0]["field"] == "body.anonymous"
