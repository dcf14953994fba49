"""Entries taken in by the hundred: the same book, and the same words for what is wrong, as when
they are taken in one at a time."""

import json
import multiprocessing
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from evidence_world import City, crossing, dumps, uuid_of, write

from copass_verify import parts, runs
from copass_verify.bundle import WrongBundle, open_bundle
from copass_verify.entries import Book, WrongEntry
from copass_verify.parts import exchange, read_apart, read_here, read_parts
from copass_verify.runs import Noted, Reader, Runs
from copass_verify.verify import verify

NAMES = ["anna", "bruno", "chloe", "commons", "solidarity_fund", "clearing:bourges"]
WORDS = [
    "in_transit", "commons", "2026-11-22T10:00:00.000000+00:00", "2026-02-30T10:00:00.000000+00:00",
    "arrival", "transfer", "reversal", "netting", "return",
    "bourges", "é", "", uuid_of("anna"), "A" * 32,
]  # fmt: skip
PARTS = {
    "arrival": ("clearing:bourges", "anna"),
    "departure": ("bruno", "in_transit:bourges"),
    "settlement": ("in_transit:bourges", "clearing:bourges"),
    "return": ("in_transit:bourges", "bruno"),
}
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(-700, 700),
    st.sampled_from([2**53 - 1, 2**53, -(10**15), 10**400, True, 1.0, None]),
    st.sampled_from(WORDS), st.just([]), st.just({}),
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> list[bytes]:
    """Lines of a book as it may be, and as it may not be."""
    city = City.of("nantes")
    for _ in range(draw(st.integers(1, 12))):
        giver, taker = draw(st.permutations(NAMES))[:2]
        minutes = draw(st.sampled_from([1, 30, 400, 601]))
        how = draw(st.sampled_from(["transfer"] * 5 + ["contribution", "reversal", *PARTS]))
        more: dict[str, Any] = {}
        if how == "reversal" and city.entries:
            more = {"reverses": draw(st.sampled_from(city.entries))["transfer"]}
        if how in PARTS:
            giver, taker = PARTS[how]
            more = crossing(f"one{draw(st.integers(0, 9))}", how, "bourges", minutes)
        city.post(how, (giver, -minutes), (taker, minutes), **more)
    lines = []
    for entry in city.entries:
        entry["posted_at"] = entry["posted_at"].replace("+00:00", ".000001+00:00")
        entry["lines"].sort(key=lambda line: line["account"])
        if draw(st.integers(0, 4)) == 0:
            change(draw, entry)
        lines.append(dumps(entry))
    if draw(st.booleans()):
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = spoil(draw, lines[number])
    if draw(st.integers(0, 3)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(lines)))
    return lines


def change(draw: st.DrawFn, entry: dict[str, Any]) -> None:
    where = draw(st.sampled_from([entry, *entry["lines"]]))
    where[draw(st.sampled_from([*where, "is", "peer", "floor", "other"]))] = draw(VALUES)


def spoil(draw: st.DrawFn, line: bytes) -> bytes:
    """The same to a lenient reader, or almost."""
    place = draw(st.integers(0, len(line)))
    more = draw(st.sampled_from([b" ", b"0", b"-", b"\xff", b"A"]))
    return draw(
        st.sampled_from(
            [
                line[:place] + line[place + 1 :],
                line[:place] + more + line[place:],
                json.dumps(json.loads(line)).encode(),
                line.replace(b'"kind":', b'"kind":"x","kind":'),
                line.replace(b"nantes", b"n\\u0061ntes"),
                line.replace(b'minutes":-', b'minutes":-0'),
                b"",
            ]
        )
    )  # fmt: skip


def plainly(book: Book, lines: list[bytes]) -> list[Noted]:
    noted: list[Noted] = []
    for line in lines:
        index = book.size
        try:
            found = book.add(line)
        except WrongEntry as error:
            noted.append((index, error))
        else:
            if found:
                noted.append((index, found))
    return noted


def taken(taker: Runs, lines: list[bytes]) -> list[Noted]:
    text = b"".join(line + b"\n" for line in lines)
    rows = Reader("nantes").read(taker.book.size, text)
    assert len(rows) == len(lines)
    return list(taker.take(text, rows))


def in_words(noted: list[Noted]) -> list[tuple[int, str]]:
    return [(index, str(found)) for index, found in noted]


@settings(max_examples=150, deadline=None)
@given(entries(), st.lists(st.integers(0, 12), max_size=2))
def test_many_at_once_are_what_they_are_one_by_one(lines: list[bytes], cuts: list[int]) -> None:
    one, many = Book("nantes"), Book("nantes")
    expected = plainly(one, lines)
    taker = Runs(many)
    noted: list[Noted] = []
    places = sorted({0, len(lines), *(cut for cut in cuts if cut < len(lines))})
    for begin, end in pairwise(places):
        noted += taken(taker, lines[begin:end])
    assert in_words(noted) == in_words(expected)
    assert many == one


def ring(count: int) -> City:
    """Plain transfers, as a time bank writes them."""
    city = City.of("nantes")
    for number in range(count):
        giver, taker = ("anna", "bruno") if number % 2 else ("bruno", "anna")
        entry = city.post("transfer", (giver, -1), (taker, 1))
        entry["posted_at"] = entry["posted_at"].replace("+00:00", ".000001+00:00")
        entry["lines"].sort(key=lambda line: line["account"])
    return city


def test_plain_entries_are_not_looked_at_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else this would be right, and slow, and nobody would notice."""
    city = ring(20)
    first = len(city.entries)
    for number, (step, (giver, taker)) in enumerate([*PARTS.items()] * 2):
        entry = city.post(
            step, (giver, -5), (taker, 5), **crossing(f"one {number}", step, "bourges", 5)
        )
        entry["posted_at"] = entry["posted_at"].replace("+00:00", ".000001+00:00")
        entry["lines"].sort(key=lambda line: line["account"])
    lines = [dumps(entry) for entry in city.entries]
    book = Book("nantes")
    # What an account of nobody is, is learnt from the first entry that has it.
    noted = plainly(book, lines[: first + 4])

    def refuse(_self: Book, _raw: bytes) -> None:
        raise AssertionError("one by one")

    monkeypatch.setattr(runs.Book, "add", refuse)
    taker = Runs(book)
    noted += taken(taker, lines[first + 4 :])
    assert [index for index, _ in noted] == [*range(20, 28)]
    book = Book("nantes")
    assert taken(Runs(book), lines[:first]) == []
    assert book.size == 20


def spend_too_much(entries: list[dict[str, Any]]) -> None:
    for line in entries[7]["lines"]:
        line["minutes"] *= 700


def post_again(entries: list[dict[str, Any]]) -> None:
    entries[7]["transfer"] = entries[2]["transfer"]


def post_again_at_once(entries: list[dict[str, Any]]) -> None:
    entries[7]["transfer"] = entries[6]["transfer"]


def net_between_members(entries: list[dict[str, Any]]) -> None:
    entries[7]["kind"] = "netting"


def give_to_oneself(entries: list[dict[str, Any]]) -> None:
    one, other = entries[7]["lines"]
    other["account"] = one["account"]


def say_another_number(entries: list[dict[str, Any]]) -> None:
    entries[7]["index"] = 8


def post_on_no_day(entries: list[dict[str, Any]]) -> None:
    entries[7]["posted_at"] = "2026-02-30T10:00:00.000000+00:00"


def become_the_commons(entries: list[dict[str, Any]]) -> None:
    entries[7]["lines"][0]["is"] = "commons"


@pytest.mark.parametrize(
    "cheat",
    [
        spend_too_much, post_again, post_again_at_once, net_between_members, give_to_oneself,
        say_another_number, post_on_no_day, become_the_commons,
    ],
)  # fmt: skip
def test_what_only_looks_plain_is_named(cheat: Callable[[list[dict[str, Any]]], None]) -> None:
    """Written canonically, by itself or in every respect, and wrong all the same."""
    city = ring(12)
    cheat(city.entries)
    lines = [dumps(entry) for entry in city.entries]
    book, many = Book("nantes"), Book("nantes")
    taker = Runs(many)
    noted = taken(taker, lines[:5]) + taken(taker, lines[5:])
    assert [index for index, _ in noted][:1] == [7]
    assert in_words(noted) == in_words(plainly(book, lines))
    assert many == book


def test_a_process_of_its_own_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = ring(3_000)
    city.sign()
    (files,) = open_bundle(write(tmp_path / "a.zip", city)).cities
    here = list(read_here(files))
    assert len(here) > 2
    assert list(read_apart(files)) == here
    ours, theirs = multiprocessing.Pipe()
    theirs.close()  # as when that process is killed
    with pytest.raises(WrongBundle, match="ended early"):
        list(exchange(ours, files))
    monkeypatch.setattr(parts, "APART_BYTES_MIN", 0)
    (tmp_path / "a.zip").write_bytes(b"gone")
    with pytest.raises(WrongBundle, match="missing or broken"):
        list(read_parts(files, apart=True))


def test_a_line_without_end_takes_no_memory_and_is_named(tmp_path: Path) -> None:
    city = ring(3)
    city.sign()
    city.entries[1]["kind"] = "x" * 3_000_000
    report = verify([open_bundle(write(tmp_path / "a.zip", city))])
    assert [fault.what for fault in report.faults][:2] == ["it is too long", "it is too long"]
