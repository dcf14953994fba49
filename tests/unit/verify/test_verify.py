"""copass-verify: honest evidence holds; whatever is done to it is named, and the exit code is 1."""

import json
import sys
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evidence_world import City, crossing, dumps, two_cities, write

from copass_verify.__main__ import main
from copass_verify.bundle import open_bundle
from copass_verify.entries import Book, WrongEntry
from copass_verify.notes import format_note, split_note, to_signer
from copass_verify.verify import verify

Said = dict[str, Any]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Said]]:
    def run(*arguments: Any) -> tuple[int, Said]:
        code = main(["--json", *map(str, arguments)])
        said: Said = json.loads(capsys.readouterr().out)
        assert said["sound"] is (code == 0)
        return code, said

    return run


Check = Callable[..., tuple[int, Said]]


def first(said: Said) -> tuple[str, int | None, str]:
    fault = said["faults"][0]
    return fault["city"], fault["index"], fault["what"]


def test_honest_evidence_holds(check: Check, tmp_path: Path) -> None:
    code, said = check(write(tmp_path / "a.zip", *two_cities()))
    assert (code, said["faults"]) == (0, [])
    nantes, bourges = said["cities"]
    assert (nantes["entries"], nantes["in_transit"], nantes["messages"]) == (7, 0, 2)
    assert (bourges["entries"], bourges["arrived"]) == (3, 1)


def test_each_city_alone_and_both_in_two_files_hold(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    nantes.messages = []
    # Alone, it cannot show that Bourges answered: its key is not there.
    one = write(tmp_path / "n.zip", nantes)
    other = write(tmp_path / "b.zip", bourges)
    assert check(one)[0] == check(other)[0] == 0
    code, said = check(one, other)
    assert code == 1
    assert "never said" in first(said)[2]
    nantes = two_cities()[0]
    assert check(write(one, nantes), other)[0] == 0


def test_an_older_bundle_beside_a_newer_one_holds(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    old = nantes.copy()
    old.entries, old.notes, old.messages = old.entries[:3], old.notes[:1], []
    code, said = check(
        write(tmp_path / "old.zip", old), write(tmp_path / "new.zip", nantes, bourges)
    )
    assert (code, said["faults"]) == (0, [])
    assert said["cities"][0]["entries"] == 7


def change_an_amount(nantes: City, bourges: City) -> None:
    nantes.entries[1]["lines"][0]["minutes"] = -51
    nantes.entries[1]["lines"][1]["minutes"] = 51


def take_from_one_line(nantes: City, bourges: City) -> None:
    nantes.entries[1]["lines"][1]["minutes"] = 49


def drop_an_entry(nantes: City, bourges: City) -> None:
    del nantes.entries[1]


def drop_the_last_entry(nantes: City, bourges: City) -> None:
    del nantes.entries[-1]


def reorder_two(nantes: City, bourges: City) -> None:
    nantes.entries[0], nantes.entries[1] = nantes.entries[1], nantes.entries[0]


def reorder_two_and_number_them_anew(nantes: City, bourges: City) -> None:
    reorder_two(nantes, bourges)
    nantes.entries[0]["index"], nantes.entries[1]["index"] = 0, 1


def add_an_entry(nantes: City, bourges: City) -> None:
    nantes.post("transfer", ("bruno", -1), ("anna", 1))


def change_who_gave(nantes: City, bourges: City) -> None:
    lines = nantes.entries[0]["lines"]
    lines[0]["account"], lines[1]["account"] = lines[1]["account"], lines[0]["account"]


@pytest.mark.parametrize(
    ("tamper", "index", "what"),
    [
        (change_an_amount, 1, "not the entry that was signed"),
        (take_from_one_line, 1, "sum to -1"),
        (drop_an_entry, 1, "number 2"),
        (drop_the_last_entry, 6, "1 of 7 signed entries are missing"),
        (reorder_two, 0, "number 1"),
        (reorder_two_and_number_them_anew, 0, "not the entry that was signed"),
        (add_an_entry, 7, "no checkpoint"),
        (change_who_gave, 0, "not the entry that was signed"),
    ],
)
@pytest.mark.parametrize("leaves", ["kept", "made anew"])
def test_what_was_signed_and_changed_is_named(
    tamper: Callable[[City, City], None],
    index: int,
    what: str,
    leaves: str,
    check: Check,
    tmp_path: Path,
) -> None:
    nantes, bourges = two_cities()
    kept = {"nantes": nantes.leaves()} if leaves == "kept" else None
    tamper(nantes, bourges)
    code, said = check(write(tmp_path / "a.zip", nantes, bourges, leaves=kept))
    assert code == 1
    city, at, words = first(said)
    if what == "not the entry that was signed" and leaves == "made anew":
        # Nothing tells which entry it was, only between which two checkpoints.
        assert (city, at) == ("nantes", 0)
        assert "between here and entry 2" in words
    else:
        assert (city, at) == ("nantes", index)
        assert what in words


def test_history_rewritten_after_a_checkpoint_is_named_though_it_is_signed_anew(
    check: Check, tmp_path: Path
) -> None:
    """The city itself does it, with its key, and hides nothing but the past."""
    nantes, bourges = two_cities()
    change_an_amount(nantes, bourges)
    nantes.notes = nantes.notes[:1]
    nantes.sign()
    code, said = check(write(tmp_path / "a.zip", nantes, bourges))
    assert code == 1
    assert first(said)[:2] == ("nantes", 0)
    assert "the checkpoint" in first(said)[2]


def test_two_histories_shown_to_two_auditors_are_named(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    one = write(tmp_path / "one.zip", nantes, bourges)
    change_an_amount(nantes, bourges)
    nantes.notes = []
    nantes.sign()
    other = write(tmp_path / "other.zip", nantes, bourges)
    assert check(one)[0] == check(other)[0] == 0
    code, said = check(one, other)
    assert code == 1
    assert first(said)[0] == "nantes"
    assert "two histories" in first(said)[2]


def test_a_shorter_other_history_is_named_by_the_longer_one(check: Check, tmp_path: Path) -> None:
    """No size was signed twice; still one is not the beginning of the other."""
    nantes, bourges = two_cities()
    forked = nantes.copy()
    change_an_amount(forked, bourges)
    forked.entries, forked.notes, forked.messages = forked.entries[:2], [], []
    forked.sign()
    code, said = check(
        write(tmp_path / "one.zip", nantes, bourges), write(tmp_path / "other.zip", forked)
    )
    assert code == 1
    assert first(said)[0] == "nantes"
    assert "another bundle" in first(said)[2]


def test_a_forged_signature_is_named(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    text, (line,) = split_note(nantes.notes[-1].encode())
    wrong = type(line)(line.name, line.key_id, line.signature[:-1] + b"\x00")
    nantes.notes[-1] = format_note(text, [wrong])
    code, said = check(write(tmp_path / "a.zip", nantes, bourges))
    assert code == 1
    assert "signature of copass/nantes is wrong" in first(said)[2]
    nantes, bourges = two_cities()
    nantes.notes = []
    nantes.sign(by=to_signer("copass/nantes", b"m" * 32))
    code, said = check(write(tmp_path / "b.zip", nantes, bourges))
    assert code == 1
    assert "no known key" in first(said)[2]


def test_another_key_than_the_one_that_is_known_is_named(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    path = write(tmp_path / "a.zip", nantes, bourges)
    assert check(path, "--key", nantes.signer.verifier)[0] == 0
    stranger = City.of("nantes", seed=2)
    code, said = check(path, "--key", stranger.signer.verifier)
    assert code == 1
    assert "no known key" in first(said)[2]


def omit_the_arrival(nantes: City, bourges: City) -> None:
    """Bourges leaves it out, and signs as if nothing had been."""
    arrival = bourges.entries.pop(1)
    assert arrival["kind"] == "arrival"
    bourges.entries[1]["index"] = 1
    bourges.notes = []
    bourges.sign()


def arrive_from_nowhere(nantes: City, bourges: City) -> None:
    bourges.post(
        "arrival", ("clearing:nantes", -9), ("chloe", 9),
        **crossing("three", "arrival", "nantes", 9),
    )  # fmt: skip
    bourges.sign()


def arrive_though_it_went_back(nantes: City, bourges: City) -> None:
    bourges.post(
        "arrival", ("clearing:nantes", -25), ("chloe", 25),
        **crossing("two", "arrival", "nantes", 25),
    )  # fmt: skip
    bourges.sign()


def arrive_twice(nantes: City, bourges: City) -> None:
    again = deepcopy(bourges.entries[1])
    bourges.post("arrival", ("clearing:nantes", -40), ("chloe", 40), clearing=again["clearing"])
    bourges.sign()


def arrive_as_more(nantes: City, bourges: City) -> None:
    arrival = bourges.entries[1]
    arrival["clearing"]["minutes"] = 45
    for line, minutes in zip(arrival["lines"], (-45, 45), strict=True):
        line["minutes"] = minutes
    bourges.notes = []
    bourges.sign()


def go_below_the_floor(nantes: City, bourges: City) -> None:
    bourges.post("transfer", ("didier", -700), ("chloe", 700))
    bourges.sign()


def take_back_twice(nantes: City, bourges: City) -> None:
    for _ in range(2):
        bourges.post(
            "reversal", ("didier", -5), ("chloe", 5), reverses=bourges.entries[0]["transfer"]
        )
    bourges.sign()


def make_minutes_of_nothing(nantes: City, bourges: City) -> None:
    bourges.post("transfer", ("didier", -5), ("chloe", 6))
    bourges.sign()


def empty_what_is_on_its_way(nantes: City, bourges: City) -> None:
    bourges.post("transfer", ("clearing:nantes", -5), ("chloe", 5))
    bourges.sign()


def call_an_account_another(nantes: City, bourges: City) -> None:
    entry = bourges.post("transfer", ("didier", -1), ("chloe", 1))
    entry["lines"][1]["is"] = "commons"
    bourges.sign()


def post_again(nantes: City, bourges: City) -> None:
    entry = bourges.post("transfer", ("didier", -1), ("chloe", 1))
    entry["transfer"] = bourges.entries[0]["transfer"]
    bourges.sign()


@pytest.mark.parametrize(
    ("cheat", "city", "index", "what"),
    [
        (omit_the_arrival, "nantes", 3, "bourges shows no arrival"),
        (arrive_from_nowhere, "bourges", 3, "never departed"),
        (arrive_though_it_went_back, "bourges", 3, "went back to its payer"),
        (arrive_twice, "bourges", 3, "arrives a second time"),
        (arrive_as_more, "bourges", 1, "departed from nantes as 40"),
        (go_below_the_floor, "bourges", 3, "below its floor -600"),
        (take_back_twice, "bourges", 4, "a second time"),
        (make_minutes_of_nothing, "bourges", 3, "sum to 1"),
        (empty_what_is_on_its_way, "bourges", 3, "says nothing of it"),
        (call_an_account_another, "bourges", 3, "another kind before"),
        (post_again, "bourges", 3, "was there before"),
    ],
)
def test_what_a_city_wrote_and_signed_itself_is_named_when_it_is_wrong(
    cheat: Callable[[City, City], None],
    city: str,
    index: int,
    what: str,
    check: Check,
    tmp_path: Path,
) -> None:
    nantes, bourges = two_cities()
    cheat(nantes, bourges)
    code, said = check(write(tmp_path / "a.zip", nantes, bourges))
    assert code == 1
    assert first(said)[:2] == (city, index)
    assert what in first(said)[2]


def test_what_a_log_cannot_show_yet_is_not_held_against_it(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    bourges.entries, bourges.notes = bourges.entries[:1], []
    bourges.sign(after=-60)
    assert check(write(tmp_path / "a.zip", nantes, bourges))[0] == 0


@pytest.mark.parametrize("which", [0, 1])
def test_an_answer_that_was_never_given_is_named(which: int, check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    del nantes.messages[which]
    code, said = check(write(tmp_path / "a.zip", nantes, bourges))
    assert (code, first(said)[:2]) == (1, ("nantes", (3, 5)[which]))
    nantes, bourges = two_cities()
    nantes.messages[which]["body"]["transfer_id"] = nantes.entries[0]["transfer"]
    code, said = check(write(tmp_path / "b.zip", nantes, bourges))
    assert code == 1
    assert "wrong signature" in first(said)[2]


def test_cosignatures_are_counted_and_can_be_required(check: Check, tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    for city, other in ((nantes, bourges), (bourges, nantes)):
        text, lines = split_note(city.notes[-1].encode())
        city.notes[-1] = format_note(text, [*lines, other.cosigner.cosign(text, 1_800_000_000)])
    path = write(tmp_path / "a.zip", nantes, bourges)
    code, said = check(path, "--cosigned", 1)
    assert code == 0
    assert said["cities"][0]["cosigned_by"] == ["copass/bourges"]
    assert check(path, "--cosigned", 2)[0] == 1


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(content: bytes, check: Check, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    code, said = check(path)
    assert code == 1
    assert "no evidence bundle" in said["error"]
    assert check(tmp_path / "missing.zip")[0] == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"[]", b"{}", b"nonsense", b"\xff", b"[" * 100_000, b'{"version":1,"version":1}',
        b'{"version":1.0}',
    ],
)  # fmt: skip
def test_an_entry_that_is_none_is_named(raw: bytes) -> None:
    with pytest.raises(WrongEntry):
        Book("nantes").add(raw)


@pytest.mark.parametrize("value", [1.5, True, 0, 2**53, "1", None, [1]])
def test_minutes_are_whole_numbers(value: Any) -> None:
    city = City.of("nantes")
    entry = city.post("transfer", ("anna", -1), ("bruno", 1))
    Book("nantes").add(dumps(entry))
    entry["lines"][0]["minutes"] = value
    with pytest.raises(WrongEntry):
        Book("nantes").add(dumps(entry))


def test_memory_does_not_grow_with_what_the_entries_say(tmp_path: Path) -> None:
    """Twice the entries between the same accounts take what their ids take, and no more."""
    peaks = []
    for count in (2_000, 4_000):
        city = City.of("nantes")
        for number in range(count):
            giver, taker = ("anna", "bruno") if number % 2 else ("bruno", "anna")
            city.post("transfer", (giver, -1), (taker, 1))
        city.sign()
        path = write(tmp_path / f"{count}.zip", city)
        del city
        tracemalloc.start()
        assert verify([open_bundle(path)]).sound
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2_000 * 300


def test_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nantes, bourges = two_cities()
    path = write(tmp_path / "a.zip", nantes, bourges)
    assert main([str(path)]) == 0
    said = capsys.readouterr().out
    assert "nantes: 7 entries" in said
    assert said.endswith("All holds.\n")
    go_below_the_floor(nantes, bourges)
    assert main([str(write(path, nantes, bourges))]) == 1
    said = capsys.readouterr().out
    assert "WRONG bourges entry 3: account" in said
    assert said.endswith("It does not hold.\n")
