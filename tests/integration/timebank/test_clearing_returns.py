"""What could keep minutes from coming home between two cities, and does not."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from clearing_world import Federation, two_time_banks

from common.events import Event
from common.ids import new_id
from timebank import consumers
from timebank.verify import verify_books


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        yield made


async def identity_says(federation: Federation, name: str, city: str, **more: Any) -> None:
    """A later state of a member, told to every time bank."""
    member_id = federation.bank(city).members[name]
    data: dict[str, Any] = {"city_id": city, "status": "active", **more}
    data |= {"member_id": str(member_id), "version": 2}
    for bank in federation.each:
        event = Event(
            id=new_id(),
            type="identity.member.changed.v1",
            source="/identity",
            subject=str(member_id),
            time=federation.clock(),
            data=data,
        )
        cities = {each for each, its in federation.banks.items() if its is bank}
        handle = consumers.handlers(federation.clock, cities.__contains__)
        async with bank.pool.acquire() as conn, conn.transaction():
            await handle[consumers.MEMBERS](conn, event)


async def limit(federation: Federation, city: str, account: str, **limits: int) -> None:
    bank = federation.bank(city)
    path = f"accounts/{bank.accounts[account]}"
    answer = await federation.steward(city).patch(path, limits)
    assert answer.status_code == 200, answer.text


async def assert_sound(federation: Federation) -> None:
    """At rest: nothing in transit, pairs agree, and every book can be recomputed."""
    await federation.check_books()
    for bank in federation.each:
        reports = await verify_books(bank.dsn)
        assert [report.wrong for report in reports] == [()] * len(reports)


async def test_minutes_come_home_to_a_payer_who_was_erased_meanwhile(
    federation: Federation,
) -> None:
    await federation.agree("nantes", "bourges", levy_out_permille=100)
    federation.bank("bourges").members["nobody"] = new_id()
    sent = await federation.send("anna", "nantes", "nobody", "bourges", 90)
    await identity_says(federation, "anna", "nantes", status="erased")
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "returned"
    assert await federation.balance("nantes", "anna") == 0
    assert await federation.minutes("nantes", "commons") == 0
    await assert_sound(federation)


async def test_what_an_erased_payer_sent_settles_all_the_same(federation: Federation) -> None:
    await federation.agree("nantes", "bourges")
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 90)
    await identity_says(federation, "anna", "nantes", status="erased")
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "settled"
    await assert_sound(federation)


@pytest.mark.parametrize(
    "left", [{"status": "erased"}, {"status": "suspended"}, {"city_id": "nantes"}], ids=str
)
async def test_a_payee_who_left_while_it_was_on_its_way(
    federation: Federation, left: dict[str, str]
) -> None:
    await federation.agree("bourges", "brest")
    sent = await federation.send("chloe", "bourges", "denis", "brest", 90)
    await identity_says(federation, "denis", "brest", **left)
    await federation.deliver()
    read = await federation.caller("chloe", "bourges").get(
        f"clearing/transfers/{sent['transfer_id']}"
    )
    assert (read.json()["state"], read.json()["reason"]) == ("returned", "payee_not_found")
    assert await federation.balance("bourges", "chloe") == 0
    await assert_sound(federation)


async def test_minutes_come_home_above_a_ceiling_that_was_reached_meanwhile(
    federation: Federation,
) -> None:
    await federation.agree("nantes", "bourges")
    west = federation.bank("nantes")
    await west.join("bruno", "nantes")
    await federation.caller("bruno", "nantes").pay(
        west.accounts["bruno"], west.accounts["anna"], 100
    )
    await limit(federation, "nantes", "anna", ceiling_minutes=100)
    federation.bank("bourges").members["nobody"] = new_id()
    sent = await federation.send("anna", "nantes", "nobody", "bourges", 90)
    refilled = await federation.caller("bruno", "nantes").pay(
        west.accounts["bruno"], west.accounts["anna"], 90
    )
    assert refilled.status_code == 201
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "returned"
    read = await federation.caller("anna", "nantes").get(f"accounts/{west.accounts['anna']}")
    assert (read.json()["balance_minutes"], read.json()["ceiling_minutes"]) == (190, 190)
    kept = await west.pool.fetch(
        "SELECT ceiling_minutes, set_by = 'clearing' AS by_clearing FROM account_limit"
        " WHERE account_id = $1 ORDER BY number",
        west.accounts["anna"],
    )
    assert [tuple(row) for row in kept] == [(100, False), (190, True)]
    await assert_sound(federation)


async def test_a_levy_that_the_commons_has_spent_comes_home_too(federation: Federation) -> None:
    await federation.agree("nantes", "bourges", levy_out_permille=100)
    west = federation.bank("nantes")
    federation.bank("bourges").members["nobody"] = new_id()
    sent = await federation.send("anna", "nantes", "nobody", "bourges", 90)
    spent = await federation.steward("nantes").pay(
        west.accounts["nantes commons"], west.accounts["nantes solidarity_fund"], 9
    )
    assert spent.status_code == 201
    await limit(federation, "nantes", "nantes commons", floor_minutes=0)
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "returned"
    assert await federation.balance("nantes", "anna") == 0
    assert await federation.minutes("nantes", "commons") == -9
    await assert_sound(federation)


async def test_a_commons_without_room_refuses_what_comes_and_nothing_is_stuck(
    federation: Federation,
) -> None:
    await federation.agree("nantes", "bourges", b_levy_in_permille=100)
    await limit(federation, "bourges", "bourges commons", ceiling_minutes=0)
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 90)
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "returned"
    assert await federation.balance("nantes", "anna") == 0
    await assert_sound(federation)


async def test_a_reversal_whose_levy_is_spent_is_refused_and_comes_back(
    federation: Federation,
) -> None:
    await federation.agree("nantes", "bourges", levy_out_permille=100)
    west = federation.bank("nantes")
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 90)
    await federation.deliver()
    await federation.steward("nantes").pay(
        west.accounts["nantes commons"], west.accounts["nantes solidarity_fund"], 9
    )
    await limit(federation, "nantes", "nantes commons", floor_minutes=0)
    for city in ("nantes", "bourges"):
        path = f"clearing/transfers/{sent['transfer_id']}/reversal"
        assert (await federation.steward(city).post(path)).status_code == 200
        await federation.deliver()
    assert await federation.balance("bourges", "chloe") == 90
    assert await federation.balance("nantes", "anna") == -99
    await assert_sound(federation)


async def test_who_may_not_know_of_an_account_does_not_learn_its_city(
    federation: Federation,
) -> None:
    west = federation.bank("nantes")
    stranger = west.caller("denis", "brest")
    answers = [
        await stranger.post(
            "clearing/transfers",
            {
                "from_account": str(account),
                "to": {"city_id": "nantes", "member_id": str(new_id())},
                "minutes": 5,
            },
        )
        for account in (west.accounts["anna"], new_id())
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
