"""kill -9 in the middle of an import, and in the middle of expiring holds: nothing is lost, nothing
is done twice, and what was said is true."""

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from common.clock import utc_now
from common.ids import new_id
from timebank.domain import Leg, TransferRequest
from timebank.holds import service as holds
from timebank.importing.run import BATCH
from timebank.verify import verify_books

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

# Several transactions, so that there is something between the first and the last.
ROWS = 4 * BATCH
IMPORT_KILLS = 2
HOLDS = 400
SWEEPER_KILLS = 2


async def assert_sound(bank: Any) -> None:
    for report in await verify_books(bank.dsn):
        assert report.sound, report.wrong


def said(log: Path) -> str:
    return log.read_text()


def read_report(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a report; a program that was killed may have left half a line."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [orjson.loads(line) for line in lines]


def write_rows(bank: Any, path: Path) -> list[str]:
    """Anna and Bruno give to each other in turn; every 97th row names somebody unknown."""
    ends = (str(bank.anna), str(bank.bruno))
    with path.open("w", encoding="utf-8") as out:
        out.write("id,from_account,to_account,minutes,memo,occurred_at\n")
        for n in range(ROWS):
            payer, payee = ends if n % 2 else ends[::-1]
            payee = "nobody" if n % 97 == 96 else payee
            out.write(f"row-{n},{payer},{payee},{n % 5 + 1},,2026-01-01T10:00:00Z\n")
    return [f"row-{n}" for n in range(ROWS) if n % 97 != 96]


async def test_an_import_killed_again_and_again_takes_each_row_in_once(
    bank: Any, begin: Any, log: Path, tmp_path: Path
) -> None:
    file, report = (tmp_path / name for name in ("rows.csv", "report.jsonl"))
    good = write_rows(bank, file)
    arguments = (
        *("import", str(file), "--city", "nantes", "--source", "old"),
        *("--report", str(report)),
    )
    killed = 0
    for share in sorted(bank.dice.uniform(0.05, 0.7) for _ in range(IMPORT_KILLS)):
        process = begin(*arguments, DATABASE_URL=bank.dsn)
        count = "SELECT count(*) FROM transfer"
        if await bank.until(count, int(ROWS * share), process):
            process.kill()
            killed += 1
        process.wait()
        # What was reported is done, whatever happened to the rest.
        said = [line["transfer_id"] for line in read_report(report) if line["transfer_id"]]
        found = await bank.pool.fetchval(
            "SELECT count(*) FROM transfer WHERE transfer_id = ANY($1::uuid[])", said
        )
        assert found == len(said)
    assert killed, "nothing was killed: the import is too fast for this test"

    before = await bank.pool.fetchval("SELECT count(*) FROM transfer")
    last = begin(*arguments, DATABASE_URL=bank.dsn)
    assert await asyncio.to_thread(last.wait, 120) == 1, said(log)  # some were rejected
    lines = read_report(report)
    assert [line["line"] for line in lines] == list(range(1, ROWS + 1))
    told_of = Counter(line["status"] for line in lines)
    assert (told_of["posted"], told_of["repeated"]) == (len(good) - before, before)
    assert told_of["rejected"] == ROWS - len(good)
    taken = {line["id"]: line["transfer_id"] for line in lines if line["transfer_id"]}
    assert list(taken) == good
    rows = await bank.pool.fetch("SELECT transfer_id FROM transfer")
    assert sorted(str(row["transfer_id"]) for row in rows) == sorted(taken.values())
    told = await bank.pool.fetch(
        "SELECT key, count(*) FROM outbox WHERE topic = 'timebank.transfers.v1' GROUP BY key"
    )
    assert {row["key"]: row["count"] for row in told} == dict.fromkeys(taken.values(), 1)
    await assert_sound(bank)


@pytest.mark.whole
async def test_a_worker_killed_while_it_expires_holds_ends_each_once(
    bank: Any, begin: Any, ports: Any, log: Path
) -> None:
    """One after the other, and at the end two at once."""
    ids, later = [], []
    async with bank.pool.acquire() as conn, conn.transaction():
        for n in range(HOLDS):
            due = n % 10 != 0
            placed = await holds.place(
                conn,
                TransferRequest(
                    transfer_id=new_id(),
                    own_id=True,
                    key=None,
                    actor=bank.steward,
                    legs=(Leg(bank.anna, -1), Leg(bank.bruno, 1)),
                ),
                expires_at=utc_now() + timedelta(hours=-1 if due else 24),
                now=utc_now() - timedelta(hours=2),
            )
            (ids if due else later).append(placed.id)
    ended = "SELECT count(*) FROM hold WHERE status <> 'open'"
    killed = 0

    def begin_worker() -> Any:
        return begin("worker", DATABASE_URL=bank.dsn, WORKER_PORT=next(ports))

    shares = sorted(bank.dice.uniform(0.02, 0.7) for _ in range(SWEEPER_KILLS))
    for share in shares:
        victim = begin_worker()
        if await bank.until(ended, int(len(ids) * share), victim):
            victim.kill()
            killed += 1
        victim.wait()
    assert killed == SWEEPER_KILLS, said(log)
    last = [begin_worker(), begin_worker()]
    assert await bank.until(ended, len(ids), last[0]), said(log)
    for process in last:
        process.terminate()

    rows = await bank.pool.fetch("SELECT hold_id, status, transfer_id FROM hold")
    assert {row["hold_id"]: row["status"] for row in rows} == {
        **dict.fromkeys(ids, "expired"),
        **dict.fromkeys(later, "open"),
    }
    told = await bank.pool.fetch(
        "SELECT key, payload->>'status' AS status, count(*) FROM outbox"
        " WHERE topic = 'timebank.holds.v1' GROUP BY key, status"
    )
    assert {(row["key"], row["status"]): row["count"] for row in told} == {
        **{(str(hold_id), "open"): 1 for hold_id in [*ids, *later]},
        **{(str(hold_id), "expired"): 1 for hold_id in ids},
    }
    held = await bank.pool.fetchval(
        "SELECT held_minutes FROM account WHERE account_id = $1", bank.anna
    )
    assert held == len(later)
    await assert_sound(bank)
