"""A member has all that the time bank keeps of them; erased, they leave minutes and no word."""

import asyncio
import csv
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from board_world import ask, day, publish, step
from typer.testing import CliRunner

from common.events import Event
from common.ids import new_id
from timebank import consumers
from timebank.__main__ import cli
from timebank.privacy import service
from timebank.verify import verify_books

# In every text that Anna writes, and in all that is written to her or about her.
WORD = "Zygomatique"
HOUSE = UUID("0190f000-0000-7000-8000-000000000001")
TABLES = {
    "accounts",
    "transfers",
    "holds",
    "contributions",
    "contribution_versions",
    "pledges",
    "pledge_terms",
    "pledge_credits",
    "rent_credits",
    "listings",
    "exchanges",
}


def steward(bank: Any, city: str = "nantes") -> Any:
    return bank.caller("stella", city, "steward")


async def done(answer: Any, status: int = 201) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def work(to: dict[str, str], **more: Any) -> dict[str, Any]:
    return {
        "beneficiary": to,
        "minutes": 60,
        "performed_on": day(-1),
        "activity": "cooking",
        "note": f"{WORD} cuisine",
        **more,
    }


@pytest.fixture
async def busy(bank: Any) -> Any:
    """Anna has done everything that one can do in the time bank, and said her word each time."""
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    accounts, soon = bank.accounts, (datetime.now(UTC) + timedelta(days=3)).isoformat()
    rules = {
        "carry_minutes_max": 600,
        "grace_days": 14,
        "rent_cents_per_hour": 900,
        "rent_minutes_max_per_month": 600,
        "member_floor_minutes": -600,
    }
    await done(await steward(bank).put("books/nantes/rules", rules), 200)
    house = {"city_id": "nantes", "owner_id": str(HOUSE)}
    await done(await steward(bank).post("accounts", house))

    # Given and received, with memos.
    for payer, payee, who in (("anna", "bruno", anna), ("bruno", "anna", bruno)):
        await done(await who.pay(accounts[payer], accounts[payee], 30, memo=f"{WORD} {payer}"))
    # Moved as a steward, on nobody's account of hers.
    steward_anna = bank.caller("anna", "nantes", "steward")
    await done(
        await steward_anna.pay(
            accounts["bruno"], accounts["nantes commons"], 5, memo=f"{WORD} pour tous"
        )
    )
    # Set aside, by her and for her.
    for payer, payee, who in (("anna", "bruno", anna), ("bruno", "anna", bruno)):
        hold = {
            "from_account": str(accounts[payer]),
            "to_account": str(accounts[payee]),
            "minutes": 20,
            "expires_at": soon,
            "memo": f"{WORD} réserve",
        }
        await done(await who.post("holds", hold))
    # Worked: confirmed, open, disputed, and for her.
    pledge = {"minutes_per_month": 60, "skills": ["zygomatique"]}
    ended = await done(await anna.post("pledges", pledge))
    await done(await anna.post(f"pledges/{ended['pledge_id']}/end"), 200)
    await done(await anna.post("pledges", pledge))
    to_bruno = {"kind": "member", "id": str(bank.members["bruno"])}
    to_anna = {"kind": "member", "id": str(bank.members["anna"])}
    for to, giver, confirms in ((to_bruno, anna, bruno), (to_anna, bruno, anna)):
        made = await done(await giver.post("contributions", work(to)))
        body = {"version": made["version"]}
        await done(
            await confirms.post(f"contributions/{made['contribution_id']}/confirm", body), 200
        )
        await done(await giver.post("contributions", work(to)))
        disputed = await done(await giver.post("contributions", work(to)))
        path = f"contributions/{disputed['contribution_id']}/dispute"
        await done(await confirms.post(path, {"minutes": 15, "note": f"{WORD} non"}), 200)
    commons = await done(await anna.post("contributions", work({"kind": "commons"})))
    path = f"contributions/{commons['contribution_id']}/confirm"
    await done(await steward(bank).post(path, {"version": commons["version"]}), 200)
    # Asked the fund, exempt, paid rent.
    asked = {"minutes": 30, "for": "balance", "reason": f"{WORD} difficile"}
    await done(await anna.post("solidarity/requests", asked))
    path = f"members/{bank.members['anna']}/exemption"
    await done(await steward(bank).post(path, {"reason": f"{WORD} malade"}))
    await done(await anna.post("rent-credits", {"organisation_id": str(HOUSE), "minutes": 10}))
    # On the board: offered, needed, lent, asked for.
    for kind in ("offer", "need"):
        await publish(
            anna,
            kind=kind,
            title=f"{WORD} {kind}",
            text=f"Je {WORD} volontiers",
            schedule={"text": f"le {WORD}"},
            latitude=47.2184,
            longitude=-1.5536,
        )
    lent = await publish(bruno, what="lend", title="Perceuse", category="tools", deposit_minutes=25)
    loan = await ask(anna, lent, message=f"{WORD} perceuse", **{"from": day(0), "until": day(5)})
    await step(bruno, loan, "agree")
    priced = await publish(anna, title=f"{WORD} payant", price_minutes=15)
    wanted = await ask(bruno, priced, message=f"pour {WORD}")
    await step(anna, wanted, "agree")
    return bank


async def erase(bank: Any, name: str = "anna", *, version: int = 2) -> None:
    """As identity tells it, twice: the broker may."""
    member_id = bank.members[name]
    for _ in range(2):
        event = Event(
            id=new_id(),
            type="identity.member.changed.v1",
            source="/identity",
            subject=str(member_id),
            time=datetime.now(UTC),
            data={
                "member_id": str(member_id),
                "version": version,
                "city_id": "nantes",
                "status": "erased",
                "roles": ["member"],
                "places": {},
            },
        )
        handle = consumers.handlers(bank.app.state.clock)[consumers.MEMBERS]
        async with bank.pool.acquire() as conn, conn.transaction():
            await handle(conn, event)


async def words_left(bank: Any, *words: str) -> set[str]:
    """The tables that still say one of these, in whatever column of whatever type.

    Of the events, what will not be replaced: a state that a newer one followed goes by itself.
    """
    await bank.pool.execute(
        "DELETE FROM outbox WHERE compacted AND EXISTS (SELECT FROM outbox newer"
        " WHERE newer.topic = outbox.topic AND newer.key = outbox.key AND newer.id > outbox.id)"
    )
    tables = await bank.pool.fetch(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
    )
    patterns = [f"%{word}%" for word in words]
    says = 'SELECT EXISTS (SELECT FROM "{}" AS t WHERE t::text ILIKE ANY ($1))'
    return {
        table["table_name"]
        for table in tables
        if await bank.pool.fetchval(says.format(table["table_name"]), patterns)
    }


async def assert_sound(bank: Any) -> None:
    for report in await verify_books(bank.dsn):
        assert report.sound, report.wrong


# Erasure


async def test_of_one_who_is_erased_no_word_is_left_and_the_books_balance(busy: Any) -> None:
    # What the search finds is what there is to forget: were it blind, it would find less.
    assert await words_left(busy, WORD) >= {
        "transfer_memo",
        "hold",
        "contribution_version",
        "solidarity_reason",
        "exemption_reason",
        "listing",
        "exchange",
        "pledge",
        "idempotency",
        "outbox",
    }
    balances = await busy.pool.fetch("SELECT * FROM posting ORDER BY account_id, account_version")
    await erase(busy)
    assert await words_left(busy, WORD) == set()
    after = await busy.pool.fetch("SELECT * FROM posting ORDER BY account_id, account_version")
    assert after == balances
    await assert_sound(busy)


async def test_the_command_that_verifies_the_books_agrees(
    busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await erase(busy)
    for name, value in {
        "DATABASE_URL": busy.dsn,
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "TOKEN_ISSUER": "https://identity.test",
        "JWKS_URL": "https://identity.test/jwks",
    }.items():
        monkeypatch.setenv(f"TIMEBANK_{name}", value)
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["verify-books"])
    assert done.exit_code == 0, done.output


async def test_what_runs_of_them_ends(busy: Any) -> None:
    member_id, account_id = busy.members["anna"], busy.accounts["anna"]
    await erase(busy)
    account = await busy.pool.fetchrow(
        "SELECT status, held_minutes FROM account WHERE account_id = $1", account_id
    )
    assert dict(account) == {"status": "closed", "held_minutes": 0}
    held = await busy.pool.fetchval(
        "SELECT held_minutes FROM account WHERE account_id = $1", busy.accounts["bruno"]
    )
    assert held == 0
    for query in (
        "SELECT count(*) FROM hold WHERE status = 'open'",
        "SELECT count(*) FROM contribution WHERE status IN ('logged', 'disputed')",
        "SELECT count(*) FROM exchange WHERE ended_at IS NULL",
        "SELECT count(*) FROM solidarity_request WHERE status = 'asked'",
        "SELECT count(*) FROM pledge WHERE ends_before IS NULL",
    ):
        assert await busy.pool.fetchval(query) == 0, query
    listings = await busy.pool.fetch(
        "SELECT owner_id = $1 AS hers, status FROM listing ORDER BY hers", member_id
    )
    # Bruno's drill is there for others again.
    assert [tuple(row) for row in listings] == [(False, "open")] + [(True, "closed")] * 3


async def test_who_is_left_keeps_their_own_words(busy: Any) -> None:
    bruno, own = busy.caller("bruno"), busy.accounts
    paid = await done(
        await bruno.pay(own["bruno"], own["nantes commons"], 5, memo="Pour la maison")
    )
    await publish(bruno, title="Cours de chant", text="Le mardi")
    await erase(busy)
    seen = await done(await bruno.get(f"transfers/{paid['transfer_id']}"), 200)
    assert seen["memo"] == "Pour la maison"
    found = (await bruno.get("listings", q="chant")).json()["items"]
    assert [item["listing"]["title"] for item in found] == ["Cours de chant"]


async def test_who_is_left_hears_of_what_ended(busy: Any) -> None:
    told = (
        "SELECT payload ->> 'kind' FROM outbox WHERE topic = 'timebank.notices.v1'"
        " AND key = $1 AND id > $2"
    )
    last = await busy.pool.fetchval("SELECT max(id) FROM outbox")
    await erase(busy)
    kinds = {row[0] for row in await busy.pool.fetch(told, str(busy.members["bruno"]), last)}
    assert {"contribution.withdrawn", "exchange.cancelled"} <= kinds


async def test_a_repeated_command_about_them_does_nothing_and_tells_nothing(busy: Any) -> None:
    bruno = busy.caller("bruno")
    body = work({"kind": "member", "id": str(busy.members["anna"])})
    first = await done(await bruno.post("contributions", body, key="again"))
    await erase(busy)
    count = await busy.pool.fetchval("SELECT count(*) FROM contribution")
    again = await bruno.post("contributions", body, key="again")
    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
    assert first["contribution_id"] not in again.text
    assert await busy.pool.fetchval("SELECT count(*) FROM contribution") == count


async def test_one_who_is_heard_of_first_when_erased_leaves_nothing_to_forget(bank: Any) -> None:
    bank.members["nobody"] = new_id()
    await erase(bank, "nobody")
    await assert_sound(bank)


async def test_to_forget_again_changes_nothing(busy: Any) -> None:
    await erase(busy)
    last = await busy.pool.fetchval("SELECT max(id) FROM outbox")
    async with busy.pool.acquire() as conn, conn.transaction():
        await service.forget(conn, busy.members["anna"], datetime.now(UTC))
    assert await busy.pool.fetchval("SELECT max(id) FROM outbox") == last


async def test_a_failure_half_way_forgets_nothing(
    busy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("the last step fails")

    before = await words_left(busy, WORD)
    with monkeypatch.context() as patched:
        patched.setattr(service, "FORGETS", (*service.FORGETS, fail))
        with pytest.raises(RuntimeError):
            await erase(busy)
    assert await words_left(busy, WORD) == before
    await erase(busy)
    assert await words_left(busy, WORD) == set()


# Export


async def test_a_member_has_all_that_is_kept_of_them(busy: Any) -> None:
    answer = await busy.caller("anna").get(f"members/{busy.members['anna']}/export")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json()
    tables = document["tables"]
    assert {name for name, rows in tables.items() if rows} >= TABLES
    assert {row["memo"] for row in tables["transfers"]} >= {f"{WORD} anna", f"{WORD} bruno"}
    assert sum(row["minutes"] for row in tables["transfers"]) == await busy.balance("anna")
    said = json.dumps(document, ensure_ascii=False)
    for words in ("difficile", "malade", "cuisine", "perceuse", "payant", "réserve"):
        assert f"{WORD} {words}" in said, words


async def test_nobody_else_has_it(busy: Any) -> None:
    for caller in (busy.caller("bruno"), steward(busy), busy.caller("x", None, "federation_admin")):
        for suffix in ("export", "export.zip"):
            theirs = await caller.get(f"members/{busy.members['anna']}/{suffix}")
            absent = await caller.get(f"members/{new_id()}/{suffix}")
            assert theirs.status_code == absent.status_code == 404
            assert theirs.content == absent.content


async def test_the_same_as_files_that_no_spreadsheet_runs(bank: Any) -> None:
    anna = bank.caller("anna")
    await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 30, memo="=1+1")
    answer = await anna.get(f"members/{bank.members['anna']}/export.zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {"timebank.json", "timebank/transfers.csv"} <= set(archive.namelist())
        text = archive.read("timebank/transfers.csv").decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["memo"], row["minutes"]) == ("'=1+1", "-30")


async def test_an_export_is_bounded(bank: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ROWS_MAX", 1)
    anna = bank.caller("anna")
    path = f"members/{bank.members['anna']}/export"
    for expected in (200, 422):
        await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 30)
        answer = await anna.get(path)
        assert answer.status_code == expected
    assert answer.json()["code"] == "export_too_long"


async def test_every_table_with_words_is_known_to_be_forgotten(bank: Any) -> None:
    """A new column of text is looked at here, or words outlive their writer in it."""
    rows = await bank.pool.fetch(
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND column_name IN ('memo', 'note', 'reason', 'text', 'title', 'message')"
    )
    assert {row["table_name"] for row in rows} <= {
        "transfer_memo",
        "hold",
        "contribution_version",
        "exemption_reason",
        "solidarity_reason",
        "listing",
        "exchange",
        # Of clearing: a memo that its own module forgets, reasons that are words of ours, and
        # signed messages, which hold no memo.
        "clearing_out",
        "clearing_in",
        "clearing_message",
        "netting_answer",
        # Signed notes of the log: a city, a number, a hash.
        "log_checkpoint",
        "log_halt",
        "log_seen",
    }
