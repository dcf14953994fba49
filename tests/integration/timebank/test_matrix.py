"""Every route, every role, one's own city and another: what is another city's is told to nobody.

The routes are those of the OpenAPI, so that a new one is tried as soon as it is there. Each is
asked for a thing of Nantes and for one that does not exist; to who may not know of it the two
answers are the same to the letter.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from bank_world import settings_for
from matrix_world import BODIES, World, a_full_city, changed, of_route

from common.ids import new_id
from timebank.app import create_app

ROLES = (
    "member",
    "resident",
    "connector",
    "mediator",
    "animator",
    "steward",
    "operator",
    "auditor",
    "federation_admin",
)
# Auditors read every city, and the federation its books, by the written rule.
READS_EVERY_CITY = {"auditor", "federation_admin"}
# Of no city's things but the caller's own: nothing of another city can be named.
OWN_ONLY = {
    "GET /v1/contributions/to-confirm",
    "GET /v1/matches",
    "POST /v1/solidarity/gifts",
    "POST /v1/solidarity/requests",
}


# The log of a city is for whoever wants to check it: heads, hashes and proofs, and no entry.
PUBLIC_LOG = re.compile(
    r"GET /v1/log/\{city_id\}/(checkpoints?|inclusion|consistency|keys|tile/.*)$"
)


@pytest.fixture
async def world(make_database: Callable[[str, Path], Awaitable[str]]) -> AsyncIterator[World]:
    async with a_full_city(make_database) as made:
        yield made


def test_every_name_of_a_route_is_a_thing_of_the_test() -> None:
    """A new route is tried with a thing that there is, not with nonsense."""
    spec = create_app(settings_for("postgresql://nobody@127.0.0.1:1/none")).openapi()
    commands = {
        f"{method.upper()} {path}"
        for path, methods in spec["paths"].items()
        for method, operation in methods.items()
        if "requestBody" in operation
    }
    assert commands == set(BODIES)


async def test_nobody_is_told_anything_without_a_token(world: World) -> None:
    before = await world.rows()
    for method, path, spec in world.operations:
        if PUBLIC_LOG.match(f"{method} {path}"):
            continue
        answer = await world.ask(None, method, path, spec, of_route(world, path)[0])
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
    assert await world.rows() == before


async def test_what_is_another_citys_answers_as_what_does_not_exist(world: World) -> None:
    before, told = await world.rows(), []
    for role in ROLES:
        caller = world.caller(role, "brest", "eric")
        for method, path, spec in world.operations:
            name = f"{method} {path}"
            if name in OWN_ONLY or PUBLIC_LOG.match(name):
                continue
            if role in READS_EVERY_CITY and method == "GET":
                continue
            things, absent = of_route(world, path)
            real = await world.ask(caller, method, path, spec, things)
            nothing = await world.ask(caller, method, path, spec, absent)
            words = nothing.text
            for key, value in absent.items():
                words = words.replace(value, things[key])
            # An auditor may know of every city, and is told that a command is not theirs.
            same = (real.status_code, real.text) == (nothing.status_code, words)
            if not same and (role != "auditor" or real.status_code < 400):
                told.append((role, name, real.status_code, real.text[:150], nothing.text[:150]))
    assert told == []
    assert await world.rows() == before


async def test_no_role_makes_a_route_fail(world: World) -> None:
    failed = []
    for city, member in (("brest", "eric"), ("nantes", "zoe")):
        for role in ROLES:
            caller = world.caller(role, city, member)
            for method, path, spec in world.operations:
                answer = await world.ask(caller, method, path, spec, of_route(world, path)[0])
                if answer.status_code >= 500:
                    failed.append((role, city, method, path, answer.text[:150]))
    assert failed == []


# What a neighbour without a role may read of what others in the city do.
FOR_NEIGHBOURS = {
    "GET /v1/agreements",
    "GET /v1/books/{city_id}/rules",
    "GET /v1/books/{city_id}/rules/history",
    "GET /v1/listings",
    "GET /v1/listings/{listing_id}",
}


async def test_a_neighbour_reads_what_is_for_all_and_nothing_of_another(world: World) -> None:
    caller = world.caller("member", "nantes", "zoe")
    read = set()
    for method, path, spec in world.operations:
        if method != "GET" or PUBLIC_LOG.match(f"{method} {path}"):
            continue
        answer = await world.ask(caller, method, path, spec, of_route(world, path)[0])
        if answer.status_code == 200 and answer.json().get("items") != []:
            read.add(f"{method} {path}")
    assert read == FOR_NEIGHBOURS, read ^ FOR_NEIGHBOURS


AT_ONCE = 5


async def test_a_command_sent_again_and_again_is_done_once(world: World) -> None:
    """Whoever may: at once, later, and with another body under the same key."""
    bank, wrong, done = world.federation.bank("nantes"), [], set()
    people = [
        bank.caller(str(new_id()), "nantes", "steward", "mediator"),
        bank.caller("anna"),
        bank.caller("bruno"),
    ]
    for method, path, spec in world.operations:
        if method == "GET":
            continue
        things = of_route(world, path)[0] | {"city_id": "nantes"}
        for caller in people:
            key = str(new_id())
            send = partial(world.ask, caller, method, path, spec, things, key=key)
            first = await asyncio.gather(*[send() for _ in range(AT_ONCE)])
            before = await world.rows() if first[0].status_code < 300 else None
            again = await send()
            answers = {(each.status_code, each.text) for each in (*first, again)}
            if len(answers) != 1:
                wrong.append((method, path, answers))
            if before is None:
                continue
            done.add(f"{method} {path}")
            name = f"{method} {path}"
            if changed(BODIES.get(name, {})):
                other = await send(another=True)
                if other.json().get("code") != "idempotency_key_reused":
                    wrong.append((method, path, other.text))
            if await world.rows() != before:
                wrong.append((method, path, "changed something"))
            break
    assert wrong == []
    assert len(done) > 20, done
