"""Passes: on a phone, with a password, named, replaced, blocked; of guests, invited and revoked."""

import asyncio
import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from identity_network import PASSWORD, Caller, Network
from phone import Phone

from common.ids import new_id
from identity import store
from identity.passes.domain import GUEST_NAME_KEPT as KEPT
from identity.passes.service import forget_old_guests


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def hashed(network: Network, kind: str, credential: str) -> str:
    pepper = network.settings.card_pepper.get_secret_value().encode()
    return hmac.new(pepper, f"{kind}:{credential}".encode(), hashlib.sha256).hexdigest()


def enrolment(**changes: Any) -> dict[str, Any]:
    body = {"public_key": Phone().public_key, "password": PASSWORD, "label": "Téléphone de Lise"}
    return {**body, **changes}


async def test_a_pass_on_a_phone(network: Network, capfd: pytest.CaptureFixture[str]) -> None:
    await network.city("nantes")
    lise, made = await network.somebody("nantes")
    other, _ = await network.somebody("nantes")

    # Enrolled with the own password, told to doors with its key, under the hash of its id.
    body, key = enrolment(), str(uuid4())
    first = (await lise.post("/v1/passes", body, key=key)).json()
    assert (await lise.post("/v1/passes", body, key=key)).json() == first
    (event,) = await network.events("identity.cards.v1")
    assert event == {
        "card_id": first["card_id"],
        "version": 1,
        "credential_hash": hashed(network, "pass", first["card_id"]),
        "credential_type": "pass",
        "member_id": made["member_id"],
        "status": "active",
        "public_key": body["public_key"],
        "valid_from": None,
        "valid_until": None,
        "places": None,
        "host_member_id": None,
    }
    assert code_of(await lise.post("/v1/passes", enrolment(), key=key))[0] == 422
    wrong = await lise.post("/v1/passes", enrolment(password="not the passphrase"))
    assert code_of(wrong) == (403, "wrong_password")
    for malformed in ("", "A" * 87, body["public_key"][:-1], body["public_key"] + "A"):
        answer = await lise.post("/v1/passes", enrolment(public_key=malformed))
        assert code_of(answer) == (422, "key_malformed")
        assert answer.json()["errors"][0]["field"] == "body.public_key"
    assert len(await network.events("identity.cards.v1")) == 1
    admin = await network.admin.post("/v1/passes", enrolment())
    assert code_of(admin) == (409, "member_without_city")

    # A few at most, also when they come at once; the one replaced makes room, and opens no more.
    more = await asyncio.gather(*(lise.post("/v1/passes", enrolment()) for _ in range(4)))
    assert (
        sorted(code_of(answer) for answer in more if answer.status_code != 201)
        == [(409, "too_many_phones")] * 2
    )
    assert code_of(await other.post("/v1/passes", enrolment(replaces=first["card_id"])))[0] == 404
    newer = await lise.made("/v1/passes", enrolment(replaces=first["card_id"]))
    again = await lise.post("/v1/passes", enrolment(replaces=first["card_id"]))
    assert code_of(again) == (409, "card_replaced")
    states = {
        event["card_id"]: event["status"] for event in await network.events("identity.cards.v1")
    }
    assert states[first["card_id"]] == "replaced"
    assert states[newer["card_id"]] == "active"

    # Named by the member alone; blocked like any card; a phone is not replaced by plastic.
    path = f"/v1/passes/{newer['card_id']}"
    assert (await lise.send("PATCH", path, {"label": "Le neuf"})).json()["label"] == "Le neuf"
    for stranger in (other, network.admin):
        assert (await stranger.send("PATCH", path, {"label": "x"})).status_code == 404
    listed = (await lise.get("/v1/cards")).json()["items"]
    assert {card["type"] for card in listed} == {"pass"}
    assert "Le neuf" in [card["label"] for card in listed]
    plastic = {"uid": "04A1B2C3D4E5F8"}
    answer = await network.admin.post(f"/v1/cards/{newer['card_id']}/replace", plastic)
    assert code_of(answer) == (409, "not_a_card")
    blocked = await lise.post(f"/v1/cards/{newer['card_id']}/block", {"reason": "lost"})
    assert blocked.json()["status"] == "blocked"
    # Not again and again, all day.
    old = newer["card_id"]
    for _ in range(6):
        old = (await lise.made("/v1/passes", enrolment(replaces=old)))["card_id"]
    assert code_of(await lise.post("/v1/passes", enrolment(replaces=old))) == (
        409,
        "too_many_today",
    )
    # Neither in the answers nor in the logs is there more of a password than before.
    assert PASSWORD not in "".join(capfd.readouterr())


async def test_a_guest_of_somebody(network: Network, capfd: pytest.CaptureFixture[str]) -> None:
    for city in ("nantes", "rennes"):
        await network.city(city)
    home, elsewhere = str(new_id()), str(new_id())
    await store.save_known_place(network.conn, UUID(home), "nantes", 1)
    await store.save_known_place(network.conn, UUID(elsewhere), "rennes", 1)

    async def with_place(city: str, relation: str) -> tuple[Caller, dict[str, Any]]:
        made = await network.member(city)
        path = f"/v1/members/{made['member_id']}/roles"
        body = {"roles": [], "places": {home: relation}}
        assert (await network.admin.put(path, body)).status_code == 200
        return await network.caller(made["email"]), made

    lise, host = await with_place("nantes", "resident")
    staff, _ = await with_place("nantes", "staff")
    visitor, _ = await network.somebody("nantes")
    steward, _ = await network.somebody("nantes", "steward")
    stranger, _ = await network.somebody("rennes", "steward")

    # The secret is in the answer, and nowhere else; the name is told to nobody's door.
    body, key = {"name": "Ravélo Invitée", "places": [home]}, str(uuid4())
    answer = await lise.post("/v1/guest-passes", body, key=key)
    made = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert (await lise.post("/v1/guest-passes", body, key=key)).json() == made
    assert len(made["code"]) == 30
    (event,) = await network.events("identity.cards.v1")
    now = network.clock.now
    assert datetime.fromisoformat(event["valid_from"]) == now
    assert datetime.fromisoformat(event["valid_until"]) == now + timedelta(days=1)
    assert event["credential_hash"] == hashed(network, "guest", made["code"][4:])
    assert event["credential_type"] == "guest"
    assert (event["places"], event["host_member_id"]) == ([home], host["member_id"])
    assert event["member_id"] == made["card_id"]
    text = str(await network.conn.fetch("SELECT to_jsonb(t)::text FROM card t"))
    text += str(await network.conn.fetch("SELECT t::text FROM idempotency t"))
    text += str(event) + "".join(capfd.readouterr())
    assert made["code"][4:] not in text
    assert "Rav" not in str(event)

    # Who may not: visitors, people of other cities, at places that nobody has heard of.
    for caller in (visitor, stranger):
        assert code_of(await caller.post("/v1/guest-passes", body)) == (403, "forbidden")
    for places in ([elsewhere], [home, elsewhere], [str(uuid4())]):
        answer = await lise.post("/v1/guest-passes", {**body, "places": places})
        assert code_of(answer) == (403, "forbidden")
    too_long = {**body, "valid_until": (now + timedelta(days=15)).isoformat()}
    assert code_of(await lise.post("/v1/guest-passes", too_long)) == (422, "invalid_validity")

    # Seen by the host and by those who look after the place; a guest is none of the host's cards.
    for caller, where in ((lise, ""), (staff, f"?place_id={home}"), (steward, f"?place_id={home}")):
        items = (await caller.get(f"/v1/guest-passes{where}")).json()["items"]
        assert [item["card_id"] for item in items] == [made["card_id"]]
        assert items[0]["name"] == "Ravélo Invitée"
        assert "code" not in items[0]
    assert (await lise.get("/v1/cards")).json()["items"] == []
    assert (await visitor.get("/v1/guest-passes")).json()["items"] == []
    for caller in (lise, visitor, stranger):
        assert (await caller.get(f"/v1/guest-passes?place_id={home}")).status_code == 404

    # Sent away by the staff; not by a stranger. What is a card is no guest, and the other way.
    path = f"/v1/guest-passes/{made['card_id']}/revoke"
    for caller in (visitor, stranger):
        assert (await caller.post(path)).status_code == 404
    assert (await staff.post(path)).json()["status"] == "revoked"
    assert (await lise.post(path)).json()["version"] == 2
    assert (await network.events("identity.cards.v1"))[-1]["status"] == "blocked"

    # Ten at most of a host, also at once; what is over or revoked does not count.
    many = await asyncio.gather(*(lise.post("/v1/guest-passes", body) for _ in range(12)))
    assert sorted(answer.status_code for answer in many) == [201] * 10 + [409] * 2
    assert {code_of(each) for each in many if each.status_code == 409} == {(409, "too_many_guests")}

    # Who lives there no more has no guests there; the steward's stay.
    kept = await steward.made("/v1/guest-passes", body)
    roles = f"/v1/members/{host['member_id']}/roles"
    assert (await network.admin.put(roles, {"roles": [], "places": {}})).status_code == 200
    items = (await steward.get(f"/v1/guest-passes?place_id={home}")).json()["items"]
    assert [item["card_id"] for item in items if item["status"] == "active"] == [kept["card_id"]]

    # The export names them; erasure forgets them; a month after the end the names go by themselves.
    export = (await lise.get(f"/v1/members/{host['member_id']}/export")).json()["tables"]
    assert {row["guest_name"] for row in export["guest_passes"]} == {"Ravélo Invitée"}
    erase = f"/v1/members/{host['member_id']}/erase"
    assert (await lise.post(erase, {"password": PASSWORD})).status_code == 200
    query = "SELECT DISTINCT guest_name, status FROM card WHERE member_id = $1"
    assert [tuple(row) for row in await network.conn.fetch(query, UUID(host["member_id"]))] == [
        ("", "blocked")
    ]
    end = now + timedelta(days=1)
    assert await forget_old_guests(network.conn, end + KEPT, rows_max=100) == 0
    assert await forget_old_guests(network.conn, end + KEPT + timedelta(seconds=1), rows_max=9) == 1
    ended = (await network.events("identity.cards.v1"))[-1]
    assert (ended["card_id"], ended["version"], ended["status"]) == (kept["card_id"], 2, "ended")
    assert await forget_old_guests(network.conn, end + 2 * KEPT, rows_max=100) == 0
