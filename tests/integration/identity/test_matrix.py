"""Every route of identity by every role, in its city and another; and nonsense in every field.

The routes and fields are those of the OpenAPI. To who may not know of a thing of Nantes the answer
is the one for what does not exist, to the letter.
"""

import random
import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from identity_network import Caller, Network
from nonsense import QUERIES, VALUES, places, what_is_wrong, written
from phone import Phone

SEED = 22112026
NONSENSE = 300
ROLES = ("resident", "connector", "mediator", "animator", "steward", "operator")
ABSENT_CITY = "nulle-part"
# Cities are public among members; the rest is the caller's own, or of the federation alone.
PUBLIC = {"GET /v1/cities/{city_id}", "GET /.well-known/jwks.json"}
FORMS = {"POST /v1/oauth/token", "POST /v1/oauth/revoke"}
UID = "04A1B2C3D4E5F6"
BODIES: dict[str, Any] = {
    "POST /v1/cards": {"member_id": "{member_id}", "type": "uid", "uid": "04A1B2C3D4E5F7"},
    "POST /v1/cards/{card_id}/block": {"reason": "lost"},
    "POST /v1/cards/{card_id}/personalisation": {"uid": UID},
    "POST /v1/cards/{card_id}/replace": {"uid": "04A1B2C3D4E5F8"},
    "POST /v1/cities": {"city_id": "brest", "name": "Brest", "timezone": "Europe/Paris"},
    "POST /v1/clients": {"name": "service"},
    "PUT /v1/me/notifications": {"email": "off", "push": False, "language": "fr"},
    "PUT /v1/me/password": {"current_password": "wrong", "new_password": "another passphrase"},
    "POST /v1/me/push-subscriptions": {
        "endpoint": "https://push.invalid/a",
        "keys": {"p256dh": "x", "auth": "y"},
    },
    "PUT /v1/me/visibility": {"directory": "city"},
    "POST /v1/passes": {
        "public_key": Phone().public_key,
        "password": "an invented passphrase",
        "label": "Phone",
        "replaces": "{card_id}",
    },
    "PATCH /v1/passes/{card_id}": {"label": "Other phone"},
    "POST /v1/guest-passes": {"name": "Invented Guest", "places": ["{place_id}"]},
    "POST /v1/members": {"city_id": "{city_id}", "display_name": "Invented"},
    "POST /v1/members/{member_id}/erase": {},
    "PUT /v1/members/{member_id}/roles": {"roles": ["mediator"], "places": {}},
    "POST /v1/names": {"member_ids": ["{member_id}"]},
    "POST /v1/organisations": {
        "city_id": "{city_id}",
        "name": "Invented",
        "kind": "association",
    },
    "POST /v1/places/{place_id}/names-inside": {"ids": ["{member_id}"]},
    "POST /v1/readers": {"city_id": "{city_id}"},
}


@dataclass
class World:
    network: Network
    things: dict[str, str]
    absent: dict[str, str]
    operations: list[tuple[str, str, dict[str, Any]]]

    async def ask(
        self, caller: Caller, method: str, path: str, spec: Any, things: dict[str, str]
    ) -> httpx.Response:
        names = [each["name"] for each in spec.get("parameters", ()) if each["in"] == "query"]
        query = {name: things[name] for name in names if name in things}
        body = BODIES.get(f"{method} {path}")
        where = filled(path, things) + ("?" + str(httpx.QueryParams(query)) if query else "")
        return await caller.send(method, where, filled(body, things))

    async def rows(self) -> dict[str, list[str]]:
        tables = ("member", "card", "reader", "organisation", "city", "client", "notice")
        return {
            table: sorted(
                row[0] for row in await self.network.conn.fetch(f"SELECT t::text FROM {table} t")
            )
            for table in tables
        }


def filled(value: Any, things: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda found: things[found[1]], value)
    if isinstance(value, dict):
        return {name: filled(item, things) for name, item in value.items()}
    if isinstance(value, list):
        return [filled(item, things) for item in value]
    return value


@pytest.fixture
async def world(network: Network) -> World:
    """Nantes with a member, a card, a reader and an organisation; Bourges next to it."""
    admin = network.admin
    for city in ("nantes", "bourges"):
        await network.city(city)
    anna = await network.member("nantes")
    card = {"member_id": anna["member_id"], "type": "uid", "uid": UID}
    client = await admin.made("/v1/clients", {"name": "service"})
    things = {
        "city_id": "nantes",
        "member_id": anna["member_id"],
        "card_id": (await admin.made("/v1/cards", card))["card_id"],
        "reader_id": (await admin.made("/v1/readers", {"city_id": "nantes"}))["reader_id"],
        "organisation_id": (
            await admin.made(
                "/v1/organisations",
                {"city_id": "nantes", "name": "Invented", "kind": "cooperative"},
            )
        )["organisation_id"],
        "client_id": client["client_id"],
        "place_id": str(uuid4()),
        "notice_id": str(uuid4()),
        "subscription_id": str(uuid4()),
    }
    absent = {name: ABSENT_CITY if name == "city_id" else str(uuid4()) for name in things}
    operations = [
        (method.upper(), path, spec)
        for path, methods in network.app.openapi()["paths"].items()
        for method, spec in methods.items()
    ]
    return World(network, things, absent, operations)


def test_every_command_has_a_body_to_be_tried_with(network: Network) -> None:
    commands = {
        f"{method.upper()} {path}"
        for path, methods in network.app.openapi()["paths"].items()
        for method, spec in methods.items()
        if "requestBody" in spec
    }
    assert commands == set(BODIES) | FORMS


async def test_nobody_is_told_anything_without_a_token(world: World) -> None:
    before = await world.rows()
    nobody = Caller(world.network.http)
    for method, path, spec in world.operations:
        if f"{method} {path}" in PUBLIC | FORMS:
            continue
        answer = await world.ask(nobody, method, path, spec, world.things)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
    assert await world.rows() == before


@pytest.mark.parametrize("role", [*ROLES, None])
async def test_what_is_another_citys_answers_as_what_does_not_exist(
    world: World, role: str | None
) -> None:
    stranger, _ = await world.network.somebody("bourges", *([role] if role else []))
    before, told = await world.rows(), []
    for method, path, spec in world.operations:
        name = f"{method} {path}"
        if name in PUBLIC | FORMS or path.startswith("/v1/me"):
            continue
        real = await world.ask(stranger, method, path, spec, world.things)
        nothing = await world.ask(stranger, method, path, spec, world.absent)
        words = nothing.text
        for key, value in world.absent.items():
            words = words.replace(value, world.things[key])
        if (real.status_code, real.text) != (nothing.status_code, words):
            told.append((name, real.status_code, real.text[:150], nothing.text[:150]))
    assert told == []
    assert await world.rows() == before


async def test_no_role_makes_a_route_fail(world: World) -> None:
    failed = []
    people: list[tuple[str | None, tuple[str, ...]]] = [("nantes", (role,)) for role in ROLES]
    for city, roles in (
        *people,
        ("nantes", ()),
        (None, ("auditor",)),
        (None, ("federation_admin",)),
    ):
        caller, _ = await world.network.somebody(city, *roles)
        for method, path, spec in world.operations:
            if f"{method} {path}" in FORMS:
                continue
            answer = await world.ask(caller, method, path, spec, world.things)
            if answer.status_code >= 500:
                failed.append((roles, method, path, answer.text[:150]))
    assert failed == []


async def test_nonsense_is_refused_and_changes_nothing(world: World) -> None:
    components = world.network.app.openapi()["components"]["schemas"]
    tries: list[tuple[Any, ...]] = []
    for method, path, spec in world.operations:
        name = f"{method} {path}"
        for each in spec.get("parameters", ()):
            if each["in"] == "query":
                tries += [(method, path, "query", each["name"], value) for value in QUERIES]
        if "requestBody" in spec and name not in FORMS:
            (content,) = spec["requestBody"]["content"].values()
            for at in places(content["schema"], components):
                tries += [(method, path, "body", at, value) for value in VALUES]
    bad = []
    chosen = random.Random(SEED)
    for method, path, where, at, value in chosen.sample(tries, min(NONSENSE, len(tries))):
        headers = {
            "Authorization": f"Bearer {world.network.admin.token}",
            "Idempotency-Key": str(uuid4()),
            "Content-Type": "application/json",
        }
        sent: dict[str, Any] = {"params": {at: value}}
        if where == "body":
            body = filled(BODIES[f"{method} {path}"], world.things)
            sent = {"content": written(body, at, value).encode()}
        before = await world.rows()
        answer = await world.network.http.request(
            method, filled(path, world.things), headers=headers, **sent
        )
        wrong = what_is_wrong(answer)
        if wrong is None and answer.status_code >= 400 and await world.rows() != before:
            wrong = "changes something"
        if wrong:
            bad.append((method, path, at, value[:40], wrong, answer.text[:200]))
    assert bad == []
