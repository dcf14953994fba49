"""Cards: issued, blocked, unblocked, replaced; the UID never kept."""

import asyncio
import hashlib
import hmac
import itertools
from typing import Any

import pytest
from identity_network import Caller, Network

UID = "04A3B2C1D5E6F7"


@pytest.fixture
async def holder(network: Network) -> tuple[Caller, str]:
    """A member of nantes: their caller and id."""
    await network.city("nantes")
    caller, made = await network.somebody("nantes")
    return caller, made["member_id"]


async def issue(network: Network, member_id: str, uid: str = UID) -> dict[str, Any]:
    return await network.admin.made(
        "/v1/cards", {"member_id": member_id, "type": "uid", "uid": uid}
    )


async def test_a_card_is_published_by_its_hash(
    network: Network, holder: tuple[Caller, str]
) -> None:
    made = await issue(network, holder[1], "04:a3:b2:c1:d5:e6:f7")
    assert (made["uid_tail"], made["status"], made["version"]) == ("E6F7", "active", 1)
    pepper = network.settings.card_pepper.get_secret_value().encode()
    expected = hmac.new(pepper, f"uid:{UID}".encode(), hashlib.sha256).hexdigest()
    (event,) = await network.events("identity.cards.v1")
    assert event["credential_hash"] == expected
    assert event["card_id"] == made["card_id"]


async def test_the_uid_is_in_no_table_and_no_log(
    network: Network, holder: tuple[Caller, str], capfd: pytest.CaptureFixture[str]
) -> None:
    made = await issue(network, holder[1])
    await network.admin.post(f"/v1/cards/{made['card_id']}/replace", {"uid": "04B3B2C1D5E6F8"})
    await network.admin.post("/v1/cards", {"member_id": holder[1], "type": "uid", "uid": UID + "A"})
    tables = await network.conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    text = ""
    for table in tables:
        rows = await network.conn.fetch(
            f'SELECT to_jsonb(t)::text AS row FROM "{table["tablename"]}" t'
        )
        text += "".join(row["row"] for row in rows)
    text += "".join(capfd.readouterr())
    for uid in (UID, "04B3B2C1D5E6F8"):
        assert uid not in text.upper()
        for guess in (uid, f"uid:{uid}", uid.lower()):
            assert hashlib.sha256(guess.encode()).hexdigest() not in text


MALFORMED_UIDS = ["04A3B2C", "04A3B2C1D5", "zz", "", "08A3B2C1", 7, None, ["04"]]


async def test_a_malformed_uid_is_refused_and_not_repeated(
    network: Network, holder: tuple[Caller, str], subtests: pytest.Subtests
) -> None:
    for uid in MALFORMED_UIDS:
        with subtests.test(repr(uid)):
            answer = await network.admin.post(
                "/v1/cards", {"member_id": holder[1], "type": "uid", "uid": uid}
            )
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["field"] == "body.uid"
            assert not isinstance(uid, str) or not uid or uid not in answer.text
            assert await network.conn.fetchval("SELECT count(*) FROM card") == 0


async def test_a_uid_is_on_one_live_card_only(network: Network, holder: tuple[Caller, str]) -> None:
    made = await issue(network, holder[1])
    other = (await network.member("nantes"))["member_id"]
    body = {"member_id": other, "type": "uid", "uid": UID.lower()}
    for _ in range(2):
        answer = await network.admin.post("/v1/cards", body)
        assert (answer.status_code, answer.json()["code"]) == (409, "uid_in_use")
        assert answer.json()["errors"][0]["field"] == "body.uid"
        # A blocked card still owns its UID: it may be unblocked.
        await network.admin.post(f"/v1/cards/{made['card_id']}/block", {"reason": "lost"})
    await network.admin.post(f"/v1/cards/{made['card_id']}/replace", {"uid": "04B3B2C1D5E6F7"})
    await network.admin.made("/v1/cards", body)


async def test_of_many_cards_with_one_uid_at_once_one_is_issued(
    network: Network, holder: tuple[Caller, str]
) -> None:
    body = {"member_id": holder[1], "type": "uid", "uid": UID}
    answers = await asyncio.gather(*(network.admin.post("/v1/cards", body) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5


async def test_the_holder_blocks_and_the_steward_unblocks(
    network: Network, holder: tuple[Caller, str]
) -> None:
    caller, member_id = holder
    path = f"/v1/cards/{(await issue(network, member_id))['card_id']}"
    blocked = await caller.post(f"{path}/block", {"reason": "lost"})
    assert (blocked.status_code, blocked.json()["status"]) == (200, "blocked")
    again = await caller.post(f"{path}/block", {"reason": "stolen"})
    assert (again.json()["version"], again.json()["block_reason"]) == (2, "lost")
    assert (await caller.post(f"{path}/unblock")).status_code == 403
    unblocked = await network.admin.post(f"{path}/unblock")
    assert (unblocked.json()["status"], unblocked.json()["block_reason"]) == ("active", None)
    versions = [event["version"] for event in await network.events("identity.cards.v1")]
    assert versions == [1, 2, 3]


async def test_versions_rise_one_by_one_under_concurrent_commands(
    network: Network, holder: tuple[Caller, str]
) -> None:
    path = f"/v1/cards/{(await issue(network, holder[1]))['card_id']}"
    await asyncio.gather(
        *(
            network.admin.post(
                f"{path}/{'block' if n % 2 else 'unblock'}", {"reason": "lost"} if n % 2 else None
            )
            for n in range(12)
        )
    )
    events = await network.events("identity.cards.v1")
    assert [event["version"] for event in events] == list(range(1, len(events) + 1))
    statuses = [event["status"] for event in events]
    assert all(before != after for before, after in itertools.pairwise(statuses))


async def test_a_replaced_card_is_over(network: Network, holder: tuple[Caller, str]) -> None:
    caller, member_id = holder
    old = await issue(network, member_id)
    path = f"/v1/cards/{old['card_id']}"
    await caller.post(f"{path}/block", {"reason": "lost"})
    same = await network.admin.post(f"{path}/replace", {"uid": UID})
    assert (same.status_code, same.json()["code"]) == (409, "uid_in_use")
    answer = await network.admin.post(f"{path}/replace", {"uid": "04B3B2C1D5E6F7"})
    assert answer.status_code == 201
    new = answer.json()
    assert (new["status"], new["member_id"]) == ("active", member_id)
    cards = (await caller.get("/v1/cards")).json()["items"]
    assert [(c["status"], c["replaced_by"]) for c in cards] == [
        ("replaced", new["card_id"]),
        ("active", None),
    ]
    for action, body in (
        ("block", {"reason": "lost"}),
        ("unblock", None),
        ("replace", {"uid": "04C3B2C1D5E6F7"}),
    ):
        again = await network.admin.post(f"{path}/{action}", body)
        assert (again.status_code, again.json()["code"]) == (409, "card_replaced")
    events = await network.events("identity.cards.v1")
    assert [(e["version"], e["status"]) for e in events if e["card_id"] == old["card_id"]] == [
        (1, "active"),
        (2, "blocked"),
        (3, "replaced"),
    ]


async def test_a_repeated_issue_gives_the_first_answer_however_the_uid_is_written(
    network: Network, holder: tuple[Caller, str]
) -> None:
    body = {"member_id": holder[1], "type": "uid", "uid": UID}
    first = await network.admin.post("/v1/cards", body, key="issue")
    again = await network.admin.post(
        "/v1/cards", {**body, "uid": "04 a3 b2 c1 d5 e6 f7"}, key="issue"
    )
    assert (again.status_code, again.json()) == (201, first.json())
    other = await network.admin.post("/v1/cards", {**body, "uid": "04B3B2C1D5E6F7"}, key="issue")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_only_the_known_kinds_of_credential_and_reason_are_taken(
    network: Network, holder: tuple[Caller, str]
) -> None:
    body = {"member_id": holder[1], "type": "pin", "uid": UID}
    assert (await network.admin.post("/v1/cards", body)).status_code == 422
    made = await issue(network, holder[1])
    for reason in ("bored", "", None, 1):
        answer = await network.admin.post(f"/v1/cards/{made['card_id']}/block", {"reason": reason})
        assert answer.json()["errors"][0]["field"] == "body.reason"
    assert len(await network.events("identity.cards.v1")) == 1
