"""Confirmed work counts towards a pledge, once, and exactly as much can be given back."""

from datetime import UTC, date, datetime
from typing import Any

from common.ids import new_id
from timebank.domain import Actor
from timebank.pledges import service
from timebank.verify import verify_books

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
ACTOR = Actor("bruno", "nantes")


async def pledge(bank: Any, name: str, minutes: int, starts_on: date) -> None:
    pledge_id = new_id()
    await bank.pool.execute(
        "INSERT INTO pledge (pledge_id, member_id, city_id, starts_on, skills, version, made_by,"
        " made_at) VALUES ($1, $2, 'nantes', $3, '{}', 1, 'me', $4)",
        pledge_id,
        bank.members[name],
        starts_on,
        NOW,
    )
    await bank.pool.execute(
        "INSERT INTO pledge_term VALUES ($1, 1, $2, $3, 'me', $4)",
        pledge_id,
        starts_on.replace(day=1),
        minutes,
        NOW,
    )


async def count(bank: Any, name: str, minutes: int, contribution_id: Any = None) -> int:
    async with bank.pool.acquire() as conn, conn.transaction():
        return await service.count_contribution(
            conn,
            contribution_id=contribution_id or new_id(),
            member_id=bank.members[name],
            city_id="nantes",
            minutes=minutes,
            performed_on=date(2026, 11, 20),
            actor=ACTOR,
            now=NOW,
        )


async def test_counted_minutes_go_to_the_commons_once_and_come_back(bank: Any) -> None:
    await pledge(bank, "anna", 120, date(2026, 11, 1))
    work = new_id()
    assert await count(bank, "anna", 90, work) == 90
    assert await count(bank, "anna", 90, work) == 90
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (-90, 90)
    for returned in (90, 0):
        async with bank.pool.acquire() as conn, conn.transaction():
            assert await service.uncount_contribution(conn, work, actor=ACTOR, now=NOW) == returned
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (0, 0)
    assert all(report.sound for report in await verify_books(bank.dsn))
