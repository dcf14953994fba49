"""Balances and statements as of any instant, as JSON, CSV and PDF."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from common.clock import utc_now
from timebank.importing.layouts import Row
from timebank.importing.run import Source, import_rows

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def history(bank: Any, days: int = 9, memo: str | None = None) -> None:
    """Anna gives 1, 2, 3, … minutes to Bruno, one transfer a day from START on."""
    for day in range(days):
        bank.app.state.ledger.clock = lambda day=day: START + timedelta(days=day)
        answer = await bank.caller("anna").pay(
            bank.accounts["anna"], bank.accounts["bruno"], day + 1, memo=memo
        )
        assert answer.status_code == 201


def path(bank: Any, what: str, name: str = "anna") -> str:
    return f"accounts/{bank.accounts[name]}/{what}"


async def test_a_balance_is_known_for_every_instant(bank: Any) -> None:
    await history(bank)
    anna = bank.caller("anna")
    total = 0
    before = await anna.get(path(bank, "balance"), at=(START - timedelta(seconds=1)).isoformat())
    assert (before.json()["balance_minutes"], before.json()["version"]) == (0, 0)
    for day in range(9):
        for at, given, version in (
            (START + timedelta(days=day) - timedelta(microseconds=1), total, day),
            (START + timedelta(days=day), total - day - 1, day + 1),
        ):
            answer = (await anna.get(path(bank, "balance"), at=at.isoformat())).json()
            assert (answer["balance_minutes"], answer["version"]) == (given, version)
        total -= day + 1
    now = (await anna.get(path(bank, "balance"))).json()
    assert (now["balance_minutes"], now["version"]) == (-45, 9)
    commons = (await anna.get(path(bank, "balance", "nantes commons"))).json()
    assert (commons["balance_minutes"], commons["version"]) == (0, 0)


async def test_a_clock_that_steps_back_does_not_reorder_an_account(bank: Any) -> None:
    await history(bank, 1)
    bank.app.state.ledger.clock = lambda: START - timedelta(minutes=10)
    answer = await bank.caller("anna").pay(bank.accounts["anna"], bank.accounts["bruno"], 5)
    assert datetime.fromisoformat(answer.json()["posted_at"]) == START


async def test_no_posting_is_earlier_than_the_one_before(bank: Any, owner: Any) -> None:
    await history(bank, 2)
    await owner.execute("ALTER TABLE posting DISABLE TRIGGER posting_only_grows")
    with pytest.raises(asyncpg.CheckViolationError, match="earlier"):
        await owner.execute(
            "DO $$ BEGIN"
            " CREATE TEMP TABLE kept AS SELECT * FROM posting WHERE account_version = 2;"
            " DELETE FROM posting WHERE account_version = 2;"
            " UPDATE kept SET posted_at = posted_at - interval '2 days';"
            " INSERT INTO posting SELECT * FROM kept; END $$"
        )


async def test_a_statement_for_a_spreadsheet(bank: Any) -> None:
    await history(bank, 3, memo="=HYPERLINK(1)")
    answer = await bank.caller("anna").get(
        path(bank, "statement.csv"), **{"from": (START + timedelta(days=1)).isoformat()}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["minutes"] for row in rows] == ["-2", "-3"]
    assert [row["balance_minutes"] for row in rows] == ["-3", "-6"]
    assert {row["memo"] for row in rows} == {"'=HYPERLINK(1)"}
    # Until: the instant itself is out.
    until = await bank.caller("anna").get(
        path(bank, "statement.csv"), until=(START + timedelta(days=1)).isoformat()
    )
    assert len(until.text.splitlines()) == 2


async def test_a_statement_for_paper(bank: Any) -> None:
    await history(bank, 3, memo="œuvre d’été 🎉")
    answer = await bank.caller("anna").get(path(bank, "statement.pdf"))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF-")
    assert answer.content.rstrip().endswith(b"%%EOF")


async def test_the_postings_of_a_period_page_by_page(bank: Any) -> None:
    await history(bank, 6)
    period = {
        "from": (START + timedelta(days=1)).isoformat(),
        "until": (START + timedelta(days=5)).isoformat(),
        "limit": 3,
    }
    anna = bank.caller("anna")
    first = (await anna.get(path(bank, "postings"), **period)).json()
    assert [item["minutes"] for item in first["items"]] == [-5, -4, -3]
    second = (await anna.get(path(bank, "postings"), cursor=first["next"], **period)).json()
    assert [item["minutes"] for item in second["items"]] == [-2]
    assert second["next"] is None
    everything = (await anna.get(path(bank, "postings"))).json()
    assert [item["minutes"] for item in everything["items"]] == [-6, -5, -4, -3, -2, -1]
    # A cursor from beyond the period leads nowhere else.
    beyond = (await anna.get(path(bank, "postings"), cursor=100, **period)).json()
    assert beyond["items"] == first["items"]


async def test_what_was_imported_says_when_it_happened(bank: Any) -> None:
    day = datetime(2024, 5, 1, 10, tzinfo=UTC)
    accounts = {name: bank.accounts[name] for name in ("anna", "bruno")}
    source = Source("old", "nantes", "copass", "minutes", accounts)
    rows = [Row(1, "r1", "anna", "bruno", 5, "Cours", day)]
    await import_rows(bank.pool, utc_now, source, rows, lambda _: None)
    anna = bank.caller("anna")
    (line,) = (await anna.get(path(bank, "postings"))).json()["items"]
    assert (line["occurred_at"], line["memo"]) == ("2024-05-01T10:00:00Z", "Cours")
    text = (await anna.get(path(bank, "statement.csv"))).content.decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["occurred_at"] == "2024-05-01T10:00:00+00:00"
    assert (await anna.get(path(bank, "statement.pdf"))).status_code == 200


async def test_the_words_of_a_hold_are_those_of_what_is_given_of_it(bank: Any) -> None:
    anna = bank.caller("anna")
    body = {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": 30,
        "expires_at": (utc_now() + timedelta(days=1)).isoformat(),
        "memo": "deposit for the drill",
    }
    hold_id = (await anna.post("holds", body)).json()["hold_id"]
    held = (await anna.get(path(bank, "holds"))).json()["items"]
    assert [item["memo"] for item in held] == ["deposit for the drill"]
    await anna.post(f"holds/{hold_id}/post", {"minutes": 10})
    for name in ("anna", "bruno"):
        text = (await bank.caller(name).get(path(bank, "statement.csv", name))).text
        assert "deposit for the drill" in text


@pytest.mark.parametrize("what", ["balance", "statement.csv", "statement.pdf", "postings"])
async def test_statements_are_for_those_who_may_read_the_account(bank: Any, what: str) -> None:
    await history(bank, 1, memo="private")
    for caller, status in (
        (bank.caller("bruno"), 403),
        (bank.caller("chloe", "bourges"), 404),
        (bank.caller("s", "nantes", "steward"), 200),
    ):
        assert (await caller.get(path(bank, what))).status_code == status
    auditor = await bank.caller("a", None, "auditor").get(path(bank, what))
    assert auditor.status_code == 200
    assert b"private" not in auditor.content


NO_INSTANTS = [
    ("balance", {"at": (utc_now() + timedelta(days=1)).isoformat()}),
    ("balance", {"at": "2026-01-01T00:00:00"}),
    ("balance", {"at": "0001-01-01T00:00:00Z"}),
    ("balance", {"at": "tomorrow"}),
    ("statement.csv", {"from": "2026-02-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"}),
    ("statement.csv", {"from": "9999-12-31T23:59:59Z"}),
    ("statement.pdf", {"until": "9999-12-31T23:59:59Z"}),
    ("postings", {"until": "9999-12-31T23:59:59Z"}),
    ("postings", {"from": "9999-12-31T23:59:59Z"}),
    ("postings", {"from": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}),
]


async def test_an_instant_that_cannot_be_is_refused(bank: Any, subtests: pytest.Subtests) -> None:
    for what, query in NO_INSTANTS:
        with subtests.test(f"{what} {query}"):
            answer = await bank.caller("anna").get(path(bank, what), **query)
            assert answer.status_code == 422


async def test_a_statement_too_long_is_refused(bank: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebank.statements.routes.CSV_LINES_MAX", 2)
    await history(bank, 3)
    answer = await bank.caller("anna").get(path(bank, "statement.csv"))
    assert (answer.status_code, answer.json()["code"]) == (422, "statement_too_long")
