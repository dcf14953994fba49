import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jsonschema
import pytest
from places_world import NANTES, Register

from common.ids import new_id
from places import service, store
from places.domain.place import Details
from places.importing.run import import_places, to_no_city

SCHEMA = json.loads(
    (Path(__file__).parents[3] / "contracts/events/places.place.changed.v1.json").read_text()
)


def problem(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["status"] == answer.status_code
    return answer.status_code, document["code"]


def epoch(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type]  # five numbers


# --- places and what is told of them


async def test_a_new_place_is_told_of_with_its_door_policy(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    assert place["version"] == 1
    assert (place["status"], place["timezone"]) == ("in_network", "Europe/Paris")
    door = await register.operator.made(f"places/{place['place_id']}/doors", {"name": "Rue"})
    reader = str(new_id())
    answer = await register.operator.made(f"doors/{door['door_id']}/readers", {"reader_id": reader})
    assert answer["readers"] == [reader]
    first, second, third = await register.events(place["place_id"])
    assert (first["version"], first["doors"]) == (1, [])
    assert (second["version"], second["doors"][0]["readers"]) == (2, [])
    for event in (first, second, third):
        jsonschema.validate(event, SCHEMA)
    open_ = third["doors"][0].pop("open")
    assert third == {
        "place_id": place["place_id"],
        "version": 3,
        "city_id": "nantes",
        "name": "Le Dix",
        "status": "in_network",
        "timezone": "Europe/Paris",
        "capacity": 40,
        "anti_passback": "off",
        "computed_at": "2026-11-22T10:00:00Z",
        "expires_at": "2026-12-05T23:00:00Z",
        "opens_with": "anybody",
        "guests": "hours",
        "zones": [],
        "functions": [],
        "day_starts": [],
        "doors": [
            {
                "door_id": door["door_id"],
                "name": "Rue",
                "kind": "public",
                "min_assurance": 1,
                "unlock_ms": 3000,
                "publics": ["network"],
                "readers": [reader],
                "anti_passback": "off",
                "passback_minutes": None,
                "from_zone": None,
                "to_zone": None,
                "interlock": None,
            }
        ],
    }
    assert len(open_) == 14
    assert open_[0] == [epoch(2026, 11, 22, 8, 0), epoch(2026, 11, 22, 17, 0)]
    assert open_[-1] == [epoch(2026, 12, 5, 8, 0), epoch(2026, 12, 5, 17, 0)]


async def test_a_door_has_its_own_hours_or_those_of_the_place(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    path = f"places/{place['place_id']}/doors"
    await register.operator.made(path, {"name": "Rue"})
    await register.operator.made(path, {"name": "Cour", "opening_hours": "24/7"})
    await register.operator.made(path, {"name": "Chambre 1", "kind": "private"})
    doors = {door["name"]: door for door in (await register.events())[-1]["doors"]}
    assert doors["Cour"]["open"] == [[epoch(2026, 11, 21, 23, 0), epoch(2026, 12, 5, 23, 0)]]
    assert len(doors["Rue"]["open"]) == 14
    assert (doors["Chambre 1"]["publics"], doors["Chambre 1"]["kind"]) == ([], "private")


async def test_changed_hours_change_the_doors(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    await register.operator.made(f"places/{place['place_id']}/doors", {"name": "Rue"})
    path = f"places/{place['place_id']}"
    answer = await register.operator.send("PATCH", path, {"opening_hours": "Mo 10:00-11:00"})
    assert answer.status_code == 200
    assert answer.json()["version"] == 3
    assert (await register.events())[-1]["doors"][0]["open"] == [
        [epoch(2026, 11, 23, 9, 0), epoch(2026, 11, 23, 10, 0)],
        [epoch(2026, 11, 30, 9, 0), epoch(2026, 11, 30, 10, 0)],
    ]
    answer = await register.operator.send("PATCH", path, {"opening_hours": None, "capacity": None})
    assert (answer.json()["opening_hours"], answer.json()["capacity"]) == (None, None)
    assert (await register.events())[-1]["doors"][0]["open"] == []


async def test_a_change_that_changes_nothing_is_no_new_version(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    answer = await register.operator.send(
        "PATCH", f"places/{place['place_id']}", {"name": "Le Dix", "capacity": 40}
    )
    assert answer.json()["version"] == 1
    assert len(await register.events()) == 1


async def test_the_same_command_twice_is_done_once(register: Register) -> None:
    first = await register.operator.post("places", NANTES, key="k1")
    again = await register.operator.post("places", NANTES, key="k1")
    assert again.json() == first.json()
    other = await register.operator.post("places", {**NANTES, "name": "Autre"}, key="k1")
    assert problem(other) == (422, "idempotency_key_reused")
    assert len(await register.events()) == 1
    missing = await register.http.post(
        "/v1/places", json=NANTES, headers={"Authorization": f"Bearer {register.operator.token}"}
    )
    assert problem(missing) == (400, "idempotency_key_missing")


async def test_an_id_is_given_once(register: Register) -> None:
    body = {**NANTES, "place_id": str(new_id())}
    await register.operator.made("places", body)
    assert problem(await register.operator.post("places", body)) == (409, "place_exists")


async def test_a_place_overseas_lives_by_its_own_clock(register: Register) -> None:
    body = {**NANTES, "postcode": "97400", "insee_code": "97411", "commune": "Saint-Denis"}
    place = await register.operator.made("places", body)
    assert place["timezone"] == "Indian/Reunion"
    answer = await register.anybody.get(f"places/{place['place_id']}/openness")
    assert answer.json()["until"] == {
        "utc": "2026-11-22T14:00:00Z",
        "local": "2026-11-22T18:00:00+04:00",
    }


async def test_a_city_that_is_not_known_yet_is_worth_another_try(register: Register) -> None:
    body = {**NANTES, "city_id": "toulouse"}
    answer = await register.federation.post("places", body, key="once")
    assert problem(answer) == (422, "unknown_city")
    assert answer.json()["errors"][0]["field"] == "body.city_id"
    async with register.pool.acquire() as conn:
        await store.save_city(conn, store.City("toulouse", 1, "Toulouse", "Europe/Paris", "active"))
    answer = await register.federation.post("places", body, key="once")
    assert answer.status_code == 201
    async with register.pool.acquire() as conn:
        await store.save_city(conn, store.City("toulouse", 2, "Toulouse", "Europe/Paris", "left"))
        # An older version that comes late changes nothing.
        await store.save_city(conn, store.City("toulouse", 1, "Toulouse", "Europe/Paris", "active"))
    assert problem(await register.federation.post("places", body)) == (422, "city_left")


BAD: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "body.name"),
    ({"name": "a\u202eb"}, "body.name"),
    ({"name": "x" * 201}, "body.name"),
    ({"profile": "castle"}, "body.profile"),
    ({"postcode": "4400"}, "body.postcode"),
    ({"postcode": "٤٤٠٠٠"}, "body.postcode"),
    ({"insee_code": "99999999"}, "body.insee_code"),
    ({"latitude": "47.2"}, "body.latitude"),
    ({"latitude": 91}, "body.latitude"),
    ({"latitude": None}, "body.latitude"),
    ({"longitude": True}, "body.longitude"),
    ({"timezone": "Mars/Olympus"}, "body.timezone"),
    ({"timezone": "../../etc/passwd"}, "body.timezone"),
    ({"opening_hours": "lundi 9h"}, "body.opening_hours"),
    ({"opening_hours": ""}, "body.opening_hours"),
    ({"capacity": 0}, "body.capacity"),
    ({"capacity": "40"}, "body.capacity"),
    ({"capacity": 1.5}, "body.capacity"),
    ({"capacity": True}, "body.capacity"),
    ({"anti_passback": "sometimes"}, "body.anti_passback"),
    ({"itinerant": "yes"}, "body.itinerant"),
    ({"source": "x"}, "body.external_id"),
    ({"status": "in_network"}, "body.status"),
    ({"version": 9}, "body.version"),
    ({"city_id": "Nantes!"}, "body.city_id"),
]


async def test_bad_input_names_the_field_and_stores_nothing(register: Register) -> None:
    for changes, field in BAD:
        answer = await register.federation.post("places", {**NANTES, **changes})
        assert problem(answer)[0] == 422, changes
        assert answer.json()["errors"][0]["field"] == field
    assert await register.pool.fetchval("SELECT count(*) FROM place") == 0
    assert await register.events() == []


# --- who may


ROLES: list[tuple[str | None, tuple[str, ...]]] = [
    ("nantes", ()),
    ("nantes", ("resident",)),
    ("nantes", ("operator",)),
    ("nantes", ("steward",)),
    ("nantes", ("mediator", "animator", "connector")),
    ("bourges", ()),
    ("bourges", ("operator",)),
    ("bourges", ("steward",)),
    (None, ("auditor",)),
    (None, ("federation_admin",)),
]


def expected(city: str | None, roles: tuple[str, ...], *, hidden: bool) -> int:
    if "federation_admin" in roles:
        return 200
    if city == "nantes":
        return 200 if {"operator", "steward"} & set(roles) else 403
    return 404 if hidden else 403


async def test_who_may_write(register: Register, subtests: pytest.Subtests) -> None:
    for city, roles in ROLES:
        with subtests.test(f"{city} {roles}"):
            place = await register.operator.made("places", NANTES)
            door = await register.operator.made(
                f"places/{place['place_id']}/doors", {"name": "Rue"}
            )
            closure = await register.operator.made(
                f"places/{place['place_id']}/closures",
                {"from": "2026-12-24", "to": "2026-12-26", "reason": "Fêtes"},
            )
            caller = register.caller(city, *roles)
            before = await register.events()
            reader = str(new_id())
            commands: list[tuple[str, str, Any]] = [
                ("PATCH", "places/{place}", {"name": "Autre"}),
                (
                    "POST",
                    "places/{place}/closures",
                    {"from": "2026-12-30", "to": "2026-12-30", "reason": ""},
                ),
                ("POST", "places/{place}/doors", {"name": "Cour"}),
                ("POST", "doors/{door}/readers", {"reader_id": reader}),
                ("DELETE", f"doors/{{door}}/readers/{reader}", None),
                ("DELETE", "closures/{closure}", None),
            ]
            for method, path, body in commands:
                mine = path.format(
                    place=place["place_id"], door=door["door_id"], closure=closure["closure_id"]
                )
                absent = path.format(place=uuid4(), door=uuid4(), closure=uuid4())
                answer = await caller.send(method, mine, body)
                status = expected(city, roles, hidden=True)
                assert answer.status_code in ({200, 201} if status == 200 else {status}), (
                    method,
                    path,
                )
                missing = await caller.send(method, absent, body)
                assert missing.status_code == 404
                if status == 404:
                    assert answer.json() == missing.json()
            status = expected(city, roles, hidden=False)
            made = await caller.post("places", {**NANTES, "name": "Nouveau"})
            assert made.status_code == (201 if status == 200 else status)
            if status != 200:
                assert await register.events() == before


async def test_only_the_federation_decides_about_the_status(
    register: Register, subtests: pytest.Subtests
) -> None:
    for city, roles in ROLES:
        with subtests.test(f"{city} {roles}"):
            before = len(await register.events())
            place = await register.operator.made("places", NANTES)
            body = {"status": "suspended", "reason": "Contrôle"}
            path = f"places/{place['place_id']}/status"
            answer = await register.caller(city, *roles).send("PUT", path, body)
            told = [event["status"] for event in (await register.events())[before:]]
            if "federation_admin" in roles:
                assert answer.json()["status"] == "suspended"
                assert told == ["in_network", "suspended"]
                again = await register.federation.send("PUT", path, body)
                assert again.json()["version"] == 2
            else:
                assert answer.status_code == (403 if city == "nantes" else 404)
                assert told == ["in_network"]


@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
async def test_commands_want_a_token(register: Register, method: str) -> None:
    place = await register.operator.made("places", NANTES)
    path = {
        "POST": "places",
        "PATCH": f"places/{place['place_id']}",
        "PUT": f"places/{place['place_id']}/status",
        "DELETE": f"closures/{new_id()}",
    }[method]
    body = {} if method != "DELETE" else None
    assert problem(await register.anybody.send(method, path, body))[0] == 401


async def test_readers_are_shown_to_those_who_run_the_place(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    door = await register.operator.made(f"places/{place['place_id']}/doors", {"name": "Rue"})
    reader = str(new_id())
    await register.operator.made(f"doors/{door['door_id']}/readers", {"reader_id": reader})
    for caller, readers in (
        (register.operator, [reader]),
        (register.federation, [reader]),
        (register.anybody, None),
        (register.caller("bourges", "operator"), None),
        (register.caller("nantes"), None),
    ):
        shown = (await caller.get(f"places/{place['place_id']}")).json()
        assert shown["doors"][0]["readers"] == readers
    answer = await register.operator.send("DELETE", f"doors/{door['door_id']}/readers/{reader}")
    assert answer.json()["readers"] == []
    assert (await register.events())[-1]["doors"][0]["readers"] == []


# --- candidates


async def test_a_city_adopts_a_candidate(register: Register) -> None:
    candidate = Details(
        name="Candidat",
        profile="work_enterprise",
        postcode="44000",
        commune="Nantes",
        opening_hours="24/7",
        source="s",
        external_id="1",
    )
    await import_places(
        register.pool, "s", [candidate], to_no_city, register.clock, lambda _count: None
    )
    assert (await register.anybody.get("places")).json()["items"] == []
    (item,) = (await register.anybody.get("places", status="candidate")).json()["items"]
    path = f"places/{item['place_id']}"
    assert problem(await register.operator.post(f"{path}/doors", {"name": "Rue"}))[0] == 404
    status = {"status": "in_network", "reason": ""}
    answer = await register.federation.send("PUT", f"{path}/status", status)
    assert problem(answer) == (409, "place_without_city")
    answer = await register.federation.post(f"{path}/doors", {"name": "Rue"})
    assert problem(answer) == (409, "place_not_in_network")
    assert problem(await register.operator.post(f"{path}/adopt", {"city_id": "bourges"}))[0] == 403
    answer = await register.operator.post(f"{path}/adopt", {"city_id": "nantes"})
    assert (answer.status_code, answer.json()["status"]) == (200, "in_network")
    other = register.caller("bourges", "steward")
    answer = await other.post(f"{path}/adopt", {"city_id": "bourges"})
    assert problem(answer) == (409, "place_has_city")
    assert [event["version"] for event in await register.events()] == [2]


# --- readers


async def test_a_reader_is_on_one_door_of_its_own_city(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    path = f"places/{place['place_id']}/doors"
    rue = (await register.operator.made(path, {"name": "Rue"}))["door_id"]
    cour = (await register.operator.made(path, {"name": "Cour"}))["door_id"]
    ours, theirs, gone = UUID(int=1), UUID(int=2), UUID(int=3)
    async with register.pool.acquire() as conn:
        await store.save_reader(conn, store.Reader(ours, 1, "nantes", "active"))
        await store.save_reader(conn, store.Reader(theirs, 1, "bourges", "active"))
        await store.save_reader(conn, store.Reader(gone, 2, "nantes", "revoked"))
    await register.operator.made(f"doors/{rue}/readers", {"reader_id": str(ours)})
    version = (await register.events())[-1]["version"]
    await register.operator.made(f"doors/{rue}/readers", {"reader_id": str(ours)})
    assert (await register.events())[-1]["version"] == version
    on_another = await register.operator.post(f"doors/{cour}/readers", {"reader_id": str(ours)})
    assert problem(on_another) == (409, "reader_on_another_door")
    for reader in (theirs, gone):
        answer = await register.operator.post(f"doors/{cour}/readers", {"reader_id": str(reader)})
        assert problem(answer) == (422, "unknown_reader")


# --- openness, closures


async def test_openness_in_utc_and_on_the_wall(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    path = f"places/{place['place_id']}/openness"
    now = (await register.anybody.get(path)).json()
    assert now == {
        "place_id": place["place_id"],
        "status": "in_network",
        "timezone": "Europe/Paris",
        "at": {"utc": "2026-11-22T10:00:00Z", "local": "2026-11-22T11:00:00+01:00"},
        "open": True,
        "reason": "open",
        "until": {"utc": "2026-11-22T17:00:00Z", "local": "2026-11-22T18:00:00+01:00"},
        "next_change": {"utc": "2026-11-22T17:00:00Z", "local": "2026-11-22T18:00:00+01:00"},
    }
    # The end of an opening is not open any more.
    night = (await register.anybody.get(path, at="2026-11-22T18:00:00+01:00")).json()
    assert (night["open"], night["reason"], night["until"]) == (False, "outside_hours", None)
    assert night["next_change"]["local"] == "2026-11-23T09:00:00+01:00"
    for at in (
        "2026-11-22T10:00:00",
        "yesterday",
        "2029-01-01T00:00:00Z",
        "9999-12-31T23:00:00Z",
        "0001-01-01T00:00:00+23:00",
        "99999999999999999999",
    ):
        assert problem(await register.anybody.get(path, at=at)) == (422, "invalid")
    missing = await register.anybody.get(f"places/{uuid4()}/openness")
    assert problem(missing) == (404, "not_found")


async def test_a_place_that_never_closes_has_no_next_change(register: Register) -> None:
    place = await register.operator.made("places", {**NANTES, "opening_hours": "24/7"})
    found = (await register.anybody.get(f"places/{place['place_id']}/openness")).json()
    assert (found["open"], found["until"], found["next_change"]) == (True, None, None)


async def test_a_closure_closes_and_its_removal_opens(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    path = f"places/{place['place_id']}"
    await register.operator.made(f"{path}/doors", {"name": "Rue"})
    closure = await register.operator.made(
        f"{path}/closures", {"from": "2026-11-22", "to": "2026-11-24", "reason": "Travaux"}
    )
    assert (closure["from"], closure["to"]) == ("2026-11-22", "2026-11-24")
    found = (await register.anybody.get(f"{path}/openness")).json()
    assert (found["open"], found["reason"]) == (False, "closure")
    assert found["next_change"]["local"] == "2026-11-25T09:00:00+01:00"
    assert len((await register.events())[-1]["doors"][0]["open"]) == 11
    assert (await register.anybody.get(path)).json()["closures"][0]["reason"] == "Travaux"
    answer = await register.operator.send("DELETE", f"closures/{closure['closure_id']}")
    assert answer.status_code == 200
    assert len((await register.events())[-1]["doors"][0]["open"]) == 14


@pytest.mark.parametrize(
    ("first", "last"),
    [("2026-12-02", "2026-12-01"), ("2026-11-01", "2026-11-21"), ("2026-12-01", "2099-01-01")],
)
async def test_closures_that_make_no_sense(register: Register, first: str, last: str) -> None:
    place = await register.operator.made("places", NANTES)
    answer = await register.operator.post(
        f"places/{place['place_id']}/closures", {"from": first, "to": last, "reason": ""}
    )
    assert problem(answer) == (422, "invalid")
    assert answer.json()["errors"][0]["field"] == "body.to"
    assert len(await register.events()) == 1


# --- lists


async def test_places_are_found_by_words_without_accents(register: Register) -> None:
    for name in ("Médiathèque de l'Étang", "L'Œuvre", "Coworking 44"):
        await register.operator.made("places", {**NANTES, "name": name})

    async def names(**params: Any) -> list[str]:
        answer = await register.anybody.get("places", **params)
        assert answer.status_code == 200, answer.text
        return [item["name"] for item in answer.json()["items"]]

    assert await names(q="mediatheque ETANG") == ["Médiathèque de l'Étang"]
    assert await names(q="œuvre") == await names(q="oeuvre") == ["L'Œuvre"]
    assert await names(q="nantes 44100 garennes") == [
        "Coworking 44",
        "L'Œuvre",
        "Médiathèque de l'Étang",
    ]
    assert await names(q="%_%") == await names(q="'; --") == []
    assert len(await names(q="  ")) == 3
    assert await names(city_id="bourges") == []
    assert len(await names(city_id="nantes")) == 3


async def test_open_now_follows_the_clock_and_the_status(register: Register) -> None:
    place = await register.operator.made("places", NANTES)

    async def count() -> int:
        answer = await register.anybody.get("places", open_now="true")
        return len(answer.json()["items"])

    assert await count() == 1
    register.pass_time(hours=7)  # 18:00 in Paris: closes
    assert await count() == 0
    register.pass_time(hours=15)
    assert await count() == 1
    await register.federation.send(
        "PUT", f"places/{place['place_id']}/status", {"status": "suspended", "reason": "x"}
    )
    assert await count() == 0


async def test_nearest_first_within_the_radius(register: Register) -> None:
    for name, latitude, longitude in (
        ("Loin", 47.40, -1.58),
        ("Près", 47.21, -1.58),
        ("Ici", 47.20, -1.58),
        ("Nulle part", None, None),
    ):
        body = {**NANTES, "name": name, "latitude": latitude, "longitude": longitude}
        await register.operator.made("places", body)
    answer = await register.anybody.get("places", lat=47.2, lon=-1.58, radius_m=5000)
    found = [(item["name"], item["distance_m"]) for item in answer.json()["items"]]
    assert found == [("Ici", 0), ("Près", 1112)]
    seen: list[str] = []
    params: dict[str, Any] = {"lat": 47.2, "lon": -1.58, "radius_m": 50_000, "limit": 1}
    cursor: str | None = ""
    while cursor is not None:
        page = (await register.anybody.get("places", **params)).json()
        seen += [item["name"] for item in page["items"]]
        cursor = page["next"]
        params["cursor"] = cursor
    assert seen == ["Ici", "Près", "Loin"]
    assert problem(await register.anybody.get("places", lat=47.2))[0] == 422
    assert problem(await register.anybody.get("places", lat="nan", lon=1))[0] == 422


async def test_pages_by_name_have_every_place_once(register: Register) -> None:
    for number in range(7):
        await register.operator.made("places", {**NANTES, "name": f"Lieu {number % 3}"})
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await register.anybody.get("places", **params)).json()
        seen += [item["place_id"] for item in page["items"]]
        if page["next"] is None:
            break
        params["cursor"] = page["next"]
    assert len(seen) == len(set(seen)) == 7
    for cursor in ("x", "bnVsbA==", "WzEsMl0=", "W251bGwsIngiXQ=="):
        assert problem(await register.anybody.get("places", cursor=cursor)) == (422, "invalid")


# --- the daily refresh


async def test_hours_are_compiled_again_each_day(register: Register) -> None:
    place = await register.operator.made("places", NANTES)
    await register.operator.made(f"places/{place['place_id']}/doors", {"name": "Rue"})

    async def refresh() -> int:
        async with register.pool.acquire() as conn, conn.transaction():
            return await service.refresh_hours(conn, register.clock())

    assert await refresh() == 0
    register.pass_time(hours=12, minutes=59)  # 23:59 in Paris
    assert await refresh() == 0
    register.pass_time(minutes=2)
    assert await refresh() == 1
    assert await refresh() == 0
    last = (await register.events())[-1]
    assert (last["version"], last["expires_at"]) == (3, "2026-12-06T23:00:00Z")
    assert last["doors"][0]["open"][-1] == [epoch(2026, 12, 6, 8, 0), epoch(2026, 12, 6, 17, 0)]
    # A worker that was away for a month catches up at once.
    register.pass_time(days=30)
    assert await refresh() == 1
    assert (await register.events())[-1]["expires_at"] == "2027-01-05T23:00:00Z"


async def test_hours_that_cannot_be_read_any_more_open_nothing_and_stop_nobody(
    register: Register,
) -> None:
    broken = await register.operator.made("places", {**NANTES, "name": "Cassé"})
    await register.operator.made("places", NANTES)
    await register.operator.made(f"places/{broken['place_id']}/doors", {"name": "Rue"})
    await register.pool.execute(
        "UPDATE place SET opening_hours = 'lundi' WHERE place_id = $1", UUID(broken["place_id"])
    )
    register.pass_time(days=1)
    async with register.pool.acquire() as conn, conn.transaction():
        assert await service.refresh_hours(conn, register.clock()) == 2
    assert (await register.events(broken["place_id"]))[-1]["doors"][0]["open"] == []
    found = (await register.anybody.get(f"places/{broken['place_id']}/openness")).json()
    assert (found["open"], found["reason"]) == (False, "hours_unknown")


# --- what a place asks of those who enter


async def test_zones_functions_and_airlocks_are_kept_and_told(register: Register) -> None:
    rules = {
        "anti_passback": "timed",
        "anti_passback_minutes": 30,
        "opens_with": "staff_today",
        "guests": "host",
        "functions": [{"function": "atelier", "name": "Atelier", "capacity": 12}],
        "zones": [
            {"zone": "hall", "name": "Hall"},
            {"zone": "bois", "name": "Bois", "function": "atelier", "anti_passback": "soft"},
        ],
    }
    place = await register.operator.made("places", {**NANTES, **rules})
    path = f"places/{place['place_id']}"
    way = {"from_zone": "hall", "to_zone": "bois", "interlock": "sas"}
    door = await register.operator.made(f"{path}/doors", {"name": "Bois", **way})
    assert {name: door[name] for name in way} == way
    read = (await register.anybody.get(path)).json()
    assert read["zones"][1]["function"] == "atelier"
    assert read["functions"][0]["capacity"] == 12
    event = (await register.events())[-1]
    jsonschema.validate(event, SCHEMA)
    assert (event["anti_passback"], event["doors"][0]["anti_passback"]) == ("off", "soft")
    assert event["day_starts"][:2] == [epoch(2026, 11, 21, 23, 0), epoch(2026, 11, 22, 23, 0)]

    # The door is taken from the zone, then the zones may go.
    answer = await register.operator.send("PATCH", path, {"zones": []})
    assert problem(answer)[:2] == (422, "wrong_rules")
    out = {"from_zone": None, "to_zone": None, "interlock": None}
    answer = await register.operator.send("PATCH", f"doors/{door['door_id']}", out)
    assert (answer.status_code, answer.json()["to_zone"]) == (200, None)
    answer = await register.operator.send(
        "PATCH", path, {"zones": [], "functions": [], "anti_passback": "hard"}
    )
    assert answer.status_code == 200, answer.text
    event = (await register.events())[-1]
    assert (event["zones"], event["doors"][0]["passback_minutes"]) == ([], None)
    assert (event["anti_passback"], event["doors"][0]["anti_passback"]) == ("hard", "hard")

    again = await register.operator.send("PATCH", f"doors/{door['door_id']}", out)
    assert again.status_code == 200
    assert len(await register.events()) == event["version"]
    for caller, status in ((register.caller("bourges", "operator"), 404), (register.anybody, 401)):
        answer = await caller.send("PATCH", f"doors/{door['door_id']}", {"name": "Autre"})
        assert answer.status_code == status
