"""Who finds whom by name."""

import random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from identity_network import Caller, Network

from common.ids import new_id
from identity.directory import store
from identity.directory.domain import Entry, to_cursor, viewer
from identity.domain import Actor
from identity.store import save_known_place

NANTES = {"nobody": "Nadia Caché", "city": "Camille Ici", "federation": "Félix Partout"}


async def named(network: Network, city_id: str | None, name: str, **more: Any) -> str:
    made = await network.admin.made(
        "/v1/members", {"city_id": city_id, "display_name": name, **more}
    )
    return str(made["member_id"])


async def choose(network: Network, member_id: str, visibility: str) -> None:
    await network.conn.execute(
        "UPDATE member SET directory = $2 WHERE member_id = $1", UUID(member_id), visibility
    )


@pytest.fixture
async def two_cities(network: Network) -> dict[str, str]:
    """Three members of nantes, one for each choice: name → id."""
    await network.city("nantes")
    await network.city("bourges")
    ids = {}
    for visibility, name in NANTES.items():
        ids[name] = await named(network, "nantes", name)
        await choose(network, ids[name], visibility)
    return ids


async def found(caller: Caller, query: str = "") -> list[str]:
    answer = await caller.get(f"/v1/directory{query}")
    assert answer.status_code == 200, answer.text
    return [item["display_name"] for item in answer.json()["items"]]


async def resolved(caller: Caller, ids: list[str]) -> set[str]:
    answer = await caller.post("/v1/names", {"member_ids": ids})
    assert answer.status_code == 200, answer.text
    return {item["display_name"] for item in answer.json()["items"]}


async def test_each_member_decides_who_finds_them(
    network: Network, two_cities: dict[str, str]
) -> None:
    hidden, here, everywhere = NANTES.values()
    callers = {
        "neighbour": (await network.somebody("nantes"))[0],
        "operator": (await network.somebody("nantes", "operator", "mediator"))[0],
        "steward": (await network.somebody("nantes", "steward"))[0],
        "elsewhere": (await network.somebody("bourges"))[0],
        "steward elsewhere": (await network.somebody("bourges", "steward"))[0],
        "auditor": (await network.somebody(None, "auditor"))[0],
        "admin": network.admin,
    }
    expected = {
        "neighbour": {here, everywhere},
        "operator": {here, everywhere},
        "steward": {hidden, here, everywhere},
        "elsewhere": {everywhere},
        "steward elsewhere": {everywhere},
        "auditor": set(),
        "admin": {hidden, here, everywhere},
    }
    ids = [*two_cities.values(), str(uuid4())]
    for name, caller in callers.items():
        listed = set(await found(caller, "?city_id=nantes&limit=200")) & set(NANTES.values())
        assert listed == expected[name], name
        assert await resolved(caller, ids) == expected[name], name
    assert (await Caller(network.http).get("/v1/directory")).status_code == 401
    assert (await Caller(network.http).post("/v1/names", {"member_ids": []})).status_code == 401


async def test_one_sees_oneself_however_hidden(network: Network) -> None:
    await network.city("nantes")
    caller, me = await network.somebody("nantes")
    answer = await caller.put("/v1/me/visibility", {"directory": "nobody"})
    assert answer.json() == {"directory": "nobody"}
    assert (await caller.get("/v1/me/visibility")).json() == {"directory": "nobody"}
    assert await found(caller) == [me["display_name"]]
    neighbour, _ = await network.somebody("nantes")
    assert await resolved(neighbour, [me["member_id"]]) == set()
    await caller.put("/v1/me/visibility", {"directory": "city"})
    assert await resolved(neighbour, [me["member_id"]]) == {me["display_name"]}


async def test_the_choice_is_checked_and_a_service_has_none(network: Network) -> None:
    await network.city("nantes")
    caller, _ = await network.somebody("nantes")
    answer = await caller.put("/v1/me/visibility", {"directory": "everybody"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.directory")
    client = await network.admin.made("/v1/clients", {"name": "A service", "city_id": "nantes"})
    token = await network.token_request(
        grant_type="client_credentials",
        client_id=client["client_id"],
        client_secret=client["client_secret"],
    )
    service = Caller(network.http, token.json()["access_token"])
    assert (await service.get("/v1/me/visibility")).status_code == 403
    assert (await service.put("/v1/me/visibility", {"directory": "city"})).status_code == 403
    assert await found(service) == []


BY_THEIR_BEGINNING = [
    ("lea", {"Léa Lecœur-Ly", "LÉA d'Arc"}),
    ("LÉ", {"Léa Lecœur-Ly", "LÉA d'Arc"}),
    ("lecoeur", {"Léa Lecœur-Ly"}),
    ("LECŒUR l", {"Léa Lecœur-Ly"}),
    ("ly lea", {"Léa Lecœur-Ly"}),
    ("darc", {"LÉA d'Arc"}),
    ("D’Arc", {"LÉA d'Arc"}),
    ("ea", set()),
    ("Иван", {"Иван Strauß"}),
    ("ивАн STRAUSS", {"Иван Strauß"}),
    ("---", set()),
    ("' | a:* & !b\\", set()),
    ("zoe", {"Zoë"}),  # written with a combining mark
    ("%", set()),
]


async def test_words_are_found_by_their_beginning_without_case_and_accents(
    network: Network, subtests: pytest.Subtests
) -> None:
    await network.city("nantes")
    for name in ("Léa Lecœur-Ly", "LÉA d'Arc", "Иван Strauß", "Zoë", "Bob"):
        await named(network, "nantes", name)
    for query, names in BY_THEIR_BEGINNING:
        with subtests.test(query):
            answer = await network.http.get(
                "/v1/directory",
                params={"q": query, "city_id": "nantes"},
                headers={"Authorization": f"Bearer {network.admin.token}"},
            )
            assert {item["display_name"] for item in answer.json()["items"]} == names


async def test_pages_follow_the_alphabet_without_gaps_or_repeats(network: Network) -> None:
    await network.city("nantes")
    names = ["Élodie", "eloi", "Zoé", "Abel", "abel", "Ça va", "École", "Œdipe", "Odile", "Ophélie"]
    random.Random(7).shuffle(names)
    for name in names:
        await named(network, "nantes", name)
    seen: list[str] = []
    cursor = ""
    while True:
        answer = (await network.admin.get(f"/v1/directory?city_id=nantes&limit=3{cursor}")).json()
        seen += [item["display_name"] for item in answer["items"]]
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
    assert seen[2:] == ["Ça va", "École", "Élodie", "eloi", "Odile", "Œdipe", "Ophélie", "Zoé"]
    assert sorted(seen[:2]) == ["Abel", "abel"]


async def test_a_cursor_of_nowhere_is_refused(network: Network) -> None:
    entry = Entry(new_id(), "nantes", "A", "a\x00")
    for cursor in ("x", "%21", "AAAA", to_cursor(entry), "é"):
        answer = await network.admin.get(f"/v1/directory?cursor={cursor}")
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.cursor")


async def test_the_suspended_keep_their_name_but_are_not_listed(
    network: Network, two_cities: dict[str, str]
) -> None:
    name = "Camille Ici"
    neighbour, _ = await network.somebody("nantes")
    await network.admin.post(f"/v1/members/{two_cities[name]}/suspend")
    assert name not in await found(neighbour)
    assert await resolved(neighbour, [two_cities[name]]) == {name}


async def test_a_page_of_names_is_bounded(network: Network) -> None:
    ids = [str(uuid4()) for _ in range(101)]
    answer = await network.admin.post("/v1/names", {"member_ids": ids})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.member_ids")
    assert await resolved(network.admin, ids[:100]) == set()
    assert await resolved(network.admin, []) == set()


async def test_a_search_by_name_uses_the_index(network: Network) -> None:
    """With a federation's worth of members a search by name does not read them all."""
    await network.city("nantes")
    await network.conn.execute(
        "INSERT INTO member (member_id, city_id, display_name, status, roles, places, version,"
        " created_at) SELECT gen_random_uuid(), 'nantes', md5(i::text), 'active', '{}', '{}', 1,"
        " now() FROM generate_series(1, 5000) i"
    )
    await network.conn.execute("ANALYZE member")
    admin = Actor(new_id(), "member", None, frozenset({"federation_admin"}))
    plan = "\n".join(
        row[0]
        for row in await network.conn.fetch(
            "EXPLAIN SELECT member_id FROM member WHERE name_search @@ $1::tsquery", "'ab12':*"
        )
    )
    assert "member_name_search" in plan
    entries = await store.find(
        network.conn, viewer(admin), city_id=None, words="c4ca4238", after=None, limit=10
    )
    assert [entry.display_name for entry in entries] == ["c4ca4238a0b923820dcc509a6f75849b"]


async def test_the_warden_of_a_place_is_told_who_is_inside_and_that_is_kept(
    network: Network,
) -> None:
    await network.city("nantes")
    place, other = str(new_id()), str(new_id())
    for known in (place, other):
        await save_known_place(network.conn, UUID(known), "nantes", 1)
    hidden = await named(network, "nantes", "Nadia Caché")
    await choose(network, hidden, "nobody")
    warden, made = await network.somebody("nantes")
    path = f"/v1/places/{place}/names-inside"
    body = {"ids": [hidden, str(uuid4())]}

    async def becomes(relation: str) -> Any:
        roles = {"roles": [], "places": {place: relation}}
        await network.admin.put(f"/v1/members/{made['member_id']}/roles", roles)
        return await warden.post(path, body)

    # A steward sees all names, and is no warden all the same: this is for evacuations.
    steward, _ = await network.somebody("nantes", "steward")
    for refused in (await becomes("staff"), await steward.post(path, body)):
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    told = await becomes("warden")
    assert told.json()["items"] == [{"id": hidden, "name": "Nadia Caché"}]
    assert (await warden.post(path.replace(place, other), body)).status_code == 403
    assert (await warden.post(path, {"ids": []})).status_code == 422
    (look,) = await network.conn.fetch("SELECT * FROM warden_look")
    assert (str(look["looked_by"]), str(look["asked"][0])) == (made["member_id"], hidden)
    with pytest.raises(asyncpg.RestrictViolationError):
        await network.conn.execute("DELETE FROM warden_look")
