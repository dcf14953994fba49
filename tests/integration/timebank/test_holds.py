"""Holds: minutes set aside, then given, released or expired, exactly once."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from common.clock import utc_now
from common.ids import new_id
from timebank.holds.service import expire_due
from timebank.verify import verify_books


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def soon(hours: float = 24) -> str:
    return (utc_now() + timedelta(hours=hours)).isoformat()


async def place(bank: Any, minutes: int = 90, *, key: str | None = None, **more: Any) -> Any:
    body = {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": minutes,
        "expires_at": soon(),
        **more,
    }
    return await bank.caller("anna").post("holds", body, key=key)


async def held(bank: Any, name: str = "anna") -> int:
    minutes: int = await bank.pool.fetchval(
        "SELECT held_minutes FROM account WHERE account_id = $1", bank.accounts[name]
    )
    return minutes


async def assert_sound(bank: Any) -> None:
    reports = await verify_books(bank.dsn)
    assert [report.differences for report in reports] == [()] * len(reports)


async def test_what_is_held_is_given_in_full(bank: Any) -> None:
    placed = await place(bank, memo="deposit for the drill")
    assert placed.status_code == 201
    hold = placed.json()
    assert (hold["status"], hold["minutes"], hold["posted_minutes"]) == ("open", 90, None)
    assert (await held(bank), await bank.balance("anna"), await bank.transfers()) == (90, 0, 0)
    done = await bank.caller("anna").post(f"holds/{hold['hold_id']}/post", {})
    assert done.status_code == 201
    assert done.json()["hold"]["status"] == "posted"
    assert done.json()["transfer"]["memo"] == "deposit for the drill"
    assert (await held(bank), await bank.balance("anna"), await bank.balance("bruno")) == (
        0,
        -90,
        90,
    )
    seen = await bank.caller("bruno").get(f"transfers/{done.json()['hold']['transfer_id']}")
    assert seen.status_code == 200
    await assert_sound(bank)


async def test_what_is_held_is_given_in_part_and_the_rest_is_free(bank: Any) -> None:
    hold_id = (await place(bank, 600)).json()["hold_id"]
    anna = bank.caller("anna")
    assert problem(await anna.post(f"holds/{hold_id}/post", {"minutes": 601})) == (
        422,
        "exceeds_hold",
    )
    done = await anna.post(f"holds/{hold_id}/post", {"minutes": 50})
    assert done.json()["hold"]["posted_minutes"] == 50
    assert (await held(bank), await bank.balance("anna")) == (0, -50)
    assert problem(await anna.post(f"holds/{hold_id}/post", {})) == (409, "hold_already_posted")


async def test_what_is_held_counts_against_the_floor(bank: Any) -> None:
    anna = bank.caller("anna")
    assert (await place(bank, 500)).status_code == 201
    refused = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 101)
    assert problem(refused) == (409, "insufficient_time")
    assert problem(await place(bank, 101)) == (409, "insufficient_time")
    near = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 100)
    assert near.json()["warnings"][0]["left_minutes"] == 0
    account = (await anna.get(f"accounts/{bank.accounts['anna']}")).json()
    assert (account["balance_minutes"], account["held_minutes"]) == (-100, 500)
    await assert_sound(bank)


async def test_a_hold_is_released_by_who_would_receive(bank: Any) -> None:
    hold_id = (await place(bank)).json()["hold_id"]
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    # Who gives cannot take the promise back; who receives cannot take the minutes.
    assert problem(await anna.post(f"holds/{hold_id}/void")) == (403, "forbidden")
    assert problem(await bruno.post(f"holds/{hold_id}/post", {})) == (403, "forbidden")
    stranger = bank.caller("chloe", "bourges")
    assert problem(await stranger.post(f"holds/{hold_id}/void")) == (404, "not_found")
    first = await bruno.post(f"holds/{hold_id}/void", key="v")
    assert (first.status_code, first.json()["status"]) == (200, "voided")
    assert (await bruno.post(f"holds/{hold_id}/void", key="v")).json() == first.json()
    assert problem(await bruno.post(f"holds/{hold_id}/void")) == (409, "hold_already_voided")
    assert problem(await anna.post(f"holds/{hold_id}/post", {})) == (409, "hold_already_voided")
    assert (await held(bank), await bank.transfers()) == (0, 0)


async def test_a_hold_expires(bank: Any) -> None:
    hold_id = (await place(bank, expires_at=soon(1))).json()["hold_id"]
    kept = (await place(bank, 10)).json()["hold_id"]
    assert await expire_due(bank.pool, utc_now()) == 0
    later = utc_now() + timedelta(hours=2)
    assert await asyncio.gather(expire_due(bank.pool, later), expire_due(bank.pool, later)) in (
        [1, 0],
        [0, 1],
    )
    anna = bank.caller("anna")
    assert (await anna.get(f"holds/{hold_id}")).json()["status"] == "expired"
    assert (await anna.get(f"holds/{kept}")).json()["status"] == "open"
    assert problem(await anna.post(f"holds/{hold_id}/post", {})) == (409, "hold_expired")
    assert await held(bank) == 10
    await assert_sound(bank)


async def test_time_decides_and_not_the_sweeper(bank: Any) -> None:
    hold_id = (await place(bank, expires_at=soon(1))).json()["hold_id"]
    bank.app.state.clock = lambda: utc_now() + timedelta(hours=2)
    answer = await bank.caller("anna").post(f"holds/{hold_id}/post", {})
    assert problem(answer) == (409, "hold_expired")


async def test_the_same_request_holds_once(bank: Any) -> None:
    answers = await asyncio.gather(
        *(place(bank, key="once", expires_at="2027-01-01T00:00:00Z") for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["hold_id"] for answer in answers}) == 1
    assert await held(bank) == 90
    other = await place(bank, 91, key="once", expires_at="2027-01-01T00:00:00Z")
    assert problem(other) == (422, "idempotency_key_reused")
    own = str(new_id())
    assert (await place(bank, hold_id=own)).json()["hold_id"] == own
    assert problem(await place(bank, hold_id=own)) == (422, "hold_id_reused")


async def test_a_hold_ends_once_whoever_hurries(bank: Any) -> None:
    """Posted, voided and expired at the same time, with transfers on the same accounts."""
    ids = [(await place(bank, 10, expires_at=soon(1))).json()["hold_id"] for _ in range(10)]
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    later = utc_now() + timedelta(hours=2)
    work = [
        attempt
        for hold_id in ids
        for attempt in (
            anna.post(f"holds/{hold_id}/post", {}),
            anna.post(f"holds/{hold_id}/post", {"minutes": 4}),
            bruno.post(f"holds/{hold_id}/void"),
            bruno.pay(bank.accounts["bruno"], bank.accounts["anna"], 1),
        )
    ]
    await asyncio.gather(*work, expire_due(bank.pool, later))
    rows = await bank.pool.fetch("SELECT status, posted_minutes FROM hold")
    given = sum(row["posted_minutes"] or 0 for row in rows)
    ended = Counter(row["status"] for row in rows)
    assert ended.total() == 10
    assert ended["open"] == 0
    assert await bank.transfers() == ended["posted"] + len(ids)
    assert (await held(bank), await bank.balance("anna")) == (0, len(ids) - given)
    await assert_sound(bank)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires_at": "2026-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01T00:00:00Z"},
        {"expires_at": "2027-01-01T00:00:00"},
        {"minutes": 0},
        {"minutes": True},
    ],
)
async def test_what_is_no_hold_is_refused(bank: Any, wrong: dict[str, Any]) -> None:
    answer = await place(bank, **wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == f"body.{next(iter(wrong))}"
    assert await held(bank) == 0


async def test_what_would_refuse_a_transfer_refuses_a_hold(bank: Any) -> None:
    anna, chloe = str(bank.accounts["anna"]), str(bank.accounts["chloe"])
    assert problem(await place(bank, to_account=chloe)) == (422, "cross_city_not_available")
    assert problem(await place(bank, to_account=anna)) == (422, "same_account")
    assert problem(
        await place(bank, from_account=str(bank.accounts["bruno"]), to_account=anna)
    ) == (
        403,
        "forbidden",
    )
    assert problem(await place(bank, to_account=str(new_id()))) == (422, "account_not_found")


async def test_who_sees_a_hold(bank: Any) -> None:
    hold_id = (await place(bank)).json()["hold_id"]
    await bank.join("dora", "nantes")
    for caller, status in (
        (bank.caller("anna"), 200),
        (bank.caller("bruno"), 200),
        (bank.caller("s", "nantes", "steward"), 200),
        (bank.caller("dora"), 403),
        (bank.caller("chloe", "bourges"), 404),
        (bank.caller("s", "bourges", "steward"), 404),
    ):
        assert (await caller.get(f"holds/{hold_id}")).status_code == status
    page = (await bank.caller("bruno").get(f"accounts/{bank.accounts['bruno']}/holds")).json()
    assert [item["hold_id"] for item in page["items"]] == [hold_id]
    assert page["next"] is None
    path = f"accounts/{bank.accounts['nantes commons']}/holds"
    assert (await bank.caller("anna").get(path)).status_code == 403


async def test_the_database_holds_too(bank: Any, owner: Any) -> None:
    hold_id = UUID((await place(bank)).json()["hold_id"])
    anna = bank.accounts["anna"]
    for change, match in (
        ("UPDATE account SET held_minutes = 89 WHERE account_id = $1", "open holds"),
        ("UPDATE account SET held_minutes = 601 WHERE account_id = $1", "account_floor"),
    ):
        with pytest.raises(asyncpg.CheckViolationError, match=match):
            await owner.execute(change, anna)
    void = "UPDATE hold SET status = 'voided', resolved_at = now() WHERE hold_id = $1"
    with pytest.raises(asyncpg.CheckViolationError, match="open holds"):
        await owner.execute(void, hold_id)
    with pytest.raises(asyncpg.RestrictViolationError):
        await owner.execute("DELETE FROM hold")
    await bank.caller("bruno").post(f"holds/{hold_id}/void")
    with pytest.raises(asyncpg.RestrictViolationError, match="has ended"):
        await owner.execute(
            "UPDATE hold SET status = 'open', resolved_at = NULL WHERE hold_id = $1", hold_id
        )


async def test_books_that_hold_something_else_are_found(bank: Any, owner: Any) -> None:
    await place(bank)
    done = await bank.caller("anna").post(
        f"holds/{(await place(bank, 20)).json()['hold_id']}/post", {}
    )
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE account SET held_minutes = 80 WHERE held_minutes = 90")
    await owner.execute(
        "UPDATE hold SET posted_minutes = 19 WHERE hold_id = $1",
        UUID(done.json()["hold"]["hold_id"]),
    )
    (nantes,) = (report for report in await verify_books(bank.dsn) if report.city_id == "nantes")
    found = "\n".join(nantes.differences)
    assert "held 80 (holds say 90)" in found
    assert "19 minutes are not what" in found
