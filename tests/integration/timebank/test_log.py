"""The transparency log on a real database: order, restarts, signatures, proofs, who reads what."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from bank_world import NOW, Bank, settings_for
from clearing_world import SECRET
from tokens import ISSUER, key_set

from common import db
from common.auth import TokenVerifier
from common.ids import new_id
from copass_verify.checkpoints import Checkpoint, parse_checkpoint
from copass_verify.merkle import hash_leaf, root_of, verify_consistency, verify_inclusion
from copass_verify.notes import open_note, to_verifier
from timebank.app import create_app
from timebank.clearing import service as clearing
from timebank.clearing.keys import Vault
from timebank.domain import Actor, Leg, TransferRequest
from timebank.log import cli as log_cli
from timebank.log import service, store
from timebank.privacy import service as privacy
from timebank.service import Submission, post_transfers

VAULT = Vault(SECRET)


@pytest.fixture
async def bank(dsn: str) -> AsyncIterator[Bank]:
    """Anna, Bruno and Dora in Nantes, Chloé in Bourges; both cities have keys."""
    app = create_app(settings_for(dsn, key_secret=SECRET))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, json=key_set()))
        ) as identity,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app, raise_app_exceptions=False),
            base_url="http://timebank.test",
        ) as http,
    ):
        app.state.verifier = TokenVerifier(
            issuer=ISSUER, audience="timebank", jwks_url=f"{ISSUER}/jwks", http=identity
        )
        running = Bank(app, http, dsn, app.state.pool)
        for name, city in (
            ("anna", "nantes"), ("bruno", "nantes"), ("dora", "nantes"), ("chloe", "bourges"),
        ):  # fmt: skip
            await running.join(name, city)
        async with running.pool.acquire() as conn, conn.transaction():
            await clearing.ensure_keys(conn, VAULT, NOW)
        yield running


async def pay(bank: Bank, *steps: str) -> list[str]:
    """Transfers of a minute between members, as "anna>bruno"; their ids."""
    ids = []
    for step in steps:
        giver, receiver = step.split(">")
        answer = await bank.caller(giver).pay(bank.accounts[giver], bank.accounts[receiver], 1)
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["transfer_id"])
    return ids


async def sequence(bank: Bank, city_id: str = "nantes", limit: int = 4000) -> int:
    async with bank.pool.acquire() as conn, conn.transaction():
        return await service.sequence(conn, city_id, limit)


async def sign(bank: Bank, city_id: str = "nantes", later: int = 0) -> store.Signed | None:
    async with bank.pool.acquire() as conn, conn.transaction():
        return await service.sign_checkpoint(conn, VAULT, city_id, NOW + timedelta(seconds=later))


async def entries(bank: Bank, city_id: str = "nantes") -> list[dict[str, Any]]:
    rows = await bank.pool.fetch(
        "SELECT entry FROM log_entry WHERE city_id = $1 ORDER BY index", city_id
    )
    return [json.loads(row["entry"]) for row in rows]


async def checkpoint(bank: Bank, caller: Any) -> Checkpoint:
    answer = await caller.get("log/nantes/checkpoint")
    assert answer.status_code == 200, answer.text
    key = await bank.pool.fetchval("SELECT public_key FROM city_key WHERE city_id = 'nantes'")
    note = open_note(answer.content, [to_verifier("copass/nantes", key)])
    return parse_checkpoint(note.text)


def decoded(items: list[str]) -> list[bytes]:
    return [base64.b64decode(item) for item in items]


async def test_a_transfer_is_posted_logged_signed_and_proven(bank: Bank) -> None:
    ids = await pay(bank, "anna>bruno", "bruno>dora", "dora>anna", "anna>dora", "dora>bruno")
    assert await service.work_once(bank.pool, VAULT, NOW) == 5
    assert [entry["transfer"] for entry in await entries(bank)] == ids
    signed = await checkpoint(bank, bank.caller("anna"))
    assert (signed.origin, signed.size) == ("copass/nantes", 5)
    for index, transfer_id in enumerate(ids):
        answer = await bank.caller("anna").get("log/nantes/inclusion", transfer_id=transfer_id)
        shown = answer.json()
        assert (shown["index"], shown["size"]) == (index, 5)
        (leaf,) = decoded([shown["leaf_hash"]])
        verify_inclusion(leaf, index, 5, signed.root, decoded(shown["proof"]))
    lines = await bank.caller("x", None, "auditor").get(
        "log/nantes/entries", **{"from": 0, "to": 5}
    )
    assert root_of(hash_leaf(line) for line in lines.content.splitlines()) == signed.root


async def test_read_in_any_steps_with_restarts_between_the_log_is_the_same_and_gapless(
    bank: Bank,
) -> None:
    names = ("anna", "bruno", "dora")
    steps = [f"{names[i * 7 % 3]}>{names[(i * 7 + 1 + i % 2) % 3]}" for i in range(30)]
    ids = await pay(bank, *steps[:20])
    for limit in (1, 2, 3, 5):
        assert await sequence(bank, limit=limit) > 0
    # One that dies before it commits leaves nothing.
    async with bank.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        assert await service.sequence(conn, "nantes", 4) > 0
        await transaction.rollback()
    ids += await pay(bank, *steps[20:])
    while await sequence(bank, limit=4):
        pass
    found = await entries(bank)
    assert [entry["index"] for entry in found] == list(range(30))
    assert sorted(entry["transfer"] for entry in found) == sorted(ids)
    rows = await bank.pool.fetch(
        "SELECT p.account_id, array_agg(e.index ORDER BY p.account_version) AS places"
        " FROM posting p JOIN log_entry e USING (transfer_id) GROUP BY p.account_id"
    )
    assert all(row["places"] == sorted(row["places"]) for row in rows)
    head = await bank.pool.fetchrow("SELECT size, roots FROM log_head WHERE city_id = 'nantes'")
    assert head["size"] == 30


async def test_proofs_across_hundreds_of_entries(bank: Bank) -> None:
    """More than a tile, so that kept nodes and computed ones meet."""
    actor = bank.caller("anna")
    async with bank.pool.acquire() as conn, conn.transaction():
        await fill(conn, bank, 600)
    while await sequence(bank, limit=500):
        pass
    signed = await sign(bank)
    assert signed is not None
    assert signed.size == 600
    leaves = [row["leaf_hash"] for row in await bank.pool.fetch(
        "SELECT leaf_hash FROM log_entry WHERE city_id = 'nantes' ORDER BY index"
    )]  # fmt: skip
    assert root_of(leaves) == signed.root
    for index, size in ((0, 600), (255, 600), (256, 600), (599, 600), (511, 513), (3, 300)):
        shown = (await actor.get("log/nantes/inclusion", index=index, size=size)).json()
        verify_inclusion(
            leaves[index], index, size, root_of(leaves[:size]), decoded(shown["proof"])
        )
    for first, second in ((1, 600), (256, 600), (255, 511), (300, 301), (600, 600)):
        answer = await actor.get("log/nantes/consistency", **{"from": first, "to": second})
        verify_consistency(
            first, second, root_of(leaves[:first]), root_of(leaves[:second]),
            decoded(answer.json()["proof"]),
        )  # fmt: skip
    tile = await actor.get("log/nantes/tile/0/1")
    assert tile.content == b"".join(leaves[256:512])
    assert (await actor.get("log/nantes/tile/0/2")).status_code == 404


async def fill(conn: db.Conn, bank: Bank, count: int) -> None:
    """Many transfers of one instant between two members, posted as one batch."""
    anna, bruno = bank.accounts["anna"], bank.accounts["bruno"]
    who = Actor("test", "nantes", steward=True)
    batch = [
        Submission(
            TransferRequest(
                new_id(), True, None, who,
                (Leg(anna, 1 if n % 2 else -1), Leg(bruno, -1 if n % 2 else 1)),
            ),
            None,
        )
        for n in range(count)
    ]  # fmt: skip
    await post_transfers(conn, batch, NOW)


async def test_a_checkpoint_is_signed_once_per_size_and_not_too_often(bank: Bank) -> None:
    assert await sign(bank) is None
    await pay(bank, "anna>bruno")
    await service.work_once(bank.pool, VAULT, NOW)
    assert await sign(bank, later=60) is None
    await pay(bank, "anna>bruno")
    await service.work_once(bank.pool, VAULT, NOW + timedelta(seconds=1))
    sizes = "SELECT array_agg(size ORDER BY size) FROM log_checkpoint"
    assert await bank.pool.fetchval(sizes) == [1]
    await service.work_once(bank.pool, VAULT, NOW + service.CHECKPOINT_EVERY)
    assert await bank.pool.fetchval(sizes) == [1, 2]


async def test_what_was_signed_and_is_no_more_is_not_signed_over(
    bank: Bank, owner: db.Connection
) -> None:
    """As after somebody wrote the past anew, or brought back a database of before."""
    await pay(bank, "anna>bruno", "bruno>dora", "dora>anna")
    await service.work_once(bank.pool, VAULT, NOW)
    await owner.execute("ALTER TABLE log_entry DISABLE TRIGGER log_entry_only_grows")
    await owner.execute("UPDATE log_entry SET leaf_hash = sha256('other') WHERE index = 2")
    await pay(bank, "anna>bruno")
    await sequence(bank)
    assert await sign(bank, later=60) is None
    await owner.execute("DELETE FROM log_entry")
    await owner.execute("UPDATE log_head SET size = 0, roots = '{}'")
    await owner.execute("UPDATE log_account SET version = 2")
    await sequence(bank)
    assert await sign(bank, later=60) is None
    assert await bank.pool.fetchval("SELECT count(*) FROM log_checkpoint") == 1


async def test_the_log_only_grows(bank: Bank) -> None:
    await pay(bank, "anna>bruno")
    await service.work_once(bank.pool, VAULT, NOW)
    for command in (
        "DELETE FROM log_entry",
        "UPDATE log_entry SET entry = 'x'",
        "DELETE FROM log_checkpoint",
        "UPDATE log_checkpoint SET root = sha256('x')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await bank.pool.execute(command)


async def test_a_floor_is_told_as_it_was_when_minutes_were_given(bank: Bank) -> None:
    await pay(bank, "anna>bruno")
    account = bank.accounts["bruno"]
    answer = await bank.caller("s", "nantes", "steward").patch(
        f"accounts/{account}", {"floor_minutes": 0}
    )
    assert answer.status_code == 200, answer.text
    await pay(bank, "bruno>anna")
    await sequence(bank)
    floors = [line.get("floor") for entry in await entries(bank) for line in entry["lines"]
              if line["minutes"] < 0]  # fmt: skip
    assert floors == [-600, 0]


async def test_a_name_without_its_salt_says_nothing_and_still_verifies(bank: Bank) -> None:
    await pay(bank, "anna>bruno")
    await service.work_once(bank.pool, VAULT, NOW)
    before = await entries(bank)
    async with bank.pool.acquire() as conn, conn.transaction():
        await privacy.forget(conn, bank.members["anna"], NOW)
    salted = await bank.pool.fetch("SELECT account_id FROM log_account WHERE salt IS NOT NULL")
    assert [row["account_id"] for row in salted] == [bank.accounts["bruno"]]
    await pay(bank, "bruno>anna")
    await service.work_once(bank.pool, VAULT, NOW + timedelta(minutes=1))
    after = await entries(bank)
    assert after[:1] == before
    assert {line["account"] for line in after[1]["lines"]} == {
        line["account"] for line in before[0]["lines"]
    }


async def test_all_that_waits_is_logged_and_signed_by_command(bank: Bank) -> None:
    await pay(bank, *["anna>bruno", "bruno>dora", "dora>anna"] * 3)
    settings = settings_for(bank.dsn, key_secret=SECRET)
    assert await log_cli.catch_up(settings, VAULT) == 9
    assert (await checkpoint(bank, bank.caller("anna"))).size == 9
    assert await log_cli.catch_up(settings, VAULT) == 0
    times = await log_cli.time_proofs(settings, "nantes", proofs=3, seed=1)
    assert len(times) == 3


async def test_what_is_known_already_is_not_sent_again(bank: Bank) -> None:
    await pay(bank, "anna>bruno", "bruno>anna")
    await service.work_once(bank.pool, VAULT, NOW)
    anna = bank.caller("anna")
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("checkpoint", {}, "max-age=2"),
        ("inclusion", {"index": 0, "size": 2}, "immutable"),
        ("inclusion", {"index": 0}, "max-age=2"),
        ("consistency", {"from": 1, "to": 2}, "immutable"),
    ]
    for path, query, lasts in asked:
        first = await anna.get(f"log/nantes/{path}", **query)
        assert first.status_code == 200
        assert lasts in first.headers["cache-control"]
        headers = {
            "Authorization": f"Bearer {anna.token}",
            "If-None-Match": f'"other", {first.headers["etag"]}',
        }
        url = f"/v1/log/nantes/{path}"
        again = await bank.http.get(url, params=query, headers=headers)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == first.headers["cache-control"]
        headers["If-None-Match"] = '"other"'
        assert (await bank.http.get(url, params=query, headers=headers)).status_code == 200


READERS = [
    ("nantes", (), 403),
    ("nantes", ("operator",), 403),
    ("bourges", ("steward",), 404),
    ("nantes", ("steward",), 200),
    (None, ("auditor",), 200),
    (None, ("federation_admin",), 200),
]


async def test_who_reads_entries(bank: Bank, subtests: pytest.Subtests) -> None:
    await pay(bank, "anna>bruno")
    await service.work_once(bank.pool, VAULT, NOW)
    for city, roles, status in READERS:
        with subtests.test(f"{city} {roles}"):
            caller = bank.caller(str(new_id()), city, *roles)
            answer = await caller.get("log/nantes/entries", **{"from": 0, "to": 10})
            assert answer.status_code == status
            assert (await caller.get("log/nantes/checkpoint")).status_code == 200


async def test_questions_that_have_no_answer(bank: Bank) -> None:
    await pay(bank, "anna>bruno")
    caller = bank.caller("x", None, "auditor")
    for path, params, status in (
        ("log/nantes/checkpoint", {}, 404),
        ("log/nowhere/checkpoint", {}, 404),
        ("log/nantes/inclusion", {"index": 0}, 404),
        ("log/nantes/entries", {"from": 0, "to": 1}, 404),
    ):
        assert (await caller.get(path, **params)).status_code == status, path
    await service.work_once(bank.pool, VAULT, NOW)
    for path, params, status in (
        ("log/nantes/inclusion", {}, 422),
        ("log/nantes/inclusion", {"index": 0, "transfer_id": str(new_id())}, 422),
        ("log/nantes/inclusion", {"index": 1}, 404),
        ("log/nantes/inclusion", {"index": 0, "size": 2}, 422),
        ("log/nantes/inclusion", {"transfer_id": str(new_id())}, 404),
        ("log/nantes/consistency", {"from": 2}, 422),
        ("log/nantes/consistency", {"from": 1, "to": 2}, 422),
        ("log/nantes/entries", {"from": 1, "to": 1}, 422),
        ("log/nantes/entries", {"from": 0, "to": 1001}, 422),
        ("log/nantes/tile/9/0", {}, 404),
        ("log/nantes/tile/0/0", {}, 404),
        ("log/nowhere/checkpoints", {}, 404),
        ("log/nantes/checkpoints", {}, 200),
    ):
        assert (await caller.get(path, **params)).status_code == status, (path, params)


async def test_the_worker_logs_what_is_posted_soon_after(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "POLL_S", 600.0)  # so that it is woken, and does not merely look
    recalled = asyncio.Event()
    task = asyncio.create_task(
        service.keep_logging(bank.dsn, bank.pool, VAULT, lambda: NOW, recalled)
    )
    try:
        for count in (1, 2):
            await pay(bank, "anna>bruno")
            async with asyncio.timeout(30):
                while len(await entries(bank)) < count:
                    await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
