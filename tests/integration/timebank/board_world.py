"""Helpers of the tests of the board: listings, exchanges and what they hold."""

from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from common.clock import utc_now
from timebank.verify import verify_books


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def day(days: int) -> str:
    """A day of the city, counted from today."""
    today: date = utc_now().astimezone(ZoneInfo("Europe/Paris")).date()
    return (today + timedelta(days=days)).isoformat()


async def publish(caller: Any, **fields: Any) -> str:
    body = {
        "kind": "offer",
        "what": "service",
        "title": "Un coup de main",
        "category": "repair",
        **fields,
    }
    answer = await caller.post("listings", body)
    assert answer.status_code == 201, answer.text
    listing_id: str = answer.json()["listing_id"]
    return listing_id


async def ask(caller: Any, listing_id: str, **fields: Any) -> str:
    answer = await caller.post(f"listings/{listing_id}/requests", fields)
    assert answer.status_code == 201, answer.text
    exchange_id: str = answer.json()["exchange_id"]
    return exchange_id


async def step(caller: Any, exchange_id: str, name: str, body: Any = None) -> Any:
    answer = await caller.post(f"exchanges/{exchange_id}/{name}", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def held(bank: Any, name: str) -> int:
    minutes: int = await bank.pool.fetchval(
        "SELECT held_minutes FROM account WHERE account_id = $1", bank.accounts[name]
    )
    return minutes


async def notices(bank: Any) -> list[tuple[str, str]]:
    """Who was told what, in the order: (name, kind)."""
    rows = await bank.pool.fetch(
        "SELECT key, payload ->> 'kind' AS kind FROM outbox"
        " WHERE topic = 'timebank.notices.v1' ORDER BY id"
    )
    names = {str(member_id): name for name, member_id in bank.members.items()}
    return [(names[row["key"]], row["kind"]) for row in rows]


async def assert_sound(bank: Any) -> None:
    reports = await verify_books(bank.dsn)
    assert [report.differences for report in reports] == [()] * len(reports)
    assert (
        await bank.pool.fetchval(
            "SELECT count(*) FROM exchange JOIN hold ON hold_id IN (price_hold_id, deposit_hold_id)"
            " WHERE exchange.ended_at IS NOT NULL AND hold.status = 'open'"
        )
        == 0
    )
