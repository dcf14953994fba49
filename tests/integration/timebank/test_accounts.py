"""Accounts of organisations, floors, ceilings, and the warning before a floor."""

from typing import Any

import asyncpg
import pytest

from common.ids import new_id


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def open_organisation(bank: Any, **more: Any) -> Any:
    steward = bank.caller("s", "nantes", "steward")
    body = {"city_id": "nantes", "owner_id": str(new_id()), **more}
    return await steward.post("accounts", body)


async def test_a_steward_opens_an_organisations_account(bank: Any) -> None:
    answer = await open_organisation(bank, floor_minutes=-60, ceiling_minutes=6000)
    assert answer.status_code == 201
    account = answer.json()
    assert (account["kind"], account["balance_minutes"]) == ("organisation", 0)
    assert (account["floor_minutes"], account["ceiling_minutes"]) == (-60, 6000)
    paid = await bank.caller("anna").pay(bank.accounts["anna"], account["account_id"], 30)
    assert paid.status_code == 201
    steward = bank.caller("s", "nantes", "steward")
    back = await steward.pay(account["account_id"], bank.accounts["bruno"], 90)
    assert back.status_code == 201
    denied = await steward.pay(account["account_id"], bank.accounts["bruno"], 1)
    assert problem(denied) == (409, "insufficient_time")


async def test_an_organisation_has_one_account_in_a_city(bank: Any) -> None:
    first = (await open_organisation(bank)).json()
    assert first["floor_minutes"] == 0
    again = await open_organisation(bank, owner_id=first["owner_id"])
    assert problem(again) == (409, "account_exists")
    taken = await open_organisation(bank, account_id=str(bank.accounts["anna"]))
    assert problem(taken) == (409, "account_exists")


async def test_the_same_request_opens_one_account(bank: Any) -> None:
    steward = bank.caller("s", "nantes", "steward")
    body = {"city_id": "nantes", "owner_id": str(new_id())}
    first = await steward.post("accounts", body, key="open")
    assert (await steward.post("accounts", body, key="open")).json() == first.json()
    other = await steward.post("accounts", {**body, "floor_minutes": -1}, key="open")
    assert problem(other) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("name", "city", "roles", "status"),
    [
        ("anna", "nantes", (), 403),
        ("s", "bourges", ("steward",), 404),
        ("s", "atlantis", ("steward",), 404),
        ("a", None, ("auditor",), 403),
    ],
)
async def test_others_open_nothing(
    bank: Any, name: str, city: str | None, roles: tuple[str, ...], status: int
) -> None:
    caller = bank.caller(name, city, *roles)
    wanted = city if city == "atlantis" else "nantes"
    answer = await caller.post("accounts", {"city_id": wanted, "owner_id": str(new_id())})
    assert answer.status_code == status


NO_ACCOUNTS = [
    {"kind": "commons"},
    {"floor_minutes": 1},
    {"floor_minutes": None},
    {"floor_minutes": "-5"},
    {"ceiling_minutes": -1},
    {"ceiling_minutes": 2**53},
    {"balance_minutes": 5},
    {"city_id": "Nan tes"},
]


async def test_what_is_no_account_is_refused(bank: Any, subtests: pytest.Subtests) -> None:
    for wrong in NO_ACCOUNTS:
        with subtests.test(str(wrong)):
            assert (await open_organisation(bank, **wrong)).status_code == 422


async def test_nothing_rises_above_a_ceiling(bank: Any) -> None:
    account = (await open_organisation(bank, ceiling_minutes=100)).json()["account_id"]
    anna = bank.caller("anna")
    assert (await anna.pay(bank.accounts["anna"], account, 100)).status_code == 201
    refused = await anna.pay(bank.accounts["anna"], account, 1)
    assert problem(refused) == (409, "ceiling_exceeded")
    assert refused.json()["errors"][0]["field"] == "body.to_account"
    # Nobody learns from the refusal how much the other has.
    assert "100" not in refused.json()["detail"]
    assert await bank.balance("anna") == -100


async def test_the_ceiling_is_held_by_the_database(bank: Any, owner: Any) -> None:
    account = (await open_organisation(bank, ceiling_minutes=100)).json()["account_id"]
    with pytest.raises(asyncpg.CheckViolationError, match="account_ceiling"):
        await owner.execute(
            "UPDATE account SET balance_minutes = 101 WHERE account_id = $1", account
        )


async def test_a_steward_changes_limits_and_it_is_kept_who(bank: Any, owner: Any) -> None:
    steward = bank.caller("s", "nantes", "steward")
    path = f"accounts/{bank.accounts['anna']}"
    changed = await steward.patch(path, {"floor_minutes": -1200})
    assert changed.status_code == 200
    assert (changed.json()["floor_minutes"], changed.json()["ceiling_minutes"]) == (-1200, None)
    assert (await steward.patch(path, {"ceiling_minutes": 600})).json()["floor_minutes"] == -1200
    assert (await steward.patch(path, {"ceiling_minutes": None})).json()["ceiling_minutes"] is None
    rows = await owner.fetch(
        "SELECT number, floor_minutes, ceiling_minutes, set_by FROM account_limit"
        " WHERE account_id = $1 ORDER BY number",
        bank.accounts["anna"],
    )
    assert [tuple(row) for row in rows] == [
        (1, -1200, None, "s"),
        (2, -1200, 600, "s"),
        (3, -1200, None, "s"),
    ]
    with pytest.raises(asyncpg.RestrictViolationError):
        await owner.execute("DELETE FROM account_limit")


async def test_limits_are_not_set_past_the_balance(bank: Any) -> None:
    await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    steward = bank.caller("s", "nantes", "steward")
    path = f"accounts/{bank.accounts['anna']}"
    assert problem(await steward.patch(path, {"floor_minutes": -89})) == (409, "limit_passed")
    path = f"accounts/{bank.accounts['bruno']}"
    assert problem(await steward.patch(path, {"ceiling_minutes": 89})) == (409, "limit_passed")
    assert problem(await steward.patch(path, {"floor_minutes": None})) == (422, "floor_required")


async def test_who_may_set_limits(bank: Any) -> None:
    path, body = f"accounts/{bank.accounts['anna']}", {"floor_minutes": -1000}
    for caller, status in (
        (bank.caller("anna"), 403),
        (bank.caller("anna", "nantes", "steward"), 403),
        (bank.caller("s", "bourges", "steward"), 404),
        (bank.caller("s", "nantes", "steward"), 200),
    ):
        assert (await caller.patch(path, body)).status_code == status
    absent = await bank.caller("s", "nantes", "steward").patch(f"accounts/{new_id()}", body)
    assert absent.status_code == 404


async def test_a_giver_is_warned_before_the_floor(bank: Any) -> None:
    anna = bank.caller("anna")
    easy = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 480)
    assert easy.json()["warnings"] == []
    near = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 20, key="near")
    assert near.json()["warnings"] == [
        {"code": "near_floor", "account_id": str(bank.accounts["anna"]), "left_minutes": 100}
    ]
    # The same answer later, whatever happened since; and none of it for the other side.
    await bank.caller("bruno").pay(bank.accounts["bruno"], bank.accounts["anna"], 400)
    again = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 20, key="near")
    assert again.json() == near.json()
    seen = await bank.caller("bruno").get(f"transfers/{near.json()['transfer_id']}")
    assert "warnings" not in seen.json()
