"""What a board decides when nobody answers, and what it takes for a credential."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from phone import Phone
from reader_papers import CONFIG, HOUR, ISSUED, META, PEPPER, changes, entry, snapshot

from copass_edge.reader.clock import Clock
from copass_edge.reader.credentials import read_text
from copass_edge.reader.devices import SimulatedRelay
from copass_edge.reader.health import health_of
from copass_edge.reader.program import Program
from copass_edge.reader.service import Away
from copass_tap import ntag424
from copass_tap.credentials import credential_hash
from copass_tap.ntag424 import Picc
from copass_tap.snapshots import credential_name

VISITOR, RESIDENT, LAPSED = "04000000000A01", "04000000000A02", "04000000000A03"
CHIP, CHIP_KEY = bytes.fromhex("04000000000B01"), bytes([9] * 16)
PHONE = Phone("01a20000-0000-7000-8000-0000000000aa")


class Silence:
    async def texts(self):
        await asyncio.Event().wait()
        yield ""

    def show(self, text: str, *, granted: bool) -> None:
        del text, granted


def named(kind: str, credential: str) -> str:
    return credential_hash(PEPPER.encode(), kind, credential)


def message(counter: int, key: bytes = CHIP_KEY) -> str:
    """The address that the card writes at its reading number `counter`."""
    picc = Picc(CHIP, counter)
    plain = b"\xc7" + CHIP + counter.to_bytes(3, "little") + b"noise"
    hidden = ntag424.encrypt(META, plain).hex()
    return f"https://copass.example/t?e={hidden}&c={ntag424.session_mac(key, picc).hex()}"


EXTRAS = {
    credential_name(named("pass", PHONE.card_id)).hex(): {
        "card_id": PHONE.card_id,
        "public_key": PHONE.public_key,
    }
}


class Board:
    """A board that is alone, at a time that tests choose."""

    def __init__(self, folder: Path, **header: Any) -> None:
        self.program = Program(folder, CONFIG, device=Silence(), relay=SimulatedRelay())
        self.at(60)
        raw = snapshot(
            entry(VISITOR),
            entry(RESIDENT, relation="resident", standing="lapsed", status=1),
            entry(LAPSED, standing="lapsed"),
            entry(CHIP.hex().upper(), "ntag424", relation="resident", counter=5),
            entry(PHONE.card_id, "pass"),
            extras=EXTRAS,
            **header,
        )
        self.program.papers.install(raw, "", ISSUED)

    def at(self, seconds: float) -> None:
        """So many seconds after the snapshot was issued."""
        self.program.clock = Clock(wall=lambda: ISSUED + seconds, monotonic=lambda: 0.0)

    async def reason(self, text: str, direction: str = "in") -> str:
        outcome = await self.program.tap(text, direction)  # type: ignore[arg-type]  # in or out
        assert outcome.source in ("alone", "none")
        return outcome.reason


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    made = Board(tmp_path)
    yield made
    made.program.journal.close()


async def test_visitors_and_the_household_each_until_their_time(board: Board) -> None:
    assert await board.reason(VISITOR) == "network_member"
    assert await board.reason(LAPSED) == "standing_lapsed"
    assert await board.reason("04FFFFFFFFFFFF") == "unknown_credential"
    assert await board.reason(RESIDENT) == "resident"
    board.at(8 * HOUR - 1)
    assert await board.reason(VISITOR) == "network_member"
    board.at(8 * HOUR)
    assert await board.reason(VISITOR) == "policy_stale"
    assert await board.reason(RESIDENT) == "resident"
    board.at(72 * HOUR - 1)
    assert await board.reason(RESIDENT) == "resident"
    board.at(72 * HOUR)
    assert await board.reason(RESIDENT) == "policy_stale"
    assert await board.reason(RESIDENT, "out") == "exit"
    assert board.program.journal.counts()["local"] == 10


async def test_what_was_withdrawn_counts_at_once(board: Board) -> None:
    visitor = [credential_name(named("uid", VISITOR)).hex(), "replaced"]
    resident = board.program.papers.held.snapshot.find(named("uid", RESIDENT)).member.hex()
    board.program._apply(
        changes(
            cards=[visitor], members=[[resident, "active", None, "lapsed"]], is_locked_down=True
        )
    )
    assert await board.reason(VISITOR) == "credential_blocked"
    assert await board.reason(RESIDENT) == "place_locked_down"  # moved out: a visitor now
    board.program._apply(changes(sequence=12, is_locked_down=False))
    assert await board.reason(RESIDENT) == "standing_lapsed"


async def test_a_board_without_the_right_time_or_turned_away_lets_its_household_in_alone(
    board: Board,
) -> None:
    board.program.is_turned_away = True
    assert await board.reason(VISITOR) == "policy_stale"
    assert await board.reason(RESIDENT) == "resident"
    board.program.is_turned_away = False
    board.program.clock = Clock(ISSUED + 60, wall=lambda: 0.0, monotonic=lambda: 0.0)
    assert await board.reason(VISITOR) == "policy_stale"
    assert await board.reason(RESIDENT) == "resident"


async def test_a_cryptographic_card_opens_alone_only_with_its_own_key(board: Board) -> None:
    assert await board.reason(message(6)) == "credential_too_weak"  # no key of it
    board.program.journal.keep_card_key(named("ntag424", CHIP.hex().upper()), CHIP_KEY, 0)
    assert await board.reason(message(5)) == "credential_replayed"  # the service saw it
    assert await board.reason(message(8, bytes(16))) == "credential_too_weak"  # forged
    assert await board.reason(message(6)) == "resident"
    assert await board.reason(message(6)) == "credential_replayed"
    assert await board.reason(message(7)) == "resident"


async def test_a_code_of_a_phone_opens_once_and_in_its_time(board: Board) -> None:
    window = (ISSUED + 60) // 30
    assert await board.reason(PHONE.show(window)) == "network_member"
    assert await board.reason(PHONE.show(window)) == "credential_replayed"
    assert await board.reason(PHONE.show(window + 9)) == "pass_expired"
    assert await board.reason(Phone(PHONE.card_id).show(window + 1)) == "unknown_credential"
    assert await board.reason(PHONE.show(window + 1)) == "network_member"


async def test_capacity_and_passback_go_by_what_this_door_saw(tmp_path: Path) -> None:
    policy = {"capacity": 1, "anti_passback": "hard"}
    board = Board(tmp_path, policy=policy)
    assert await board.reason(VISITOR) == "network_member"
    assert await board.reason(VISITOR) == "passback"
    assert await board.reason(PHONE.show((ISSUED + 60) // 30)) == "place_full"
    assert await board.reason(VISITOR, "out") == "exit"
    assert await board.reason(VISITOR) == "network_member"
    board.program.journal.close()
    again = Board(tmp_path, policy=policy)  # a restart remembers
    assert await again.reason(VISITOR) == "passback"
    again.program.journal.close()


async def test_without_a_snapshot_nobody_is_let_in_and_everybody_out(tmp_path: Path) -> None:
    program = Program(tmp_path, CONFIG, device=Silence(), relay=SimulatedRelay())
    assert (await program.tap(VISITOR, "in")).reason == "policy_stale"
    out = await program.tap(VISITOR, "out")
    assert (out.granted, out.reason) == (True, "exit")
    assert (await program.tap("the button", "out")).granted  # the way out asks for nothing
    assert not (await program.tap("the button", "in")).granted
    program.journal.close()


async def test_nothing_that_is_held_to_it_crashes_it_or_opens(board: Board) -> None:
    chance = random.Random(5)
    good = [VISITOR, message(9), PHONE.show(ISSUED // 30)]
    for number in range(300):
        text = chance.choice(good)
        at = chance.randrange(len(text))
        mutated = text[:at] + chr(chance.choice((0, 10, 0x7F, 0x660, 0x1F600))) + text[at + 1 :]
        outcome = await board.program.tap(mutated, "in")
        assert not outcome.granted, (number, mutated)
    for text in ("", "\0", "0" * 10_000, "CP1." + "A" * 135, "CG1." + "7" * 26, "?e=&c=", "é" * 8):
        assert not (await board.program.tap(text, "in")).granted
        assert read_text(text) is None or text.startswith(("CP1.", "CG1."))


async def test_a_disk_that_fails_lets_nobody_in_and_everybody_out(board: Board) -> None:
    board.program.journal._db.execute("PRAGMA query_only = ON")
    outcome = await board.program.tap(RESIDENT, "in")
    assert (outcome.granted, outcome.reason) == (False, "disk_failed")
    assert (await board.program.tap(RESIDENT, "out")).granted


async def test_taps_of_a_board_whose_clock_was_wrong_are_set_right_but_those_the_service_saw(
    board: Board,
) -> None:
    program = board.program
    await board.reason(VISITOR)
    program.journal.begin("seen", {"type": "uid", "uid": VISITOR}, "in", ISSUED, attempted=True)
    program.journal.decide("seen", reason="network_member", granted=True, decision_id=None)
    program.clock.offset_s = -3600.0  # the first answer says so
    program._find()
    first, seen = program.journal.to_send(0.0, 10)
    assert first.occurred_at == pytest.approx(ISSUED + 60 - 3600, abs=1)
    assert seen.occurred_at == ISSUED
    program._find()  # once
    assert program.journal.to_send(0.0, 10)[0].occurred_at == first.occurred_at


async def test_a_board_says_how_it_is(board: Board) -> None:
    program = board.program
    health = health_of(program.journal, program.papers.held, program.clock)
    assert (health["problems"], health["backlog"], health["oldest_waiting_at"]) == ([], 0, None)
    assert health["snapshot_issued_at"] == "2027-01-15T08:00:00.000+00:00"
    await board.reason(VISITOR)
    board.at(9 * HOUR)
    health = health_of(program.journal, program.papers.held, program.clock)
    assert health["problems"] == ["snapshot_expired"]
    assert (health["backlog"], health["oldest_waiting_at"]) == (1, "2027-01-15T08:01:00.000+00:00")
    assert health_of(program.journal, None, program.clock)["problems"] == ["no_snapshot"]


async def test_the_way_out_opens_before_anybody_is_asked_and_whatever_fails(board: Board) -> None:
    program, relay = board.program, board.program.relay
    assert isinstance(relay, SimulatedRelay)
    opened: list[int] = []

    async def never(_body: dict[str, Any]) -> Any:
        await asyncio.sleep(0)
        opened.extend(relay.openings)
        raise RuntimeError("what nobody foresaw")

    program.is_online = True
    program.service.tap = never  # type: ignore[method-assign]  # a service that breaks
    outcome = await program.tap(VISITOR, "out")
    assert (outcome.granted, outcome.reason) == (True, "failed")
    assert len(opened) == 1
    outcome = await program.tap(VISITOR, "in")
    assert (outcome.granted, outcome.reason) == (False, "failed")
    assert len(relay.openings) == 1


async def test_what_the_service_answered_long_ago_is_asked_for_before_it_is_sent_again(
    board: Board,
) -> None:
    program = board.program
    for name in ("kept", "lost"):
        program.journal.begin(name, {"type": "uid", "uid": VISITOR}, "in", ISSUED, attempted=True)
        program.journal.decide(name, reason="staff", granted=True, decision_id=f"of-{name}")
    board.at(72 * HOUR)
    sent: list[str] = []

    async def stored(ids: list[str]) -> list[str]:
        return [one for one in ids if one == "of-kept"]

    async def send(taps: list[dict[str, Any]]) -> list[Any]:
        sent.extend(tap["tap_id"] for tap in taps)
        raise Away("enough")

    program.service.stored, program.service.send = stored, send  # type: ignore[assignment]
    assert not await program.send_some()  # nobody asked yet
    await program.confirm_some()
    with pytest.raises(Away):
        await program.send_some()
    assert sent == ["lost"]
    assert program.journal.counts()["stored"] == 1
