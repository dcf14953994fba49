"""`python -m timebank import`: once each, in order, told row by row, and again after a failure."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from typer.testing import CliRunner

from common.clock import utc_now
from common.ids import new_id
from timebank import service, store
from timebank.__main__ import cli
from timebank.domain import (
    Actor,
    Books,
    Leg,
    Posted,
    Rejected,
    TransferRequest,
    decide_all,
)
from timebank.importing import run
from timebank.importing.layouts import LayoutError, Row
from timebank.importing.run import Line, Source, import_rows
from timebank.verify import verify_books


def source(bank: Any, **more: Any) -> Source:
    wanted = {"name": "old", "city_id": "nantes", "layout": "copass", "unit": "minutes"}
    accounts = {"anna": bank.accounts["anna"], "bruno": bank.accounts["bruno"]}
    return Source(**{**wanted, "accounts": accounts, **more})


def rows(count: int) -> list[Row]:
    """Anna and Bruno give to each other in turn."""
    pairs = (("anna", "bruno"), ("bruno", "anna"))
    return [Row(n, f"r{n}", *pairs[n % 2], 5, None, None) for n in range(1, count + 1)]


async def test_rows_are_posted_once_each(bank: Any) -> None:
    lines: list[Line] = []
    for expected in ({"posted": 1200}, {"repeated": 1200}):
        counts = await import_rows(bank.pool, utc_now, source(bank), rows(1200), lines.extend)
        assert dict(counts) == expected
    assert await bank.transfers() == 1200
    assert len(lines) == 2400
    assert [line.transfer_id for line in lines[:1200]] == [
        line.transfer_id for line in lines[1200:]
    ]
    # Another source has rows of its own.
    await import_rows(bank.pool, utc_now, source(bank, name="new"), rows(3), lines.extend)
    assert await bank.transfers() == 1203
    assert all(report.sound for report in await verify_books(bank.dsn))


async def test_an_import_that_broke_off_is_finished_by_the_next(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH", 100)
    told: list[Line] = []

    def tell(lines: list[Line]) -> None:
        # After the commit of the third batch, before anybody hears of it.
        if len(told) == 200:
            raise KeyboardInterrupt
        told.extend(lines)

    with pytest.raises(KeyboardInterrupt):
        await import_rows(bank.pool, utc_now, source(bank), rows(1000), tell)
    assert await bank.transfers() == 300
    counts = await import_rows(bank.pool, utc_now, source(bank), rows(1000), lambda _: None)
    assert dict(counts) == {"repeated": 300, "posted": 700}
    assert await bank.transfers() == 1000


async def test_what_stands_before_a_broken_line_is_done_and_told(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH", 100)

    def broken() -> Iterator[Row]:
        yield from rows(250)
        raise LayoutError("line 251")

    told: list[Line] = []
    with pytest.raises(LayoutError, match="line 251"):
        await import_rows(bank.pool, utc_now, source(bank), broken(), told.extend)
    # Whole batches; the rows between the last of them and the broken line are not.
    assert await bank.transfers() == len(told) == 200


async def test_two_imports_of_the_same_file_at_once(bank: Any) -> None:
    counts = await asyncio.gather(
        *(
            import_rows(bank.pool, utc_now, source(bank), rows(600), lambda _: None)
            for _ in range(2)
        )
    )
    assert counts[0] + counts[1] == {"posted": 600, "repeated": 600}
    assert await bank.transfers() == 600


async def test_a_batch_is_decided_ahead_and_again_when_others_move_the_accounts(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH", 50)
    used: list[bool] = []
    post = service.post_transfers

    async def watched(
        conn: Any, batch: Any, now: Any, foreseen: service.Foreseen | None = None
    ) -> Any:
        outcomes = await post(conn, batch, now, foreseen)
        used.append(foreseen is not None and outcomes is foreseen.outcomes)
        return outcomes

    monkeypatch.setattr(service, "post_transfers", watched)
    anna, bruno = bank.accounts["anna"], bank.accounts["bruno"]
    lines: list[Line] = []

    def meddle(told: list[Line]) -> None:
        lines.extend(told)
        if len(lines) == 200:  # while the fifth batch is decided: the sixth finds another balance
            meddlers.append(asyncio.create_task(bank.caller("anna").pay(anna, bruno, 595)))

    meddlers: list[Any] = []
    wanted = [Row(n, f"r{n}", "anna", "bruno", 1, None, None) for n in range(1, 501)]
    counts = await import_rows(bank.pool, utc_now, source(bank), wanted, meddle)
    (meddled,) = [await one for one in meddlers]
    assert meddled.status_code in (201, 409)
    assert used.count(True) >= 4
    # A floor of 600 holds for both together, in whichever order they came.
    given = counts["posted"] + (595 if meddled.status_code == 201 else 0)
    assert given <= 600
    assert await bank.balance("anna") == -given
    if meddled.status_code == 201:
        assert counts["rejected"] == 500 - counts["posted"] > 0
    assert all(report.sound for report in await verify_books(bank.dsn))


async def test_a_row_that_stands_twice_in_a_file_counts_once(
    bank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "BATCH", 50)
    twice = [*rows(200), *rows(50)]  # the second time in a batch that was decided ahead
    counts = await import_rows(bank.pool, utc_now, source(bank), twice, lambda _: None)
    assert dict(counts) == {"posted": 200, "repeated": 50}
    assert await bank.transfers() == 200


async def test_a_forecast_over_other_accounts_counts_for_nothing(bank: Any) -> None:
    anna, bruno = bank.accounts["anna"], bank.accounts["bruno"]
    async with bank.pool.acquire() as conn, conn.transaction():
        before = await store.lock_accounts(conn, [anna, bruno])
    legs = (Leg(anna, -600), Leg(bruno, 600))
    actor = Actor("import:old", "nantes", steward=True)
    request = TransferRequest(new_id(), True, None, actor, legs)
    books = Books(accounts=dict(before))
    forecast = service.Foreseen(before, decide_all([request], books, utc_now()), books.accounts)
    assert isinstance(forecast.outcomes[0], Posted)
    assert (await bank.caller("anna").pay(anna, bruno, 1)).status_code == 201
    async with bank.pool.acquire() as conn, conn.transaction():
        (outcome,) = await service.post_transfers(
            conn, [service.Submission(request, None)], utc_now(), forecast
        )
    assert isinstance(outcome, Rejected)
    assert outcome.code == "insufficient_time"
    assert await bank.balance("anna") == -1


async def test_a_bad_row_does_not_spoil_its_neighbours(bank: Any) -> None:
    told: list[Line] = []
    later = utc_now().replace(year=2099)
    wanted = [
        Row(1, "good", "anna", "bruno", 500, "bread", None),
        Row(2, "too much", "anna", "bruno", 101, None, None),
        Row(3, "who", "anna", "zoe", 1, None, None),
        Row(4, "to self", "anna", "anna", 1, None, None),
        Row(5, "elsewhere", str(bank.accounts["chloe"]), "anna", 1, None, None),
        Row(6, "tomorrow", "anna", "bruno", 1, None, later),
        Row(7, "good", "anna", "bruno", 501, None, None),
        Row(8, "also good", "anna", "bruno", 100, None, None),
    ]
    counts = await import_rows(bank.pool, utc_now, source(bank), wanted, told.extend)
    assert dict(counts) == {"posted": 2, "rejected": 6}
    assert [line.code for line in told] == [
        *(None, "insufficient_time", "account_unknown", "same_account"),
        *("not_found", "in_the_future", "transfer_id_reused", None),
    ]
    assert await bank.balance("anna") == -600


def invoke(bank: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    for name, value in {
        "DATABASE_URL": bank.dsn,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TOKEN_ISSUER": "https://identity.test",
        "JWKS_URL": "https://identity.test/jwks",
    }.items():
        monkeypatch.setenv(f"TIMEBANK_{name}", value)
    return CliRunner().invoke(cli, ["import", *arguments])


async def test_the_command(bank: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An export of TimeOverflow, with its accounts named in a file."""
    file, accounts, report = (tmp_path / name for name in ("t.csv", "accounts.csv", "r.jsonl"))
    file.write_text(
        "source_id,source_type,destination_id,destination_type,amount,created_at,reason,post_id\n"
        "1,Member,2,Member,5400,2024-05-01 10:00:00 UTC,Cours,\n"
        "1,Member,2,Member,61,2024-05-02 10:00:00 UTC,,\n"
    )
    accounts.write_text(
        f"id,account_id\nMember:1,{bank.accounts['anna']}\nMember:2,{bank.accounts['bruno']}\n"
    )
    options = ("--city", "nantes", "--source", "to", "--layout", "timeoverflow")
    done = await asyncio.to_thread(
        invoke,
        bank,
        monkeypatch,
        str(file),
        *options,
        "--accounts",
        str(accounts),
        "--report",
        str(report),
    )
    assert done.exit_code == 1, done.output
    assert "1 posted, 0 there before, 1 rejected" in done.output.replace("\n", " ")
    first, second = (orjson.loads(line) for line in report.read_bytes().splitlines())
    assert (first["status"], second["code"]) == ("posted", "bad_amount")
    seen = (await bank.caller("anna").get(f"transfers/{UUID(first['transfer_id'])}")).json()
    assert (seen["memo"], seen["occurred_at"]) == ("Cours", "2024-05-01T10:00:00Z")
    assert await bank.balance("anna") == -90


async def test_a_file_of_another_layout_is_refused(
    bank: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"id,payer\n{new_id()},x\n")
    done = await asyncio.to_thread(
        invoke, bank, monkeypatch, str(file), "--city", "nantes", "--source", "x"
    )
    assert done.exit_code == 2
    assert await bank.transfers() == 0
