"""What a member may have: all that is kept of them, and an end to it."""

import asyncio
import csv
import io
import json
import zipfile
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from identity_network import PASSWORD, Caller, Network

from common.ids import new_id
from common.problems import Problem
from identity.domain import Actor
from identity.notices import service as notices
from identity.notices import store as notices_store
from identity.notices.domain import Notice, Preferences, Subscription
from identity.privacy import service

SECRETS = ("Zéphyrine Introuvable", "zephyrine.introuvable@exemple.invalid", "carte de Zéphyrine")
NAME, EMAIL, LABEL = SECRETS


@pytest.fixture
async def member(network: Network) -> dict[str, Any]:
    """A member who has everything: cards, logins, notices, a browser, messages on their way."""
    await network.city("nantes")
    await network.somebody("nantes", "steward")
    made = await network.admin.made(
        "/v1/members",
        {"city_id": "nantes", "display_name": NAME, "email": EMAIL, "password": PASSWORD},
    )
    member_id = UUID(made["member_id"])
    path = f"/v1/members/{member_id}/roles"
    await network.admin.put(path, {"roles": ["resident"], "places": {str(uuid4()): "resident"}})
    for uid in ("04A3B2C1D5E6F7", "04B3B2C1D5E6F8"):
        card = {"member_id": str(member_id), "type": "uid", "uid": uid, "label": LABEL}
        made_card = await network.admin.made("/v1/cards", card)
    replaced = f"/v1/cards/{made_card['card_id']}/replace"
    await network.admin.made(replaced, {"uid": "04C3B2C1D5E6F9", "label": LABEL})
    me = await network.caller(EMAIL)
    await me.put("/v1/me/notifications", {"email": "each", "push": True, "language": "fr"})
    subscription = Subscription(
        new_id(), member_id, "https://push.example/s3cr3t", b"\x04" * 65, bytes(16), network.clock()
    )
    await notices_store.insert_subscription(network.conn, subscription)
    notice = Notice(new_id(), member_id, "transfer.received", {"minutes": 30}, network.clock())
    await notices.take_in(network.conn, notice, email_on=True, push_on=True, now=network.clock())
    return made


async def words_left(network: Network, *words: str) -> list[str]:
    """Every column of every table that still says one of these, as text."""
    columns = await network.conn.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, 2"
    )

    async def says(table: str, name: str, word: str) -> bool:
        query = f'SELECT EXISTS (SELECT FROM "{table}" WHERE "{name}"::text ILIKE $1)'
        return bool(await network.conn.fetchval(query, f"%{word}%"))

    return [
        f"{column['table_name']}.{column['column_name']}: {word}"
        for column in columns
        for word in words
        if await says(column["table_name"], column["column_name"], word)
    ]


async def erase(caller: Caller, member_id: str, body: Any = None) -> tuple[int, str]:
    answer = await caller.post(f"/v1/members/{member_id}/erase", body or {})
    return answer.status_code, answer.json().get("code", answer.json().get("status"))


# Export


async def test_a_member_has_all_that_is_kept_of_them(
    network: Network, member: dict[str, Any]
) -> None:
    me = await network.caller(EMAIL)
    answer = await me.get(f"/v1/members/{member['member_id']}/export")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    assert (document["service"], document["member_id"]) == ("identity", member["member_id"])
    tables = document["tables"]
    assert {name: len(rows) for name, rows in tables.items()} == {
        "member": 1,
        "cards": 3,
        "guest_passes": 0,
        "card_key_disclosures": 0,
        "names_told_to_wardens": 0,
        "logins": 2,
        "notification_preferences": 1,
        "notices": 1,
        "notification_deliveries": 2,
        "push_subscriptions": 1,
    }
    (row,) = tables["member"]
    assert (row["display_name"], row["email"], row["directory"]) == (NAME, EMAIL, "city")
    assert row["roles"] == ["resident"]
    assert tables["push_subscriptions"][0]["push_service"] == "push.example"
    assert "s3cr3t" not in answer.text
    assert "argon2" not in answer.text


async def test_nobody_else_has_it(network: Network, member: dict[str, Any]) -> None:
    neighbour, _ = await network.somebody("nantes")
    steward, _ = await network.somebody("nantes", "steward")
    for suffix in ("export", "export.zip"):
        path = f"/v1/members/{member['member_id']}/{suffix}"
        absent = f"/v1/members/{uuid4()}/{suffix}"
        assert (await steward.get(path)).status_code == 403
        assert (await network.admin.get(path)).status_code == 403
        theirs = await neighbour.get(path)
        assert theirs.status_code == 404
        assert theirs.content == (await neighbour.get(absent)).content
        assert (await Caller(network.http).get(path)).status_code == 401


async def test_the_same_as_files_that_no_spreadsheet_runs(network: Network) -> None:
    await network.city("nantes")
    evil = '=HYPERLINK("http://x.invalid";"a")'
    made = await network.admin.made(
        "/v1/members",
        {"city_id": "nantes", "display_name": evil, "email": EMAIL, "password": PASSWORD},
    )
    me = await network.caller(EMAIL)
    answer = await me.get(f"/v1/members/{made['member_id']}/export.zip")
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == (
        'attachment; filename="identity-2026-11-22.zip"'
    )
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert set(archive.namelist()) == {
            "identity.json",
            "identity/member.csv",
            "identity/logins.csv",
        }
        document = json.loads(archive.read("identity.json"))
        text = archive.read("identity/member.csv").decode("utf-8-sig")
    assert document["tables"]["member"][0]["display_name"] == evil
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["display_name"] == f"'{evil}"
    assert row["email"] == EMAIL
    assert row["version"] == "1"


# Erasure


async def test_of_one_who_is_erased_no_word_is_left(
    network: Network, member: dict[str, Any]
) -> None:
    member_id = member["member_id"]
    me = await network.caller(EMAIL)
    assert await words_left(network, NAME, EMAIL, LABEL, "s3cr3t") != []
    assert await erase(me, member_id, {"password": PASSWORD}) == (200, "erased")
    assert await words_left(network, NAME, EMAIL, "zephyrine", "Zéphyrine", "s3cr3t") == []
    for table in (
        "refresh_family",
        "notice",
        "notification_delivery",
        "notification_preference",
        "push_subscription",
    ):
        left = await network.conn.fetchval(
            f"SELECT count(*) FROM {table} WHERE member_id = $1", UUID(member_id)
        )
        assert left == 0, table
    assert (await me.get("/v1/me")).status_code == 401
    refused = await network.token_request(grant_type="password", username=EMAIL, password=PASSWORD)
    assert refused.status_code == 400


async def test_the_others_learn_of_it_and_the_cards_are_blocked(
    network: Network, member: dict[str, Any]
) -> None:
    member_id = member["member_id"]
    before = {
        event["card_id"]: event
        for event in await network.events("identity.cards.v1")
        if event["member_id"] == member_id
    }
    assert sorted(event["status"] for event in before.values()) == ["active", "active", "replaced"]
    await erase(network.admin, member_id)
    last = (await network.events("identity.members.v1"))[-1]
    assert last == {
        "member_id": member_id,
        "version": 3,
        "city_id": "nantes",
        "status": "erased",
        "roles": ["member"],
        "places": {},
    }
    after = {
        event["card_id"]: event
        for event in await network.events("identity.cards.v1")
        if event["member_id"] == member_id
    }
    assert sorted(event["status"] for event in after.values()) == ["blocked", "blocked", "replaced"]
    for card_id, event in after.items():
        assert event["credential_hash"] == before[card_id]["credential_hash"]
        answer = await network.admin.post(f"/v1/cards/{card_id}/unblock")
        assert answer.status_code == 409, card_id
    cards = {"member_id": member_id, "type": "uid", "uid": "04D3B2C1D5E6F9"}
    answer = await network.admin.post("/v1/cards", cards)
    assert (answer.status_code, answer.json()["code"]) == (409, "member_not_active")


async def test_erased_again_nothing_happens(network: Network, member: dict[str, Any]) -> None:
    path = f"/v1/members/{member['member_id']}/erase"
    first = await network.admin.post(path, {}, key="once")
    events = len(await network.events("identity.members.v1"))
    again = await network.admin.post(path, {}, key="once")
    other = await network.admin.post(path, {}, key="twice")
    assert first.json() == again.json() == other.json()
    assert len(await network.events("identity.members.v1")) == events
    for action in ("suspend", "reinstate"):
        answer = await network.admin.post(f"/v1/members/{member['member_id']}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (409, "member_erased")


async def test_two_at_once_are_one(network: Network, member: dict[str, Any]) -> None:
    me = await network.caller(EMAIL)
    path = f"/v1/members/{member['member_id']}/erase"
    answers = await asyncio.gather(
        *(me.post(path, {"password": PASSWORD}, key="same") for _ in range(3)),
        network.admin.post(path, {}),
    )
    # Who comes after it is done is nobody any more.
    assert {answer.status_code for answer in answers} <= {200, 401}
    told = [
        event
        for event in await network.events("identity.members.v1")
        if event["member_id"] == member["member_id"] and event["status"] == "erased"
    ]
    assert len(told) == 1
    assert await words_left(network, NAME, EMAIL) == []


async def test_oneself_only_with_the_password_and_others_only_by_the_federation(
    network: Network, member: dict[str, Any]
) -> None:
    member_id = member["member_id"]
    me = await network.caller(EMAIL)
    neighbour, _ = await network.somebody("nantes")
    steward, _ = await network.somebody("nantes", "steward", "operator")
    elsewhere, _ = await network.somebody(None, "auditor")
    assert await erase(me, member_id) == (403, "wrong_password")
    assert await erase(me, member_id, {"password": "another passphrase"}) == (403, "wrong_password")
    assert await erase(steward, member_id, {"password": PASSWORD}) == (403, "forbidden")
    for stranger in (neighbour, elsewhere):
        assert await erase(stranger, member_id, {"password": PASSWORD}) == (404, "not_found")
    assert await erase(network.admin, str(uuid4())) == (404, "not_found")
    assert await words_left(network, NAME) != []


async def test_guesses_of_the_password_are_counted(
    network: Network, member: dict[str, Any]
) -> None:
    me = await network.caller(EMAIL)
    seen = {
        (await erase(me, member["member_id"], {"password": f"guess number {n}"}))[0]
        for n in range(12)
    }
    assert seen == {403, 429}
    assert (await erase(me, member["member_id"], {"password": PASSWORD}))[0] == 429


async def test_the_last_federation_admin_and_the_last_steward_stay(network: Network) -> None:
    await network.city("nantes")
    admin_id = (await network.admin.get("/v1/me")).json()["member_id"]
    answer = await erase(network.admin, admin_id, {"password": PASSWORD})
    assert answer == (409, "last_federation_admin")
    first, one = await network.somebody("nantes", "steward")
    assert await erase(first, one["member_id"], {"password": PASSWORD}) == (409, "last_steward")
    assert await erase(network.admin, one["member_id"]) == (409, "last_steward")
    second, two = await network.somebody("nantes", "steward")
    both = await asyncio.gather(
        erase(first, one["member_id"], {"password": PASSWORD}),
        erase(second, two["member_id"], {"password": PASSWORD}),
    )
    assert sorted(both) == [(200, "erased"), (409, "last_steward")]


async def test_of_two_stewards_who_leave_at_once_the_second_hears_of_the_first(
    network: Network,
) -> None:
    await network.city("nantes")
    ids = [UUID((await network.member("nantes", "steward"))["member_id"]) for _ in range(2)]
    admin = Actor(new_id(), "member", None, frozenset({"federation_admin"}))

    async def erase_in(conn: Any, member_id: UUID) -> None:
        await service.erase(conn, admin, member_id, proven_hash=None, now=network.clock())

    async def second() -> None:
        async with network.context.pool.acquire() as conn, conn.transaction():
            await erase_in(conn, ids[1])

    async with network.conn.transaction():
        await erase_in(network.conn, ids[0])
        later = asyncio.create_task(second())
        await asyncio.sleep(0.3)  # time to go wrong
    with pytest.raises(Problem, match="last_steward"):
        await later


async def test_who_has_no_password_cannot_prove_it(network: Network) -> None:
    await network.city("nantes")
    body = {"city_id": "nantes", "display_name": NAME}
    member_id = UUID((await network.admin.made("/v1/members", body))["member_id"])
    oneself = Actor(member_id, "member", "nantes", frozenset({"member"}))
    with pytest.raises(Problem, match="wrong_password"):
        await service.erase(network.conn, oneself, member_id, proven_hash=None, now=network.clock())


async def test_a_repeat_of_what_made_them_makes_nobody_new(network: Network) -> None:
    """The answers that are kept for repeated commands tell of the member too."""
    await network.city("nantes")
    body = {"city_id": "nantes", "display_name": NAME, "email": EMAIL}
    made = await network.admin.post("/v1/members", body, key="made")
    await erase(network.admin, made.json()["member_id"])
    again = await network.admin.post("/v1/members", body, key="made")
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
    assert await words_left(network, NAME, EMAIL) == []


async def test_a_request_that_was_on_its_way_leaves_nothing_behind(
    network: Network, member: dict[str, Any]
) -> None:
    """Somebody's own command that began before the erasure and ends after it."""
    member_id = UUID(member["member_id"])
    await erase(network.admin, member["member_id"])
    with pytest.raises(Exception, match="not_found"):
        await notices.choose(network.conn, member_id, Preferences())
    late = Subscription(
        new_id(), member_id, "https://push.example/late", b"\x04" * 65, bytes(16), network.clock()
    )
    with pytest.raises(Exception, match="not_found"):
        await notices.subscribe(network.conn, late)
    assert await words_left(network, "push.example/late") == []


async def test_the_address_is_free_again_and_the_name_is_found_no_more(
    network: Network, member: dict[str, Any]
) -> None:
    await erase(network.admin, member["member_id"])
    listed = await network.admin.get("/v1/directory?q=zephyrine")
    assert listed.json()["items"] == []
    names = await network.admin.post("/v1/names", {"member_ids": [member["member_id"]]})
    assert names.json() == {"items": []}
    body = {"city_id": "nantes", "display_name": "Somebody else", "email": EMAIL}
    await network.admin.made("/v1/members", body)


async def test_the_database_itself_keeps_no_words_of_the_erased(
    network: Network, member: dict[str, Any]
) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="member_erased_is_nobody"):
        await network.conn.execute(
            "UPDATE member SET status = 'erased' WHERE member_id = $1", UUID(member["member_id"])
        )
