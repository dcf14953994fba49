"""Twenty times the same command at once is one command, whatever it is; its key is then its own.

For each: the answers are the same, byte for byte; what it does is done once; the key with another
body is refused and changes nothing; without a key, nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from common.clock import utc_now
from common.ids import new_id

AT_ONCE = 20


@dataclass(frozen=True)
class Command:
    """Who says what, how else it could be said, and the rows that it adds."""

    caller: Any
    method: str
    path: str
    body: Any
    other: Any
    adds: dict[str, int]


Make = Callable[[Any], Awaitable[Command]]
COMMANDS: dict[str, Make] = {}


def command(make: Make) -> Make:
    COMMANDS[make.__name__] = make
    return make


def steward(bank: Any) -> Any:
    return bank.caller("s", "nantes", "steward")


def ends(bank: Any, minutes: int) -> dict[str, Any]:
    return {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": minutes,
    }


@command
async def a_transfer(bank: Any) -> Command:
    anna = bank.caller("anna")
    adds = {"transfer": 1, "posting": 2, "outbox": 1}
    return Command(anna, "post", "transfers", ends(bank, 7), ends(bank, 8), adds)


@command
async def a_transfer_with_an_id(bank: Any) -> Command:
    body = ends(bank, 7) | {"transfer_id": str(new_id())}
    other = body | {"transfer_id": str(new_id())}
    adds = {"transfer": 1, "posting": 2, "outbox": 1}
    return Command(bank.caller("anna"), "post", "transfers", body, other, adds)


@command
async def a_reversal(bank: Any) -> Command:
    posted = await bank.caller("anna").post("transfers", ends(bank, 7))
    path = f"transfers/{posted.json()['transfer_id']}/reverse"
    adds = {"transfer": 1, "posting": 2, "outbox": 1}
    return Command(steward(bank), "post", path, None, None, adds)


async def hold(bank: Any) -> str:
    body = ends(bank, 60) | {"expires_at": (utc_now() + timedelta(days=1)).isoformat()}
    placed = await bank.caller("anna").post("holds", body)
    return str(placed.json()["hold_id"])


@command
async def a_hold(bank: Any) -> Command:
    body = ends(bank, 7) | {"expires_at": (utc_now() + timedelta(days=1)).isoformat()}
    adds = {"hold": 1, "outbox": 1}
    return Command(bank.caller("anna"), "post", "holds", body, body | {"minutes": 8}, adds)


@command
async def a_hold_given_in_part(bank: Any) -> Command:
    path = f"holds/{await hold(bank)}/post"
    adds = {"transfer": 1, "posting": 2, "outbox": 2}
    return Command(bank.caller("anna"), "post", path, {"minutes": 5}, {"minutes": 6}, adds)


@command
async def a_hold_released(bank: Any) -> Command:
    path = f"holds/{await hold(bank)}/void"
    return Command(bank.caller("bruno"), "post", path, None, None, {"outbox": 1})


@command
async def an_account(bank: Any) -> Command:
    body = {"city_id": "nantes", "owner_id": str(new_id())}
    adds = {"account": 1, "account_limit": 1, "outbox": 1}
    return Command(steward(bank), "post", "accounts", body, body | {"floor_minutes": -5}, adds)


@command
async def limits(bank: Any) -> Command:
    path = f"accounts/{bank.accounts['bruno']}"
    adds = {"account_limit": 1, "outbox": 1}
    body, other = {"ceiling_minutes": 900}, {"ceiling_minutes": 901}
    return Command(steward(bank), "patch", path, body, other, adds)


def work(minutes: int = 30) -> dict[str, Any]:
    return {
        "beneficiary": {"kind": "commons"},
        "minutes": minutes,
        "performed_on": (utc_now() - timedelta(days=2)).date().isoformat(),
        "activity": "cooking",
    }


@command
async def a_contribution(bank: Any) -> Command:
    adds = {"contribution": 1}
    return Command(bank.caller("anna"), "post", "contributions", work(), work(31), adds)


@command
async def a_contribution_confirmed(bank: Any) -> Command:
    logged = (await bank.caller("anna").post("contributions", work())).json()
    path = f"contributions/{logged['contribution_id']}/confirm"
    adds = {"transfer": 1, "posting": 2}
    body = {"version": logged["version"]}
    return Command(steward(bank), "post", path, body, body | {"version": 7}, adds)


@command
async def a_pledge(bank: Any) -> Command:
    body = {"minutes_per_month": 240}
    other = {"minutes_per_month": 241}
    return Command(bank.caller("anna"), "post", "pledges", body, other, {"pledge": 1})


@command
async def a_gift(bank: Any) -> Command:
    adds = {"transfer": 1, "posting": 2}
    body, other = {"minutes": 5}, {"minutes": 6}
    return Command(bank.caller("anna"), "post", "solidarity/gifts", body, other, adds)


async def count(bank: Any) -> dict[str, int]:
    """How many rows each table has, but those that remember keys."""
    tables = await bank.pool.fetch(
        "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname = 'public'"
        " AND has_table_privilege(pg_class.oid, 'SELECT')"
        " AND relname NOT IN ('idempotency', 'transfer_key', 'inbox', 'schema_migration')"
    )
    names = [row["relname"] for row in tables]
    return {name: await bank.pool.fetchval(f'SELECT count(*) FROM "{name}"') for name in names}


async def say(bank: Any, wanted: Command, body: Any, key: str) -> Any:
    headers = {"Authorization": f"Bearer {wanted.caller.token}"}
    if key:
        headers["Idempotency-Key"] = key
    json = {} if body is None else {"json": body}
    return await bank.http.request(
        wanted.method.upper(), f"/v1/{wanted.path}", headers=headers, **json
    )


@pytest.mark.parametrize("name", COMMANDS)
async def test_twenty_at_once_are_one(bank: Any, name: str) -> None:
    wanted = await COMMANDS[name](bank)
    before = await count(bank)
    nothing = await say(bank, wanted, wanted.body, "")
    assert (nothing.status_code, nothing.json()["code"]) == (400, "idempotency_key_missing")
    assert await count(bank) == before

    answers = await asyncio.gather(
        *(say(bank, wanted, wanted.body, "once") for _ in range(AT_ONCE))
    )
    assert {answer.status_code for answer in answers} <= {200, 201}, answers[0].text
    assert len({answer.content for answer in answers}) == 1
    after = await count(bank)
    added = {table: after[table] - before[table] for table in after}
    assert {table: added[table] for table in wanted.adds} == wanted.adds

    later = await say(bank, wanted, wanted.body, "once")
    assert later.content == answers[0].content
    if wanted.other is not None:
        reused = await say(bank, wanted, wanted.other, "once")
        assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert await count(bank) == after


async def test_a_key_is_its_callers_own(bank: Any) -> None:
    for name in ("anna", "bruno"):
        payer, payee = (name, "bruno" if name == "anna" else "anna")
        answer = await bank.caller(name).pay(bank.accounts[payer], bank.accounts[payee], 5, key="k")
        assert answer.status_code == 201
    assert await bank.transfers() == 2


async def test_the_key_of_a_transfer_is_no_key_of_a_reversal(bank: Any) -> None:
    caller = steward(bank)
    first = await caller.post("transfers", ends(bank, 7), key="k")
    second = await caller.post("transfers", ends(bank, 7))
    for posted in (first, second):
        answer = await caller.post(f"transfers/{posted.json()['transfer_id']}/reverse", key="k")
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert await bank.transfers() == 2
