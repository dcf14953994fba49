"""Five hundred transfers, each taken back twice at the same time: once each, and all as before."""

import asyncio
import random
from collections import Counter
from typing import Any

from common.ids import new_id
from timebank.service import Ledger
from timebank.verify import verify_books

TRANSFERS = 500
WORKERS = 20


async def at_work(jobs: list[Any]) -> list[Any]:
    """The answers to the jobs, done by WORKERS at a time in their order."""
    waiting = iter(jobs)

    async def work() -> list[Any]:
        return [await job() for job in waiting]

    done = await asyncio.gather(*(work() for _ in range(WORKERS)))
    return [answer for answers in done for answer in answers]


async def balances(bank: Any) -> dict[Any, Any]:
    rows = await bank.pool.fetch("SELECT account_id, balance_minutes, held_minutes FROM account")
    return {row[0]: (row[1], row[2]) for row in rows}


async def test_each_of_500_transfers_is_taken_back_exactly_once(bank: Any) -> None:
    dice = random.Random(500)
    steward = bank.caller("s", "nantes", "steward")
    for name in ("dora", "emil", "fanny"):
        await bank.join(name, "nantes")
    names = ["anna", "bruno", "dora", "emil", "fanny", "nantes commons"]
    for name in names[:-1]:
        # So that nobody meets their floor, whatever the dice say.
        await steward.pay(bank.accounts["nantes commons"], bank.accounts[name], 20_000)
    before = await balances(bank)
    first = bank.app.state.ledger
    # Two processes, as far as the database can tell.
    second = Ledger(bank.pool, first.clock)

    async def through(ledger: Ledger, path: str, body: Any = None, key: str | None = None) -> Any:
        bank.app.state.ledger = ledger
        return await steward.post(path, body, key=key)

    def give() -> Any:
        payer, payee = dice.sample(names, 2)
        body = {
            "from_account": str(bank.accounts[payer]),
            "to_account": str(bank.accounts[payee]),
            "minutes": dice.randint(1, 90),
        }
        return lambda: through(dice.choice((first, second)), "transfers", body)

    given = await at_work([give() for _ in range(TRANSFERS)])
    assert Counter(answer.status_code for answer in given) == {201: TRANSFERS}
    assert await balances(bank) != before

    def take_back(transfer_id: str, ledger: Ledger) -> Any:
        return lambda: through(ledger, f"transfers/{transfer_id}/reverse", key=str(new_id()))

    ids = [answer.json()["transfer_id"] for answer in given]
    taken = await at_work([take_back(id_, ledger) for id_ in ids for ledger in (first, second)])
    bank.app.state.ledger = first
    await second.close()

    assert Counter(answer.status_code for answer in taken) == {201: TRANSFERS, 409: TRANSFERS}
    refused = [answer.json()["code"] for answer in taken if answer.status_code == 409]
    assert set(refused) == {"already_reversed"}
    done = [answer.json()["reverses"] for answer in taken if answer.status_code == 201]
    assert sorted(done) == sorted(ids)
    assert await balances(bank) == before
    assert all(report.sound for report in await verify_books(bank.dsn))
