"""Standing: good, in grace, lapsed, exempt; as days pass, as work comes in, and across cities."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from common.events import Event
from common.ids import new_id
from timebank import consumers
from timebank.domain import Actor
from timebank.pledges import service as pledges
from timebank.standings import service, store

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
RULES = {
    "carry_minutes_max": 600,
    "grace_days": 14,
    "rent_cents_per_hour": None,
    "rent_minutes_max_per_month": 600,
    "member_floor_minutes": -600,
}


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def bank(bank: Any) -> Any:
    """The bank on a Sunday in November."""
    bank.app.state.clock = lambda: NOW
    return bank


def steward(bank: Any, city: str = "nantes") -> Any:
    return bank.caller("stella", city, "steward")


async def pledge(
    bank: Any, starts_on: str, name: str = "anna", minutes: int = 120, city: str = "nantes"
) -> str:
    body = {
        "member_id": str(bank.members[name]),
        "minutes_per_month": minutes,
        "starts_on": starts_on,
    }
    answer = await steward(bank, city).post("pledges", body)
    assert answer.status_code == 201, answer.text
    pledge_id: str = answer.json()["pledge_id"]
    return pledge_id


async def count(
    bank: Any,
    minutes: int,
    performed_on: date,
    city: str = "nantes",
    work: UUID | None = None,
) -> int:
    async with bank.pool.acquire() as conn, conn.transaction():
        return await pledges.count_contribution(
            conn,
            contribution_id=work or new_id(),
            member_id=bank.members["anna"],
            city_id=city,
            minutes=minutes,
            performed_on=performed_on,
            actor=Actor("bruno", city),
            now=bank.app.state.clock(),
        )


async def standing(bank: Any, name: str = "anna") -> tuple[str, int]:
    row = await bank.pool.fetchrow(
        "SELECT standing, version FROM standing WHERE member_id = $1", bank.members[name]
    )
    return row["standing"], row["version"]


async def published(bank: Any, name: str = "anna") -> list[tuple[str, str, int]]:
    """City, standing and version, as the other services are told."""
    rows = await bank.pool.fetch(
        "SELECT payload FROM outbox WHERE topic = 'timebank.standings.v1' AND key = $1 ORDER BY id",
        str(bank.members[name]),
    )
    return [
        (row["payload"]["city_id"], row["payload"]["standing"], row["payload"]["version"])
        for row in rows
    ]


async def told(bank: Any, kind: str) -> list[dict[str, Any]]:
    rows = await bank.pool.fetch(
        "SELECT payload FROM outbox WHERE topic = 'timebank.notices.v1'"
        " AND payload ->> 'kind' = $1 ORDER BY id",
        kind,
    )
    return [row["payload"]["subject"] for row in rows]


async def look(bank: Any, at: datetime) -> int:
    """As the worker does at an instant."""
    bank.app.state.clock = lambda: at
    return await service.evaluate_due(bank.pool, at)


async def move(bank: Any, city: str, version: int, status: str = "active") -> None:
    """As identity tells that Anna lives elsewhere now."""
    event = Event(
        id=new_id(),
        type="identity.member.changed.v1",
        source="/identity",
        subject=str(bank.members["anna"]),
        time=NOW,
        data={
            "member_id": str(bank.members["anna"]),
            "version": version,
            "city_id": city,
            "status": status,
        },
    )
    handle = consumers.handlers(bank.app.state.clock)[consumers.MEMBERS]
    async with bank.pool.acquire() as conn, conn.transaction():
        await handle(conn, event)


# ── As days pass ────────────────────────────────────────────────────────────────────────────────


async def test_a_pledge_of_the_past_lapses_at_once_and_late_work_makes_it_good(bank: Any) -> None:
    pledge_id = await pledge(bank, "2026-08-01")
    assert await published(bank) == [("nantes", "good", 1), ("nantes", "lapsed", 2)]
    detail = (await bank.caller("anna").get(f"pledges/{pledge_id}")).json()
    assert [period["state"] for period in detail["periods"]] == [
        *("lapsed", "lapsed", "lapsed"),
        "open",
    ]
    # Work of an old month, told now, and then this month's.
    assert await count(bank, 240, date(2026, 8, 20)) == 240
    assert (await standing(bank))[0] == "lapsed"
    assert await count(bank, 120, date(2026, 11, 20)) == 120
    assert await standing(bank) == ("good", 3)
    assert await told(bank, "standing.changed") == [
        {"standing": "lapsed", "before": "good", "month": "2026-08-01", "until": "2026-09-14"},
        {"standing": "good", "before": "lapsed", "month": None, "until": None},
    ]
    history = (await bank.caller("anna").get(f"standings/{bank.members['anna']}/history")).json()
    assert [
        (item["version"], item["standing"], item["cause"], item["month"])
        for item in history["items"]
    ] == [
        (3, "good", "pledge", None),
        (2, "lapsed", "pledge", "2026-08-01"),
        (1, "good", "joined", None),
    ]


async def test_the_worker_looks_after_midnight_of_the_city_and_only_then(bank: Any) -> None:
    await pledge(bank, "2026-11-01")
    # Paris is an hour ahead in winter.
    midnight = datetime(2026, 11, 30, 23, 0, tzinfo=UTC)
    assert await look(bank, midnight - timedelta(seconds=1)) == 0
    assert await look(bank, midnight) == 1
    assert await standing(bank) == ("grace", 2)
    assert await told(bank, "pledge.short") == [
        {
            "city_id": "nantes",
            "month": "2026-11-01",
            "missing_minutes": 120,
            "until": "2026-12-14",
        }
    ]
    assert await look(bank, midnight + timedelta(hours=5)) == 0
    end_of_grace = datetime(2026, 12, 14, 23, 0, tzinfo=UTC)
    assert await look(bank, end_of_grace - timedelta(seconds=1)) == 0
    assert await look(bank, end_of_grace) == 1
    assert await standing(bank) == ("lapsed", 3)
    # What was owed is made up, but for the month that it is.
    assert await count(bank, 120, date(2026, 12, 1)) == 120
    assert await standing(bank) == ("good", 4)


async def test_a_month_that_is_met_passes_without_a_word(bank: Any) -> None:
    await pledge(bank, "2026-11-01")
    await count(bank, 120, date(2026, 11, 3))
    assert await look(bank, datetime(2026, 12, 1, 12, tzinfo=UTC)) == 1
    assert await published(bank) == [("nantes", "good", 1)]


@pytest.mark.parametrize(
    ("timezone", "midnight"),
    [
        # Six hours after Paris, and eleven before.
        ("America/Martinique", datetime(2026, 4, 1, 4, 0, tzinfo=UTC)),
        ("Pacific/Noumea", datetime(2026, 3, 31, 13, 0, tzinfo=UTC)),
        # Three days after the clocks went forward: two hours ahead.
        ("Europe/Paris", datetime(2026, 3, 31, 22, 0, tzinfo=UTC)),
    ],
)
async def test_a_month_ends_by_the_clock_of_the_city(
    bank: Any, timezone: str, midnight: datetime
) -> None:
    handle = consumers.handlers(lambda: NOW)[consumers.CITIES]
    event = Event(
        id=new_id(),
        type="identity.city.changed.v1",
        source="/identity",
        subject="nantes",
        time=NOW,
        data={"city_id": "nantes", "version": 2, "status": "active", "timezone": timezone},
    )
    async with bank.pool.acquire() as conn, conn.transaction():
        await handle(conn, event)
    bank.app.state.clock = lambda: datetime(2026, 3, 10, tzinfo=UTC)
    await pledge(bank, "2026-03-01")
    assert await look(bank, midnight - timedelta(seconds=1)) == 0
    assert await look(bank, midnight) == 1
    assert (await standing(bank))[0] == "grace"


async def test_a_new_clock_or_new_rules_are_looked_at_at_once(bank: Any) -> None:
    await pledge(bank, "2026-10-01")
    assert (await standing(bank))[0] == "lapsed"
    assert await look(bank, NOW) == 0
    longer = {**RULES, "grace_days": 60}
    assert (await steward(bank).put("books/nantes/rules", longer)).status_code == 200
    assert await look(bank, NOW) == 1
    assert (await standing(bank))[0] == "grace"
    assert (await steward(bank).put("books/nantes/rules", RULES)).status_code == 200
    await look(bank, NOW)
    assert await standing(bank) == ("lapsed", 4)


async def test_work_that_is_taken_back_is_owed_again(bank: Any) -> None:
    await pledge(bank, "2026-10-01")
    work = new_id()
    assert await count(bank, 120, date(2026, 10, 9), work=work) == 120
    assert await standing(bank) == ("good", 3)
    async with bank.pool.acquire() as conn, conn.transaction():
        actor = Actor("stella", "nantes")
        assert await pledges.uncount_contribution(conn, work, actor=actor, now=NOW) == 120
    assert await standing(bank) == ("lapsed", 4)


async def test_two_workers_change_a_standing_once(bank: Any) -> None:
    await pledge(bank, "2026-11-01")
    at = datetime(2026, 12, 1, tzinfo=UTC)
    await asyncio.gather(*(service.evaluate_due(bank.pool, at) for _ in range(4)))
    assert await published(bank) == [("nantes", "good", 1), ("nantes", "grace", 2)]


async def test_a_member_without_a_pledge_stays_good(bank: Any) -> None:
    assert await look(bank, NOW + timedelta(days=400)) == 0
    async with bank.pool.acquire() as conn, conn.transaction():
        known = await service.evaluate(conn, bank.members["bruno"], NOW)
    assert known is not None
    assert (known.standing, known.version) == ("good", 1)


# ── Exemptions ──────────────────────────────────────────────────────────────────────────────────

SECRET = "long illness of the lungs"


async def exempt(bank: Any, name: str = "anna", **more: Any) -> Any:
    path = f"members/{bank.members[name]}/exemption"
    return await steward(bank).post(path, {"reason": SECRET, **more})


async def test_the_exempt_owe_nothing_from_that_month_on(bank: Any) -> None:
    pledge_id = await pledge(bank, "2026-11-01")
    granted = await exempt(bank, until="2026-12-20")
    assert (granted.status_code, granted.json()) == (201, {"exempt": True, "until": "2026-12-20"})
    assert await standing(bank) == ("exempt", 2)
    assert await look(bank, datetime(2026, 12, 20, 22, 59, tzinfo=UTC)) == 1
    assert (await standing(bank))[0] == "exempt"
    assert await look(bank, datetime(2026, 12, 20, 23, 0, tzinfo=UTC)) == 1
    assert await standing(bank) == ("good", 3)
    bank.app.state.clock = lambda: datetime(2027, 1, 2, tzinfo=UTC)
    detail = (await bank.caller("anna").get(f"pledges/{pledge_id}")).json()
    assert [(one["month"], one["owed_minutes"]) for one in detail["periods"]] == [
        ("2026-11-01", 0),
        ("2026-12-01", 0),
        ("2027-01-01", 120),
    ]


async def test_what_was_owed_before_is_owed_after(bank: Any) -> None:
    await pledge(bank, "2026-08-01")
    assert (await exempt(bank)).status_code == 201
    assert await standing(bank) == ("exempt", 3)
    assert problem(await exempt(bank)) == (409, "already_exempt")
    path = f"members/{bank.members['anna']}/exemption"
    bank.app.state.clock = lambda: NOW + timedelta(days=3)
    ended = await steward(bank).delete(path)
    assert (ended.status_code, ended.json()["exempt"]) == (200, False)
    assert await standing(bank) == ("lapsed", 4)
    assert problem(await steward(bank).delete(path)) == (404, "not_found")
    # And another may follow, also on the day when one ended.
    assert (await exempt(bank, until="2026-11-25")).status_code == 201
    bank.app.state.clock = lambda: NOW + timedelta(days=30)
    assert (await exempt(bank)).status_code == 201


async def test_why_somebody_is_exempt_only_the_stewards_of_the_city_see(bank: Any) -> None:
    await exempt(bank)
    path = f"members/{bank.members['anna']}/exemption"
    seen = (await steward(bank).get(path)).json()
    assert (seen["exempt"], seen["reason"], seen["from_on"]) == (True, SECRET, "2026-11-22")
    own = (await bank.caller("anna").get(path)).json()
    assert own == {
        "exempt": True,
        "until": None,
        "exemption_id": None,
        "from_on": None,
        "reason": None,
    }
    anna_as_steward = await bank.caller("anna", "nantes", "steward").get(path)
    assert anna_as_steward.json()["reason"] is None
    assert problem(await bank.caller("bruno").get(path)) == (403, "forbidden")
    auditor = bank.caller("audrey", None, "auditor")
    assert problem(await auditor.get(path)) == (403, "forbidden")
    assert problem(await steward(bank, "bourges").get(path)) == (404, "not_found")
    # In no event, answer kept, or history.
    for table in ("outbox", "idempotency", "standing_history", "exemption"):
        rows = await bank.pool.fetch(f"SELECT {table}::text AS row FROM {table}")
        assert rows
        assert not [row for row in rows if SECRET in row["row"]]


async def test_nobody_but_another_steward_exempts(bank: Any) -> None:
    path = f"members/{bank.members['anna']}/exemption"
    for caller, expected in (
        (bank.caller("anna"), (403, "forbidden")),
        (bank.caller("bruno"), (403, "forbidden")),
        (bank.caller("anna", "nantes", "steward"), (403, "forbidden")),
        (bank.caller("audrey", None, "auditor"), (403, "forbidden")),
        (bank.caller("chloe", "bourges", "steward"), (404, "not_found")),
    ):
        assert problem(await caller.post(path, {"reason": "x"})) == expected
        assert problem(await caller.delete(path)) == expected
    unknown = await steward(bank).post(f"members/{new_id()}/exemption", {"reason": "x"})
    assert problem(unknown) == (404, "not_found")
    for body in (
        {"reason": " "},
        {},
        {"reason": "x", "until": "2026-11-21"},
        {"reason": "x", "until": "9999-12-31"},
        {"reason": "x", "until": 20600},
        {"reason": "x" * 2001},
    ):
        assert (await steward(bank).post(path, body)).status_code == 422, body
    assert (await standing(bank)) == ("good", 1)


async def test_reasons_are_exported_to_their_member_and_can_be_erased(bank: Any) -> None:
    await exempt(bank)
    async with bank.pool.acquire() as conn:
        found = await store.export_of(conn, bank.members["anna"])
        assert found["exemptions"][0]["reason"] == SECRET
        assert [row["standing"] for row in found["standings"]] == ["good", "exempt"]
        await store.forget(conn, bank.members["anna"])
        found = await store.export_of(conn, bank.members["anna"])
        assert found["exemptions"][0]["reason"] is None
    assert (await standing(bank))[0] == "exempt"


# ── Across cities ───────────────────────────────────────────────────────────────────────────────


async def test_who_moves_takes_the_standing_along_and_the_pledge_ends(bank: Any) -> None:
    pledge_id = await pledge(bank, "2026-10-01")
    await move(bank, "bourges", 2)
    await move(bank, "bourges", 2)
    assert await published(bank) == [
        ("nantes", "good", 1),
        ("nantes", "lapsed", 2),
        ("bourges", "lapsed", 3),
    ]
    seen = (await bank.caller("anna", "bourges").get(f"pledges/{pledge_id}")).json()
    assert (seen["status"], seen["ends_before"]) == ("ended", "2026-11-01")
    # A new pledge does not wipe out what is owed; work for the old city does.
    await pledge(bank, "2026-11-01", city="bourges")
    assert (await standing(bank))[0] == "lapsed"
    assert await count(bank, 200, date(2026, 11, 20), city="bourges") == 200
    assert (await standing(bank))[0] == "lapsed"
    assert await count(bank, 200, date(2026, 10, 20)) == 120
    assert await published(bank) == [
        ("nantes", "good", 1),
        ("nantes", "lapsed", 2),
        ("bourges", "lapsed", 3),
        ("bourges", "good", 4),
    ]


async def test_an_exemption_moves_along_without_its_reason(bank: Any) -> None:
    await exempt(bank)
    await move(bank, "bourges", 2)
    assert await published(bank) == [
        ("nantes", "good", 1),
        ("nantes", "exempt", 2),
        ("bourges", "exempt", 3),
    ]
    path = f"members/{bank.members['anna']}/exemption"
    seen = (await steward(bank, "bourges").get(path)).json()
    assert (seen["exempt"], seen["reason"]) == (True, None)
    assert problem(await steward(bank).get(path)) == (404, "not_found")
    assert (await steward(bank, "bourges").delete(path)).status_code == 200
    assert await standing(bank) == ("good", 4)


async def test_of_one_who_was_erased_all_ends(bank: Any) -> None:
    await pledge(bank, "2026-11-01")
    asked = await bank.caller("anna").post(
        "solidarity/requests", {"minutes": 60, "for": "balance", "reason": SECRET}
    )
    assert asked.status_code == 201
    await move(bank, "nantes", 2, status="erased")
    assert await bank.pool.fetchval("SELECT count(*) FROM standing_due") == 0
    assert await bank.pool.fetchval("SELECT ends_before FROM pledge") == date(2026, 11, 1)
    assert await bank.pool.fetchval("SELECT status FROM solidarity_request") == "withdrawn"
    for_her = {"member_id": str(bank.members["anna"]), "minutes_per_month": 60}
    assert problem(await steward(bank).post("pledges", for_her)) == (404, "not_found")
    assert (await exempt(bank)).status_code == 404


# ── Rules of a city ─────────────────────────────────────────────────────────────────────────────


async def test_a_city_sets_its_rules_and_keeps_those_of_before(bank: Any) -> None:
    anna = bank.caller("anna")
    first = (await anna.get("books/nantes/rules")).json()
    assert first == {**RULES, "city_id": "nantes", "number": 0, "set_at": None}
    wanted = {**RULES, "rent_cents_per_hour": 900, "member_floor_minutes": -300}
    put = await steward(bank).put("books/nantes/rules", wanted, key="rules")
    assert (put.status_code, put.json()["number"]) == (200, 1)
    assert (await steward(bank).put("books/nantes/rules", wanted, key="rules")).json() == put.json()
    await asyncio.gather(*(steward(bank).put("books/nantes/rules", RULES) for _ in range(3)))
    history = (await anna.get("books/nantes/rules/history", limit=3)).json()
    assert [item["number"] for item in history["items"]] == [4, 3, 2]
    older = (await anna.get("books/nantes/rules/history", cursor=history["next"])).json()
    assert [item["rent_cents_per_hour"] for item in older["items"]] == [900]
    assert (await anna.get("books/bourges/rules")).status_code == 404
    assert problem(await anna.put("books/nantes/rules", RULES)) == (403, "forbidden")
    far = steward(bank, "bourges")
    assert problem(await far.put("books/nantes/rules", RULES)) == (404, "not_found")
    assert (await far.get("books/atlantis/rules")).status_code == 404


async def test_a_new_member_gets_the_floor_of_the_day(bank: Any) -> None:
    await steward(bank).put("books/nantes/rules", {**RULES, "member_floor_minutes": -45})
    account_id: UUID = await bank.join("dora", "nantes")
    floor = await bank.pool.fetchval(
        "SELECT floor_minutes FROM account WHERE account_id = $1", account_id
    )
    assert floor == -45


async def test_rules_that_are_none_are_refused(bank: Any) -> None:
    for change in (
        {"grace_days": -1},
        {"grace_days": 367},
        {"grace_days": "14"},
        {"carry_minutes_max": 60_001},
        {"rent_cents_per_hour": 0},
        {"rent_cents_per_hour": 9.5},
        {"rent_minutes_max_per_month": None},
        {"member_floor_minutes": 1},
        {"member_floor_minutes": -60_001},
        {"unknown": 1},
    ):
        answer = await steward(bank).put("books/nantes/rules", {**RULES, **change})
        assert answer.status_code == 422, change
    assert await bank.pool.fetchval("SELECT count(*) FROM city_rules") == 0
