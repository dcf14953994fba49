"""After every step of long random histories, what the database keeps agrees with itself."""

import itertools
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from common.ids import new_id
from timebank.domain import Actor, Rejected
from timebank.pledges import service as pledges
from timebank.pledges import store as pledges_store
from timebank.standings import service as standings
from timebank.standings.domain import judge
from timebank.verify import verify_books

STEPS = 60
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
CARRY_MAX = 600


class History:
    """One member, one city, and everything that can happen to a pledge."""

    def __init__(self, bank: Any, seed: int) -> None:
        self.bank = bank
        self.random = random.Random(seed)
        self.now = START
        self.counted: dict[UUID, int] = {}
        self.member: UUID = bank.members["anna"]
        bank.app.state.clock = lambda: self.now

    @property
    def steward(self) -> Any:
        return self.bank.caller("stella", "nantes", "steward")

    async def step(self) -> str:
        what = self.random.choice(
            ["work"] * 5
            + ["days"] * 4
            + ["pledge"] * 2
            + ["back", "change", "end", "exempt", "no longer", "help"]
        )
        await getattr(self, what.replace(" ", "_"))()
        return what

    async def days(self) -> None:
        self.now += timedelta(days=self.random.randint(1, 20), hours=self.random.randint(0, 23))
        await standings.evaluate_due(self.bank.pool, self.now)

    async def pledge(self) -> None:
        body = {
            "member_id": str(self.member),
            "minutes_per_month": self.random.choice([0, 60, 200, 600]),
        }
        if self.random.random() < 0.4:
            back = self.now - timedelta(days=self.random.randint(0, 100))
            body["starts_on"] = f"{back:%Y-%m-%d}"
        await self.steward.post("pledges", body)

    async def running(self) -> str | None:
        return await self.bank.pool.fetchval(
            "SELECT pledge_id::text FROM pledge WHERE ends_before IS NULL"
        )

    async def change(self) -> None:
        body = {"minutes_per_month": self.random.choice([0, 30, 300])}
        await self.steward.patch(f"pledges/{await self.running()}", body)

    async def end(self) -> None:
        await self.steward.post(f"pledges/{await self.running()}/end")

    async def exempt(self) -> None:
        until = self.now + timedelta(days=self.random.randint(0, 60))
        body = {"reason": "a reason"} | (
            {"until": f"{until:%Y-%m-%d}"} if self.random.random() < 0.7 else {}
        )
        await self.steward.post(f"members/{self.member}/exemption", body)

    async def no_longer(self) -> None:
        await self.steward.delete(f"members/{self.member}/exemption")

    async def work(self) -> None:
        """As a confirmation does, now and then a late one; and some come twice."""
        work = new_id()
        if self.counted and self.random.random() < 0.2:
            work = self.random.choice(list(self.counted))
        performed_on = (self.now - timedelta(days=self.random.choice([0, 1, 20, 80]))).date()
        async with self.bank.pool.acquire() as conn, conn.transaction():
            minutes = await pledges.count_contribution(
                conn,
                contribution_id=work,
                member_id=self.member,
                city_id="nantes",
                minutes=self.random.randint(1, 700),
                performed_on=performed_on,
                actor=Actor("bruno", "nantes"),
                now=self.now,
            )
        if work not in self.counted and minutes:
            self.counted[work] = minutes
        assert minutes == self.counted.get(work, 0)

    async def back(self) -> None:
        if not self.counted:
            return
        work = self.random.choice(list(self.counted))
        async with self.bank.pool.acquire() as conn, conn.transaction():
            back = await pledges.uncount_contribution(
                conn, work, actor=Actor("bruno", "nantes"), now=self.now
            )
        assert not isinstance(back, Rejected)
        assert back == self.counted[work]
        self.counted[work] = 0

    async def help(self) -> None:
        asked = await self.bank.caller("anna").post(
            "solidarity/requests", {"minutes": self.random.randint(1, 400), "for": "pledge"}
        )
        if asked.status_code == 201:
            path = f"solidarity/requests/{asked.json()['request_id']}"
            assert (await self.steward.post(f"{path}/grant", {})).status_code == 200

    async def check(self) -> None:
        pool, member = self.bank.pool, self.member
        # What was given to the commons is what counts, work and help alike.
        counts = await pool.fetchval(
            "SELECT coalesce(sum(minutes), 0)::bigint FROM pledge_credit WHERE undone_by IS NULL"
        )
        assert await self.bank.balance("nantes commons") == counts - 20_000
        of_work = await pool.fetchval(
            "SELECT coalesce(sum(minutes), 0)::bigint FROM pledge_credit"
            " WHERE undone_by IS NULL AND source = 'contribution'"
        )
        assert of_work == sum(self.counted.values())
        # The standing is what follows from the history, and each change was told once.
        async with pool.acquire() as conn:
            dues = await pledges_store.find_dues(conn, member, self.now)
            exemptions = await pledges_store.exemptions_of(conn, member)
        kept = await pool.fetchrow(
            "SELECT standing, version FROM standing WHERE member_id = $1", member
        )
        (today,) = {one.today for one in dues} or {self.now.date()}
        assert kept["standing"] == judge(dues, exemptions, today).standing
        history = await pool.fetch(
            "SELECT version, standing FROM standing_history WHERE member_id = $1 ORDER BY version",
            member,
        )
        told = await pool.fetch(
            "SELECT (payload ->> 'version')::bigint AS version, payload ->> 'standing' AS standing"
            " FROM outbox WHERE topic = 'timebank.standings.v1' AND key = $1 ORDER BY id",
            str(member),
        )
        assert [tuple(row) for row in history] == [tuple(row) for row in told]
        assert [row["version"] for row in history] == list(range(1, kept["version"] + 1))
        names = [row["standing"] for row in told]
        assert all(one != other for one, other in itertools.pairwise(names))
        for one in dues:
            assert all(period.short_minutes >= 0 for period in one.periods)
            if not exemptions:
                assert one.carried_minutes <= CARRY_MAX


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_is_kept_agrees_with_itself(bank: Any, seed: int) -> None:
    history = History(bank, seed)
    for name, minutes in (("anna", 10_000), ("nantes solidarity_fund", 10_000)):
        paid = await history.steward.pay(
            bank.accounts["nantes commons"], bank.accounts[name], minutes
        )
        assert paid.status_code == 201
    done = []
    for _ in range(STEPS):
        done.append(await history.step())
        await history.check()
    assert len(set(done)) > 6
    assert sum(history.counted.values()) or "back" in done
    assert all(report.sound for report in await verify_books(bank.dsn))
