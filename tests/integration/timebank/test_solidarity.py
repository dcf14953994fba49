"""The solidarity fund: gifts, help, and who may know of it."""

import asyncio
import re
from datetime import UTC, date, datetime
from typing import Any

import pytest

from common.ids import new_id
from timebank.domain import Actor
from timebank.pledges import service as pledges
from timebank.solidarity import store
from timebank.verify import verify_books

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
SECRET = "my mother is ill"


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def bank(bank: Any) -> Any:
    """The bank on a Sunday in November."""
    bank.app.state.clock = lambda: NOW
    return bank


def steward(bank: Any, city: str = "nantes") -> Any:
    return bank.caller("stella", city, "steward")


async def fill(bank: Any, minutes: int = 300) -> None:
    """Bruno gives to the fund."""
    given = await bank.caller("bruno").post("solidarity/gifts", {"minutes": minutes})
    assert given.status_code == 201, given.text


async def ask(bank: Any, minutes: int = 120, purpose: str = "balance", **more: Any) -> Any:
    body = {"minutes": minutes, "for": purpose, "reason": SECRET, **more}
    return await bank.caller("anna").post("solidarity/requests", body)


async def pledge(bank: Any, starts_on: str, minutes: int = 120) -> None:
    body = {
        "member_id": str(bank.members["anna"]),
        "minutes_per_month": minutes,
        "starts_on": starts_on,
    }
    assert (await steward(bank).post("pledges", body)).status_code == 201


async def standing(bank: Any) -> str:
    name: str = await bank.pool.fetchval(
        "SELECT standing FROM standing WHERE member_id = $1", bank.members["anna"]
    )
    return name


# ── Gifts ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_gift_goes_to_the_fund_of_ones_city(bank: Any) -> None:
    body = {"gift_id": str(new_id()), "minutes": 90}
    given = await bank.caller("bruno").post("solidarity/gifts", body, key="g")
    assert given.status_code == 201
    assert given.json()["member_id"] == str(bank.members["bruno"])
    again = await bank.caller("bruno").post("solidarity/gifts", body, key="g")
    assert again.json() == given.json()
    assert (await bank.balance("bruno"), await bank.balance("nantes solidarity_fund")) == (-90, 90)
    taken = await bank.caller("anna").post("solidarity/gifts", body)
    assert problem(taken) == (422, "gift_id_reused")
    too_much = await bank.caller("bruno").post("solidarity/gifts", {"minutes": 511})
    assert problem(too_much) == (409, "insufficient_time")
    assert await bank.pool.fetchval("SELECT count(*) FROM solidarity_gift") == 1
    nobody = bank.caller("not-a-member", "nantes")
    assert problem(await nobody.post("solidarity/gifts", {"minutes": 1})) == (404, "not_found")
    transfer_id = await bank.pool.fetchval("SELECT transfer_id FROM solidarity_gift")
    kept = await steward(bank).post(f"transfers/{transfer_id}/reverse")
    assert problem(kept) == (409, "not_reversible")


async def test_an_anonymous_giver_is_shown_to_nobody_else(bank: Any) -> None:
    await fill(bank, 10)
    hidden = {"minutes": 20, "anonymous": True}
    assert (await bank.caller("bruno").post("solidarity/gifts", hidden)).status_code == 201
    for caller in (bank.caller("anna", "nantes", "resident"), steward(bank)):
        seen = (await caller.get("solidarity/gifts", city_id="nantes")).json()["items"]
        assert [(gift["minutes"], gift["member_id"]) for gift in seen] == [
            (20, None),
            (10, str(bank.members["bruno"])),
        ]
    own = (await bank.caller("bruno").get("solidarity/gifts", city_id="nantes")).json()["items"]
    assert [gift["member_id"] for gift in own] == [str(bank.members["bruno"])] * 2
    far = await bank.caller("chloe", "bourges").get("solidarity/gifts", city_id="nantes")
    assert problem(far) == (404, "not_found")


# ── Help ────────────────────────────────────────────────────────────────────────────────────────


async def test_help_with_a_balance_goes_to_the_members_account(bank: Any) -> None:
    await fill(bank)
    asked = await ask(bank)
    assert asked.status_code == 201
    assert (asked.json()["for"], asked.json()["status"]) == ("balance", "asked")
    path = f"solidarity/requests/{asked.json()['request_id']}"
    granted = await steward(bank).post(f"{path}/grant", {"minutes": 100}, key="help")
    assert (granted.status_code, granted.json()["granted_minutes"]) == (200, 100)
    repeated = await steward(bank).post(f"{path}/grant", {"minutes": 100}, key="help")
    assert repeated.json() == granted.json()
    assert (await bank.balance("anna"), await bank.balance("nantes solidarity_fund")) == (100, 200)
    again = await steward(bank).post(f"{path}/grant", {})
    assert problem(again) == (409, "request_decided")
    notices = await bank.pool.fetch(
        "SELECT key, payload FROM outbox WHERE topic = 'timebank.notices.v1'"
    )
    assert [(row["key"], row["payload"]["kind"]) for row in notices] == [
        (str(bank.members["anna"]), "solidarity.granted")
    ]
    assert all(report.sound for report in await verify_books(bank.dsn))


async def test_help_with_a_pledge_covers_the_oldest_months_and_no_more(bank: Any) -> None:
    await fill(bank)
    assert problem(await ask(bank, purpose="pledge")) == (409, "nothing_short")
    await pledge(bank, "2026-09-01")
    assert await standing(bank) == "lapsed"
    first = (await ask(bank, 150, "pledge")).json()["request_id"]
    await steward(bank).post(f"solidarity/requests/{first}/grant", {})
    assert await standing(bank) == "lapsed"
    assert await bank.balance("nantes commons") == 150
    second = (await ask(bank, 1000, "pledge")).json()["request_id"]
    granted = await steward(bank).post(f"solidarity/requests/{second}/grant", {})
    # September and October owed 240 in all; November is not over.
    assert granted.json()["granted_minutes"] == 90
    assert await standing(bank) == "good"
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (0, 240)
    months = await bank.pool.fetch(
        "SELECT month, minutes FROM pledge_credit WHERE source = 'help' ORDER BY minutes"
    )
    assert [(row["month"], row["minutes"]) for row in months] == [
        (date(2026, 10, 1), 90),
        (date(2026, 9, 1), 150),
    ]


async def test_a_fund_without_minutes_helps_nobody_and_the_request_waits(bank: Any) -> None:
    await fill(bank, 100)
    request_id = (await ask(bank)).json()["request_id"]
    path = f"solidarity/requests/{request_id}"
    assert problem(await steward(bank).post(f"{path}/grant", {})) == (409, "insufficient_time")
    assert (await steward(bank).get(path)).json()["status"] == "asked"
    more = await steward(bank).post(f"{path}/grant", {"minutes": 121})
    assert problem(more) == (422, "exceeds_request")
    assert (await steward(bank).post(f"{path}/grant", {"minutes": 100})).status_code == 200


async def test_one_request_at_a_time_which_can_be_declined_or_withdrawn(bank: Any) -> None:
    first = (await ask(bank)).json()["request_id"]
    assert problem(await ask(bank)) == (409, "request_open")
    declined = await steward(bank).post(f"solidarity/requests/{first}/decline")
    assert declined.json()["status"] == "declined"
    own = await ask(bank, request_id=first)
    assert problem(own) == (422, "request_id_reused")
    second = (await ask(bank)).json()["request_id"]
    anna = bank.caller("anna")
    withdrawn = await anna.post(f"solidarity/requests/{second}/withdraw")
    assert withdrawn.json()["status"] == "withdrawn"
    late = await steward(bank).post(f"solidarity/requests/{second}/grant", {})
    assert problem(late) == (409, "request_decided")
    listed = (await anna.get("solidarity/requests")).json()["items"]
    assert [item["status"] for item in listed] == ["withdrawn", "declined"]


async def test_nobody_decides_about_their_own_request(bank: Any) -> None:
    await fill(bank)
    path = f"solidarity/requests/{(await ask(bank)).json()['request_id']}"
    own = bank.caller("anna", "nantes", "steward")
    assert problem(await own.post(f"{path}/grant", {})) == (403, "forbidden")
    assert problem(await own.post(f"{path}/decline")) == (403, "forbidden")
    assert await bank.balance("anna") == 0


async def test_a_request_is_granted_once_whoever_hurries(bank: Any) -> None:
    await fill(bank)
    path = f"solidarity/requests/{(await ask(bank, 50)).json()['request_id']}"
    answers = await asyncio.gather(
        *(
            steward(bank).post(f"{path}/{end}", {} if end == "grant" else None)
            for end in ("grant", "decline", "grant", "grant")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert await bank.balance("anna") in (0, 50)


async def test_requests_of_contributions_and_of_help_may_share_an_id(bank: Any) -> None:
    """Ids are the clients': one who chooses another's neither breaks nor undoes anything."""
    await fill(bank)
    await pledge(bank, "2026-09-01")
    shared = new_id()
    asked = await ask(bank, 10, "pledge", request_id=str(shared))
    await steward(bank).post(f"solidarity/requests/{asked.json()['request_id']}/grant", {})
    async with bank.pool.acquire() as conn, conn.transaction():
        assert (
            await pledges.uncount_contribution(conn, shared, actor=Actor("x", "nantes"), now=NOW)
            == 0
        )
        counted = await pledges.count_contribution(
            conn,
            contribution_id=shared,
            member_id=bank.members["anna"],
            city_id="nantes",
            minutes=30,
            performed_on=date(2026, 11, 20),
            actor=Actor("bruno", "nantes"),
            now=NOW,
        )
    assert counted == 30


# ── Who may know ────────────────────────────────────────────────────────────────────────────────


async def test_nobody_but_the_member_and_the_stewards_learns_who_was_helped(bank: Any) -> None:
    await fill(bank)
    await pledge(bank, "2026-09-01")
    request_ids = []
    for purpose in ("balance", "pledge"):
        request_id = (await ask(bank, 60, purpose)).json()["request_id"]
        granted = await steward(bank).post(f"solidarity/requests/{request_id}/grant", {})
        request_ids.append((request_id, granted.json()["transfer_id"]))
    anna_id, account_id = str(bank.members["anna"]), str(bank.accounts["anna"])
    fund = bank.accounts["nantes solidarity_fund"]
    outsiders = {
        "resident": bank.caller("bruno", "nantes", "resident", "operator", "mediator"),
        "auditor": bank.caller("audrey", None, "auditor"),
        "far steward": steward(bank, "bourges"),
    }
    for who, caller in outsiders.items():
        for request_id, transfer_id in request_ids:
            path = f"solidarity/requests/{request_id}"
            for answer in (
                await caller.get(path),
                await caller.post(f"{path}/grant", {}),
                await caller.post(f"{path}/decline"),
                await caller.post(f"{path}/withdraw"),
            ):
                assert problem(answer) == (404, "not_found"), who
            assert (await caller.get(f"transfers/{transfer_id}")).status_code in (403, 404), who
        listed = await caller.get("solidarity/requests", city_id="nantes")
        assert listed.status_code in (403, 404), who
        for path in (
            f"accounts/{fund}/postings",
            f"accounts/{fund}/statement.csv",
            f"accounts/{bank.accounts['nantes commons']}/postings",
            "solidarity/gifts?city_id=nantes",
        ):
            seen = (await caller.get(path)).text
            assert anna_id not in seen, (who, path)
            assert account_id not in seen, (who, path)
            # Nor by a transfer that the member's own lines name, too.
            assert not any(transfer_id in seen for _, transfer_id in request_ids), (who, path)
    # An auditor reads every account; that some minutes came as help is not among what they read.
    auditor = outsiders["auditor"]
    lines = (await auditor.get(f"accounts/{account_id}/postings")).json()["items"]
    assert [(line["kind"], line["minutes"]) for line in lines] == [("transfer", 60)]
    as_file = (await auditor.get(f"accounts/{account_id}/statement.csv")).text
    assert "solidarity" not in as_file
    # The member and the stewards do see it.
    for caller in (bank.caller("anna"), steward(bank)):
        own = (await caller.get(f"accounts/{account_id}/postings")).json()["items"]
        assert [(line["kind"], line["transfer_id"]) for line in own] == [
            ("solidarity", request_ids[0][1])
        ]
        detail = await caller.get(f"solidarity/requests/{request_ids[0][0]}")
        assert detail.json()["reason"] == SECRET
    for table in ("outbox", "idempotency", "solidarity_request"):
        rows = await bank.pool.fetch(f"SELECT {table}::text AS row FROM {table}")
        assert not [row for row in rows if re.search(SECRET, row["row"])]


async def test_what_is_kept_is_exported_and_words_are_forgotten(bank: Any) -> None:
    await ask(bank)
    async with bank.pool.acquire() as conn:
        found = await store.export_of(conn, bank.members["anna"])
        assert [row["reason"] for row in found["solidarity_requests"]] == [SECRET]
        await store.forget(conn, bank.members["anna"])
        found = await store.export_of(conn, bank.members["anna"])
        assert [row["reason"] for row in found["solidarity_requests"]] == [None]
        assert found["solidarity_gifts"] == []


async def test_what_is_no_request_is_refused(bank: Any) -> None:
    for body in (
        {"minutes": 0, "for": "balance"},
        {"minutes": 60_001, "for": "balance"},
        {"minutes": 60, "for": "rent"},
        {"minutes": 60},
        {"minutes": 60, "purpose": "balance"},
        {"minutes": 60, "for": "balance", "reason": "x" * 2001},
    ):
        answer = await bank.caller("anna").post("solidarity/requests", body)
        assert answer.status_code == 422, body
