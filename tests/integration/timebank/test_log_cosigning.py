"""Cities cosign each other's logs; a past that others do not have is signed no more."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from clearing_world import Federation, Letter, two_time_banks
from conftest import Bank

from common import db
from copass_verify.__main__ import main
from copass_verify.notes import open_note, to_verifier
from timebank.events import CHECKPOINTS, COSIGNATURES
from timebank.log import bundle, cosigning, service, store
from timebank.log.domain import origin_of


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    """Nantes and Bourges have an agreement; Brest has none."""
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        await made.agree("nantes", "bourges")
        yield made


async def log_all(federation: Federation) -> None:
    federation.clock.advance(minutes=10)
    for bank in federation.each:
        await service.work_once(bank.pool, federation.vault, federation.clock())


async def live(federation: Federation, minutes: int = 10) -> None:
    """Minutes go from Nantes to Bourges, arrive, and are logged and signed there and here."""
    await federation.send("anna", "nantes", "chloe", "bourges", minutes)
    await federation.deliver()
    await log_all(federation)


async def held(federation: Federation) -> int | None:
    size: int | None = await federation.bank("bourges").pool.fetchval(
        "SELECT size FROM log_seen WHERE cosigner = 'bourges' AND city_id = 'nantes'"
    )
    return size


async def signed(bank: Bank, city_id: str = "nantes") -> store.Signed:
    async with bank.pool.acquire() as conn:
        last = await store.last_checkpoint(conn, city_id)
    assert last is not None
    return last


async def halted(federation: Federation) -> str | None:
    why: str | None = await federation.bank("nantes").pool.fetchval(
        "SELECT halted FROM log_head WHERE city_id = 'nantes'"
    )
    return why


async def told(bank: Bank, topic: str) -> list[dict[str, Any]]:
    rows = await bank.pool.fetch("SELECT payload FROM outbox WHERE topic = $1 ORDER BY id", topic)
    return [row["payload"] for row in rows]


async def go_back(bank: Bank, size: int, *, forgets: bool = True) -> None:
    """The log of Nantes as a backup of then would have it; past the triggers, as a restore is."""
    owner = await db.connect(bank.dsn, name="test-restore")
    try:
        await owner.execute("SET session_replication_role = replica")
        tables = {"log_entry": "index", "log_checkpoint": "size - 1"}
        if forgets:
            tables["log_cosignature"] = "size - 1"
        for table, column in tables.items():
            await owner.execute(
                f"DELETE FROM {table} WHERE city_id = 'nantes' AND {column} >= {size}"
            )
        await owner.execute("DELETE FROM outbox WHERE topic LIKE 'timebank.c%osign%'")
        leaves = [
            row["leaf_hash"]
            for row in await owner.fetch(
                "SELECT leaf_hash FROM log_entry WHERE city_id = 'nantes' ORDER BY index"
            )
        ]
        frontier = service.Frontier()
        for leaf in leaves:
            frontier.append(leaf)
        await owner.execute(
            "UPDATE log_head SET size = $1, roots = $2 WHERE city_id = 'nantes'",
            frontier.size,
            list(frontier.roots),
        )
        # What the entries that are left tell of, and no more.
        await owner.execute(
            "UPDATE log_account l SET version = (SELECT count(*) FROM posting p"
            " JOIN log_entry e USING (transfer_id) WHERE p.account_id = l.account_id)"
            " FROM account a WHERE a.account_id = l.account_id AND a.city_id = 'nantes'"
        )
    finally:
        await owner.close()


async def test_the_other_city_cosigns_what_it_saw_grow(
    federation: Federation, tmp_path: Path
) -> None:
    await live(federation)
    await federation.deliver()
    await live(federation)
    await federation.deliver()
    nantes, bourges = federation.bank("nantes"), federation.bank("bourges")
    last = await signed(nantes)
    assert await held(federation) == last.size == 4
    key = await bourges.pool.fetchval("SELECT public_key FROM city_key WHERE city_id = 'bourges'")
    verifier = to_verifier(origin_of("bourges"), key, cosigns=True)
    note = open_note(last.note.encode(), [verifier])
    assert note.unknown == 1  # its own
    shown = await federation.caller("anna", "nantes").get("log/nantes/checkpoint")
    assert shown.text == last.note
    assert {each["cosigner"] for each in await told(nantes, COSIGNATURES.name)} == {"nantes"}
    paths = []
    for number, bank in enumerate((nantes, bourges)):
        paths.append(str(tmp_path / f"{number}.zip"))
        await bundle.write_bundle(bank.dsn, [], Path(paths[-1]), federation.clock())
    assert main([*paths, "--cosigned", "1"]) == 0
    assert main([*paths, "--cosigned", "2"]) == 1


async def test_checkpoints_that_were_lost_or_come_late_or_twice_do_no_harm(
    federation: Federation,
) -> None:
    await live(federation)
    await federation.deliver()
    await log_all(federation)
    for _ in range(3):
        await federation.send("anna", "nantes", "chloe", "bourges", 5)
        await federation.deliver()
        await log_all(federation)
        await federation.collect()
        kept = [letter for letter in federation.letters if letter.topic == CHECKPOINTS.name]
        federation.letters.clear()  # nobody hears of it
    nantes = await signed(federation.bank("nantes"))
    assert await held(federation) == 2
    await federation.send("anna", "nantes", "chloe", "bourges", 5)
    await federation.deliver()
    await log_all(federation)
    await federation.deliver()
    newest = await signed(federation.bank("nantes"))
    assert await held(federation) == newest.size > nantes.size
    federation.letters = [*kept, *kept]
    await federation.deliver()
    assert await held(federation) == newest.size
    assert await halted(federation) is None


async def test_another_past_is_not_cosigned_and_ends_the_signing(federation: Federation) -> None:
    """Somebody with the database and the key writes the book of Nantes anew."""
    await live(federation)
    await federation.deliver()
    seen = await held(federation)
    nantes = federation.bank("nantes")
    await go_back(nantes, 0, forgets=False)
    await nantes.pool.execute("UPDATE log_account SET salt = NULL")
    owner = await db.connect(nantes.dsn, name="test-forger")
    await owner.execute("UPDATE log_account SET name = reverse(name)")
    await owner.close()
    await federation.send("anna", "nantes", "chloe", "bourges", 7)
    await federation.deliver()
    await log_all(federation)
    assert (await signed(nantes)).size > (seen or 0)
    await federation.deliver()
    assert await held(federation) == seen
    assert (await told(federation.bank("bourges"), COSIGNATURES.name))[-1]["fork"] is True
    assert "another history" in (await halted(federation) or "")
    size = (await signed(nantes)).size
    await live(federation)
    assert (await signed(nantes)).size == size


async def test_an_old_database_that_was_brought_back_signs_nothing(federation: Federation) -> None:
    await live(federation)
    await live(federation)
    await federation.deliver()
    nantes = federation.bank("nantes")
    before = await signed(nantes)
    note = (await told(nantes, CHECKPOINTS.name))[-1]["note"]
    await go_back(nantes, 2)
    # What the worker reads from the topics as it starts.
    async with nantes.pool.acquire() as conn, conn.transaction():
        assert await cosigning.hear_of_own(conn, "nantes", note, federation.clock()) is None
    assert f"{before.size} entries were signed, and only 2" in (await halted(federation) or "")
    await log_all(federation)
    assert (await signed(nantes)).size == 2
    async with nantes.pool.acquire() as conn, conn.transaction():
        assert await service.sequence(conn, "nantes") == 0


async def test_one_that_forgot_is_told_by_those_who_cosigned(federation: Federation) -> None:
    """Also when it did sign: its next checkpoint is smaller than what the other holds."""
    await live(federation)
    await live(federation)
    await live(federation)
    await federation.deliver()
    nantes = federation.bank("nantes")
    assert await held(federation) == 6
    await go_back(nantes, 2)
    async with nantes.pool.acquire() as conn, conn.transaction():
        assert await service.sequence(conn, "nantes", 4) > 0
        assert await service.sign_checkpoint(conn, federation.vault, "nantes", federation.clock())
    assert 2 < (await signed(nantes)).size < 6
    await federation.deliver()
    assert "6 entries were signed" in (await halted(federation) or "")


async def test_nobody_else_can_halt_a_log(federation: Federation) -> None:
    await live(federation)
    await federation.deliver()
    note = (await told(federation.bank("nantes"), CHECKPOINTS.name))[-1]["note"]
    forged = note.replace("\n2\n", "\n9\n")
    for data in (
        {"city_id": "nantes", "cosigner": "bourges", "note": forged},
        {"city_id": "nantes", "cosigner": "bourges", "note": "nonsense"},
        {"city_id": "nantes", "cosigner": "nobody", "note": note},
        {"city_id": "nowhere", "cosigner": "bourges", "note": note},
    ):
        await federation.deliver_one(Letter(COSIGNATURES.name, data))
    for data in (
        {"city_id": "nantes", "note": forged, "proofs": []},
        {"city_id": "bourges", "note": note, "proofs": []},
    ):
        await federation.deliver_one(Letter(CHECKPOINTS.name, data))
    assert forged != note
    assert await halted(federation) is None
    assert await held(federation) == 2
