"""A city moves from one time bank to another: all of it or nothing, and never in both."""

import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from bank_world import MIGRATIONS, Bank, settings_for
from clearing_world import SECRET, Federation, two_time_banks
from test_log_cosigning import held, log_all, signed

from common import db
from common.events import Event
from common.ids import new_id
from copass_verify.__main__ import main
from timebank import consumers
from timebank.cities import arriving, catching_up, leaving, package, store
from timebank.cities.away import look_around
from timebank.cities.leaving import CannotLeave
from timebank.cities.package import WrongPackage, open_package
from timebank.cities.tables import UnknownTable, in_order, to_table
from timebank.clearing.keys import Vault
from timebank.consumers import MEMBERS
from timebank.log import bundle, service
from timebank.settings import as_app_role

PASSPHRASE = "a passphrase of the city"


@pytest.fixture(autouse=True)
def guesses_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guess at the passphrase costs is scrypt's to prove."""
    monkeypatch.setitem(package.SCRYPT, "n", 2**4)


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    """Nantes has a life: an agreement, transfers with words, a hold, a contribution, a listing, a
    log that Bourges cosigned."""
    async with two_time_banks(make_database) as made:
        await made.bank("nantes").join("bruno", "nantes")
        await made.make_keys()
        await made.agree("nantes", "bourges")
        await made.agree("nantes", "brest")
        yield made


async def live(federation: Federation) -> None:
    bank = federation.bank("nantes")
    anna, bruno = bank.caller("anna"), bank.caller("bruno")
    paid = await anna.pay(bank.accounts["anna"], bank.accounts["bruno"], 30, memo="merci", key="k1")
    assert paid.status_code == 201
    hold = {
        "from_account": str(bank.accounts["anna"]),
        "to_account": str(bank.accounts["bruno"]),
        "minutes": 5,
        "memo": "drill",
        "expires_at": "2026-12-22T00:00:00Z",
    }
    assert (await anna.post("holds", hold)).status_code == 201
    work = {
        "beneficiary": {"kind": "member", "id": str(bank.members["bruno"])},
        "minutes": 60,
        "performed_on": "2026-11-22",
        "activity": "garden",
        "note": "hedge, long",
    }
    logged = await anna.post("contributions", work)
    assert logged.status_code == 201, logged.text
    path = f"contributions/{logged.json()['contribution_id']}/confirm"
    assert (await bruno.post(path, {"version": 1})).status_code == 200
    offer = {"kind": "offer", "what": "service", "title": 'A, "quoted" title', "category": "garden"}
    assert (await anna.post("listings", offer)).status_code == 201
    await federation.send("anna", "nantes", "chloe", "bourges", 40, memo="voyage")
    await federation.deliver()
    await log_all(federation)
    await federation.deliver()


async def leave(federation: Federation, path: Path, city: str = "nantes") -> leaving.Left:
    return await leaving.leave(
        as_app_role(federation.bank(city).dsn), federation.vault, city, path, PASSPHRASE,
        package_id=new_id(), now=federation.clock(), progress=lambda *_: None,
    )  # fmt: skip


async def arrive(
    federation: Federation, dsn: str, path: Path, *heard: str, secret: str = PASSPHRASE
) -> str:
    return await arriving.arrive(
        as_app_role(dsn), Vault(SECRET), open_package(path), secret, heard,
        now=federation.clock(), progress=lambda *_: None,
    )  # fmt: skip


async def catch_up(federation: Federation, bank: Bank, letters: list[Any], city: str) -> None:
    """As the worker does from the topics."""
    handlers = consumers.clearing_handlers(federation.vault, federation.clock)
    for letter in letters:
        if letter.topic == "timebank.clearing.v1":
            event = Event(new_id(), "t", "/timebank", "", federation.clock(), letter.data)
            await catching_up.hear_again(bank.pool, handlers, city, letter.topic, event)


def settle_in(federation: Federation, city: str, to: Bank) -> None:
    """The test speaks to the city where it is now."""
    came_from = federation.banks[city]
    federation.banks[city] = to
    to.members |= {k: v for k, v in came_from.members.items() if k in ("anna", "bruno")}
    to.accounts |= {k: v for k, v in came_from.accounts.items() if k in ("anna", "bruno")}


async def rows(dsn: str, city: str = "nantes") -> dict[str, list[str]]:
    """All that is a city's, as text, but for what an arrival makes anew."""
    connection = await db.connect(dsn, name="test-rows")
    try:
        found = {}
        for table in await store.list_tables(connection):
            got = await connection.fetch(f"SELECT t::text AS line FROM ({table.query}) t", city)
            found[table.name] = sorted(row["line"] for row in got)
    finally:
        await connection.close()
    for name in ("peer_city", "key_handover", "book"):
        found.pop(name)
    return found


async def test_a_city_moves_with_all_that_is_on_its_way_and_its_log_goes_on(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await live(federation)
    west, centre = federation.bank("nantes"), federation.bank("bourges")
    before = await signed(west)
    leaves = await federation.send("anna", "nantes", "chloe", "bourges", 20)
    comes = await federation.send("chloe", "bourges", "anna", "nantes", 15)
    anna = west.caller("anna")
    left = await leave(federation, tmp_path / "nantes.zip")
    assert left.manifest.log_size >= before.size
    there = await rows(west.dsn)
    assert sum(map(len, there.values())) > 40
    assert (tmp_path / "nantes.zip").stat().st_mode & 0o077 == 0

    # Here it is no more: nothing is written, nobody of it is served; Brest lives on.
    west.app.state.away._until = 0.0
    answers = [
        await anna.pay(west.accounts["anna"], west.accounts["bruno"], 1),
        await anna.get(f"accounts/{west.accounts['anna']}"),
        await federation.steward("nantes").post("agreements/nantes/bourges/suspend"),
        await west.caller("x", "brest", "steward").pay(
            west.accounts["anna"], west.accounts["bruno"], 1
        ),
    ]
    assert [answer.status_code for answer in answers[:3]] == [421, 421, 421]
    assert {answer.json()["code"] for answer in answers[:3]} == {"city_moved"}
    assert answers[3].status_code in (403, 404)
    positions = await west.caller("x", None, "auditor").get("clearing/positions")
    assert {each["city_id"] for each in positions.json()["items"]} == {"brest"}
    denis = await federation.caller("denis", "brest").get(f"accounts/{west.accounts['denis']}")
    assert denis.status_code == 200
    with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
        await west.pool.execute("UPDATE account SET held_minutes = 0 WHERE city_id = 'nantes'")

    # Nowhere: what is said to it reaches nobody, also what is said once.
    first = await west.pool.fetchval("SELECT transfer_id FROM clearing_out WHERE minutes = 40")
    path = f"clearing/transfers/{first}/reversal"
    assert (await federation.steward("bourges").post(path)).status_code == 200
    await federation.collect()
    letters = list(federation.letters)
    await federation.deliver()
    federation.clock.advance(minutes=10)
    assert await federation.ask_again() == 1  # Bourges asks; Nantes says nothing from here
    await federation.collect()
    letters += federation.letters
    await federation.deliver()
    assert await service.work_once(west.pool, federation.vault, federation.clock()) == 0

    assert await arrive(federation, centre.dsn, tmp_path / "nantes.zip") == "imported"
    assert await rows(centre.dsn) == there
    settle_in(federation, "nantes", centre)
    assert await arrive(federation, centre.dsn, tmp_path / "nantes.zip") == "here before"
    await catch_up(federation, centre, letters, "nantes")
    await federation.deliver()
    agreed = "SELECT peer_agreed_at FROM clearing_reversal WHERE city_id = 'nantes'"
    assert await centre.pool.fetchval(agreed) is not None
    federation.clock.advance(minutes=10)
    await federation.ask_again()
    await federation.deliver()
    assert await federation.state("nantes", leaves["transfer_id"]) == "settled"
    assert await federation.state("bourges", comes["transfer_id"]) == "settled"
    await federation.send("anna", "nantes", "denis", "brest", 7)
    await federation.send("denis", "brest", "anna", "nantes", 3)
    await federation.deliver()
    await check_books(federation)
    # Sent again, what was done before the move is not done twice.
    again = await centre.caller("anna").pay(
        centre.accounts["anna"], centre.accounts["bruno"], 30, memo="merci", key="k1"
    )
    assert again.status_code == 201
    assert await federation.balance("nantes", "anna") == -30 + 60 - 40 - 20 + 15 - 7 + 3

    # The same log goes on, and those who cosign it notice nothing.
    await log_all(federation)
    await federation.deliver()
    after = await signed(centre)
    assert after.size > before.size
    assert await held(federation) == after.size
    async with centre.pool.acquire() as conn:
        assert await service.root_at(conn, "nantes", before.size) == before.root
    paths = []
    for number, (bank, cities) in enumerate(((west, ["brest"]), (centre, []))):
        paths.append(str(tmp_path / f"{number}.zip"))
        await bundle.write_bundle(bank.dsn, cities, Path(paths[-1]), federation.clock())
    capsys.readouterr()
    code = main(["--json", *paths])
    assert (code, json.loads(capsys.readouterr().out)["faults"]) == (0, [])


async def check_books(federation: Federation) -> None:
    """As Federation.check_books, without the copy that stayed behind."""
    balances = [
        (city, row["peer_city_id"], row["kind"], row["balance_minutes"])
        for city in ("nantes", "brest", "bourges")
        for row in await federation.bank(city).pool.fetch(
            "SELECT * FROM account WHERE city_id = $1", city
        )
    ]
    pairs = {(a, b): minutes for a, b, kind, minutes in balances if kind == "clearing"}
    assert len(pairs) == 4
    for (a, b), minutes in pairs.items():
        assert minutes + pairs[b, a] == 0
    assert [minutes for _, _, kind, minutes in balances if kind == "in_transit"] == [0] * 4
    for city in ("nantes", "brest", "bourges"):
        assert sum(minutes for one, _, _, minutes in balances if one == city) == 0


async def test_killed_anywhere_a_city_is_in_one_place_or_can_be_taken_up(
    federation: Federation,
    make_database: Callable[[str, Path], Awaitable[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failure at each step of leaving and of arriving stands for a kill there."""
    await live(federation)
    west = federation.bank("nantes")
    path = tmp_path / "nantes.zip"
    third = await make_database("timebank", MIGRATIONS)

    async def serves() -> tuple[str | None, str | None]:
        return await place(west.dsn), await place(third)

    class Killed(Exception):
        pass

    async def die(*_: Any, **__: Any) -> Any:
        raise Killed

    def die_at_once(*_: Any, **__: Any) -> Any:
        raise Killed

    for owner, name, how, then in (
        (leaving, "freeze", die, "here"),
        (leaving, "wait_for_writers", die, "moving"),
        (leaving, "write", die, "moving"),
        (leaving, "hand_away", die, "moving"),
        (leaving.package, "put_in_place", die_at_once, "moved"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, how)
            with pytest.raises(Killed):
                await leave(federation, path)
        assert await serves() == (then, None)
        assert not path.exists()
        with pytest.raises((WrongPackage, OSError)):
            open_package(leaving.part_of(path))
        if then == "moving":
            # Open again, as the operator may wish; then on.
            await opened_again(federation)
            assert (
                await west.caller("anna").pay(west.accounts["anna"], west.accounts["bruno"], 1)
            ).status_code == 201
    with pytest.raises(CannotLeave, match="has moved"):
        await opened_again(federation)
    await leave(federation, path)
    for name in ("check_schema", "take_in", "settle", "check_log", "check_books"):
        with monkeypatch.context() as patch:
            patch.setattr(arriving, name, die)
            with pytest.raises(Killed):
                await arrive(federation, third, path)
        assert await serves() == ("moved", None)
    assert await arrive(federation, third, path) == "imported"
    assert await serves() == ("moved", "here")
    # The package cannot bring it back to where it was, and a lost answer does no harm.
    with pytest.raises(arriving.CannotArrive, match="has left this database"):
        await arrive(federation, west.dsn, path)
    assert await arrive(federation, third, path) == "here before"


async def place(dsn: str) -> str | None:
    connection = await db.connect(dsn, name="test-place")
    try:
        found: str | None = await connection.fetchval(
            "SELECT place FROM book WHERE city_id = 'nantes'"
        )
    finally:
        await connection.close()
    return found


async def opened_again(federation: Federation) -> None:
    async with federation.bank("nantes").pool.acquire() as conn, conn.transaction():
        await leaving.cancel(conn, "nantes", federation.clock())


async def test_what_is_not_the_city_s_own_whole_and_newest_package_is_refused(
    federation: Federation,
    make_database: Callable[[str, Path], Awaitable[str]],
    tmp_path: Path,
) -> None:
    await live(federation)
    path = tmp_path / "nantes.zip"
    await leave(federation, path)
    third = await make_database("timebank", MIGRATIONS)
    with pytest.raises(WrongPackage, match="passphrase"):
        await arrive(federation, third, path, secret="another passphrase")
    for name, old, new in (
        ("manifest.json", b'"rows": 1', b'"rows": 2'),
        ("tables/posting.csv", b",30,", b",31,"),
        ("tables/log_entry.csv", b"nantes", b"nantez"),
        ("tables/account.csv", None, b""),
    ):
        tampered = tmp_path / "tampered.zip"
        rewrite(path, tampered, name, old, new)
        with pytest.raises((WrongPackage, arriving.CannotArrive)):
            await arrive(federation, third, tampered)
    assert await place(third) is None
    await arrive(federation, third, path)
    # It lives on there; whoever imports the same package once more is told by what others hold.
    async with await db.create_pool(as_app_role(third), name="test-third", max_size=2) as pool:
        async with pool.acquire() as conn, conn.transaction():
            await conn.execute(
                "INSERT INTO account (account_id, city_id, kind, owner_id, opened_at)"
                " VALUES ($1, 'nantes', 'organisation', $2, now())", new_id(), new_id()
            )  # fmt: skip
        bank = Bank(federation.bank("nantes").app, federation.bank("nantes").http, third, pool)
        old = await signed(bank)
        await lengthen(federation, bank)
        newest = await signed(bank)
    assert newest.size > old.size
    fourth = await make_database("timebank", MIGRATIONS)
    with pytest.raises(arriving.CannotArrive, match="gone on elsewhere"):
        await arrive(federation, fourth, path, newest.note)
    assert await place(fourth) is None


async def lengthen(federation: Federation, bank: Bank) -> None:
    """One transfer more in the log of Nantes, and signed."""
    from timebank.domain import Actor, Leg, TransferRequest
    from timebank.service import post_now

    accounts = federation.bank("nantes").accounts
    federation.clock.advance(minutes=1)
    async with bank.pool.acquire() as conn, conn.transaction():
        legs = (Leg(accounts["anna"], -1), Leg(accounts["bruno"], 1))
        actor = Actor("steward", "nantes").for_the_city("nantes")
        await post_now(conn, TransferRequest(new_id(), True, None, actor, legs), federation.clock())
    await service.work_once(bank.pool, federation.vault, federation.clock())


def rewrite(path: Path, to: Path, name: str, old: bytes | None, new: bytes) -> None:
    """The package with one file changed; None: without that file."""
    changed = False
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as other:
        for each in archive.namelist():
            content = archive.read(each)
            if each == name:
                after = content.replace(old, new) if old is not None else None
                changed = after != content
                if after is None:
                    continue
                content = after
            other.writestr(each, content)
    assert changed


async def test_who_writes_while_a_city_is_frozen_is_waited_for(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was being written as the city froze is in the package, or the city does not leave."""
    west = federation.bank("nantes")
    monkeypatch.setattr(leaving, "WRITERS_WAIT_S", 0.2)
    update = "UPDATE account SET floor_minutes = -599 WHERE account_id = $1"
    async with west.pool.acquire() as conn:
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(update, west.accounts["nantes commons"])
        with pytest.raises(CannotLeave, match="has been writing"):
            await leave(federation, tmp_path / "nantes.zip")
        assert await place(west.dsn) == "moving"
        refused = await west.caller("anna").pay(west.accounts["anna"], west.accounts["bruno"], 1)
        assert (refused.status_code, refused.json()["code"]) == (503, "city_moving")
        assert refused.headers["retry-after"]
        await transaction.commit()
    await leave(federation, tmp_path / "nantes.zip")
    with zipfile.ZipFile(tmp_path / "nantes.zip") as archive:
        assert b"-599" in archive.read("tables/account.csv")


async def test_a_moved_city_is_not_opened_again_by_what_is_heard_and_forgets_its_dead(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await live(federation)
    west = federation.bank("nantes")
    await leave(federation, tmp_path / "nantes.zip")
    handlers = consumers.handlers(federation.clock)
    told = [
        ("identity.cities.v1", {"city_id": "nantes", "version": 9, "status": "active",
                                "timezone": "Europe/Paris"}),
        (MEMBERS, {"member_id": str(new_id()), "version": 1, "city_id": "nantes",
                   "status": "active"}),
        (MEMBERS, {"member_id": str(west.members["anna"]), "version": 7, "city_id": "nantes",
                   "status": "erased"}),
    ]  # fmt: skip
    accounts = "SELECT count(*) FROM account WHERE city_id = 'nantes'"
    count = await west.pool.fetchval(accounts)
    for topic, data in told:
        event = Event(new_id(), "t", "/identity", "", federation.clock(), data)
        async with west.pool.acquire() as conn, conn.transaction():
            await handlers[topic](conn, event)
    assert await west.pool.fetchval(accounts) == count
    words = "SELECT count(*) FROM transfer_memo WHERE memo IS NOT NULL"
    assert await west.pool.fetchval(words) == 0
    assert await place(west.dsn) == "moved"
    capsys.readouterr()
    await look_around(west.pool, settings_for(west.dsn, cities="nantes", shard="west"))
    said = capsys.readouterr().out
    assert "city_not_here" in said
    assert "city_here_but_not_served" in said  # Brest


def test_a_table_of_which_nobody_said_whose_it_is_lets_no_city_go() -> None:
    with pytest.raises(UnknownTable, match="diary"):
        to_table("diary", ["diary_id", "text"])
    assert to_table("inbox", ["consumer"]) is None
    table = to_table("anything", ["id", "city_id"])
    assert table is not None
    assert table.rule == "city_id = $1"
    assert in_order(["b", "a"], [("b", "a"), ("a", "a"), ("a", "elsewhere")]) == ["a", "b"]
    with pytest.raises(UnknownTable, match="refer to each other"):
        in_order(["a", "b"], [("a", "b"), ("b", "a")])
