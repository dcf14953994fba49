"""Keys that were handed over: what the new one signs counts, and nothing else does."""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evidence_world import NOW, City, two_cities, write

from copass_verify.__main__ import main
from copass_verify.keys import KEYS_MAX, read_chain
from copass_verify.notes import Signer, format_note

Listed = list[dict[str, Any]]
UNTIL = int(NOW.timestamp()) + 3600


def hand_over(
    city: str, number: int, old: Signer, new: Signer, size: int, *, by: list[Signer] | None = None,
    until: int = UNTIL, lies: dict[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the list says of a new key; `lies` instead of what the statement should say."""
    told = {
        "number": str(number), "old": old.verifier.public_key.hex(),
        "new": new.verifier.public_key.hex(), "size": str(size),
        "until": str(until), **(lies or {}),
    }  # fmt: skip
    text = f"copass key handover v1\ncopass/{city}\n"
    text += "".join(f"{name} {value}\n" for name, value in told.items())
    statement = format_note(text, [signer.sign(text) for signer in by or [old, new]])
    return {
        "public_key": new.verifier.public_key.hex(),
        "from_size": size,
        "statement": statement,
    }


def first_key(city: City) -> dict[str, Any]:
    key = city.signer.verifier.public_key.hex()
    return {"public_key": key, "from_size": 0, "statement": None}


@pytest.fixture
def after_handover() -> tuple[City, City, City]:
    """Nantes before and after its second key, which signs from 4 entries on; and Bourges."""
    old, bourges = two_cities()
    new = City.of("nantes", seed=2)
    new.entries, new.messages = old.entries, old.messages
    del old.notes[1]
    old.entries = old.entries[:3]
    new.notes = list(old.notes)
    new.sign()
    return old, new, bourges


def show(path: Path, listed: dict[str, Listed], *cities: City) -> Path:
    plain = write(path.with_suffix(".plain"), *cities)
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w") as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
        other.writestr("cosigners.json", json.dumps(listed))
        for city in cities:
            keys = listed.get(city.name) or [first_key(city)]
            other.writestr(f"cities/{city.name}/keys.json", json.dumps(keys))
    return path


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    def run(*arguments: Any) -> tuple[int, list[str]]:
        code = main(["--json", *map(str, arguments)])
        said = json.loads(capsys.readouterr().out)
        return code, [f"{fault['city']}: {fault['what']}" for fault in said["faults"]]

    return run


Check = Callable[..., tuple[int, list[str]]]
Cities = tuple[City, City, City]


def listed_of(old: City, new: City, **how: Any) -> Listed:
    return [first_key(old), hand_over("nantes", 2, old.signer, new.signer, 4, **how)]


def test_what_either_key_signed_in_its_time_holds(
    check: Check, after_handover: Cities, tmp_path: Path
) -> None:
    old, new, bourges = after_handover
    path = show(tmp_path / "a.zip", {"nantes": listed_of(old, new)}, new, bourges)
    assert check(path) == (0, [])
    for pinned in (old, new):
        assert check(path, "--key", pinned.signer.verifier) == (0, [])
    before = show(tmp_path / "b.zip", {}, old, bourges)
    assert check(before, path) == (0, [])
    code, said = check(path, "--key", City.of("nantes", seed=3).signer.verifier)
    assert code == 1
    assert "no known key" in said[0]


def test_a_handover_that_is_forged_or_missing_is_named_and_what_follows_is_not_believed(
    check: Check, after_handover: Cities, tmp_path: Path
) -> None:
    old, new, bourges = after_handover
    thief = City.of("nantes", seed=9).signer
    missing = listed_of(old, new)
    missing[1]["statement"] = None
    for listed, what in (
        (missing, "the hand-over from key 1 to key 2 is missing"),
        (listed_of(old, new, by=[new.signer]), "not signed by both keys"),
        (listed_of(old, new, by=[old.signer]), "not signed by both keys"),
        (listed_of(old, new, by=[thief, new.signer]), "not signed by both keys"),
        (listed_of(old, new, by=[thief]), "forged"),
        (listed_of(old, new, lies={"size": "5"}), "of something else"),
        (listed_of(old, new, lies={"number": "3"}), "of something else"),
        (listed_of(old, new, lies={"new": "0" * 64}), "of something else"),
    ):
        path = show(tmp_path / "a.zip", {"nantes": listed}, new, bourges)
        code, said = check(path)
        assert code == 1
        assert what in said[0], said
        assert any("checkpoint 2: no known key" in each for each in said)
    stolen = listed_of(old, new)
    stolen[1]["statement"] = hand_over("bourges", 2, old.signer, new.signer, 4)["statement"]
    code, said = check(show(tmp_path / "a.zip", {"nantes": stolen}, new, bourges))
    assert (code, "of something else" in said[0]) == (1, True)


def test_a_key_before_or_after_its_time_is_named(
    check: Check, after_handover: Cities, tmp_path: Path
) -> None:
    old, new, bourges = after_handover
    new.notes = new.notes[:1]
    new.sign(by=old.signer)
    path = show(tmp_path / "a.zip", {"nantes": listed_of(old, new)}, new, bourges)
    code, said = check(path)
    assert code == 1
    assert "7 entries are signed by key 1, after its hand-over" in said[0]
    early = [first_key(old), hand_over("nantes", 2, old.signer, new.signer, 8)]
    new.notes = new.notes[:1]
    new.sign()
    code, said = check(show(tmp_path / "b.zip", {"nantes": early}, new, bourges))
    assert "7 entries are signed by key 2, before its time" in said[0]


def test_a_message_under_an_old_key_counts_until_its_time(
    check: Check, after_handover: Cities, tmp_path: Path
) -> None:
    _, nantes, bourges = after_handover
    nantes = two_cities()[0]
    new = City.of("bourges", seed=2)
    for until, code_expected in ((UNTIL, 0), (UNTIL - 7200, 1)):
        listed = [
            first_key(bourges),
            hand_over("bourges", 2, bourges.signer, new.signer, 9, until=until),
        ]
        path = show(tmp_path / "a.zip", {"bourges": listed}, nantes, bourges)
        code, said = check(path)
        assert code == code_expected, said
        assert bool(code) == any("under key 1, after its hand-over" in each for each in said)


def test_two_lists_that_part_are_named(
    check: Check, after_handover: Cities, tmp_path: Path
) -> None:
    old, new, bourges = after_handover
    other = City.of("nantes", seed=5)
    one = show(tmp_path / "a.zip", {"nantes": listed_of(old, new)}, new, bourges)
    two = show(tmp_path / "b.zip", {"nantes": listed_of(old, other)}, old, bourges)
    assert check(one)[0] == check(two)[0] == 0
    code, said = check(one, two)
    assert code == 1
    assert said[0] == "nantes: the bundles have different keys for it"


@pytest.mark.parametrize(
    "listed",
    [[], [1], [{}], [{"public_key": "0" * 63, "from_size": 0, "statement": None}]],
)
def test_what_is_no_list_of_keys_is_named(listed: list[Any]) -> None:
    chain, wrong = read_chain("nantes", listed)
    assert chain.keys == ()
    assert wrong
    many = [first_key(City.of("nantes"))] * (KEYS_MAX + 1)
    assert read_chain("nantes", many)[1]
