"""Rent credit: minutes for rent at the city's rate, and the operator's statement."""

import asyncio
import csv
import io
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from common.ids import new_id
from timebank.rent import store
from timebank.verify import verify_books

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
HOUSE = UUID("0190f000-0000-7000-8000-000000000001")
RULES = {
    "carry_minutes_max": 600,
    "grace_days": 14,
    "rent_cents_per_hour": 950,
    "rent_minutes_max_per_month": 300,
    "member_floor_minutes": -600,
}


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def steward(bank: Any, city: str = "nantes") -> Any:
    return bank.caller("stella", city, "steward")


@pytest.fixture
async def bank(bank: Any) -> Any:
    """A house in Nantes takes minutes for rent, in November."""
    bank.app.state.clock = lambda: NOW
    assert (await steward(bank).put("books/nantes/rules", RULES)).status_code == 200
    opened = await steward(bank).post("accounts", {"city_id": "nantes", "owner_id": str(HOUSE)})
    bank.accounts["house"] = UUID(opened.json()["account_id"])
    return bank


async def pay(bank: Any, minutes: int, name: str = "anna", **more: Any) -> Any:
    body = {"organisation_id": str(HOUSE), "minutes": minutes, **more}
    return await bank.caller(name).post("rent-credits", body)


async def test_minutes_pay_rent_at_the_rate_of_that_day(bank: Any) -> None:
    own = str(new_id())
    made = await pay(bank, 100, rent_credit_id=own)
    assert made.status_code == 201
    # 100 minutes at 9.50 an hour: 15.8333, of which no part of a cent is paid.
    credit = made.json()
    assert (credit["credit_cents"], credit["cents_per_hour"], credit["month"]) == (
        1583,
        950,
        "2026-11",
    )
    assert (credit["rent_credit_id"], credit["status"]) == (own, "made")
    assert (await bank.balance("anna"), await bank.balance("house")) == (-100, 100)
    await steward(bank).put("books/nantes/rules", {**RULES, "rent_cents_per_hour": 1000})
    assert (await pay(bank, 60)).json()["credit_cents"] == 1000
    kept = await bank.caller("anna").get("rent-credits", member_id=str(bank.members["anna"]))
    assert [item["credit_cents"] for item in kept.json()["items"]] == [1583, 1000]
    notices = await bank.pool.fetch(
        "SELECT payload FROM outbox WHERE topic = 'timebank.notices.v1' ORDER BY id"
    )
    assert [row["payload"]["subject"]["credit_cents"] for row in notices] == [1583, 1000]
    assert all(report.sound for report in await verify_books(bank.dsn))


async def test_no_more_than_the_month_allows(bank: Any) -> None:
    answers = await asyncio.gather(*(pay(bank, 100) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 409, 409]
    late = await pay(bank, 1)
    assert problem(late) == (409, "rent_limit_passed")
    assert late.json()["errors"][0]["field"] == "body.minutes"
    # One taken back makes room; the next month, by the city's clock, has its own.
    rent_credit_id = answers[[a.status_code for a in answers].index(201)].json()["rent_credit_id"]
    await steward(bank).post(f"rent-credits/{rent_credit_id}/reverse")
    assert (await pay(bank, 100)).status_code == 201
    bank.app.state.clock = lambda: datetime(2026, 11, 30, 22, 59, tzinfo=UTC)
    assert (await pay(bank, 1)).status_code == 409
    bank.app.state.clock = lambda: datetime(2026, 11, 30, 23, 0, tzinfo=UTC)
    assert (await pay(bank, 300)).json()["month"] == "2026-12"


async def test_what_cannot_be_is_refused(bank: Any) -> None:
    nobody = await pay(bank, 60, organisation_id=str(new_id()))
    assert problem(nobody) == (422, "account_not_found")
    assert nobody.json()["errors"][0]["field"] == "body.organisation_id"
    for minutes in (0, -5, 60_001, 1.5, "60", True, None):
        assert (await pay(bank, minutes)).status_code == 422, minutes  # type: ignore[arg-type]  # on purpose
    far = await bank.caller("chloe", "bourges").post(
        "rent-credits", {"organisation_id": str(HOUSE), "minutes": 60}
    )
    assert problem(far) == (422, "account_not_found")
    own = str(new_id())
    assert (await pay(bank, 10, rent_credit_id=own)).status_code == 201
    assert problem(await pay(bank, 10, rent_credit_id=own)) == (422, "rent_credit_id_reused")
    taken = await pay(bank, 10, "bruno", rent_credit_id=own)
    assert problem(taken) == (422, "rent_credit_id_reused")
    await steward(bank).put("books/nantes/rules", {**RULES, "rent_cents_per_hour": None})
    assert problem(await pay(bank, 60)) == (409, "rent_not_offered")
    assert await bank.transfers() == 1


async def test_who_has_too_little_time_pays_nothing(bank: Any) -> None:
    await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 550)
    assert problem(await pay(bank, 60)) == (409, "insufficient_time")
    assert await bank.pool.fetchval("SELECT count(*) FROM rent_credit") == 0


async def test_a_steward_takes_it_back_whole_and_once(bank: Any) -> None:
    made = (await pay(bank, 120)).json()
    path = f"rent-credits/{made['rent_credit_id']}/reverse"
    for caller, expected in (
        (bank.caller("anna"), (403, "forbidden")),
        (bank.caller("anna", "nantes", "steward"), (403, "forbidden")),
        (bank.caller("olga", "nantes", "operator"), (403, "forbidden")),
        (bank.caller("bruno"), (404, "not_found")),
        (steward(bank, "bourges"), (404, "not_found")),
    ):
        assert problem(await caller.post(path)) == expected
    kept = await steward(bank).post(f"transfers/{made['transfer_id']}/reverse")
    assert problem(kept) == (409, "not_reversible")
    answers = await asyncio.gather(*(steward(bank).post(path) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    assert (await bank.balance("anna"), await bank.balance("house")) == (0, 0)
    lines = (
        await bank.caller("anna").get(
            "rent-credits", organisation_id=str(HOUSE), member_id=str(bank.members["anna"])
        )
    ).json()["items"]
    assert [line["status"] for line in lines] == ["reversed"]


async def test_the_operator_reads_the_statement_of_a_month(bank: Any) -> None:
    first = (await pay(bank, 100)).json()
    await pay(bank, 61, "bruno")
    await steward(bank).post(f"rent-credits/{first['rent_credit_id']}/reverse")
    operator = bank.caller("olga", "nantes", "operator")
    path = f"organisations/{HOUSE}/rent-statement"
    as_csv = await operator.get(f"{path}.csv", month="2026-11")
    assert as_csv.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(as_csv.content.decode("utf-8-sig"))))
    assert [row[2:] for row in rows[1:]] == [
        [str(bank.members["anna"]), "100", "950", "1583", "reversed"],
        [str(bank.members["bruno"]), "61", "950", "965", "made"],
        ["", "61", "", "965", ""],
    ]
    as_pdf = await operator.get(f"{path}.pdf")
    assert as_pdf.headers["content-type"] == "application/pdf"
    assert as_pdf.content.startswith(b"%PDF-")
    headers = as_pdf.headers["content-disposition"]
    assert headers == f'attachment; filename="rent-{HOUSE}-2026-11.pdf"'
    assert (
        len(
            list(csv.reader(io.StringIO((await operator.get(f"{path}.csv", month="2026-10")).text)))
        )
        == 2
    )


async def test_a_statement_is_for_who_runs_the_city(bank: Any) -> None:
    await pay(bank, 60)
    path = f"organisations/{HOUSE}/rent-statement.csv"
    assert problem(await bank.caller("bruno").get(path)) == (403, "forbidden")
    assert problem(await bank.caller("audrey", None, "auditor").get(path)) == (403, "forbidden")
    far = bank.caller("olga", "bourges", "operator")
    assert problem(await far.get(path)) == (404, "not_found")
    unknown = f"organisations/{new_id()}/rent-statement.csv"
    assert problem(await steward(bank).get(unknown)) == (404, "not_found")
    for month in ("2026-13", "2026-1", "26-11", "2026-11-01", "²026-11"):
        assert (await steward(bank).get(path, month=month)).status_code == 422, month
    listed = {"organisation_id": str(HOUSE)}
    assert problem(await bank.caller("bruno").get("rent-credits", **listed)) == (403, "forbidden")
    assert (await far.get("rent-credits", **listed)).json()["items"] == []
    assert len((await steward(bank).get("rent-credits", **listed)).json()["items"]) == 1
    assert (await bank.caller("bruno").get("rent-credits")).status_code == 422


async def test_the_list_goes_on_where_it_stopped(bank: Any) -> None:
    for _ in range(3):
        await pay(bank, 10)
    anna = bank.caller("anna")
    own = {"member_id": str(bank.members["anna"]), "month": "2026-11"}
    first = (await anna.get("rent-credits", limit=2, **own)).json()
    second = (await anna.get("rent-credits", limit=2, cursor=first["next"], **own)).json()
    seen = [item["rent_credit_id"] for item in first["items"] + second["items"]]
    assert (len(set(seen)), second["next"]) == (3, None)
    async with bank.pool.acquire() as conn:
        found = await store.export_of(conn, bank.members["anna"])
        assert [row["minutes"] for row in found["rent_credits"]] == [10, 10, 10]
        await store.forget(conn, bank.members["anna"])
        assert await store.export_of(conn, bank.members["anna"]) == found
