"""A city's key is handed over: what was signed before verifies, what comes after is believed, and
nobody else can do it."""

import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from clearing_world import Federation, Letter, two_time_banks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_log_cosigning import go_back, halted, held, log_all, signed, told

from common import db
from copass_verify.__main__ import main
from timebank.clearing import keys_store, rotation
from timebank.clearing.handover import Chain, Handover, hand_over, public
from timebank.clearing.rotation import NotHandedOver
from timebank.events import CITY_KEYS
from timebank.log import bundle, cosigning_store, halting
from timebank.log.halting import StillHalted


@pytest.fixture
async def federation(
    make_database: Callable[[str, Path], Awaitable[str]],
) -> AsyncIterator[Federation]:
    """Nantes and Bourges have an agreement, and something is signed."""
    async with two_time_banks(make_database) as made:
        await made.make_keys()
        await made.agree("nantes", "bourges")
        await live(made)
        yield made


async def live(federation: Federation, minutes: int = 10) -> str:
    sent = await federation.send("anna", "nantes", "chloe", "bourges", minutes)
    await federation.deliver()
    await log_all(federation)
    await federation.deliver()
    return str(sent["transfer_id"])


async def rotate(federation: Federation, city: str = "nantes", days: int = 7) -> Handover:
    bank = federation.bank(city)
    async with bank.pool.acquire() as conn, conn.transaction():
        return await rotation.rotate(
            conn, federation.vault, city, federation.clock(), timedelta(days=days)
        )


async def pinned(federation: Federation) -> bytes:
    key: bytes = await federation.bank("bourges").pool.fetchval(
        "SELECT peer_key FROM agreement WHERE city_id = 'bourges' AND peer_city_id = 'nantes'"
    )
    return key


async def alarms(federation: Federation) -> list[str]:
    rows = await federation.bank("bourges").pool.fetch("SELECT why FROM key_alarm ORDER BY why")
    return [row["why"] for row in rows]


async def test_the_new_key_signs_the_old_signatures_hold_and_minutes_on_their_way_arrive(
    federation: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_its_way = await federation.send("anna", "nantes", "chloe", "bourges", 20)
    await federation.collect()  # signed with the old key, not delivered yet
    handover = await rotate(federation)
    await federation.collect()
    federation.letters.sort(key=lambda letter: letter.topic != CITY_KEYS.name)
    await federation.deliver()
    assert await federation.state("nantes", on_its_way["transfer_id"]) == "settled"
    assert await pinned(federation) == handover.new_key
    shown = await federation.steward("bourges").get("agreements/bourges/nantes/history")
    assert shown.json()["items"][-1]["change"] == "key handed over"
    # Bourges hands over as well, and Nantes once more.
    await live(federation)
    await rotate(federation, "bourges")
    await rotate(federation)
    await federation.deliver()
    settled = await live(federation)
    assert await federation.state("nantes", settled) == "settled"
    await federation.check_books()
    newest = (await signed(federation.bank("nantes"))).size
    assert await held(federation) == newest > handover.from_size
    assert await halted(federation) is None
    assert await alarms(federation) == []
    paths = []
    for number, bank in enumerate(federation.each):
        paths.append(str(tmp_path / f"{number}.zip"))
        await bundle.write_bundle(bank.dsn, [], Path(paths[-1]), federation.clock())
    capsys.readouterr()
    code = main(["--json", "--cosigned", "1", *paths])
    said = json.loads(capsys.readouterr().out)
    assert (code, said["faults"]) == (0, [])
    with zipfile.ZipFile(paths[0]) as archive:
        listed = json.loads(archive.read("cities/nantes/keys.json"))
        known = json.loads(archive.read("cosigners.json"))
    assert [each["from_size"] for each in listed] == sorted(each["from_size"] for each in listed)
    assert (len(listed), len(known["nantes"]), len(known["bourges"])) == (3, 3, 2)
    assert (await told(federation.bank("nantes"), CITY_KEYS.name))[-1]["keys"] == listed


async def test_a_key_that_nothing_hands_over_to_is_refused_and_kept_as_an_alarm(
    federation: Federation,
) -> None:
    before = await pinned(federation)
    thief, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    forged = hand_over(
        "nantes", Chain(public(thief)), thief, other, from_size=3, until=federation.clock()
    )
    first = {"public_key": before.hex(), "from_size": 0, "statement": None}
    stolen = {"public_key": public(other).hex(), "from_size": 3, "statement": forged.statement}
    bare = {"city_id": "nantes", "version": 2, "public_key": public(thief).hex()}
    for told_keys in (
        bare,
        {**bare, "version": 1, "public_key": b"z".hex() * 32},
        {**bare, "public_key": public(other).hex(), "keys": [first, stolen]},
        {
            **bare,
            "public_key": public(other).hex(),
            "keys": Chain(public(thief), (forged,)).listed(),
        },
    ):
        await federation.deliver_one(Letter(CITY_KEYS.name, told_keys))
        await federation.deliver_one(Letter(CITY_KEYS.name, told_keys))
    assert await pinned(federation) == before
    assert len(await alarms(federation)) == 4
    assert await halted(federation) is None
    # What was known before is no news, and no alarm.
    await rotate(federation)
    await federation.deliver()
    await federation.deliver_one(Letter(CITY_KEYS.name, {**bare, "version": 1,
        "public_key": before.hex(), "keys": [first]}))  # fmt: skip
    assert len(await alarms(federation)) == 4
    # But the topic must not end with it: the city tells what is so.
    told_last = (await told(federation.bank("nantes"), CITY_KEYS.name))[-1]
    assert told_last["public_key"] == (await pinned(federation)).hex() != before.hex()
    assert len(await told(federation.bank("nantes"), CITY_KEYS.name)) == 4  # Brest has one
    assert await federation.state("nantes", await live(federation)) == "settled"


async def test_after_the_overlap_the_old_key_says_nothing(federation: Federation) -> None:
    sent = await federation.send("anna", "nantes", "chloe", "bourges", 20)
    await federation.collect()
    late, federation.letters = federation.letters, []
    await rotate(federation, days=0)
    await federation.deliver()
    federation.clock.advance(seconds=61)
    federation.letters = late
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "sent"
    # Asked again, under the new key, it is answered.
    federation.clock.advance(minutes=10)
    await federation.ask_again()
    await federation.deliver()
    assert await federation.state("nantes", sent["transfer_id"]) == "settled"


async def test_what_is_heard_before_its_key_waits_for_it(federation: Federation) -> None:
    """The topics are read independently: what is said once, such as a suspension, is not lost."""
    await rotate(federation)
    suspended = await federation.steward("nantes").post("agreements/nantes/bourges/suspend")
    assert suspended.status_code == 200
    await federation.collect()
    keys = [letter for letter in federation.letters if letter.topic == CITY_KEYS.name]
    others = [letter for letter in federation.letters if letter.topic != CITY_KEYS.name]
    bourges = federation.bank("bourges").pool
    state = "SELECT state FROM agreement WHERE city_id = 'bourges'"
    waits = "SELECT count(*) FROM clearing_unheard"
    federation.letters = []
    for letter in [*others, *others]:
        await federation.deliver_one(letter)
    assert (await bourges.fetchval(state), await bourges.fetchval(waits)) == ("active", 1)
    for letter in keys:
        await federation.deliver_one(letter)
    assert (await bourges.fetchval(state), await bourges.fetchval(waits)) == ("suspended", 0)


async def test_no_key_takes_the_place_of_another_without_its_statement(
    federation: Federation,
) -> None:
    bank = federation.bank("nantes")
    with pytest.raises(asyncpg.RestrictViolationError):
        async with bank.pool.acquire() as conn, conn.transaction():
            await keys_store.replace_own_key(
                conn, "nantes", b"n" * 32, b"sealed", 2, federation.clock()
            )
    with pytest.raises(NotHandedOver, match="no book"):
        await rotate_in(federation, "nantes", "bourges")


async def test_stewards_hand_over_and_anybody_sees_the_keys(federation: Federation) -> None:
    steward = federation.steward("nantes")
    for caller, status in (
        (federation.caller("anna", "nantes"), 403),
        (federation.steward("bourges"), 404),
    ):
        assert (await caller.post("log/nantes/keys", {})).status_code == status
    wrong = await steward.post("log/nantes/keys", {"overlap_hours": 169})
    assert wrong.json()["errors"][0]["field"] == "body.overlap_hours"
    done = await steward.post("log/nantes/keys", {"overlap_hours": 0}, key="once")
    again = await steward.post("log/nantes/keys", {"overlap_hours": 0}, key="once")
    assert (done.status_code, done.json()) == (201, again.json())
    await federation.deliver()
    for city in ("nantes", "bourges"):
        shown = (await federation.steward(city).get("log/nantes/keys")).json()["keys"]
        assert [each["public_key"] for each in shown][-1] == done.json()["public_key"]
        assert [each["from_size"] for each in shown] == [0, done.json()["from_size"]]
    assert (await federation.steward("nantes").get("log/nowhere/keys")).status_code == 404


async def rotate_in(federation: Federation, where: str, city: str) -> None:
    async with federation.bank(where).pool.acquire() as conn, conn.transaction():
        await rotation.rotate(conn, federation.vault, city, federation.clock())


async def test_a_database_that_forgot_a_hand_over_signs_nothing(federation: Federation) -> None:
    """It is an old one that was brought back: the topic tells of a key that it does not have."""
    bank = federation.bank("nantes")
    old = await bank.pool.fetchrow("SELECT * FROM city_key WHERE city_id = 'nantes'")
    assert old is not None
    await rotate(federation)
    await federation.deliver()
    keys = (await told(bank, CITY_KEYS.name))[-1]
    owner = await db.connect(bank.dsn, name="test-restore")
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("DELETE FROM key_handover")
    await owner.execute(
        "UPDATE city_key SET public_key = $1, sealed_key = $2, number = 1 WHERE city_id = 'nantes'",
        old["public_key"], old["sealed_key"],
    )  # fmt: skip
    await owner.execute(
        "UPDATE peer_city SET public_key = $1, version = 1 WHERE city_id = 'nantes'",
        old["public_key"],
    )
    await owner.close()
    await federation.deliver_one(Letter(CITY_KEYS.name, keys))
    assert "handed over 1 times more" in (await halted(federation) or "")
    with pytest.raises(NotHandedOver, match="halted"):
        await rotate(federation)
    with pytest.raises(StillHalted, match="new one is not here"):
        await lift(federation)


async def lift(federation: Federation, *heard: str) -> halting.Lifted:
    async with federation.bank("nantes").pool.acquire() as conn, conn.transaction():
        return await halting.lift(conn, "nantes", heard, federation.clock())


async def test_a_halt_is_lifted_when_the_log_holds_what_others_do_and_not_before(
    federation: Federation,
) -> None:
    """An old database is brought back, refuses to sign, and a newer one takes its place."""
    bank = federation.bank("nantes")
    with pytest.raises(LookupError, match="not halted"):
        await lift(federation)
    await live(federation)
    newest = await signed(bank)
    rows = await bank.pool.fetch(
        "SELECT * FROM log_entry WHERE city_id = 'nantes' AND index >= 2 ORDER BY index"
    )
    head = await bank.pool.fetchrow("SELECT size, roots FROM log_head WHERE city_id = 'nantes'")
    assert head is not None
    await go_back(bank, 2)
    await federation.deliver_one(
        Letter(
            "timebank.cosignatures.v1",
            {"city_id": "nantes", "cosigner": "bourges", "note": newest.note, "version": 4},
        )
    )
    assert "only 2 are here" in (await halted(federation) or "")
    for heard in ((), (newest.note,)):
        with pytest.raises(StillHalted, match="2 are missing"):
            await lift(federation, *heard)
    assert await halted(federation) is not None
    owner = await db.connect(bank.dsn, name="test-restore")
    await owner.executemany(
        "INSERT INTO log_entry (city_id, index, transfer_id, entry, leaf_hash)"
        " VALUES ($1, $2, $3, $4, $5)",
        [tuple(row.values()) for row in rows],
    )
    await owner.execute(
        "UPDATE log_head SET size = $1, roots = $2 WHERE city_id = 'nantes'",
        head["size"], head["roots"],
    )  # fmt: skip
    await owner.close()
    assert (await lift(federation, "nonsense", newest.note)).size == newest.size
    assert await halted(federation) is None
    async with bank.pool.acquire() as conn:
        kept = await cosigning_store.list_halts(conn, "nantes")
    assert [what for what, _, _ in kept] == ["halted", "lifted"]
