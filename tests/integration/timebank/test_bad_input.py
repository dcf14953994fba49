"""What no field can mean is refused in the name of the field, and changes nothing.

The fields are those of the OpenAPI: bodies and queries, each sent what its type is not, what is out
of every range, and what has fooled other parsers. Everything else in the request is right.
"""

import copy
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from matrix_world import BODIES, World, a_full_city, filled, of_route

from common.ids import new_id

SEED = 22112026
# Written as they are sent: most are no JSON that a library would write.
VALUES = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "9007199254740992",
    "9223372036854775808",
    "-1",
    "0",
    "1.5",
    "true",
    "null",
    '"1_000"',
    '"١٢"',
    '"12"',
    '"a\\u0000b"',
    '"a\\u202eb"',
    '"\\ud800"',
    '"0001-01-01"',
    '"9999-12-31"',
    '"2026-02-30"',
    '"9999-12-31T23:59:59Z"',
    '"0001-01-01T00:00:00+14:00"',
    '"' + "x" * 3000 + '"',
    '""',
    "[]",
    "{}",
    "[" * 100_000 + "]" * 100_000,
    "[" * 500 + "]" * 500,
)
QUERIES = (
    "NaN",
    "1e400",
    "9223372036854775808",
    "-1",
    "0",
    "true",
    "1_000",
    "١٢",
    "null",
    "\u202e",
    "0001-01-01",
    "9999-12-31",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00",
    "2026-02-30",
    "0000-00",
    "x" * 3000,
    "",
    "%",
    "'; --",
)
MARK = "@here@"


@pytest.fixture
async def world(make_database: Callable[[str, Path], Awaitable[str]]) -> AsyncIterator[World]:
    async with a_full_city(make_database) as made:
        yield made


def resolve(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = components[schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def places(
    schema: dict[str, Any], components: dict[str, Any], at: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, ...]]:
    """The ways to every field of a body, the first item of each list."""
    schema = resolve(schema, components)
    if at:
        yield at
    for option in schema.get("anyOf", schema.get("oneOf", ())):
        yield from (each for each in places(option, components, at) if each != at)
    for name, each in schema.get("properties", {}).items():
        yield from places(each, components, (*at, name))
    if "items" in schema:
        yield from places(schema["items"], components, (*at, 0))


def written(body: Any, at: tuple[Any, ...], value: str) -> str:
    """The body as text, with this in this place."""

    whole = copy.deepcopy(body)
    here = whole
    for step in at[:-1]:
        if isinstance(step, int):
            if not here:
                here.append({})
            here = here[0]
        else:
            here = here.setdefault(step, [] if at[at.index(step) + 1] == 0 else {})
    if isinstance(here, list):
        here[:1] = [MARK]
    else:
        here[at[-1]] = MARK
    return json.dumps(whole).replace(f'"{MARK}"', value)


async def counts(world: World) -> dict[str, int]:
    pool = world.federation.bank("nantes").pool
    tables = await pool.fetch(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        " AND table_type = 'BASE TABLE' ORDER BY table_name"
    )
    return {table: await pool.fetchval(f'SELECT count(*) FROM "{table}"') for (table,) in tables}


def what_is_wrong(answer: httpx.Response) -> str | None:
    """Why an answer to nonsense is not a good one. Some values are right for some fields."""
    if answer.status_code >= 500:
        return "fails"
    if answer.status_code < 400:
        return None
    if answer.headers["content-type"] != "application/problem+json":
        return "is no problem document"
    problem = answer.json()
    if answer.status_code == 422 and not problem["errors"] and problem["code"] == "invalid":
        return "names no field"
    return None


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


@pytest.mark.parametrize(
    ("path", "query", "value"),
    [
        ("standings/{member_id}/history", "cursor", "1_000"),
        ("accounts/{account_id}/postings", "limit", "1.0"),
        ("accounts/{account_id}/postings", "limit", "+1"),
        ("accounts/{account_id}/postings", "limit", "١٢"),
        ("accounts/{account_id}/postings", "from", "0001-01-01T00:00:00+14:00"),
        ("accounts/{account_id}/statement.csv", "from", "0001-01-01T00:00:00+14:00"),
        ("accounts/{account_id}/statement.pdf", "from", "1899-12-31T23:59:59Z"),
    ],
)
async def test_what_another_reader_would_take_for_a_number_or_a_day(
    world: World, path: str, query: str, value: str
) -> None:
    where = f"/v1/{filled(path, world.things)}"
    answer = await ask(world, "GET", where, params={query: value})
    assert answer.status_code == 422, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == [f"query.{query}"]


async def test_yes_and_no_are_not_numbers(world: World) -> None:
    body = {"minutes": 1, "anonymous": 1}
    answer = await ask(world, "POST", "/v1/solidarity/gifts", content=json.dumps(body).encode())
    assert answer.json()["errors"][0]["field"] == "body.anonymous"
