"""Pledges: what is owed month by month, what counts, and what comes back."""

import asyncio
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from jsonschema import Draft202012Validator

from common.ids import new_id
from timebank.domain import Actor, Rejected
from timebank.pledges import service, store
from timebank.verify import verify_books

EVENTS = Path(__file__).parents[3] / "contracts" / "events"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def bank(bank: Any) -> Any:
    """The bank on a Sunday in November."""
    bank.app.state.clock = lambda: NOW
    return bank


async def pledge(bank: Any, name: str = "anna", minutes: int = 120, **more: Any) -> Any:
    """A steward's pledge for somebody, from the first of the month on unless `more` says."""
    body = {
        "member_id": str(bank.members[name]),
        "minutes_per_month": minutes,
        "starts_on": "2026-11-01",
        **more,
    }
    return await bank.caller("stella", "nantes", "steward").post("pledges", body)


async def count(
    bank: Any,
    minutes: int,
    *,
    name: str = "anna",
    performed_on: date = date(2026, 11, 20),
    work: UUID | None = None,
    city: str = "nantes",
) -> int:
    """As a confirmed contribution does."""
    async with bank.pool.acquire() as conn, conn.transaction():
        return await service.count_contribution(
            conn,
            contribution_id=work or new_id(),
            member_id=bank.members[name],
            city_id=city,
            minutes=minutes,
            performed_on=performed_on,
            actor=Actor("bruno", city),
            now=bank.app.state.clock(),
        )


async def endow(bank: Any, name: str = "anna") -> None:
    """As if much work had been confirmed."""
    stella = bank.caller("stella", "nantes", "steward")
    await stella.pay(bank.accounts["nantes commons"], bank.accounts[name], 5000)


async def uncount(bank: Any, work: UUID) -> int | Rejected:
    async with bank.pool.acquire() as conn, conn.transaction():
        return await service.uncount_contribution(
            conn, work, actor=Actor("bruno", "nantes"), now=bank.app.state.clock()
        )


async def periods(bank: Any, pledge_id: str, name: str = "anna") -> list[tuple[str, int, int, str]]:
    """Month, owed, met, state."""
    answer = (await bank.caller(name).get(f"pledges/{pledge_id}")).json()
    return [
        (one["month"][:7], one["owed_minutes"], one["met_minutes"], one["state"])
        for one in answer["periods"]
    ]


async def assert_sound(bank: Any) -> None:
    assert all(report.sound for report in await verify_books(bank.dsn))


# ── Making, changing, ending ────────────────────────────────────────────────────────────────────


async def test_a_member_pledges_and_reads_what_is_owed(bank: Any) -> None:
    anna = bank.caller("anna")
    own = str(new_id())
    body = {"pledge_id": own, "minutes_per_month": 300, "skills": ["cooking", "repair"]}
    made = await anna.post("pledges", body)
    assert made.status_code == 201
    assert made.json() == {
        "pledge_id": own,
        "member_id": str(bank.members["anna"]),
        "city_id": "nantes",
        "status": "running",
        "starts_on": "2026-11-22",
        "ends_before": None,
        "terms": [{"from_month": "2026-11-01", "minutes_per_month": 300}],
        "skills": ["cooking", "repair"],
        "version": 1,
    }
    # Nine of thirty days are left.
    assert await periods(bank, own) == [("2026-11", 90, 0, "open")]
    event = await bank.pool.fetchrow(
        "SELECT key, payload FROM outbox WHERE topic = 'timebank.pledges.v1'"
    )
    assert event["key"] == own
    assert event["payload"]["terms"] == [{"from_month": "2026-11-01", "minutes_per_month": 300}]
    schema = orjson.loads((EVENTS / "timebank.pledge.changed.v1.json").read_bytes())
    Draft202012Validator(schema).validate(event["payload"])
    listed = await anna.get("pledges", member_id=str(bank.members["anna"]))
    assert [item["pledge_id"] for item in listed.json()["items"]] == [own]


async def test_one_pledge_runs_at_a_time(bank: Any) -> None:
    anna = bank.caller("anna")
    answers = await asyncio.gather(
        *(anna.post("pledges", {"minutes_per_month": 60}) for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert problem(await pledge(bank)) == (409, "pledge_running")
    with pytest.raises(asyncpg.UniqueViolationError, match="pledge_running"):
        await bank.pool.execute(
            "INSERT INTO pledge (pledge_id, member_id, city_id, starts_on, skills, version,"
            " made_by, made_at) SELECT gen_random_uuid(), member_id, city_id, starts_on, skills,"
            " 1, made_by, made_at FROM pledge"
        )


async def test_a_change_takes_effect_next_month_and_is_kept(bank: Any) -> None:
    pledge_id = (await pledge(bank, minutes=120)).json()["pledge_id"]
    anna = bank.caller("anna")
    changed = await anna.patch(f"pledges/{pledge_id}", {"minutes_per_month": 30})
    assert changed.json()["version"] == 2
    again = await anna.patch(
        f"pledges/{pledge_id}", {"minutes_per_month": 45, "skills": ["garden"]}
    )
    assert again.json()["skills"] == ["garden"]
    assert again.json()["terms"] == [
        {"from_month": "2026-11-01", "minutes_per_month": 120},
        {"from_month": "2026-12-01", "minutes_per_month": 30},
        {"from_month": "2026-12-01", "minutes_per_month": 45},
    ]
    bank.app.state.clock = lambda: datetime(2026, 12, 5, tzinfo=UTC)
    assert await periods(bank, pledge_id) == [
        ("2026-11", 120, 0, "grace"),
        ("2026-12", 45, 0, "open"),
    ]


async def test_an_end_leaves_this_month_owed_and_lets_another_begin_after_it(bank: Any) -> None:
    pledge_id = (await pledge(bank)).json()["pledge_id"]
    anna = bank.caller("anna")
    ended = await anna.post(f"pledges/{pledge_id}/end")
    assert (ended.json()["status"], ended.json()["ends_before"]) == ("ended", "2026-12-01")
    assert problem(await anna.post(f"pledges/{pledge_id}/end")) == (409, "pledge_ended")
    late = await anna.patch(f"pledges/{pledge_id}", {"minutes_per_month": 1})
    assert problem(late) == (409, "pledge_ended")
    refused = await anna.post("pledges", {"minutes_per_month": 60, "starts_on": "2026-11-25"})
    assert problem(refused) == (422, "invalid_start")
    follows = await anna.post("pledges", {"minutes_per_month": 60})
    assert follows.json()["starts_on"] == "2026-12-01"
    assert await periods(bank, pledge_id) == [("2026-11", 120, 0, "open")]
    # Work of this month still counts, and none of it is carried into an end.
    assert await count(bank, 500) == 120


async def test_a_pledge_that_never_began_leaves_no_trace_in_the_calendar(bank: Any) -> None:
    anna = bank.caller("anna")
    later = await anna.post("pledges", {"minutes_per_month": 60, "starts_on": "2027-05-09"})
    ended = await anna.post(f"pledges/{later.json()['pledge_id']}/end")
    assert ended.json()["ends_before"] == "2027-05-01"
    assert (await anna.post("pledges", {"minutes_per_month": 60})).json()["starts_on"] == (
        "2026-11-22"
    )


async def test_what_is_kept_of_changes_has_a_bound(bank: Any) -> None:
    pledge_id = (await pledge(bank)).json()["pledge_id"]
    anna = bank.caller("anna")
    answers = [
        await anna.patch(f"pledges/{pledge_id}", {"minutes_per_month": minutes})
        for minutes in range(1, 22)
    ]
    assert [answer.status_code for answer in answers] == [200] * 20 + [409]
    assert problem(answers[-1]) == (409, "too_many_changes")
    # To say the same again changes nothing, and skills are no matter of months.
    again = {"minutes_per_month": 20, "skills": ["garden"]}
    assert (await anna.patch(f"pledges/{pledge_id}", again)).status_code == 200


async def test_only_a_steward_names_a_month_of_the_past(bank: Any) -> None:
    for who, roles, starts_on, expected in (
        ("anna", (), "2026-10-31", 422),
        ("anna", (), "2027-12-01", 422),
        ("stella", ("steward",), "2025-10-31", 422),
        ("anna", (), "2026-11-01", 201),
        ("bruno", (), "2027-11-30", 201),
    ):
        caller = bank.caller(who, "nantes", *roles)
        for_whom = bank.members["bruno" if who == "bruno" else "anna"]
        body = {"minutes_per_month": 10, "starts_on": starts_on, "member_id": str(for_whom)}
        answer = await caller.post("pledges", body)
        assert answer.status_code == expected, starts_on
        if expected == 422:
            assert answer.json()["errors"][0]["field"] == "body.starts_on"
    await bank.join("dora", "nantes")
    assert (await pledge(bank, "dora", starts_on="2025-11-01")).status_code == 201


async def test_what_is_no_pledge_is_refused(bank: Any) -> None:
    for body in (
        {"minutes_per_month": -1},
        {"minutes_per_month": 6001},
        {"minutes_per_month": True},
        {"minutes_per_month": "60"},
        {"minutes_per_month": 60, "skills": ["Cooking!"]},
        {"minutes_per_month": 60, "skills": ["cooking", "cooking"]},
        {"minutes_per_month": 60, "starts_on": "2026-02-30"},
        {"minutes_per_month": 60, "starts_on": 20600},
        {"minutes_per_month": 60, "starts_on": "2026-12-01T00:00:00Z"},
        {"minutes_per_month": 60, "starts_on": "0001-01-01"},
        {"minutes_per_month": 60, "starts_on": "9999-12-31"},
        {"minutes_per_month": 60, "reason": "none"},
    ):
        answer = await bank.caller("anna").post("pledges", body)
        assert answer.status_code == 422, body
        assert answer.json()["errors"], body
    assert await bank.pool.fetchval("SELECT count(*) FROM pledge") == 0


async def test_a_pledge_is_its_members_and_the_stewards(bank: Any) -> None:
    made = (await pledge(bank)).json()
    path = f"pledges/{made['pledge_id']}"
    bruno, far = bank.caller("bruno"), bank.caller("chloe", "bourges", "steward")
    for_anna = {"member_id": made["member_id"], "minutes_per_month": 1}
    assert problem(await bruno.get(path)) == (403, "forbidden")
    assert problem(await bruno.post(f"{path}/end")) == (403, "forbidden")
    assert problem(await bruno.patch(path, {"minutes_per_month": 1})) == (403, "forbidden")
    assert problem(await bruno.post("pledges", for_anna)) == (403, "forbidden")
    assert problem(await bruno.get("pledges", city_id="nantes")) == (403, "forbidden")
    assert problem(await bruno.get("pledges", member_id=made["member_id"])) == (404, "not_found")
    for answer in (
        await far.get(path),
        await far.post(f"{path}/end"),
        await far.patch(path, {"minutes_per_month": 1}),
        await far.post("pledges", for_anna),
        await far.get("pledges", city_id="nantes"),
    ):
        assert problem(answer) == (404, "not_found")
    assert (await far.get("pledges", member_id=made["member_id"])).json()["items"] == []
    stella = bank.caller("stella", "nantes", "steward")
    assert (await stella.get(path)).status_code == 200
    listed = await stella.get("pledges", city_id="nantes", status="running")
    assert len(listed.json()["items"]) == 1


# ── Counting ────────────────────────────────────────────────────────────────────────────────────


async def test_counted_minutes_go_to_the_commons_once_and_come_back(bank: Any) -> None:
    pledge_id = (await pledge(bank)).json()["pledge_id"]
    work = new_id()
    assert await count(bank, 90, work=work) == 90
    assert await count(bank, 90, work=work) == 90
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (-90, 90)
    assert await periods(bank, pledge_id) == [("2026-11", 120, 90, "open")]
    assert await uncount(bank, work) == 90
    assert await uncount(bank, work) == 0
    assert (await bank.balance("anna"), await bank.balance("nantes commons")) == (0, 0)
    assert await periods(bank, pledge_id) == [("2026-11", 120, 0, "open")]
    assert await count(bank, 90, work=work) == 0
    await assert_sound(bank)


async def test_what_is_more_than_owed_is_carried_within_bounds_and_the_rest_stays(
    bank: Any,
) -> None:
    pledge_id = (await pledge(bank)).json()["pledge_id"]
    await endow(bank)
    assert await count(bank, 1000) == 720
    detail = (await bank.caller("anna").get(f"pledges/{pledge_id}")).json()
    assert detail["carried_minutes"] == 600
    assert await count(bank, 30) == 0
    bank.app.state.clock = lambda: datetime(2027, 2, 3, tzinfo=UTC)
    assert await periods(bank, pledge_id) == [
        (month, 120, 120, "met") for month in ("2026-11", "2026-12", "2027-01", "2027-02")
    ]


async def test_work_told_late_counts_no_more_than_it_would_have_in_time(bank: Any) -> None:
    await pledge(bank, starts_on="2026-09-01", minutes=100)
    await endow(bank)
    # Of September: its own hundred and ten hours carried, not all that is owed until now.
    assert await count(bank, 1440, performed_on=date(2026, 9, 30)) == 700
    assert await count(bank, 1440, performed_on=date(2026, 8, 31)) == 0
    assert await count(bank, 1440, performed_on=date(2026, 11, 1)) == 200


async def test_only_what_was_pledged_to_this_city_counts(bank: Any) -> None:
    await pledge(bank)
    assert await count(bank, 60, name="bruno") == 0
    assert await count(bank, 60, city="bourges") == 0
    assert await bank.transfers() == 0


async def test_a_pledge_of_nothing_takes_nothing(bank: Any) -> None:
    await pledge(bank, minutes=0)
    assert await count(bank, 60) == 0


async def test_who_cannot_give_now_is_not_counted(bank: Any) -> None:
    await pledge(bank, minutes=900)
    # Ten hours below zero is the floor, and nothing was posted for the work itself here.
    assert await count(bank, 700) == 0
    assert await bank.pool.fetchval("SELECT count(*) FROM pledge_credit") == 0


async def test_a_refused_return_leaves_what_was_counted(bank: Any) -> None:
    await pledge(bank)
    work = new_id()
    await count(bank, 90, work=work)
    await bank.pool.execute(
        "UPDATE account SET status = 'closed' WHERE account_id = $1", bank.accounts["anna"]
    )
    refused = await uncount(bank, work)
    assert isinstance(refused, Rejected)
    assert refused.code == "account_closed"
    assert await count(bank, 90, work=work) == 90


async def test_the_same_work_counts_once_whoever_hurries(bank: Any) -> None:
    await pledge(bank)
    work = new_id()
    assert await asyncio.gather(*(count(bank, 50, work=work) for _ in range(6))) == [50] * 6
    assert await bank.balance("nantes commons") == 50
    returned = await asyncio.gather(*(uncount(bank, work) for _ in range(6)))
    assert sorted(returned) == [0, 0, 0, 0, 0, 50]
    assert await bank.balance("nantes commons") == 0


async def test_the_member_is_told_of_the_month_that_is_met(bank: Any) -> None:
    await pledge(bank)
    await count(bank, 100)
    assert await told(bank, "pledge.met") == []
    await count(bank, 100)
    assert await told(bank, "pledge.met") == [
        {"city_id": "nantes", "month": "2026-11-01", "minutes": 120}
    ]


async def told(bank: Any, kind: str) -> list[dict[str, Any]]:
    rows = await bank.pool.fetch(
        "SELECT payload FROM outbox WHERE topic = 'timebank.notices.v1'"
        " AND payload ->> 'kind' = $1 ORDER BY id",
        kind,
    )
    return [row["payload"]["subject"] for row in rows]


async def test_the_transfer_of_a_pledge_is_not_taken_back_by_itself(bank: Any) -> None:
    await pledge(bank)
    await count(bank, 90)
    transfer_id = await bank.pool.fetchval("SELECT transfer_id FROM pledge_credit")
    stella = bank.caller("stella", "nantes", "steward")
    refused = await stella.post(f"transfers/{transfer_id}/reverse")
    assert problem(refused) == (409, "not_reversible")


async def test_the_database_refuses_credits_that_nobody_gave(bank: Any, owner: Any) -> None:
    await pledge(bank)
    work = new_id()
    await count(bank, 90, work=work)
    with pytest.raises(asyncpg.CheckViolationError, match="not what the commons received"):
        await owner.execute("UPDATE pledge_credit SET minutes = 91")
    transfer_id = await owner.fetchval("SELECT transfer_id FROM pledge_credit")
    with pytest.raises(asyncpg.CheckViolationError, match="not given back"):
        await owner.execute(
            "UPDATE pledge_credit SET undone_by = $1, undone_at = now()", transfer_id
        )
    await uncount(bank, work)
    with pytest.raises(asyncpg.RestrictViolationError, match="undone already"):
        await owner.execute("UPDATE pledge_credit SET undone_by = NULL, undone_at = NULL")
    for table in ("pledge_term", "pledge_credit", "standing_history", "city_rules"):
        with pytest.raises(asyncpg.RestrictViolationError):
            await owner.execute(f"DELETE FROM {table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await bank.pool.execute(f"DELETE FROM {table}")


async def test_a_members_own_is_exported_and_their_words_forgotten(bank: Any) -> None:
    await pledge(bank, skills=["cooking"])
    await count(bank, 60)
    async with bank.pool.acquire() as conn:
        found = await store.export_of(conn, bank.members["anna"])
        assert found["pledges"][0]["skills"] == ["cooking"]
        assert found["pledge_terms"][0]["minutes_per_month"] == 120
        assert found["pledge_credits"][0]["minutes"] == 60
        await store.forget(conn, bank.members["anna"])
        found = await store.export_of(conn, bank.members["anna"])
        assert (found["pledges"][0]["skills"], len(found["pledge_credits"])) == ([], 1)
        assert not any((await store.export_of(conn, bank.members["bruno"])).values())
