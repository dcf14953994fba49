"""Cities, members, roles, organisations, readers: who may do what, and what others learn of it."""

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import pytest
from identity_network import ADMIN_LOGIN, PASSWORD, Caller, Network

from common.events import Event
from identity.consumers import on_place

SCHEMAS = Path(__file__).parents[3] / "contracts" / "events"
ABSENT = "01900000-0000-7000-8000-000000000000"


@pytest.fixture
async def people(network: Network) -> dict[str, Caller]:
    """Callers of every kind in nantes, and a steward and a member of bourges."""
    await network.city("nantes")
    await network.city("bourges")
    kinds: dict[str, tuple[str | None, tuple[str, ...]]] = {
        "member": ("nantes", ()),
        "mediator": ("nantes", ("mediator", "animator", "connector", "resident")),
        "operator": ("nantes", ("operator",)),
        "steward": ("nantes", ("steward",)),
        "auditor": (None, ("auditor",)),
        "stranger": ("bourges", ("steward", "operator")),
    }
    callers: dict[str, Caller] = {"admin": network.admin, "nobody": Caller(network.http)}
    for name, (city, roles) in kinds.items():
        callers[name], _ = await network.somebody(city, *roles)
    return callers


async def id_of(caller: Caller) -> str:
    return str((await caller.get("/v1/me")).json()["member_id"])


EVERYBODY = ("nobody", "member", "mediator", "operator", "steward", "auditor", "stranger", "admin")


def expect(**by_name: int) -> dict[str, int]:
    """Statuses by caller; `others` for those not named; without a token always 401."""
    others = by_name.pop("others")
    return {name: by_name.get(name, others) for name in EVERYBODY} | {"nobody": 401}


async def statuses(people: dict[str, Caller], method: str, path: str, body: Any) -> dict[str, int]:
    """What each caller is answered, with a body of their own where `body` is a function."""
    seen = {}
    for name in EVERYBODY:
        sent = body() if callable(body) else body
        seen[name] = (await people[name].send(method, path, sent)).status_code
    return seen


async def test_the_matrix_of_what_is_made_in_a_city(
    network: Network, people: dict[str, Caller]
) -> None:
    member_id = await id_of(people["member"])
    uids = iter(range(1, 1000))
    matrix: list[tuple[str, Any, dict[str, int]]] = [
        (
            "/v1/cities",
            lambda: {"city_id": f"c{uuid4().hex[:8]}", "name": "N", "timezone": "Europe/Paris"},
            expect(admin=201, others=403),
        ),
        (
            "/v1/members",
            {"city_id": "nantes", "display_name": "Invented"},
            expect(admin=201, steward=201, others=403),
        ),
        (
            "/v1/organisations",
            {"city_id": "nantes", "name": "Invented", "kind": "association"},
            expect(admin=201, steward=201, others=403),
        ),
        (
            "/v1/readers",
            {"city_id": "nantes"},
            expect(admin=201, steward=201, operator=201, others=403),
        ),
        ("/v1/clients", {"name": "service"}, expect(admin=201, others=403)),
        (
            "/v1/cards",
            lambda: {"member_id": member_id, "type": "uid", "uid": f"04{next(uids):012X}"},
            expect(admin=201, steward=201, operator=201, stranger=404, others=403),
        ),
    ]
    for path, body, expected in matrix:
        assert await statuses(people, "POST", path, body) == expected, path


async def test_the_matrix_of_what_is_read(network: Network, people: dict[str, Caller]) -> None:
    member_id = await id_of(people["member"])
    organisation = await network.admin.made(
        "/v1/organisations", {"city_id": "nantes", "name": "Invented", "kind": "cooperative"}
    )
    matrix: list[tuple[str, dict[str, int]]] = [
        ("/v1/cities", expect(others=200)),
        ("/v1/cities/nantes", expect(others=200)),
        ("/v1/cities/absent", expect(others=404)),
        ("/v1/me", expect(others=200)),
        (f"/v1/members/{member_id}", expect(member=200, steward=200, admin=200, others=404)),
        (f"/v1/members/{ABSENT}", expect(others=404)),
        ("/v1/members?city_id=nantes", expect(steward=200, admin=200, others=403)),
        ("/v1/organisations?city_id=nantes", expect(steward=200, admin=200, others=403)),
        (
            f"/v1/organisations/{organisation['organisation_id']}",
            expect(steward=200, admin=200, others=404),
        ),
        ("/v1/readers?city_id=nantes", expect(steward=200, operator=200, admin=200, others=403)),
        ("/v1/clients", expect(admin=200, others=403)),
        (
            f"/v1/cards?member_id={member_id}",
            expect(member=200, steward=200, admin=200, others=404),
        ),
        ("/v1/cards", expect(others=200)),
    ]
    for path, expected in matrix:
        assert await statuses(people, "GET", path, None) == expected, path


async def test_the_matrix_of_what_is_done_to_a_member(
    network: Network, people: dict[str, Caller]
) -> None:
    target = (await network.member("nantes"))["member_id"]
    expected = expect(steward=200, admin=200, others=404)
    for action in ("suspend", "reinstate"):
        path = f"/v1/members/{target}/{action}"
        assert await statuses(people, "POST", path, None) == expected, action
    body = {"roles": ["mediator"], "places": {}}
    assert await statuses(people, "PUT", f"/v1/members/{target}/roles", body) == expected


async def test_nobody_does_anything_to_themselves_without_the_role(
    people: dict[str, Caller],
) -> None:
    for name in ("member", "mediator", "operator", "auditor"):
        own = f"/v1/members/{await id_of(people[name])}"
        body = {"roles": ["steward", "federation_admin"], "places": {}}
        assert (await people[name].put(f"{own}/roles", body)).status_code == 403
        assert (await people[name].post(f"{own}/suspend")).status_code == 403


async def test_the_matrix_of_what_is_done_to_a_card(
    network: Network, people: dict[str, Caller]
) -> None:
    member_id = await id_of(people["member"])
    uids = iter(range(1, 1000))

    async def card() -> str:
        made = await network.admin.made(
            "/v1/cards", {"member_id": member_id, "type": "uid", "uid": f"05{next(uids):012X}"}
        )
        return str(made["card_id"])

    card_id = await card()
    blocked = expect(member=200, steward=200, admin=200, operator=403, others=404)
    path = f"/v1/cards/{card_id}/block"
    assert await statuses(people, "POST", path, {"reason": "lost"}) == blocked
    unblocked = expect(steward=200, admin=200, member=403, operator=403, others=404)
    assert await statuses(people, "POST", f"/v1/cards/{card_id}/unblock", None) == unblocked
    for name, status in expect(
        steward=201, admin=201, operator=201, member=403, others=404
    ).items():
        path = f"/v1/cards/{await card()}/replace"
        answer = await people[name].post(path, {"uid": f"06{next(uids):012X}"})
        assert answer.status_code == status, name


async def test_the_matrix_of_what_is_done_to_a_reader(
    network: Network, people: dict[str, Caller]
) -> None:
    reader_id = (await network.admin.made("/v1/readers", {"city_id": "nantes"}))["reader_id"]
    expected = expect(steward=200, operator=200, admin=200, others=404)
    for action in ("rotate", "revoke"):
        path = f"/v1/readers/{reader_id}/{action}"
        seen = await statuses(people, "POST", path, None)
        assert seen == expected, action


async def test_anothers_thing_answers_exactly_as_an_absent_one(
    network: Network, people: dict[str, Caller]
) -> None:
    member_id = await id_of(people["member"])
    card = await network.admin.made(
        "/v1/cards", {"member_id": member_id, "type": "uid", "uid": "04A3B2C1D5E6F7"}
    )
    reader = await network.admin.made("/v1/readers", {"city_id": "nantes"})
    stranger = people["stranger"]
    requests: list[tuple[str, str, str, Any]] = [
        ("GET", "/v1/members/{}", member_id, None),
        ("GET", "/v1/cards?member_id={}", member_id, None),
        ("POST", "/v1/members/{}/suspend", member_id, None),
        ("PUT", "/v1/members/{}/roles", member_id, {"roles": [], "places": {}}),
        ("POST", "/v1/cards/{}/block", card["card_id"], {"reason": "lost"}),
        ("POST", "/v1/cards/{}/unblock", card["card_id"], None),
        ("POST", "/v1/cards/{}/replace", card["card_id"], {"uid": "04B3B2C1D5E6F7"}),
        ("POST", "/v1/readers/{}/rotate", reader["reader_id"], None),
        ("POST", "/v1/readers/{}/revoke", reader["reader_id"], None),
    ]
    for method, path, real, body in requests:
        theirs = await stranger.send(method, path.format(real), body)
        absent = await stranger.send(method, path.format(ABSENT), body)
        assert theirs.status_code == absent.status_code == 404, path
        assert theirs.content == absent.content, path
    cards = [
        await stranger.post("/v1/cards", {"member_id": m, "type": "uid", "uid": "04B3B2C1D5E6F7"})
        for m in (member_id, ABSENT)
    ]
    assert cards[0].content == cards[1].content
    assert {answer.status_code for answer in cards} == {404}


# Privilege


async def test_a_steward_cannot_give_federation_roles(
    network: Network, people: dict[str, Caller]
) -> None:
    target = (await network.member("nantes"))["member_id"]
    for role in ("federation_admin", "auditor"):
        for whom in (target, await id_of(people["steward"])):
            answer = await people["steward"].put(
                f"/v1/members/{whom}/roles", {"roles": ["steward", role], "places": {}}
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "federation_role_required")


async def test_a_steward_cannot_touch_who_serves_the_federation(
    network: Network, people: dict[str, Caller]
) -> None:
    admin = (await network.member("nantes", "federation_admin"))["member_id"]
    answers = [
        await people["steward"].put(f"/v1/members/{admin}/roles", {"roles": [], "places": {}}),
        await people["steward"].post(f"/v1/members/{admin}/suspend"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (403, "federation_member_protected")


async def test_a_steward_makes_nothing_elsewhere(people: dict[str, Caller]) -> None:
    for city in ("bourges", "no-such-city"):
        answer = await people["steward"].post(
            "/v1/members", {"city_id": city, "display_name": "Invented"}
        )
        assert answer.status_code == 403
    answer = await people["steward"].post(
        "/v1/members", {"city_id": None, "display_name": "Invented"}
    )
    assert answer.status_code == 403


async def test_a_body_cannot_smuggle_roles_in(people: dict[str, Caller]) -> None:
    body = {"city_id": "nantes", "display_name": "Invented"}
    for extra in ({"roles": ["steward"]}, {"status": "active"}, {"version": 9}, {"kind": "x"}):
        answer = await people["steward"].post("/v1/members", {**body, **extra})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == f"body.{next(iter(extra))}"


async def test_the_last_federation_admin_stays(network: Network) -> None:
    first = await id_of(network.admin)
    for answer in (
        await network.admin.put(f"/v1/members/{first}/roles", {"roles": [], "places": {}}),
        await network.admin.post(f"/v1/members/{first}/suspend"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_federation_admin")
    second = (await network.member(None, "federation_admin"))["member_id"]
    both = await asyncio.gather(
        *(
            network.admin.put(f"/v1/members/{who}/roles", {"roles": [], "places": {}})
            for who in (first, second)
        )
    )
    left = await network.conn.fetchval(
        "SELECT count(*) FROM member WHERE 'federation_admin' = ANY (roles)"
    )
    assert left == 1, [answer.text for answer in both]


async def test_a_role_that_does_not_exist_is_refused(network: Network) -> None:
    await network.city("nantes")
    target = (await network.member("nantes"))["member_id"]
    answer = await network.admin.put(
        f"/v1/members/{target}/roles", {"roles": ["king"], "places": {}}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_role")
    assert answer.json()["errors"][0]["field"] == "body.roles"


# Places


def place_changed(place_id: UUID, city_id: str, version: int) -> Event:
    return Event(
        id=uuid4(),
        type="places.place.changed.v1",
        source="/places",
        subject=str(place_id),
        time=datetime(2026, 11, 22, tzinfo=UTC),
        data={"place_id": str(place_id), "city_id": city_id, "version": version, "more": 1},
    )


async def test_a_steward_gives_places_of_the_own_city_only(
    network: Network, people: dict[str, Caller], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("identity.service.PLACE_POLLS_MAX", 2)
    here, there, unheard = uuid4(), uuid4(), uuid4()
    await on_place(network.conn, place_changed(here, "nantes", 3))
    await on_place(network.conn, place_changed(there, "bourges", 1))
    await on_place(network.conn, place_changed(here, "bourges", 2))  # late: changes nothing
    path = f"/v1/members/{await id_of(people['member'])}/roles"
    for place in (there, unheard):
        answer = await people["steward"].put(path, {"roles": [], "places": {str(place): "staff"}})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_place")
    answer = await people["steward"].put(path, {"roles": [], "places": {str(here): "staff"}})
    assert answer.json()["places"] == {str(here): "staff"}
    answer = await network.admin.put(path, {"roles": [], "places": {str(there): "resident"}})
    assert answer.json()["places"] == {str(there): "resident"}


async def test_the_news_of_a_place_may_arrive_a_moment_later(
    network: Network, people: dict[str, Caller]
) -> None:
    place = uuid4()
    path = f"/v1/members/{await id_of(people['member'])}/roles"
    sent = asyncio.create_task(
        people["steward"].put(path, {"roles": [], "places": {str(place): "resident"}})
    )
    await asyncio.sleep(0.3)
    await on_place(network.conn, place_changed(place, "nantes", 1))
    assert (await sent).status_code == 200


# Logins


async def test_a_login_is_unique_in_any_case(network: Network) -> None:
    await network.city("nantes")
    await network.member("nantes", email="claire@exemple.invalid")
    body = {"city_id": "nantes", "display_name": "Twin", "email": "CLAIRE@Exemple.invalid"}
    answer = await network.admin.post("/v1/members", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")
    assert answer.json()["errors"][0]["field"] == "body.email"


MALFORMED = [
    ({"email": "clаire@exemple.invalid"}, "body.email", "email_malformed"),
    ({"email": "ｃlaire@exemple.invalid"}, "body.email", "email_malformed"),
    ({"email": "claire"}, "body.email", "email_malformed"),
    ({"email": ""}, "body.email", "email_malformed"),
    ({"email": "c@exemple.invalid", "password": "short"}, "body.password", "password_refused"),
    ({"password": PASSWORD}, "body.email", "invalid"),
    ({"city_id": "absent"}, "body.city_id", "unknown_city"),
    ({"display_name": " "}, "body.display_name", "invalid"),
    ({"display_name": "a\u202eb"}, "body.display_name", "invalid"),
    ({"display_name": 7}, "body.display_name", "invalid"),
    ({"member_id": "7"}, "body.member_id", "invalid"),
]


async def test_a_malformed_member_is_refused_by_field_and_changes_nothing(
    network: Network, subtests: pytest.Subtests
) -> None:
    await network.city("nantes")
    for extra, field, code in MALFORMED:
        with subtests.test(str(extra)):
            count = "SELECT count(*) FROM member"
            before = await network.conn.fetchval(count)
            body = {"city_id": "nantes", "display_name": "Invented", **extra}
            answer = await network.admin.post("/v1/members", body)
            assert (answer.status_code, answer.json()["code"]) == (422, code)
            assert answer.json()["errors"][0]["field"] == field
            assert "short" not in answer.text
            assert await network.conn.fetchval(count) == before


async def test_a_city_is_checked(network: Network) -> None:
    good = {"city_id": "nantes", "name": "Nantes", "timezone": "Europe/Paris"}
    await network.admin.made("/v1/cities", good)
    again = await network.admin.post("/v1/cities", {**good, "name": "Other"})
    assert (again.status_code, again.json()["code"]) == (409, "city_exists")
    for extra in ({"city_id": "Nantes"}, {"timezone": "Paris"}, {"name": ""}):
        answer = await network.admin.post("/v1/cities", {**good, **extra})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == f"body.{next(iter(extra))}"


# Commands that come twice


async def test_a_repeated_command_gives_the_first_answer(network: Network) -> None:
    await network.city("nantes")
    body = {
        "city_id": "nantes",
        "display_name": "Invented",
        "email": "once@exemple.invalid",
        "password": PASSWORD,
    }
    answers = await asyncio.gather(
        *(network.admin.post("/v1/members", body, key="same") for _ in range(4))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    for other in ({"display_name": "Other"}, {"password": "another passphrase"}):
        answer = await network.admin.post("/v1/members", {**body, **other}, key="same")
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_key_belongs_to_its_caller_and_route(
    network: Network, people: dict[str, Caller]
) -> None:
    body = {"city_id": "nantes", "display_name": "Invented"}
    first = await network.admin.post("/v1/members", body, key="shared")
    second = await people["steward"].post("/v1/members", body, key="shared")
    assert first.json()["member_id"] != second.json()["member_id"]


def operations(network: Network) -> list[tuple[str, str]]:
    """Method and path of everything that identity serves, ids filled in."""
    return [
        (method.upper(), re.sub(r"\{[a-z_]+\}", ABSENT, path))
        for path, methods in network.app.openapi()["paths"].items()
        for method in methods
    ]


async def test_every_route_wants_a_token_but_those_that_give_one(network: Network) -> None:
    public = {"/v1/oauth/token", "/v1/oauth/revoke", "/.well-known/jwks.json"}
    for method, path in operations(network):
        if path not in public:
            answer = await Caller(network.http).send(method, path, {})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path


# Questions, not commands: one is too long for an address, one is kept with who asked.
READ_BY_POST = {"/v1/names", f"/v1/places/{ABSENT}/names-inside"}


async def test_every_command_wants_an_idempotency_key(network: Network) -> None:
    bearer = {"Authorization": f"Bearer {network.admin.token}"}
    commands = [
        (method, path)
        for method, path in operations(network)
        if method != "GET" and "/oauth/" not in path and path not in READ_BY_POST
    ]
    assert len(commands) > 15
    for method, path in commands:
        answer = await network.http.request(method, path, json={}, headers=bearer)
        assert answer.status_code == 400, path
        assert answer.json()["code"] == "idempotency_key_missing", path


async def test_a_repeated_enrolment_shows_the_same_key_that_is_stored_nowhere(
    network: Network,
) -> None:
    await network.city("nantes")
    first = await network.admin.post("/v1/readers", {"city_id": "nantes"}, key="enrol")
    again = await network.admin.post("/v1/readers", {"city_id": "nantes"}, key="enrol")
    assert first.json() == again.json()
    assert first.headers["cache-control"] == "no-store"
    reader_id, _, secret = first.json()["key"].partition(".")
    assert reader_id == first.json()["reader_id"]
    rotated = (await network.admin.post(f"/v1/readers/{reader_id}/rotate")).json()
    assert rotated["key"] != first.json()["key"]
    rows = await network.conn.fetch(
        "SELECT to_jsonb(r)::text AS row FROM reader r"
        " UNION ALL SELECT to_jsonb(i)::text FROM idempotency i"
        " UNION ALL SELECT to_jsonb(o)::text FROM outbox o"
    )
    assert not any(secret in row["row"] for row in rows)


# Lists


async def test_lists_are_paged_without_gaps_or_repeats(network: Network) -> None:
    await network.city("nantes")
    made = [
        (await network.admin.made("/v1/members", {"city_id": "nantes", "display_name": f"M {n}"}))[
            "member_id"
        ]
        for n in range(7)
    ]
    seen: list[str] = []
    path = "/v1/members?city_id=nantes&limit=3"
    cursor = ""
    sizes = []
    while True:
        page = (await network.admin.get(path + cursor)).json()
        sizes.append(len(page["items"]))
        seen += [item["member_id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert sizes == [3, 3, 1]
    assert sorted(seen) == sorted(made)


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=x", "cursor='"])
async def test_a_malformed_page_is_refused(network: Network, query: str) -> None:
    answer = await network.admin.get(f"/v1/members?city_id=nantes&{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].startswith("query.")


# What the others learn


async def test_the_events_are_those_of_the_contract_and_hold_nothing_personal(
    network: Network,
) -> None:
    await network.city("nantes")
    made = await network.member("nantes", "steward", email="claire@exemple.invalid")
    member_id = made["member_id"]
    await network.admin.post(f"/v1/members/{member_id}/suspend")
    await network.admin.post(f"/v1/members/{member_id}/suspend")  # already: no event
    card = await network.admin.post(
        "/v1/cards", {"member_id": member_id, "type": "uid", "uid": "04A3B2C1D5E6F7"}
    )
    assert card.json()["code"] == "member_not_active"
    await network.admin.post(f"/v1/members/{member_id}/reinstate")
    card = await network.admin.made(
        "/v1/cards",
        {"member_id": member_id, "type": "uid", "uid": "04A3B2C1D5E6F7", "label": "Blue"},
    )
    await network.admin.post(f"/v1/cards/{card['card_id']}/block", {"reason": "stolen"})
    reader = await network.admin.made("/v1/readers", {"city_id": "nantes"})
    await network.admin.post(f"/v1/readers/{reader['reader_id']}/revoke")

    assert await network.events("identity.cities.v1") == [
        {
            "city_id": "nantes",
            "version": 1,
            "name": "Nantes",
            "timezone": "Europe/Paris",
            "status": "active",
        }
    ]
    base = {"member_id": member_id, "city_id": "nantes", "places": {}}
    assert await network.events("identity.members.v1") == [
        {**base, "version": 1, "status": "active", "roles": ["member"]},
        {**base, "version": 2, "status": "active", "roles": ["member", "steward"]},
        {**base, "version": 3, "status": "suspended", "roles": ["member", "steward"]},
        {**base, "version": 4, "status": "active", "roles": ["member", "steward"]},
    ]
    cards = await network.events("identity.cards.v1")
    assert [(c["version"], c["status"]) for c in cards] == [(1, "active"), (2, "blocked")]
    assert set(cards[0]) == {
        "card_id",
        "version",
        "credential_hash",
        "credential_type",
        "public_key",
        "valid_from",
        "valid_until",
        "places",
        "host_member_id",
        "member_id",
        "status",
    }
    readers = await network.events("identity.readers.v1")
    assert [(r["version"], r["status"]) for r in readers] == [(1, "active"), (2, "revoked")]
    for row in await network.conn.fetch("SELECT type, payload FROM outbox"):
        schema = json.loads((SCHEMAS / f"{row['type']}.json").read_text())
        jsonschema.validate(row["payload"], schema)
    everything = await network.conn.fetch("SELECT to_jsonb(o)::text AS row FROM outbox o")
    text = "".join(row["row"] for row in everything).upper()
    for personal in ("INVENTED", "CLAIRE", "EXEMPLE", "04A3B2C1D5E6F7", "E6F7", "STOLEN", "BLUE"):
        assert personal not in text
    # The federation's first admin has no city, and is nobody else's business.
    assert ADMIN_LOGIN.upper() not in text
    assert len({(row["member_id"]) for row in await network.events("identity.members.v1")}) == 1
