"""`python -m timebank verify-books`: green when the books are sound, red when they are not."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from typer.testing import CliRunner

from common.clock import utc_now
from timebank.__main__ import cli
from timebank.events import BOOKS
from timebank.verify import CHECK_LOCK, check_books, verify_books

PLANTED = {
    "a balance": (
        "UPDATE account SET balance_minutes = balance_minutes + 1 WHERE account_id = $1",
        "balance -89 (postings say -90)",
    ),
    "a posting gone": (
        "DELETE FROM posting WHERE account_id = $1",
        "1 postings, 0 of another city, sum 90",
    ),
    "a transfer gone": (
        "DELETE FROM transfer WHERE $1::uuid IS NOT NULL",
        "2 postings, 2 of another city, sum 0",
    ),
    "an account gone": (
        "DELETE FROM account WHERE account_id = $1",
        "2 postings, 1 of another city, sum 0",
    ),
    "another amount": (
        "UPDATE posting SET minutes = -80 WHERE account_id = $1",
        "sum 10",
    ),
    "a floor crossed": (
        "UPDATE account SET floor_minutes = -10 WHERE account_id = $1",
        "floor -10",
    ),
    "a chain broken": (
        "UPDATE posting SET balance_minutes = 7 WHERE account_id = $1",
        "1 postings that do not continue",
    ),
}


async def post(bank: Any) -> UUID:
    await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 90)
    account: UUID = bank.accounts["anna"]
    return account


async def test_sound_books_are_found_sound(bank: Any) -> None:
    await post(bank)
    reports = {report.city_id: report for report in await verify_books(bank.dsn)}
    assert set(reports) == {"nantes", "bourges"}
    assert all(report.sound for report in reports.values())
    assert (reports["nantes"].transfers, reports["nantes"].postings) == (1, 2)
    assert reports["nantes"].accounts == 4


@pytest.mark.parametrize("name", PLANTED)
async def test_a_planted_difference_is_found(bank: Any, owner: Any, name: str) -> None:
    account = await post(bank)
    change, message = PLANTED[name]
    # As one with every right and bad intentions: without triggers and constraints.
    await owner.execute("ALTER TABLE account DROP CONSTRAINT account_floor")
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(change, account)
    (nantes,) = (r for r in await verify_books(bank.dsn) if r.city_id == "nantes")
    assert not nantes.sound
    assert message in "\n".join(nantes.differences)


def run(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {
        "DATABASE_URL": dsn,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TOKEN_ISSUER": "https://identity.test",
        "JWKS_URL": "https://identity.test/jwks",
    }.items():
        monkeypatch.setenv(f"TIMEBANK_{name}", value)
    return CliRunner().invoke(cli, ["verify-books"])


async def test_the_command_exits_1_on_a_difference(
    bank: Any, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await post(bank)
    # In a thread: the command runs an event loop of its own.
    sound = await asyncio.to_thread(run, bank.dsn, monkeypatch)
    assert sound.exit_code == 0, sound.output
    assert "sound" in sound.output
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(PLANTED["a balance"][0], account)
    differs = await asyncio.to_thread(run, bank.dsn, monkeypatch)
    assert differs.exit_code == 1
    assert "differs" in differs.output
    assert "postings say -90" in differs.output


async def test_the_scheduled_check_reports_what_differs(bank: Any, owner: Any) -> None:
    account = await post(bank)
    reports = await check_books(bank.dsn, bank.pool, utc_now)
    assert reports is not None
    assert all(report.sound for report in reports)
    assert await owner.fetchval("SELECT count(*) FROM outbox WHERE topic = $1", BOOKS.name) == 0
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(PLANTED["a balance"][0], account)
    await check_books(bank.dsn, bank.pool, utc_now)
    (told,) = await owner.fetch("SELECT key, payload FROM outbox WHERE topic = $1", BOOKS.name)
    assert told["key"] == "nantes"
    assert told["payload"]["differences"] == 2
    assert "sum to 1, not to 0" in told["payload"]["first"][0]
    gauge = "timebank_book_differences"
    assert REGISTRY.get_sample_value(gauge, {"city": "nantes"}) == 2
    assert REGISTRY.get_sample_value(gauge, {"city": "bourges"}) == 0


async def test_one_worker_checks_at_a_time(bank: Any, owner: Any) -> None:
    await owner.execute("SELECT pg_advisory_lock($1)", CHECK_LOCK)
    assert await check_books(bank.dsn, bank.pool, utc_now) is None
