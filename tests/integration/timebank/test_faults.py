"""Connections that break at the worst moment."""

import asyncio
from typing import Any

import asyncpg
import pytest

from common.ids import new_id
from timebank import service, store


async def kill_connections(owner: Any) -> int:
    rows = await owner.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'timebank-ledger' AND datname = current_database()"
    )
    return len(rows)


async def test_a_connection_killed_before_the_commit_costs_nothing(
    bank: Any, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, killed = store.save_transfers, []

    async def save_and_die(conn: Any, **what: Any) -> None:
        await save(conn, **what)
        if not killed:
            killed.append(await kill_connections(owner))

    monkeypatch.setattr(service.store, "save_transfers", save_and_die)
    answer = await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    assert killed
    assert answer.status_code == 201
    assert await bank.transfers() == 1
    assert await bank.balance("anna") == -90


async def test_a_connection_killed_after_the_commit_posts_nothing_twice(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service cannot know that it committed; it asks again and finds its own transfer."""
    post, lost = service.post_transfers, []

    async def post_and_lose_the_answer(conn: Any, batch: Any, now: Any, *more: Any) -> Any:
        if lost:
            return await post(conn, batch, now, *more)
        lost.append(True)
        async with bank.pool.acquire() as other, other.transaction():
            await post(other, batch, now)
        raise ConnectionResetError("the answer to COMMIT was lost")

    monkeypatch.setattr(service, "post_transfers", post_and_lose_the_answer)
    answer = await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    assert lost
    assert answer.status_code == 201
    assert await bank.transfers() == 1
    assert await bank.balance("anna") == -90


async def test_a_connection_cut_between_two_steps_is_no_fault_of_the_request(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg says so with an error of its own, which is neither PostgreSQL's nor the network's."""
    post, cut = service.post_transfers, []

    async def cut_once(conn: Any, batch: Any, now: Any, *more: Any) -> Any:
        if not cut:
            cut.append(True)
            raise asyncpg.InternalClientError("cannot switch to state 15; another operation (2)")
        return await post(conn, batch, now, *more)

    monkeypatch.setattr(service, "post_transfers", cut_once)
    answer = await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    assert cut
    assert answer.status_code == 201
    assert await bank.transfers() == 1


async def test_kills_under_load_lose_nothing_and_post_nothing_twice(bank: Any, owner: Any) -> None:
    anna = bank.caller("anna")
    ends = bank.accounts["anna"], bank.accounts["bruno"]

    async def pay_until_answered(key: str) -> int:
        for attempt in range(8):
            answer = await anna.pay(*ends, 1, key=key)
            if answer.status_code != 503:
                return int(answer.status_code)
            await asyncio.sleep(0.02 * 2**attempt)
        return 503

    async def kill_often() -> None:
        for _ in range(8):
            await asyncio.sleep(0.02)
            await kill_connections(owner)

    keys = [str(new_id()) for _ in range(150)]
    *statuses, _ = await asyncio.gather(*(pay_until_answered(key) for key in keys), kill_often())
    assert set(statuses) == {201}
    assert await bank.transfers() == 150
    assert await bank.balance("anna") == -150


async def test_two_processes_that_race_for_one_key_post_once(bank: Any) -> None:
    """Two ledgers, as two processes have them: nothing in memory is shared."""
    second = service.Ledger(bank.pool, bank.app.state.ledger.clock)
    first = bank.app.state.ledger
    anna = bank.caller("anna")
    ends = bank.accounts["anna"], bank.accounts["bruno"]

    async def through(ledger: Any) -> Any:
        bank.app.state.ledger = ledger
        return await anna.pay(*ends, 3, key="same", transfer_id=None)

    answers = await asyncio.gather(*(through(ledger) for ledger in [first, second] * 20))
    bank.app.state.ledger = first
    await second.close()
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert await bank.transfers() == 1


async def test_one_key_for_two_requests_at_once_serves_one_of_them(bank: Any) -> None:
    """Different accounts, so that no row lock orders the two processes."""
    second = service.Ledger(bank.pool, bank.app.state.ledger.clock)
    steward = bank.caller("s", "nantes", "steward")
    commons, fund = bank.accounts["nantes commons"], bank.accounts["nantes solidarity_fund"]
    await steward.pay(commons, fund, 600)
    first = bank.app.state.ledger

    async def through(ledger: Any, *ends: Any, key: str) -> Any:
        bank.app.state.ledger = ledger
        return await steward.pay(*ends, 2, key=key)

    for n in range(10):
        answers = await asyncio.gather(
            through(first, bank.accounts["anna"], bank.accounts["bruno"], key=str(n)),
            through(second, commons, fund, key=str(n)),
        )
        assert sorted(answer.status_code for answer in answers) == [201, 422]
    bank.app.state.ledger = first
    await second.close()
    assert await bank.transfers() == 11
