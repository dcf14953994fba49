"""What a board believes and keeps: snapshots and changes, forged, old, foreign, damaged."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from reader_papers import (
    CONFIG,
    DOOR,
    HOUR,
    ISSUED,
    OTHER_KEY,
    READER,
    SECRET,
    changes,
    entry,
    snapshot,
)

from copass_edge.reader.config import BadConfig, load_config, read_key, save_config
from copass_edge.reader.devices import SimulatedRelay
from copass_edge.reader.papers import Papers, unseal
from copass_edge.reader.program import Program
from copass_tap.snapshots import BadPaper

OTHER = "01a20000-0000-7000-8000-00000000000f"


class Silence:
    async def texts(self):
        await asyncio.Event().wait()
        yield ""

    def show(self, text: str, *, granted: bool) -> None:
        del text, granted


def program(folder: Path) -> Program:
    return Program(folder, CONFIG, device=Silence(), relay=SimulatedRelay())


def test_a_snapshot_is_kept_and_found_again(tmp_path: Path) -> None:
    raw = snapshot(entry("04A2B1C3D4E5F6", counter=7, relation="resident", standing="lapsed"))
    Papers(tmp_path, CONFIG).install(raw, '"10.1.1"', ISSUED + 5)
    again = Papers(tmp_path, CONFIG)
    again.load()
    assert again.held is not None
    assert again.held.etag == '"10.1.1"'
    assert again.held.door.unlock_ms == 3000
    assert "Secrets" in repr(again.held.secrets)
    assert "pppp" not in repr(again.held)
    assert (tmp_path / "snapshot").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (snapshot(key=OTHER_KEY), "signature"),
        (snapshot(door_id=OTHER), "another door"),
        (snapshot(reader_id=OTHER), "another"),
        (snapshot(issued_at=ISSUED - 60), "older"),
        (snapshot(issued_at=ISSUED + HOUR), "future"),
        (snapshot(policy={"publics": None}), "shape"),
        (snapshot(sealed="AAAA"), "shape"),
        (changes(), "no copass snapshot"),
        (b"", "no copass snapshot"),
    ],
)
def test_a_snapshot_that_is_not_to_be_believed_changes_nothing(
    raw: bytes, why: str, tmp_path: Path
) -> None:
    papers = Papers(tmp_path, CONFIG)
    papers.install(snapshot(entry("04A2B1C3D4E5F6")), "", ISSUED + 5)
    before = (tmp_path / "snapshot").read_bytes()
    with pytest.raises(BadPaper, match=why):
        papers.install(raw, "", ISSUED + 5)
    assert (tmp_path / "snapshot").read_bytes() == before
    assert papers.held is not None
    assert papers.held.snapshot.header.issued_at == ISSUED


def test_no_changed_byte_of_a_snapshot_is_believed(tmp_path: Path) -> None:
    raw = snapshot(*(entry(f"04{number:012X}") for number in range(20)))
    papers = Papers(tmp_path, CONFIG)
    chance = random.Random(11)
    for _ in range(150):
        at, bit = chance.randrange(len(raw)), 1 << chance.randrange(8)
        with pytest.raises(BadPaper):
            papers.install(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :], "", ISSUED)
        with pytest.raises(BadPaper):
            papers.install(raw[:at], "", ISSUED)
    assert papers.held is None


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (changes(key=OTHER_KEY), "signature"),
        (changes(door_id=OTHER), "another door"),
        (changes(reader_id=OTHER), "another"),
        (changes(issued_at=ISSUED - 1, cards=[["ab" * 16, "blocked"]]), "older"),
        (changes(members=[["ab"]]), "shape"),
        (changes(cards=[[1, 2, 3]]), "no changes"),
        (snapshot(), "no copass changes"),
        (changes(sequence=None), "no changes"),
    ],
)
def test_changes_that_are_not_to_be_believed_change_nothing(
    raw: bytes, why: str, tmp_path: Path
) -> None:
    board = program(tmp_path)
    board._apply(changes(sequence=12))
    with pytest.raises(BadPaper, match=why):
        board._apply(raw)
    assert board.journal.fact("changes_sequence") == 12
    assert board.journal.card_status("ab" * 16) is None
    board.journal.close()


def test_what_was_withdrawn_is_remembered_until_a_snapshot_says_it(tmp_path: Path) -> None:
    board = program(tmp_path)
    board._apply(
        changes(cards=[["ab" * 16, "blocked"]], members=[["cd" * 8, "suspended", None, "good"]])
    )
    board.journal.close()
    again = program(tmp_path)
    assert again.journal.card_status("ab" * 16) == "blocked"
    assert again.journal.member("cd" * 8) == ("suspended", None, "good")
    again.journal.forget_withdrawn(10)
    assert again.journal.card_status("ab" * 16) == "blocked"
    # A database that was restored counts from less: the next snapshot ends all that was heard.
    again._apply(changes(sequence=4))
    again.journal.forget_withdrawn(4)
    assert again.journal.card_status("ab" * 16) is None
    again.journal.close()


def test_a_snapshot_put_back_on_the_disk_is_not_taken_up(tmp_path: Path) -> None:
    board = program(tmp_path)
    board.papers.install(snapshot(), "", ISSUED)
    old = (tmp_path / "snapshot").read_bytes()
    board.papers.install(snapshot(issued_at=ISSUED + 60), "", ISSUED + 60)
    board.journal.set_fact("snapshot_issued_at", ISSUED + 60)
    board.journal.close()
    (tmp_path / "snapshot").write_bytes(old)
    again = program(tmp_path)
    assert again.papers.held is None
    again.journal.close()
    (tmp_path / "snapshot").write_bytes(b"nonsense")
    last = program(tmp_path)
    assert last.papers.held is None
    last.journal.close()


def test_a_secret_of_another_reader_opens_nothing() -> None:
    with pytest.raises(ValueError, match="another reader"):
        unseal(
            SECRET + "x",
            json.loads(snapshot_header())["sealed"],
            "copass reader offline secrets v1",
        )


def snapshot_header() -> bytes:
    return snapshot().split(b"\n")[2]


def test_a_configuration_is_for_its_user_alone_and_shows_no_secret(tmp_path: Path) -> None:
    save_config(tmp_path / "reader", CONFIG)
    assert load_config(tmp_path / "reader") == CONFIG
    assert (tmp_path / "reader" / "config.json").stat().st_mode & 0o77 == 0
    assert SECRET not in repr(CONFIG)
    for damage in ("", "[]", "{}", '{"url": 1}', "nonsense"):
        (tmp_path / "reader" / "config.json").write_text(damage)
        with pytest.raises(BadConfig):
            load_config(tmp_path / "reader")
    with pytest.raises(BadConfig, match="not paired"):
        load_config(tmp_path)
    for key in ("", "x", f"{READER}", f"{READER}.short", f"{DOOR} {SECRET}"):
        with pytest.raises(BadConfig):
            read_key(key)
