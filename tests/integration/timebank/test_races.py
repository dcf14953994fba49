"""All that contradicts each other, at once: minutes are neither made nor lost, nothing fails.

Each race lets every step that could follow happen at the same moment, several times over, also
while one of the two is erased. Whoever wins: the books can be recomputed, what ended holds nothing,
and the same minutes were given once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from board_world import ask, day, publish

from common.clock import utc_now
from common.events import Event
from common.ids import new_id
from timebank import consumers
from timebank.verify import verify_books

# Who asks, and for what: ("post", path, body).
Step = tuple[Any, str, Any]
ROUNDS = 1


def steward(bank: Any) -> Any:
    return bank.caller("stella", "nantes", "steward")


def mediator(bank: Any) -> Any:
    return bank.caller("mia", "nantes", "mediator")


async def made(answer: Any) -> dict[str, Any]:
    assert answer.status_code in (200, 201), answer.text
    body: dict[str, Any] = answer.json()
    return body


def work(bank: Any, **to: str) -> dict[str, Any]:
    return {
        "beneficiary": to or {"kind": "member", "id": str(bank.members["bruno"])},
        "minutes": 60,
        "performed_on": day(-1),
        "activity": "cooking",
    }


async def a_contribution(bank: Any) -> list[Step]:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    logged = await made(await anna.post("contributions", work(bank)))
    path = f"contributions/{logged['contribution_id']}"
    return [
        (bruno, f"{path}/confirm", {"version": 1}),
        (bruno, f"{path}/dispute", {"minutes": 20}),
        (anna, f"{path}/withdraw", None),
        (anna, f"{path}/accept", {"version": 2}),
        (mediator(bank), f"{path}/rule", {"minutes": 30}),
        (steward(bank), f"{path}/reverse", None),
    ]


async def pledged_work(bank: Any) -> list[Step]:
    """Reversed while the minutes that it met a pledge with are being given away."""
    anna = bank.caller("anna")
    pledge = await anna.post("pledges", {"minutes_per_month": 40})
    path = "contributions"
    logged = await made(await anna.post(path, work(bank, kind="commons")))
    path = f"contributions/{logged['contribution_id']}"
    assert pledge.status_code in (201, 409)
    give = {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": 600,
    }
    return [
        (steward(bank), f"{path}/confirm", {"version": 1}),
        (steward(bank), f"{path}/reverse", None),
        (anna, "transfers", give),
        (anna, f"{path}/withdraw", None),
    ]


async def two_holds_over_one_balance(bank: Any) -> list[Step]:
    anna, body = (
        bank.caller("anna"),
        {
            "from_account": str(bank.accounts["anna"]),
            "to_account": str(bank.accounts["bruno"]),
            "minutes": 400,
        },
    )
    until = {"expires_at": (utc_now() + timedelta(days=1)).isoformat()}
    return [(anna, "holds", body | until), (anna, "holds", body | until), (anna, "transfers", body)]


async def a_hold(bank: Any) -> list[Step]:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    body = {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": 50,
        "expires_at": (utc_now() + timedelta(days=1)).isoformat(),
    }
    path = f"holds/{(await made(await anna.post('holds', body)))['hold_id']}"
    return [
        (anna, f"{path}/post", {"minutes": 20}),
        (anna, f"{path}/post", {}),
        (bruno, f"{path}/void", None),
    ]


async def an_exchange(bank: Any) -> list[Step]:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    path = f"exchanges/{await ask(bruno, await publish(anna, price_minutes=40))}"
    await made(await anna.post(f"{path}/agree"))
    return [
        (bruno, f"{path}/done", None),
        (bruno, f"{path}/cancel", None),
        (anna, f"{path}/cancel", None),
        (anna, f"{path}/done", None),
    ]


async def a_loan(bank: Any) -> list[Step]:
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    lent = await publish(anna, what="lend", title="Perceuse", category="tools", deposit_minutes=30)
    path = f"exchanges/{await ask(bruno, lent, **{'from': day(0), 'until': day(1)})}"
    await made(await anna.post(f"{path}/agree"))
    await made(await bruno.post(f"{path}/handed-over"))
    return [
        (anna, f"{path}/returned", None),
        (anna, f"{path}/damaged", {"minutes": 30}),
        (anna, f"{path}/damaged", {"minutes": 31}),
        (bruno, f"{path}/accept", None),
        (mediator(bank), f"{path}/rule", {"minutes": 10}),
        (mediator(bank), f"{path}/rule", {"minutes": 31}),
    ]


async def help_beyond_the_fund(bank: Any) -> list[Step]:
    """Two are granted the last hour of the fund."""
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    await bank.caller("mia").post("solidarity/gifts", {"minutes": 10})
    steps: list[Step] = []
    for who in (anna, bruno):
        asked = await who.post("solidarity/requests", {"minutes": 8, "for": "balance"})
        if asked.status_code == 201:
            path = f"solidarity/requests/{asked.json()['request_id']}"
            steps += [
                (steward(bank), f"{path}/grant", {}),
                (steward(bank), f"{path}/decline", None),
                (who, f"{path}/withdraw", None),
            ]
    return steps


async def a_transfer_taken_back(bank: Any) -> list[Step]:
    """Reversed twice while who received it gives everything away."""
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    ends = {"from_account": str(bank.accounts["anna"]), "to_account": str(bank.accounts["bruno"])}
    posted = await made(await anna.post("transfers", ends | {"minutes": 50}))
    path = f"transfers/{posted['transfer_id']}/reverse"
    back = {"from_account": ends["to_account"], "to_account": str(bank.accounts["nantes commons"])}
    return [
        (steward(bank), path, None),
        (steward(bank), path, None),
        (bruno, "transfers", back | {"minutes": 640}),
    ]


async def a_rent(bank: Any) -> list[Step]:
    anna = bank.caller("anna")
    body = {"organisation_id": str(bank.members["house"]), "minutes": 60}
    paid = await made(await anna.post("rent-credits", body))
    path = f"rent-credits/{paid['rent_credit_id']}/reverse"
    give = {
        "from_account": str(bank.accounts["house"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": 60,
    }
    return [
        (steward(bank), path, None),
        (steward(bank), path, None),
        (steward(bank), "transfers", give),
    ]


RACES: dict[str, Callable[[Any], Awaitable[list[Step]]]] = {
    each.__name__: each
    for each in (
        a_contribution,
        pledged_work,
        two_holds_over_one_balance,
        a_hold,
        an_exchange,
        a_loan,
        help_beyond_the_fund,
        a_transfer_taken_back,
        a_rent,
    )
}


@pytest.fixture
async def town(bank: Any) -> Any:
    for name in ("stella", "mia"):
        await bank.join(name, "nantes")
    rules = {
        "carry_minutes_max": 60,
        "grace_days": 14,
        "rent_cents_per_hour": 900,
        "rent_minutes_max_per_month": 600,
        "member_floor_minutes": -600,
    }
    answer = await steward(bank).put("books/nantes/rules", rules)
    assert answer.status_code == 200, answer.text
    bank.members["house"], bank.accounts["house"] = new_id(), new_id()
    house = {"city_id": "nantes", "owner_id": str(bank.members["house"])}
    await made(
        await steward(bank).post("accounts", house | {"account_id": str(bank.accounts["house"])})
    )
    return bank


async def identity_says(bank: Any, name: str, status: str) -> None:
    member_id = bank.members[name]
    event = Event(
        id=new_id(),
        type="identity.member.changed.v1",
        source="/identity",
        subject=str(member_id),
        time=utc_now(),
        data={
            "member_id": str(member_id),
            "version": 2,
            "city_id": "nantes",
            "status": status,
        },
    )
    handle = consumers.handlers(bank.app.state.clock)[consumers.MEMBERS]
    async with bank.pool.acquire() as conn, conn.transaction():
        await handle(conn, event)


async def assert_sound(bank: Any) -> None:
    for report in await verify_books(bank.dsn):
        assert report.sound, report.wrong
    stuck = await bank.pool.fetchval(
        "SELECT count(*) FROM exchange JOIN hold ON hold_id IN (price_hold_id, deposit_hold_id)"
        " WHERE exchange.ended_at IS NOT NULL AND hold.status = 'open'"
    )
    assert stuck == 0
    short = await bank.pool.fetchval(
        "SELECT count(*) FROM account WHERE balance_minutes - held_minutes < floor_minutes"
    )
    assert short == 0


async def run(steps: list[Step], *others: Awaitable[None]) -> list[Any]:
    """All steps twice, at once, in both orders; what they were answered."""
    asked = [who.post(path, body) for who, path, body in (*steps, *reversed(steps))]
    answers = await asyncio.gather(*asked, *others)
    answered = answers[: len(asked)]
    failed = [(each.url.path, each.text) for each in answered if each.status_code >= 500]
    assert failed == []
    return answered


@pytest.mark.parametrize("race", RACES)
async def test_whoever_wins_minutes_are_neither_made_nor_lost(town: Any, race: str) -> None:
    won = 0
    for _ in range(ROUNDS):
        answers = await run(await RACES[race](town))
        won += sum(each.status_code < 300 for each in answers)
        await assert_sound(town)
    assert won > 0


@pytest.mark.parametrize("who", ["anna", "bruno"])
@pytest.mark.parametrize("race", RACES)
async def test_also_when_one_is_erased_meanwhile(town: Any, race: str, who: str) -> None:
    await run(await RACES[race](town), identity_says(town, who, "erased"))
    await assert_sound(town)
    left = await town.pool.fetchrow(
        "SELECT status, held_minutes FROM account WHERE account_id = $1", town.accounts[who]
    )
    assert tuple(left) == ("closed", 0)


async def test_one_who_was_erased_writes_and_moves_nothing_more(town: Any) -> None:
    """Their token is good for some minutes still."""
    anna, bruno = town.caller("anna"), town.caller("bruno")
    listing = await publish(bruno, price_minutes=0)
    ends = {"from_account": str(town.accounts["anna"]), "to_account": str(town.accounts["bruno"])}
    until = {"expires_at": (utc_now() + timedelta(days=1)).isoformat()}
    offer = {"kind": "offer", "what": "service", "title": "Un mot", "category": "repair"}
    attempts = [
        ("transfers", ends | {"minutes": 5, "memo": "Un mot"}),
        ("holds", ends | until | {"minutes": 5, "memo": "Un mot"}),
        ("contributions", work(town) | {"note": "Un mot"}),
        ("contributions/group", {"items": [work(town) | {"note": "Un mot"}]}),
        ("pledges", {"minutes_per_month": 60, "skills": ["garden"]}),
        ("solidarity/gifts", {"minutes": 5}),
        ("solidarity/requests", {"minutes": 5, "for": "balance", "reason": "Un mot"}),
        ("rent-credits", {"organisation_id": str(town.members["house"]), "minutes": 5}),
        ("listings", offer),
        (f"listings/{listing}/requests", {"message": "Un mot"}),
    ]
    await identity_says(town, "anna", "erased")
    done = []
    for path, body in attempts:
        answer = await anna.post(path, body)
        assert answer.status_code < 500, answer.text
        if answer.status_code < 400:
            done.append(path)
    assert done == []
    await assert_sound(town)
