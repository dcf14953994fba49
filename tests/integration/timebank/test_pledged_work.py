"""From the work to the standing, over HTTP alone: log, confirm, pledge met, standing good."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from timebank.standings import service
from timebank.verify import verify_books

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@pytest.fixture
def bank(bank: Any) -> Any:
    """The bank on a Sunday in November."""
    bank.app.state.clock = lambda: NOW
    return bank


def steward(bank: Any) -> Any:
    return bank.caller("stella", "nantes", "steward")


async def standing(bank: Any) -> str:
    answer = await bank.caller("anna").get(f"standings/{bank.members['anna']}")
    name: str = answer.json()["standing"]
    return name


async def log(bank: Any, minutes: int, beneficiary: dict[str, str], day: str) -> dict[str, Any]:
    answer = await bank.caller("anna").post(
        "contributions",
        {
            "beneficiary": beneficiary,
            "minutes": minutes,
            "performed_on": day,
            "activity": "cooking",
        },
    )
    assert answer.status_code == 201, answer.text
    logged: dict[str, Any] = answer.json()
    return logged


async def confirm(who: Any, logged: dict[str, Any]) -> Any:
    return await who.post(
        f"contributions/{logged['contribution_id']}/confirm", {"version": logged["version"]}
    )


async def test_confirmed_work_for_the_city_meets_a_pledge_and_reversed_it_is_owed_again(
    bank: Any,
) -> None:
    made = await steward(bank).post(
        "pledges",
        {
            "member_id": str(bank.members["anna"]),
            "minutes_per_month": 120,
            "starts_on": "2026-10-01",
        },
    )
    path = f"pledges/{made.json()['pledge_id']}"
    assert await standing(bank) == "lapsed"
    logged = await log(bank, 300, {"kind": "commons"}, "2026-10-20")
    confirmed = await confirm(steward(bank), logged)
    assert confirmed.status_code == 200, confirmed.text
    assert await standing(bank) == "good"
    detail = (await bank.caller("anna").get(path)).json()
    assert [(one["month"], one["met_minutes"], one["state"]) for one in detail["periods"]] == [
        ("2026-10-01", 120, "met"),
        ("2026-11-01", 120, "met"),
    ]
    assert detail["carried_minutes"] == 60
    # All of it counted: what the commons gave for the work, the member gave for the pledge.
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (0, 0)
    back = await steward(bank).post(f"contributions/{logged['contribution_id']}/reverse")
    assert back.status_code == 200, back.text
    assert await standing(bank) == "lapsed"
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (0, 0)
    assert all(report.sound for report in await verify_books(bank.dsn))


async def test_what_is_more_than_pledged_stays_the_members_to_spend(bank: Any) -> None:
    rules = (await bank.caller("anna").get("books/nantes/rules")).json()
    fixed = ("city_id", "number", "set_at")
    wanted = {name: value for name, value in rules.items() if name not in fixed}
    await steward(bank).put("books/nantes/rules", {**wanted, "carry_minutes_max": 0})
    body = {"minutes_per_month": 60, "starts_on": "2026-11-01"}
    await bank.caller("anna").post("pledges", body)
    await confirm(steward(bank), await log(bank, 200, {"kind": "outsider"}, "2026-11-21"))
    assert await bank.balance("anna") == 140


async def test_work_for_a_neighbour_pays_but_meets_no_pledge(bank: Any) -> None:
    await bank.caller("anna").post("pledges", {"minutes_per_month": 60, "starts_on": "2026-11-01"})
    to_bruno = {"kind": "member", "id": str(bank.members["bruno"])}
    await confirm(bank.caller("bruno"), await log(bank, 90, to_bruno, "2026-11-21"))
    assert await bank.balance("anna") == 90
    assert await bank.pool.fetchval("SELECT count(*) FROM pledge_credit") == 0


async def test_all_at_once_nobody_waits_for_each_other_for_ever(bank: Any) -> None:
    """Confirmations, help, gifts and reversals of one member: each answered, none by a deadlock."""
    body = {
        "member_id": str(bank.members["anna"]),
        "minutes_per_month": 600,
        "starts_on": "2026-08-01",
    }
    await steward(bank).post("pledges", body)
    logged = [await log(bank, 30, {"kind": "commons"}, "2026-11-20") for _ in range(6)]
    done = [await log(bank, 30, {"kind": "commons"}, "2026-11-20") for _ in range(4)]
    for one in done:
        assert (await confirm(steward(bank), one)).status_code == 200
    await bank.caller("bruno").post("solidarity/gifts", {"minutes": 300})
    asked = await bank.caller("anna").post("solidarity/requests", {"minutes": 100, "for": "pledge"})
    grant = f"solidarity/requests/{asked.json()['request_id']}/grant"
    answers = await asyncio.gather(
        *(confirm(steward(bank), one) for one in logged),
        *(steward(bank).post(f"contributions/{one['contribution_id']}/reverse") for one in done),
        steward(bank).post(grant, {}),
        *(bank.caller("bruno").post("solidarity/gifts", {"minutes": 5}) for _ in range(3)),
        *(service.evaluate_due(bank.pool, NOW) for _ in range(3)),
    )
    assert {answer.status_code for answer in answers if not isinstance(answer, int)} == {200, 201}
    assert await bank.balance("nantes commons") == 100
    assert await bank.balance("anna") == 0
    assert all(report.sound for report in await verify_books(bank.dsn))
